//! Clients: where to connect, how, and what to do on each connection.

mod away;
mod backoff;
mod dialer;
mod session;
mod setup;

use std::{future::Future, pin::Pin, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio_rustls::rustls::ClientConfig;

use crate::{
    dial::Wanted,
    handles::Connection,
    reports::{BoxError, ConnectError, RedactedUrl},
    settings::Options,
};

pub use backoff::Reconnect;
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

/// Which attempt to connect this is, for [`Client::headers_with`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The number of the attempt since the connection was lost, from 1.
    pub number: u32,
    /// Why the attempt before failed, if there was one.
    pub last_error: Option<Arc<ConnectError>>,
}

type HeaderFuture = Pin<Box<dyn Future<Output = Result<HeaderMap, BoxError>> + Send>>;
type HeaderFn = Arc<dyn Fn(Attempt) -> HeaderFuture + Send + Sync>;
type HookFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Hook = Arc<dyn Fn(Setup) -> HookFuture + Send + Sync>;

/// A client: where to connect and how, now and after each loss.
///
/// One client makes any number of connections, and a clone makes them the same way.
///
/// A lost connection is made again by itself, as [`Reconnect`] says; the client waits for as long as
/// the server asks to. On each new connection the [`on_connect`](Client::on_connect) hook runs first.
/// Then the messages that were queued meanwhile are sent. The received stream carries a
/// [`Gap::Reconnected`] at the place of the loss. The connection ends for good when the peer closes
/// it with 1000, or when connecting fails with an error that is not retryable.
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
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<RedactedUrl>,
    session: Wanted,
    fresh_sessions: bool,
    options: Options,
    reconnect: Option<Reconnect>,
    hook: Option<Hook>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .field("proxy", &self.proxy)
            .field("subprotocols", &self.subprotocols)
            .field("session", &self.session)
            .field("options", &self.options)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url` (`ws://` or `wss://`). If the URL is not valid,
    /// [`connect`](Client::connect) says so.
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
            tls: None,
            proxy: None,
            session: Wanted::Offered,
            fresh_sessions: true,
            options: Options::default(),
            reconnect: Some(Reconnect::default()),
            hook: None,
        }
    }

    /// Adds a header to the upgrade request. Repeat it for more; one name may have several values.
    ///
    /// If the header is not valid, or is one that the handshake sets itself,
    /// [`connect`](Client::connect) fails with [`ConnectError::Header`]. The value is treated as a
    /// secret: it is in no error, log or `Debug` output.
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

    /// Adds headers that are made for each attempt, such as a token that expires. They replace
    /// those of the same name from [`header`](Client::header).
    ///
    /// [`Options::connect_timeout`] covers the function too. If it fails, the attempt has failed.
    pub fn headers_with<F, R>(mut self, headers: F) -> Client
    where
        F: Fn(Attempt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<HeaderMap, BoxError>> + Send + 'static,
    {
        self.header_fn = Some(Arc::new(move |attempt| Box::pin(headers(attempt))));
        self
    }

    /// Offers a subprotocol (RFC 6455 §1.9). Repeat it for more, the preferred one first. If any is
    /// offered, the server must agree to one.
    ///
    /// WebSocket agrees to one subprotocol only, so no session is offered together with them.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Client {
        self.subprotocols.push(name.into());
        self
    }

    /// The TLS configuration. Default: trust the roots of the operating system, or those compiled
    /// in, as the crate's features say.
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Client {
        self.tls = Some(config);
        self
    }

    /// Connects through a proxy: `http://` (CONNECT) or `socks5://`, with `user:password@` if the
    /// proxy wants one. The proxy resolves the server's name.
    pub fn proxy(mut self, url: impl AsRef<str>) -> Client {
        self.proxy = Some(RedactedUrl::new(url.as_ref()));
        self
    }

    /// The server must agree to a session (`unstall.v1`). If it does not, connecting fails with
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

    /// Ends the connection for good when its session is lost.
    ///
    /// Default: when a session cannot be resumed, a fresh one begins, with the hook. The stream
    /// carries a [`Gap::SessionLost`], and the undelivered messages come back from
    /// [`Sender::take_undelivered`](crate::Sender::take_undelivered).
    ///
    /// [`Gap::SessionLost`]: crate::Gap::SessionLost
    pub fn without_fresh_session(mut self) -> Client {
        self.fresh_sessions = false;
        self
    }

    /// Limits, policies and timeouts.
    pub fn options(mut self, options: Options) -> Client {
        self.options = options;
        self
    }

    /// When to connect again.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Client {
        self.reconnect = Some(reconnect);
        self
    }

    /// Never connects again: the first loss ends the connection for good.
    pub fn without_reconnect(mut self) -> Client {
        self.reconnect = None;
        self
    }

    /// Runs on each new connection before anything queued is sent: to authenticate, to subscribe,
    /// to fetch what was missed.
    ///
    /// Messages that the hook does not receive go to the stream. If the hook fails, or takes longer
    /// than [`Options::setup_timeout`], the connection is closed, and counts as lost.
    pub fn on_connect<F, R>(mut self, hook: F) -> Client
    where
        F: Fn(Setup) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.hook = Some(Arc::new(move |setup| Box::pin(hook(setup))));
        self
    }

    /// Connects. If this first attempt fails, its error is returned; after a loss the client tries
    /// again by itself. The hook runs after this returns.
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
            let upgraded = dialer.dial().await?;
            Ok(dialer.spawn(Some(Box::new(upgraded))))
        }
    }

    /// Returns at once and connects in the background, trying again as after a loss. Messages that
    /// are sent meanwhile wait in the outbox.
    ///
    /// # Errors
    /// The URL, a header or the proxy's URL is not valid.
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

/// The beginning of `name` that can be a header's name. What follows may be its value, by mistake.
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
