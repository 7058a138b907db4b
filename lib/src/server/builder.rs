//! What a server is made of.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};
use tokio_rustls::rustls::ServerConfig;

use super::Server;
use unstall_proto::SUBPROTOCOL;

use crate::defaults;
use crate::dial::tls;
use crate::server::handshake::Rejection;
use crate::server::registry::{SessionLimits, Sessions};
use crate::settings::Budget;
use crate::settings::Options;

/// The limits of a server. Start from `ServerLimits::default()` and set what differs.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    pub(super) max_connections: usize,
    pub(super) max_handshakes: usize,
    pub(super) handshake_timeout: Duration,
    pub(super) header_bytes: usize,
    pub(super) process_bytes: usize,
    pub(super) retry_after: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            max_connections: defaults::SERVER_CONNECTIONS,
            max_handshakes: defaults::SERVER_HANDSHAKES,
            handshake_timeout: defaults::SERVER_HANDSHAKE_TIMEOUT,
            header_bytes: defaults::SERVER_HEADER_BYTES,
            process_bytes: defaults::SERVER_PROCESS_BYTES,
            retry_after: defaults::SERVER_RETRY_AFTER,
        }
    }
}

impl ServerLimits {
    /// Connections at once, handshakes among them; further ones are refused with 503. A place is
    /// free again when both the socket and its handler have ended. Default 10,000; at least 1.
    pub fn max_connections(mut self, connections: usize) -> ServerLimits {
        self.max_connections = connections.max(1);
        self
    }

    /// Handshakes at once. Further clients wait in the kernel's queue while places come free, and
    /// are refused with 503 where none has for a second. Default 1,024; at least 1.
    pub fn max_handshakes(mut self, handshakes: usize) -> ServerLimits {
        self.max_handshakes = handshakes.max(1);
        self
    }

    /// Time for TLS, the request's head and the authentication hook together; who takes longer is
    /// cut. Default 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> ServerLimits {
        self.handshake_timeout = timeout;
        self
    }

    /// Bytes of the request's head; a longer one is refused with 431. At most 100 header lines.
    /// Default 16 KiB.
    pub fn header_bytes(mut self, bytes: usize) -> ServerLimits {
        self.header_bytes = bytes;
        self
    }

    /// Bytes that may be held for all the server's connections together; see
    /// [`Budget`](crate::Budget). Without effect where the options bring a budget of their own,
    /// shared with other servers and clients of the process. Default 768 MiB.
    pub fn process_bytes(mut self, bytes: usize) -> ServerLimits {
        self.process_bytes = bytes;
        self
    }

    /// What a refusal over a limit says in `Retry-After`, in whole seconds. Default 5 s; at least
    /// 1 s.
    pub fn retry_after(mut self, retry_after: Duration) -> ServerLimits {
        self.retry_after = retry_after;
        self
    }
}

/// The address of the client's end of the TCP connection: an extension of the request that the
/// authentication hook gets. Behind a reverse proxy it is the proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

type Checked = Result<Request<()>, Rejection>;
type Hook = dyn Fn(Request<()>) -> Pin<Box<dyn Future<Output = Checked> + Send>> + Send + Sync;

/// What the handshakes of a server go by.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) options: Options,
    pub(super) limits: ServerLimits,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) origins: Option<Vec<String>>,
    pub(super) subprotocols: Vec<String>,
    /// `None`: plain connections only.
    pub(super) sessions: Option<Sessions>,
    pub(super) authenticate: Option<Arc<Hook>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            options: Options::default(),
            limits: ServerLimits::default(),
            tls: None,
            origins: None,
            subprotocols: vec![SUBPROTOCOL.to_owned()],
            sessions: Some(Sessions::default()),
            authenticate: None,
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
    pem: Option<(PathBuf, PathBuf)>,
}

impl ServerBuilder {
    /// The options of every connection.
    pub fn options(mut self, options: Options) -> ServerBuilder {
        self.config.options = options;
        self
    }

    /// The limits.
    pub fn limits(mut self, limits: ServerLimits) -> ServerBuilder {
        self.config.limits = limits;
        self
    }

    /// Serves TLS with the certificate chain and the private key of these PEM files, which are
    /// read when the server is bound.
    pub fn tls_pem(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> ServerBuilder {
        self.pem = Some((certificate.into(), key.into()));
        self
    }

    /// Serves TLS with a configuration of one's own: client certificates, certificates that are
    /// renewed while the server runs.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> ServerBuilder {
        self.config.tls = Some(config);
        self
    }

    /// Lets only the pages of these origins (`https://app.example`) connect; others get 403.
    /// Programs, which send no `Origin`, are not concerned. Default: all.
    pub fn origins<O: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = O>,
    ) -> ServerBuilder {
        self.config.origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// The subprotocols that the server speaks. The client's first choice among them is agreed
    /// on; a client that offers none of them gets none.
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

    /// The limits of sessions. Sessions are offered by default, beside plain connections, on the
    /// same port and path.
    pub fn sessions(mut self, limits: SessionLimits) -> ServerBuilder {
        self.config.sessions = Some(Sessions::new(limits));
        self
    }

    /// Agrees to no session: every connection is plain.
    pub fn plain(mut self) -> ServerBuilder {
        self.config.sessions = None;
        self.config.subprotocols.retain(|name| name != SUBPROTOCOL);
        self
    }

    /// Decides on each request before it is answered with 101.
    ///
    /// The hook gets the request, with a [`PeerAddr`] among its extensions, and returns it to let
    /// it pass. What it adds to the extensions (who the user is) the handler finds in
    /// [`Connection::request`](crate::Connection::request). It runs under the handshake's
    /// deadline; a panic of its ends this one handshake.
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

    /// Listens on `address`; port 0 takes a free one.
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

    /// Takes over a listener that is bound already, such as one passed by systemd.
    ///
    /// # Errors
    /// The listener has no address, or a PEM file cannot be used.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn listener(mut self, listener: TcpListener) -> io::Result<Server> {
        if let Some((certificate, key)) = &self.pem {
            self.config.tls = Some(tls::server_config_from_pem(certificate, key)?);
        }
        if self.config.options.budget.is_none() {
            let budget = Budget::new(self.config.limits.process_bytes);
            self.config.options = self.config.options.budget(budget);
        }
        Server::start(self.config, listener)
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted server binds while connections of its predecessor are in TIME_WAIT. On Windows
    // the option means something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(defaults::LISTEN_BACKLOG)
}
