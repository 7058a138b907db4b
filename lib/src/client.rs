//! Clients: where to connect, how, and what to do on each connection.

mod away;
mod backoff;
mod dialer;
mod session;
mod setup;

use std::{future::Future, pin::Pin, sync::Arc};

use http::HeaderMap;
use tokio_rustls::rustls::ClientConfig;

use crate::{
    dial::Wanted,
    handles::Connection,
    reports::{BoxError, ConnectError},
    settings::Options,
};

pub use backoff::Reconnect;
use dialer::Dialer;
pub use setup::Setup;

/// Connects to a WebSocket server, with every default. The same as `Client::new(url).connect()`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ws = unstall::connect("wss://feed.example/stream").await?;
/// ws.send("subscribe").await?;
/// while let Some(incoming) = ws.recv().await? {
///     match incoming {
///         unstall::Incoming::Message(message) => println!("{message:?}"),
///         unstall::Incoming::Gap(gap) => println!("something is missing here: {gap:?}"),
///         _ => {}
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

/// Which attempt to connect this is, for [`Client::headers_with`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// From 1, counted since the connection was lost.
    pub number: u32,
    /// Why the attempt before failed, if there was one.
    pub last_error: Option<Arc<ConnectError>>,
}

type HeaderFuture = Pin<Box<dyn Future<Output = Result<HeaderMap, BoxError>> + Send>>;
type HeaderFn = Box<dyn Fn(Attempt) -> HeaderFuture + Send + Sync>;
type HookFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Hook = Box<dyn Fn(Setup) -> HookFuture + Send + Sync>;

/// A client and everything it needs to connect, now and again.
///
/// A lost connection is made again by itself, as [`Reconnect`] says, `Retry-After` honoured. Each
/// time the [`on_connect`](Client::on_connect) hook runs first, then what was queued meanwhile is
/// sent; the received stream carries a [`Gap::Reconnected`] at the place. A peer's close with 1000,
/// or a refusal that no retry can mend, ends it.
///
/// [`Gap::Reconnected`]: crate::Gap::Reconnected
///
/// ```no_run
/// # async fn example() -> Result<(), unstall::ConnectError> {
/// let ws = unstall::Client::new("wss://feed.example/stream")
///     .header("authorization", "Bearer …")
///     .on_connect(|mut setup| async move {
///         setup.send("subscribe").await?;
///         let answer = setup.recv().await?;
///         println!("subscribed: {answer:?}");
///         Ok(())
///     })
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
pub struct Client {
    url: String,
    headers: Vec<(String, String)>,
    header_fn: Option<HeaderFn>,
    subprotocols: Vec<String>,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<String>,
    session: Wanted,
    fresh_sessions: bool,
    options: Options,
    reconnect: Option<Reconnect>,
    hook: Option<Hook>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url` (`ws://` or `wss://`). A bad URL is an error of
    /// [`connect`](Client::connect).
    pub fn new(url: impl AsRef<str>) -> Client {
        Client {
            url: url.as_ref().to_owned(),
            headers: Vec::new(),
            header_fn: None,
            subprotocols: Vec::new(),
            tls: None,
            proxy: None,
            session: Wanted::Offered,
            fresh_sessions: true,
            options: Options::default(),
            reconnect: Some(Reconnect::default()),
            hook: None,
        }
    }

    /// Adds a header to the upgrade request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Client {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds headers that are made at each attempt, such as a token that expires. The connect
    /// deadline covers the function; its failure counts as a failed attempt.
    pub fn headers_with<F, R>(mut self, headers: F) -> Client
    where
        F: Fn(Attempt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HeaderMap, BoxError>> + Send + 'static,
    {
        self.header_fn = Some(Box::new(move |attempt| Box::pin(headers(attempt))));
        self
    }

    /// Offers a subprotocol (RFC 6455 §1.9). Repeat it for more, best first. If any is offered,
    /// the server must agree to one. WebSocket agrees to one only, so no session is offered beside
    /// them.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Client {
        self.subprotocols.push(name.into());
        self
    }

    /// The TLS configuration. Default: the roots of the operating system, or those compiled in,
    /// as the crate's features say.
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Client {
        self.tls = Some(config);
        self
    }

    /// Connects through a proxy: `http://` (CONNECT) or `socks5://`, with `user:password@` where it
    /// wants one. The proxy resolves the server's name.
    pub fn proxy(mut self, url: impl Into<String>) -> Client {
        self.proxy = Some(url.into());
        self
    }

    /// The server must agree to a session (`unstall.v1`); else connecting fails with
    /// [`ConnectError::Subprotocol`].
    pub fn require_session(mut self) -> Client {
        self.session = Wanted::Required;
        self
    }

    /// Offers no session, even to a server that speaks `unstall.v1`.
    pub fn plain(mut self) -> Client {
        self.session = Wanted::Never;
        self
    }

    /// The end of a session is the end of the connection. Default: when a session cannot be
    /// resumed, the stream carries a [`Gap::SessionLost`], what was not delivered comes back from
    /// [`Sender::take_undelivered`](crate::Sender::take_undelivered), and a fresh session begins, with the hook.
    ///
    /// [`Gap::SessionLost`]: crate::Gap::SessionLost
    pub fn without_fresh_session(mut self) -> Client {
        self.fresh_sessions = false;
        self
    }

    /// Limits, policies and deadlines.
    pub fn options(mut self, options: Options) -> Client {
        self.options = options;
        self
    }

    /// When to connect again.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Client {
        self.reconnect = Some(reconnect);
        self
    }

    /// The first loss is the end.
    pub fn without_reconnect(mut self) -> Client {
        self.reconnect = None;
        self
    }

    /// Runs at each new connection before anything that was queued is sent: authenticate,
    /// subscribe, backfill. What the hook does not receive itself goes to the stream. Its failure,
    /// or exceeding [`Options::setup_timeout`], closes the connection and counts as a loss.
    pub fn on_connect<F, R>(mut self, hook: F) -> Client
    where
        F: Fn(Setup) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.hook = Some(Box::new(move |setup| Box::pin(hook(setup))));
        self
    }

    /// Connects. The first attempt must succeed; later ones are made by themselves. The hook runs
    /// after this returns.
    ///
    /// Cancel safety: dropped, it leaves nothing behind.
    ///
    /// # Errors
    /// Why the attempt failed; [`ConnectError::is_retryable`] says whether another may not.
    pub async fn connect(self) -> Result<Connection, ConnectError> {
        let mut dialer = Dialer::new(self)?;
        let upgraded = dialer.dial().await?;
        Ok(dialer.spawn(Some(Box::new(upgraded))))
    }

    /// Returns at once and connects in the background, trying again as after a loss. What is sent
    /// meanwhile waits in the outbox.
    ///
    /// # Errors
    /// The URL, a header or the proxy's URL is not valid.
    pub fn connect_lazy(self) -> Result<Connection, ConnectError> {
        Ok(Dialer::new(self)?.spawn(None))
    }
}
