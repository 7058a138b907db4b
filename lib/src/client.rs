//! Clients: dial, set up, run, and dial again.

mod backoff;
mod session;
mod setup;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::ClientConfig;
use tracing::Instrument;

use crate::{
    connect_error::ConnectError,
    connection::{Connection, TaskGuard, span},
    defaults::EXPIRY_INTERVAL,
    dial::{DialOptions, Target, dial},
    error::{BoxError, CloseCode, ConnectionError},
    events::Event,
    message::Gap,
    options::Options,
    proxy::Proxy,
    pump::{Ended, Plain, Pump, Reading},
    session::{Link, client::Wanted},
    shared::{Identity, Shared},
    stats::StallCause,
    transport::{Transport, Upgraded},
    ws::{Side, WebSocket},
};

pub use backoff::Reconnect;
use backoff::{Backoff, Life};
pub use setup::Setup;
use setup::{SetupFailure, set_up};

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

/// Where waiting for a connection led.
enum Dialed {
    Open(Box<Upgraded>),
    /// Meanwhile it ended: close was requested, or the session is over.
    Over,
    Failed(Arc<ConnectError>),
}

struct Dialer {
    target: Target,
    dial_options: DialOptions,
    headers: HeaderMap,
    header_fn: Option<HeaderFn>,
    hook: Option<Hook>,
    options: Options,
    backoff: Option<Backoff>,
    attempt: Attempt,
    fresh_sessions: bool,
    /// Connections in a row that carried no session, though it was agreed.
    refused: u32,
    /// What the server wants waited before the next attempt.
    asked: Option<Duration>,
    /// The next connection is plain, because HELLO was not answered; then sessions are offered
    /// again.
    plain_once: bool,
}

impl Dialer {
    fn new(client: Client) -> Result<Dialer, ConnectError> {
        let mut headers = HeaderMap::new();
        for (name, value) in client.headers {
            let header = |why: String| ConnectError::Header {
                name: name.clone(),
                why,
            };
            let parsed = HeaderName::try_from(&name).map_err(|error| header(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| header(error.to_string()))?;
            headers.append(parsed, value);
        }
        Ok(Dialer {
            target: Target::parse(&client.url)?,
            dial_options: DialOptions {
                tls: client.tls,
                proxy: client.proxy.as_deref().map(Proxy::parse).transpose()?,
                subprotocols: client.subprotocols,
                session: client.session,
                connect_timeout: client.options.connect_timeout,
            },
            headers,
            header_fn: client.header_fn,
            hook: client.hook,
            options: client.options,
            backoff: client.reconnect.map(Backoff::new),
            attempt: Attempt {
                number: 1,
                last_error: None,
            },
            fresh_sessions: client.fresh_sessions,
            refused: 0,
            asked: None,
            plain_once: false,
        })
    }

    fn spawn(self, upgraded: Option<Box<Upgraded>>) -> Connection {
        let identity = upgraded.as_deref().map(identity).unwrap_or_default();
        let shared = Shared::new(self.options.clone(), identity);
        let (connection, guard) = Connection::over(shared.clone());
        let span = span(&shared);
        tokio::spawn(Box::new(self).run(shared, upgraded, guard).instrument(span));
        connection
    }

    async fn dial(&mut self) -> Result<Upgraded, ConnectError> {
        let made = self
            .header_fn
            .as_ref()
            .map(|make| make(self.attempt.clone()));
        let mut headers = self.headers.clone();
        let headers = async move {
            if let Some(made) = made {
                headers.extend(made.await?);
            }
            Ok(headers)
        };
        let plain;
        let options = match std::mem::take(&mut self.plain_once) {
            false => &self.dial_options,
            true => {
                plain = DialOptions {
                    session: Wanted::Never,
                    ..self.dial_options.clone()
                };
                &plain
            }
        };
        dial(&self.target, options, headers).await
    }

    /// From the first connection to the end of the last.
    async fn run(
        mut self: Box<Self>,
        shared: Arc<Shared>,
        mut upgraded: Option<Box<Upgraded>>,
        guard: TaskGuard,
    ) {
        let mut reading = Reading::new(&shared.options);
        let mut lost: Option<(Arc<ConnectionError>, Instant)> = None;
        loop {
            let open = match upgraded.take() {
                Some(upgraded) => upgraded,
                // In boxes: an open connection does not hold the room that dialing takes.
                None => match Box::pin(self.redial(&shared, Away::Plain(&mut reading))).await {
                    Dialed::Open(upgraded) => upgraded,
                    Dialed::Over => break Ended::requested(),
                    Dialed::Failed(error) => {
                        break Ended::because(ConnectionError::Reconnect(error));
                    }
                },
            };
            let identity = identity(&open);
            if let Some(peer) = identity
                .peer
                .filter(|peer| shared.identity().peer != Some(*peer))
            {
                tracing::Span::current().record("peer", tracing::field::display(peer));
            }
            shared.set_identity(identity);
            if let Some((why, since)) = lost.take() {
                reading.mark(Gap::Reconnected {
                    why,
                    away: since.elapsed(),
                });
            }
            if open.is_session() {
                match Box::pin(self.run_session(open, &shared, &mut reading)).await {
                    Some(next) => {
                        upgraded = next;
                        continue;
                    }
                    None => return drop(guard),
                }
            }
            let started = Instant::now();
            let ended = Box::pin(self.converse(open, &shared, &mut reading)).await;
            let Some(why) = self.reason_to_reconnect(&ended) else {
                break ended;
            };
            let life = Life {
                lasted: started.elapsed(),
                received_any: ended.received_any,
                progressed: false,
            };
            lost = Some((self.lost(why, &ended, life, &shared), Instant::now()));
        }
        .finish(&shared, &mut reading)
        .await;
        drop(guard);
    }

    /// A connection that is to be made again has ended.
    fn lost(
        &mut self,
        why: ConnectionError,
        ended: &Ended,
        life: Life,
        shared: &Shared,
    ) -> Arc<ConnectionError> {
        if let Some(backoff) = &mut self.backoff {
            backoff.lived(life);
        }
        let why = Arc::new(why);
        let in_flight = ended.in_flight;
        shared.events.push(Event::Disconnected {
            why: why.clone(),
            in_flight,
        });
        why
    }

    /// Why to connect again after this end; `None` if it is the last.
    fn reason_to_reconnect(&self, ended: &Ended) -> Option<ConnectionError> {
        if self.backoff.is_none() || ended.requested {
            return None;
        }
        match (&ended.why, &ended.peer) {
            (Some(why), _) => why.is_retryable().then(|| why.clone()),
            (None, Some(close)) if close.code == Some(CloseCode::NORMAL) => None,
            (None, Some(close)) => Some(ConnectionError::ClosedByPeer(close.clone())),
            (None, None) => Some(ConnectionError::EndOfStream),
        }
    }

    /// Dials until it succeeds, with waits in between.
    async fn redial(&mut self, shared: &Shared, mut away: Away<'_>) -> Dialed {
        shared
            .meter
            .wait(StallCause::Connecting, true, Instant::now());
        self.attempt = Attempt {
            number: 0,
            last_error: None,
        };
        let dialed = loop {
            let asked = self
                .attempt
                .last_error
                .as_ref()
                .and_then(|error| error.retry_after())
                .or(self.asked.take());
            let first = self.attempt.number == 0 && shared.meter.counters().connections == 0;
            let wait = match &mut self.backoff {
                Some(backoff) if !first => backoff.next(asked),
                _ => Duration::ZERO,
            };
            self.attempt.number += 1;
            let attempt = self.attempt.number;
            if !first {
                shared.events.push(Event::Reconnecting {
                    attempt,
                    after: wait,
                });
            }
            let work = async {
                sleep_until(Instant::now() + wait).await;
                self.dial().await
            };
            match away.until(shared, work).await {
                None => break Dialed::Over,
                Some(Ok(upgraded)) => break Dialed::Open(Box::new(upgraded)),
                Some(Err(error)) => {
                    let why = Arc::new(error);
                    shared.events.push(Event::AttemptFailed {
                        attempt,
                        why: why.clone(),
                    });
                    let more = self.backoff.as_ref().is_some_and(|it| it.allows(attempt));
                    if !why.is_retryable() || !more {
                        break Dialed::Failed(why);
                    }
                    self.attempt.last_error = Some(why);
                }
            }
        };
        // A session waits until its peer has agreed as well.
        if let Away::Plain(_) = away {
            shared
                .meter
                .wait(StallCause::Connecting, false, Instant::now());
        }
        dialed
    }

    /// One plain connection: the hook, if there is one, then everything else.
    async fn converse(
        &self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
    ) -> Ended {
        let ws = WebSocket::new(open.transport, open.leftover, Side::Client, &shared.options);
        match &self.hook {
            None => {
                Pump::new(ws, shared.clone(), Plain::new(reading))
                    .run()
                    .await
            }
            Some(hook) => Box::pin(self.begin(hook, ws, shared, reading)).await,
        }
    }

    /// The same with a hook.
    async fn begin(
        &self,
        hook: &Hook,
        ws: WebSocket<Transport>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
    ) -> Ended {
        let own = shared.for_setup();
        let mut own_reading = Reading::new(&own.options);
        let mut pump = Pump::new(ws, own.clone(), Plain::new(&mut own_reading));
        let away = Away::Plain(&mut *reading);
        let ended = match set_up(hook, &mut pump, &own, shared, away).await {
            Ok(()) => {
                reading.append(own.inbox.drain());
                pump.rebind(shared.clone(), |plain| plain.continue_with(reading));
                return pump.run().await;
            }
            Err(SetupFailure::Ended(ended)) => ended,
            Err(SetupFailure::Failed(why)) => {
                match shared.close_request() {
                    Some(request) => own.request_close(request.code, &request.reason),
                    None => own.request_close(CloseCode::GOING_AWAY, ""),
                }
                let mut ended = pump.run().await;
                ended.requested = shared.is_closing();
                ended.why = Some(why).filter(|_| !ended.requested);
                ended
            }
        };
        drop(pump);
        reading.append(own.inbox.drain());
        reading.append(own_reading.take_received());
        ended
    }
}

/// What goes on being served while there is no connection.
enum Away<'a> {
    Plain(&'a mut Reading),
    Session(&'a mut Link),
    /// The pump of a session serves: only the handles' wishes are left.
    Busy,
}

impl Away<'_> {
    /// Does `work` meanwhile; `None` if it is over before: for a plain connection when close is
    /// requested, for a session when it has ended.
    async fn until<T>(&mut self, shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
        let serve = async {
            match self {
                Away::Session(link) => link.serve_detached(shared).await,
                Away::Plain(reading) => tokio::select! {
                    () = shared.close_requested() => {}
                    () = async { reading.drain(shared).await; std::future::pending().await } => {}
                },
                Away::Busy => shared.close_requested().await,
            }
        };
        tokio::select! {
            biased;
            () = serve => None,
            done = work => Some(done),
            () = report_while_away(shared) => None,
        }
    }
}

/// Reports what waits too long, and drops what has passed its time. Never resolves.
async fn report_while_away(shared: &Shared) {
    loop {
        let now = Instant::now();
        let expired = shared.outbox.expire(now);
        if expired > 0 {
            shared.events.push(Event::Expired { messages: expired });
        }
        let next = now + EXPIRY_INTERVAL;
        sleep_until(shared.meter.report(now).map_or(next, |at| at.min(next))).await;
    }
}

fn identity(upgraded: &Upgraded) -> Identity {
    Identity {
        local: upgraded.local,
        peer: upgraded.peer,
        subprotocol: upgraded.subprotocol.clone(),
        request: None,
        response: upgraded.response.clone().map(Arc::new),
    }
}
