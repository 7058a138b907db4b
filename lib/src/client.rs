//! Clients: connect to a server, and connect again after each loss.

mod away;
mod backoff;
mod dialer;
mod session;
mod setup;

#[cfg(unix)]
use std::path::PathBuf;
use std::{future::Future, io, pin::Pin, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    dial::{Connector, Endpoint, Wanted, tls::ClientConfig},
    handles::Connection,
    reports::{BoxError, ConnectError, RedactedUrl, connect_error::cut_name},
    settings::Options,
    ws::transport::Transport,
};

pub use backoff::{Backoff, Reconnect};
use dialer::Dialer;
pub use setup::Setup;

/// Connects to a WebSocket server with the default settings. The same as
/// `Client::new(url).connect()`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ws = unstall::connect("wss://feed.example/stream").await?;
/// ws.send("subscribe").await?;
/// while let Some(incoming) = ws.recv().await? {
///     match incoming {
///         unstall::Incoming::Message(message) => println!("{message:?}"),
///         unstall::Incoming::Gap(gap) => println!("something is missing here: {gap:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`Client::connect`].
pub async fn connect(url: impl AsRef<str>) -> Result<Connection, ConnectError> {
    Client::new(url).connect().await
}

/// An attempt to connect, as [`Client::headers_with`] sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt since the connection was lost, from 1.
    pub number: u32,
    /// Why the attempt before failed, if there was one.
    pub last_error: Option<Arc<ConnectError>>,
}

/// How a client reaches the server.
#[derive(Clone, Debug)]
enum Way {
    /// Through the proxy that the environment names for the URL, if any.
    Environment,
    Direct,
    Proxy(RedactedUrl),
    Own(Connector),
}

type HeaderFuture = Pin<Box<dyn Future<Output = Result<HeaderMap, BoxError>> + Send>>;
type HeaderFn = Arc<dyn Fn(Attempt) -> HeaderFuture + Send + Sync>;
type HookFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Hook = Arc<dyn Fn(Setup) -> HookFuture + Send + Sync>;

/// A client: connects to a server, and connects again when the connection is lost.
///
/// One client can make any number of connections. A clone has the same settings.
///
/// When a connection is lost, the client connects again, as [`Reconnect`] says. It waits at least
/// as long as the server asks. On each new connection the [`on_connect`](Client::on_connect) hook
/// runs first. Then the queued messages are sent. The received stream has a [`Gap::Reconnected`] at
/// the place of the loss. The connection ends for good when the peer closes it with 1000, or when
/// connecting fails with an error that is not retryable.
///
/// [`Gap::Reconnected`]: crate::Gap::Reconnected
///
/// ```no_run
/// # async fn example() -> Result<(), unstall::ConnectError> {
/// let client = unstall::Client::new("wss://feed.example/stream")
///     .header("authorization", "Bearer …")
///     .on_connect(|mut setup| async move {
///         setup.send("subscribe").await?;
///         let answer = setup.recv().await?;
///         println!("subscribed: {answer:?}");
///         Ok(())
///     });
/// let first = client.connect().await?;
/// let second = client.connect().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a client does nothing until `connect` or `connect_lazy`"]
pub struct Client {
    url: RedactedUrl,
    headers: HeaderMap,
    /// The first header that is not valid, and why.
    invalid_header: Option<(String, String)>,
    header_fn: Option<HeaderFn>,
    subprotocols: Vec<String>,
    subprotocol_required: bool,
    tls: Option<Arc<ClientConfig>>,
    way: Way,
    session: Wanted,
    fresh_sessions: bool,
    options: Options,
    reconnect: Option<Reconnect>,
    plain_reconnects: bool,
    hook: Option<Hook>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let subprotocols = self.subprotocols.iter().map(|name| cut_name(name));
        f.debug_struct("Client")
            .field("url", &self.url)
            .field("way", &self.way)
            .field("subprotocols", &subprotocols.collect::<Vec<_>>())
            .field("session", &self.session)
            .field("options", &self.options)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url` (`ws://` or `wss://`). If the URL is not valid,
    /// [`connect`](Client::connect) fails with [`ConnectError::Url`].
    ///
    /// A user name and a password in the URL are sent as `Authorization: Basic`, unless that header
    /// is set otherwise.
    pub fn new(url: impl AsRef<str>) -> Client {
        Client {
            url: RedactedUrl::new(url.as_ref()),
            headers: HeaderMap::new(),
            invalid_header: None,
            header_fn: None,
            subprotocols: Vec::new(),
            subprotocol_required: true,
            tls: None,
            way: Way::Environment,
            session: Wanted::Offered,
            fresh_sessions: true,
            options: Options::default(),
            reconnect: Some(Reconnect::default()),
            plain_reconnects: true,
            hook: None,
        }
    }

    /// Adds a header to the upgrade request. Call it again to add more; one name may have several
    /// values.
    ///
    /// If the header is not valid, or if the handshake sets it itself, [`connect`](Client::connect)
    /// fails with [`ConnectError::Header`]. The value is treated as a secret: it is in no error,
    /// log or `Debug` output.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Client {
        let (name, value) = (name.as_ref(), value.as_ref());
        match valid_header(name, value) {
            Ok((name, value)) => {
                self.headers.append(name, value);
            }
            Err(why) => {
                let invalid = (name_in_front(name).to_owned(), why);
                self.invalid_header.get_or_insert(invalid);
            }
        }
        self
    }

    /// Sets a function that makes headers for each attempt, for example a token that expires. They
    /// replace headers of the same name from [`header`](Client::header).
    ///
    /// [`Options::connect_timeout`] covers the function too. If the function fails, the attempt
    /// fails.
    pub fn headers_with<F, R>(mut self, headers: F) -> Client
    where
        F: Fn(Attempt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HeaderMap, BoxError>> + Send + 'static,
    {
        self.header_fn = Some(Arc::new(move |attempt| Box::pin(headers(attempt))));
        self
    }

    /// Offers a subprotocol (RFC 6455 §1.9). Call it again to offer more; the preferred one comes
    /// first. If any is offered, the server must agree to one, unless it is
    /// [optional](Client::optional_subprotocol).
    ///
    /// Both sides can agree to only one subprotocol. So no session is offered together with others.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Client {
        self.subprotocols.push(name.into());
        self
    }

    /// Connects even if the server agrees to none of the subprotocols that are offered.
    /// [`Connection::subprotocol`] then is `None`. By default this is
    /// [`ConnectError::Subprotocol`], because an application that offers subprotocols goes on to speak
    /// one of them.
    pub fn optional_subprotocol(mut self) -> Client {
        self.subprotocol_required = false;
        self
    }

    /// Sets the TLS configuration, which may have a certificate of the client. The default trusts the
    /// roots of the operating system, or those compiled in, depending on the crate's features.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Client {
        self.tls = Some(config);
        self
    }

    /// Connects through this proxy, whatever the environment says. `http://` and `https://` use
    /// CONNECT, the latter over TLS to the proxy. `socks5://`, `socks4a://` and `socks4://` are
    /// known too. Put `user:password@` in front of the host if the proxy needs credentials.
    ///
    /// The proxy resolves the server's name, except with `socks4://`. TLS to the proxy uses the
    /// configuration of [`tls`](Client::tls) too.
    ///
    /// By default a client obeys the environment, as curl does. `HTTP_PROXY` names the proxy for
    /// `ws://`, `HTTPS_PROXY` the one for `wss://`, and `ALL_PROXY` one for both. `NO_PROXY` lists
    /// hosts, domains and networks that are dialed directly. Each name may be in lower case; the
    /// upper case one wins. Hosts on the loopback interface are dialed directly. So is every host in
    /// a CGI program, where clients can set `HTTP_PROXY`. A variable that names no usable proxy is
    /// an error. The variables are read when [`connect`](Client::connect) or
    /// [`connect_lazy`](Client::connect_lazy) is called.
    pub fn proxy(mut self, url: impl AsRef<str>) -> Client {
        self.way = Way::Proxy(RedactedUrl::new(url.as_ref()));
        self
    }

    /// Connects directly, and ignores the environment variables that name proxies.
    #[doc(alias = "no_proxy")]
    pub fn without_proxy(mut self) -> Client {
        self.way = Way::Direct;
        self
    }

    /// Connects by a function of your own, in place of TCP and proxies. It is called for each
    /// attempt, and returns any byte stream. TLS, if the URL is `wss://`, and the WebSocket handshake
    /// then run over that stream.
    ///
    /// [`Options::connect_timeout`] covers the function too: it must be possible to drop its future.
    /// On a stream that is not a `TcpStream`, the kernel cannot say whether a peer that takes no
    /// bytes is alive, so [`Options::write_timeout`] decides.
    ///
    /// ```
    /// use tokio::net::TcpStream;
    /// let client = unstall::Client::new("ws://feed.example/").connector(|to| async move {
    ///     // For example from an address of your choice, or through a tunnel.
    ///     TcpStream::connect((to.host, to.port)).await
    /// });
    /// # let _ = client;
    /// ```
    pub fn connector<F, R, S>(mut self, connect: F) -> Client
    where
        F: Fn(Endpoint) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.way = Way::Own(Connector::new(move |to| {
            let stream = connect(to);
            Box::pin(async move { stream.await.map(Transport::of) })
        }));
        self
    }

    /// Connects to the Unix socket at this path. The URL still says what to ask for: its host is
    /// sent as `Host`, its path is requested, and `wss://` means TLS over the socket.
    ///
    /// ```
    /// let client = unstall::Client::new("ws://localhost/feed").unix_socket("/run/feed.sock");
    /// # let _ = client;
    /// ```
    #[cfg(unix)]
    pub fn unix_socket(self, path: impl Into<PathBuf>) -> Client {
        let path = path.into();
        self.connector(move |_| tokio::net::UnixStream::connect(path.clone()))
    }

    /// Requires a session (`unstall.v1`). If the server does not agree to one, connecting fails
    /// with [`ConnectError::Subprotocol`].
    pub fn require_session(mut self) -> Client {
        self.session = Wanted::Required;
        self
    }

    /// Offers no session, even to a server that speaks `unstall.v1`.
    pub fn plain(mut self) -> Client {
        self.session = Wanted::Never;
        self
    }

    /// Ends the connection for good when its session is lost, without a fresh session.
    ///
    /// By default a fresh session begins when one cannot be resumed, and the hook runs again. The
    /// stream has a [`Gap::SessionLost`]. The undelivered messages come back from
    /// [`Sender::take_undelivered`](crate::Sender::take_undelivered).
    ///
    /// [`Gap::SessionLost`]: crate::Gap::SessionLost
    pub fn without_fresh_session(mut self) -> Client {
        self.fresh_sessions = false;
        self
    }

    /// Sets limits, policies and timeouts.
    pub fn options(mut self, options: Options) -> Client {
        self.options = options;
        self
    }

    /// Sets when to connect again.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Client {
        self.reconnect = Some(reconnect);
        self
    }

    /// Connects again only to resume a session. The first loss of a plain connection ends it for good,
    /// because what was lost with it cannot be resumed.
    pub fn reconnect_sessions_only(mut self) -> Client {
        self.plain_reconnects = false;
        self
    }

    /// Never connects again: the first loss ends the connection for good.
    pub fn without_reconnect(mut self) -> Client {
        self.reconnect = None;
        self
    }

    /// Sets a hook that runs on each new connection, before queued messages are sent. Use it to
    /// authenticate, to subscribe, or to fetch missed messages. With sessions it runs once per
    /// session.
    ///
    /// Messages that the hook does not receive go to the stream. If the hook fails, or takes longer
    /// than [`Options::setup_timeout`], the connection is closed and counts as lost.
    pub fn on_connect<F, R>(mut self, hook: F) -> Client
    where
        F: Fn(Setup) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.hook = Some(Arc::new(move |setup| Box::pin(hook(setup))));
        self
    }

    /// Connects. If the first attempt fails, returns its error. After a loss the client connects
    /// again on its own. The hook runs after this returns.
    ///
    /// The future does not borrow the client. It must be awaited within a Tokio runtime.
    ///
    /// Cancel safety: if dropped, it leaves nothing behind.
    ///
    /// # Errors
    /// Why the attempt failed; [`ConnectError::is_retryable`] says whether another may succeed.
    pub fn connect(
        &self,
    ) -> impl Future<Output = Result<Connection, ConnectError>> + Send + 'static + use<> {
        let dialer = Dialer::new(self);
        async move {
            let mut dialer = dialer?;
            let upgraded = dialer.dial(true).await?;
            Ok(dialer.spawn(Some(Box::new(upgraded))))
        }
    }

    /// Returns immediately and connects in the background. Failed attempts are repeated, as after a
    /// loss. Messages sent in the meantime wait in the outbox.
    ///
    /// # Errors
    /// The URL, a header or the proxy's URL is not valid. The proxy may come from the environment.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn connect_lazy(&self) -> Result<Connection, ConnectError> {
        Ok(Dialer::new(self)?.spawn(None))
    }
}

/// The header as a secret, or what is wrong with it.
fn valid_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::try_from(name)
        .map_err(|_| "its name may only have letters, digits and a few marks, such as -")?;
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| "its value must not have line ends or other control characters")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The part of `name` before the first character that a header's name must not have. The rest may
/// be the value, given by mistake.
fn name_in_front(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c));
    &name[..end.unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_printed_without_its_secrets() {
        let client = Client::new("ws://user:secret@h/?secret")
            .proxy("http://user:secret@proxy")
            .header("authorization", "secret");
        let shown = format!("{client:?}");
        assert!(shown.contains("@proxy"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
        let headers = format!("{:?}", client.headers);
        assert!(!headers.contains("secret"), "{headers}");
    }

    /// Once a header whose name and value were given together was printed with the value.
    #[tokio::test]
    async fn header_that_is_not_valid_is_named_without_its_value() {
        for (name, value, shown) in [
            ("Authorization: Bearer secret", "", "\"Authorization\""),
            ("x-token", "secret\n", "\"x-token\""),
            ("", "secret", "\"\""),
        ] {
            let client = Client::new("ws://127.0.0.1:1/").header(name, value);
            let lazy = client.connect_lazy().err().map(|error| error.to_string());
            let error = client.connect().await.unwrap_err();
            assert_eq!(lazy, Some(error.to_string()));
            let text = format!("{error} {error:?}");
            assert!(matches!(error, ConnectError::Header { .. }), "{text}");
            assert!(text.contains(shown) && !text.contains("secret"), "{text}");
        }
    }
}
