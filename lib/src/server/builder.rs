//! The configuration of a server.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, pin::Pin, sync::Arc};

use http::Request;
use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use unstall_proto::SUBPROTOCOL;

use super::{
    Server, handshake::Rejection, limits::ServerLimits, listener::Listener, origin::Origins,
    proxies::TrustedProxies, sessions::Sessions,
};
#[cfg(feature = "tls")]
use crate::dial::certificate::ServerCertificate;
use crate::{defaults, dial::tls::ServerConfig, settings::Options};

type Checked = Result<Request<()>, Rejection>;
type Hook = dyn Fn(Request<()>) -> Pin<Box<dyn Future<Output = Checked> + Send>> + Send + Sync;

/// The configuration that every handshake of a server uses.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) options: Arc<Options>,
    pub(super) limits: ServerLimits,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Whether clients may speak HTTP/2.
    #[cfg(feature = "http2")]
    pub(super) http2: bool,
    /// Who answers requests that ask for no WebSocket. `None`: they are refused.
    #[cfg(feature = "axum")]
    pub(super) router: Option<::axum::Router>,
    /// `None`: the TCP connection's address is the client's.
    pub(super) proxies: Option<TrustedProxies>,
    pub(super) origins: Origins,
    pub(super) subprotocols: Vec<String>,
    /// `None`: plain connections only.
    pub(super) sessions: Option<Sessions>,
    pub(super) authenticate: Option<Arc<Hook>>,
    #[cfg(feature = "status")]
    pub(super) unlisted: Option<&'static str>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            options: Arc::default(),
            limits: ServerLimits::default(),
            tls: None,
            #[cfg(feature = "http2")]
            http2: false,
            #[cfg(feature = "axum")]
            router: None,
            proxies: None,
            origins: Origins::default(),
            subprotocols: vec![SUBPROTOCOL.to_owned()],
            sessions: Some(Sessions::default()),
            authenticate: None,
            #[cfg(feature = "status")]
            unlisted: None,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Server`]; made by [`Server::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `bind` or `listener`"]
pub struct ServerBuilder {
    config: Config,
    #[cfg(feature = "tls")]
    pem: Option<(PathBuf, PathBuf)>,
}

impl ServerBuilder {
    /// The options of every connection.
    pub fn options(mut self, options: Options) -> ServerBuilder {
        self.config.options = Arc::new(options);
        self
    }

    /// The limits.
    pub fn limits(mut self, limits: ServerLimits) -> ServerBuilder {
        self.config.limits = limits;
        self
    }

    /// Serves TLS with the certificate chain and the private key of these PEM files, which are
    /// read when the server is bound.
    #[cfg(feature = "tls")]
    pub fn tls_pem(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> ServerBuilder {
        self.pem = Some((certificate.into(), key.into()));
        self
    }

    /// Serves TLS with your own rustls configuration, for example with client certificates (the
    /// example `client_certificates`), or with a [`ServerCertificate`] that is renewed while the server
    /// runs.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: Arc<ServerConfig>) -> ServerBuilder {
        self.config.tls = Some(config);
        self
    }

    /// Takes WebSockets over HTTP/2 too (RFC 8441), up to 128 on one TCP connection. Without TLS the
    /// client has to know that the server speaks it. With TLS it is offered by ALPN.
    ///
    /// Each WebSocket counts in the limits as over HTTP/1.1. An HTTP/2 connection without one is
    /// closed after 5 seconds.
    ///
    /// It is off by default, because two guarantees are weaker. Up to 64 KiB of each WebSocket wait
    /// in each direction outside the budgets, where HTTP/1.1 has only the kernel's buffers. And the
    /// kernel cannot say whether a peer that takes no bytes is alive, so
    /// [`Options::write_timeout`](crate::Options::write_timeout) decides.
    #[cfg(feature = "http2")]
    pub fn http2(mut self) -> ServerBuilder {
        self.config.http2 = true;
        self
    }

    /// Answers requests that ask for no WebSocket with this axum router, on the same port. A request
    /// has a [`PeerAddr`](crate::PeerAddr) and axum's `ConnectInfo<SocketAddr>` among its extensions.
    ///
    /// All limits of the server hold for these connections too: those of handshakes until the first
    /// request is read, and those of open connections from then on. Such a connection counts for the
    /// client of its first request, and is closed when it was idle for
    /// [`handshake_timeout`](crate::ServerLimits::handshake_timeout). The bytes of bodies do not count
    /// in the budgets: limit them in the router. The hook of
    /// [`authenticate`](ServerBuilder::authenticate) and the check of `Origin` are for WebSockets only.
    ///
    /// A shutdown lets the request under way end within its time. An answer that has no end, such as
    /// server-sent events, has to end by itself, or it is cut.
    ///
    /// The server then speaks HTTP/1.1 only, whatever [`http2`](ServerBuilder::http2) says.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    ///
    /// let router = Router::new().route("/healthz", get(|| async { "ok" }));
    /// let builder = unstall::Server::builder().router(router);
    /// # let _ = builder;
    /// ```
    #[cfg(feature = "axum")]
    pub fn router(mut self, router: ::axum::Router) -> ServerBuilder {
        self.config.router = Some(router);
        self
    }

    /// The reverse proxies in front of the server, which report the clients' addresses.
    ///
    /// Without this, all clients behind a proxy have the proxy's address, and share the limits of
    /// one address.
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> ServerBuilder {
        self.config.proxies = Some(proxies);
        self
    }

    /// Only pages of these origins (`https://app.example`) may connect. Others get 403. A request
    /// without an `Origin` header, as programs other than browsers send it, is always accepted.
    ///
    /// Default: pages of the same host and port as the request's `Host` header. So another site
    /// cannot connect with a visitor's cookies. A reverse proxy has to pass on the client's `Host`.
    pub fn origins<O: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = O>,
    ) -> ServerBuilder {
        self.config.origins = Origins::listed(origins);
        self
    }

    /// Pages of every site may connect.
    ///
    /// This is unsafe if cookies authenticate users: any page that a user visits can then connect
    /// as that user. It is safe if clients authenticate with a token that only your own pages know.
    pub fn allow_any_origin(mut self) -> ServerBuilder {
        self.config.origins = Origins::Any;
        self
    }

    /// The subprotocols that the server speaks. The server chooses the first of the client's offers
    /// that it speaks, or none.
    pub fn subprotocols<P: Into<String>>(
        mut self,
        subprotocols: impl IntoIterator<Item = P>,
    ) -> ServerBuilder {
        self.config.subprotocols.retain(|name| name == SUBPROTOCOL);
        self.config
            .subprotocols
            .extend(subprotocols.into_iter().map(Into::into));
        self
    }

    /// Sets the [`SessionLimits`](crate::SessionLimits), or the [`Sessions`] that several servers
    /// share.
    ///
    /// Sessions are offered by default, on the same port and path as plain connections.
    pub fn sessions(mut self, sessions: impl Into<Sessions>) -> ServerBuilder {
        self.config.sessions = Some(sessions.into());
        self
    }

    /// Agrees to no session: every connection is plain.
    pub fn plain(mut self) -> ServerBuilder {
        self.config.sessions = None;
        self.config.subprotocols.retain(|name| name != SUBPROTOCOL);
        self
    }

    /// Connections at this path are listed nowhere: neither in [`status`](crate::status), nor in the sums, nor by
    /// [`doctor()`](crate::doctor()). It is for connections that carry what is looked at there, and would show
    /// themselves.
    #[cfg(feature = "status")]
    pub fn unlisted(mut self, path: &'static str) -> ServerBuilder {
        self.config.unlisted = Some(path);
        self
    }

    /// Accepts or refuses each request before it is answered with 101.
    ///
    /// The hook gets the request, with a [`PeerAddr`](crate::PeerAddr) among its extensions, and
    /// returns it to accept it. Extensions that the hook adds are in
    /// [`Connection::request`](crate::Connection::request). Add a [`Principal`](crate::Principal)
    /// to say who the user is, and an [`Acceptance`](crate::Acceptance) to choose the subprotocol or to
    /// add headers to the answer. The hook runs under the handshake's deadline. If it panics, only
    /// this handshake ends.
    ///
    /// ```
    /// use unstall::{Rejection, Server};
    /// let builder = Server::builder().authenticate(|request| async move {
    ///     match request.headers().get("authorization") {
    ///         Some(token) if token == "Bearer s3cret" => Ok(request),
    ///         _ => Err(Rejection::unauthorized("a valid token is needed")),
    ///     }
    /// });
    /// # let _ = builder;
    /// ```
    pub fn authenticate<H, F>(mut self, hook: H) -> ServerBuilder
    where
        H: Fn(Request<()>) -> F + Send + Sync + 'static,
        F: Future<Output = Checked> + Send + 'static,
    {
        self.config.authenticate = Some(Arc::new(move |request| Box::pin(hook(request))));
        self
    }

    /// Listens on `address`. Port 0 takes a free port.
    ///
    /// # Errors
    /// The address cannot be resolved or bound, or a PEM file cannot be used; the message names
    /// it.
    pub async fn bind(self, address: impl ToSocketAddrs) -> io::Result<Server> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the address resolves to nothing");
        for address in lookup_host(address).await? {
            match listen(address) {
                Ok(listener) => return self.listener(listener),
                Err(error) => {
                    let text = format!("cannot listen on {address}: {error}");
                    last = io::Error::new(error.kind(), text);
                }
            }
        }
        Err(last)
    }

    /// Listens on a Unix socket at this path. A socket that was left there by a server that has ended
    /// is replaced. Who may connect is up to the permissions of the folder.
    ///
    /// Its clients have no address, so the limits per address do not apply. Behind a reverse proxy,
    /// [trust `unix:`](TrustedProxies::new), so that the proxy can report addresses.
    ///
    /// # Errors
    /// The path cannot be bound, or another server listens on it; or a PEM file cannot be used.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    #[cfg(unix)]
    pub async fn bind_unix(self, path: impl AsRef<std::path::Path>) -> io::Result<Server> {
        let path = path.as_ref();
        let failed = |error: io::Error| {
            let text = format!("cannot listen on {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_socket(path) => {
                // A socket without a listener refuses connections.
                match UnixStream::connect(path).await {
                    Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(path).map_err(failed)?;
                        UnixListener::bind(path)
                    }
                    _ => Err(error),
                }
            }
            bound => bound,
        };
        self.listener(listener.map_err(failed)?)
    }

    /// Uses a listener that is already bound, such as one passed by systemd, or one of your own
    /// ([`Listener`]).
    ///
    /// # Errors
    /// The listener's address is not known, or a PEM file cannot be used.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn listener(self, listener: impl Listener) -> io::Result<Server> {
        Server::start(self.finished()?, listener)
    }

    /// The configuration, with its files read.
    #[allow(unused_mut, reason = "without TLS there are no files")]
    fn finished(mut self) -> io::Result<Config> {
        #[cfg(feature = "status")]
        {
            Arc::make_mut(&mut self.config.options).unlisted = self.config.unlisted;
        }
        #[cfg(feature = "tls")]
        if let Some((certificate, key)) = &self.pem {
            let certificate = ServerCertificate::from_pem(certificate, key)?;
            self.config.tls = Some(Arc::new(certificate).config()?);
        }
        #[cfg(all(feature = "axum", feature = "http2"))]
        if self.config.router.is_some() {
            self.config.http2 = false;
        }
        #[cfg(feature = "http2")]
        if self.config.http2 {
            self.config.tls = self.config.tls.map(crate::dial::tls::offering_http2);
        }
        Ok(self.config)
    }
}

/// Other files refuse connections too, and are not ours to remove.
#[cfg(unix)]
fn is_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Lets a restarted server bind while connections of the previous process are in TIME_WAIT. On
    // Windows the option means something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(defaults::LISTEN_BACKLOG)
}
