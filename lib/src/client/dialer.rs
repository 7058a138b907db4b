//! The task of a client: dials, runs the hook, runs the connection, and dials again.

use std::{env, sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::{
    Attempt, Client, HeaderFn, Hook, Way,
    away::Away,
    backoff::{Backoff, Life},
    session::Next,
    setup::{SetUp, leave, set_up},
};
use crate::{
    dial::{DialOptions, Proxy, Target, Wanted, dial, environment},
    handles::{CloseRequest, Connection, Driver, Identity, Shared, TaskGuard, span},
    messages::Gap,
    pump::{Ended, Plain, Pump, Reading},
    reports::{CloseCode, ConnectError, ConnectionError, Event, StallCause},
    session::opening::Opening,
    settings::Options,
    spans,
    time::{granted, later},
    ws::{Side, WebSocket, transport::Upgraded},
};

/// The result of [`Dialer::redial`].
pub(super) enum Dialed {
    Open(Box<Upgraded>),
    /// The handle ended first: close was requested, or the session is over.
    Ended,
    /// No further attempt is made.
    Failed(Arc<ConnectError>),
}

pub(super) struct Dialer {
    target: Target,
    pub(super) dial_options: DialOptions,
    pub(super) headers: HeaderMap,
    pub(super) header_fn: Option<HeaderFn>,
    pub(super) hook: Option<Hook>,
    pub(super) options: Arc<Options>,
    pub(super) backoff: Option<Backoff>,
    pub(super) attempt: Attempt,
    pub(super) fresh_sessions: bool,
    /// Whether a plain connection that was lost is made again.
    plain_reconnects: bool,
    /// How many connections in a row agreed to a session without starting or resuming one.
    pub(super) refused: u32,
    /// The wait that the server asked for before the next attempt.
    pub(super) asked: Option<Duration>,
    /// The next connection is plain, because HELLO was not answered. After it sessions are offered
    /// again.
    pub(super) plain_once: bool,
    /// The session that the last request offered to open.
    pub(super) opening: Option<Opening>,
}

impl Dialer {
    pub(super) fn new(client: &Client) -> Result<Dialer, ConnectError> {
        if let Some((name, why)) = client.invalid_header.clone() {
            return Err(ConnectError::Header { name, why });
        }
        let target = Target::parse(&client.url)?;
        let proxy = match &client.way {
            Way::Environment => {
                let value = |name: &str| env::var_os(name).map(|it| it.to_string_lossy().into());
                environment::proxy(&target, value)?
            }
            Way::Direct | Way::Own(_) => None,
            Way::Proxy(url) => Some(Proxy::parse(url)?),
        };
        let connector = match &client.way {
            Way::Own(connector) => Some(connector.clone()),
            _ => None,
        };
        Ok(Dialer {
            target,
            dial_options: DialOptions {
                tls: client.tls.clone(),
                proxy,
                connector,
                subprotocols: client.subprotocols.clone(),
                subprotocol_required: client.subprotocol_required,
                session: client.session,
                compression: client.options.compression.clone(),
                hello: None,
                connect_timeout: client.options.connect_timeout,
            },
            headers: client.headers.clone(),
            header_fn: client.header_fn.clone(),
            hook: client.hook.clone(),
            options: Arc::new(client.options.clone()),
            backoff: client.reconnect.clone().map(Backoff::new),
            attempt: Attempt {
                number: 1,
                last_error: None,
            },
            fresh_sessions: client.fresh_sessions,
            plain_reconnects: client.plain_reconnects,
            refused: 0,
            asked: None,
            plain_once: false,
            opening: None,
        })
    }

    pub(super) fn spawn(self, upgraded: Option<Box<Upgraded>>) -> Connection {
        let identity = upgraded.as_deref().map(identity).unwrap_or_default();
        let shared = Shared::new(self.options.clone(), identity);
        let (connection, guard) = Connection::over(shared.clone());
        let span = span(&shared);
        let run = Box::new(self).run(shared.clone(), upgraded, guard);
        Driver::spawn(&shared, run.instrument(span));
        connection
    }

    /// Dials. `fresh`: no session is waiting for a connection, so the request may open one.
    pub(super) async fn dial(&mut self, fresh: bool) -> Result<Upgraded, ConnectError> {
        let opens = fresh && self.dial_options.session != Wanted::Never;
        match &mut self.opening {
            Some(opening) if opens => opening.again(),
            opening => *opening = opens.then(Opening::new),
        }
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
        let mut options = self.dial_options.clone();
        options.hello = self
            .opening
            .as_ref()
            .and_then(|it| it.header(&self.options));
        if std::mem::take(&mut self.plain_once) {
            options.session = Wanted::Never;
        }
        let (host, port) = (&self.target.host, self.target.port);
        let span = spans::connect(host, port, self.attempt.number);
        let dialed = dial(&self.target, &options, headers).instrument(span.clone());
        dialed.await.inspect_err(|why| spans::failed(&span, why))
    }

    /// Runs from the first connection to the end of the last.
    pub(super) async fn run(
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
                // In a box, so that an open connection does not keep the memory for dialing.
                None => match Box::pin(self.redial(&shared, Away::Plain(&mut reading))).await {
                    Dialed::Open(upgraded) => upgraded,
                    Dialed::Ended => break Ended::requested(),
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
                    Next::Open(open) => upgraded = Some(open),
                    Next::Dial => {}
                    Next::Nothing => return drop(guard),
                }
                continue;
            }
            shared.outbox.set_peer_limit(None);
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

    /// Notes and announces that a connection was lost, before the next one is dialed.
    pub(super) fn lost(
        &mut self,
        why: ConnectionError,
        ended: &Ended,
        life: Life,
        shared: &Shared,
    ) -> Arc<ConnectionError> {
        if let Some(backoff) = &mut self.backoff {
            backoff.note(life);
        }
        let why = Arc::new(why);
        let in_flight = ended.in_flight;
        shared.events.push(Event::Disconnected {
            why: why.clone(),
            in_flight,
        });
        why
    }

    /// The reason to connect again; `None` if this was the last connection.
    fn reason_to_reconnect(&self, ended: &Ended) -> Option<ConnectionError> {
        if self.backoff.is_none() || !self.plain_reconnects || ended.requested {
            return None;
        }
        match (&ended.why, &ended.peer) {
            (Some(why), _) => why.is_retryable().then(|| why.clone()),
            (None, Some(close)) if close.code == Some(CloseCode::NORMAL) => None,
            (None, Some(close)) => Some(ConnectionError::ClosedByPeer(close.clone())),
            (None, None) => Some(ConnectionError::EndOfStream),
        }
    }

    /// Dials until an attempt succeeds, with waits in between.
    pub(super) async fn redial(&mut self, shared: &Shared, mut away: Away<'_>) -> Dialed {
        shared
            .meter
            .wait(StallCause::Connecting, true, Instant::now());
        self.attempt = Attempt {
            number: 0,
            last_error: None,
        };
        let dialed = loop {
            let wait = self.begin_attempt(shared);
            let fresh = matches!(away, Away::Plain(_));
            let work = async {
                sleep_until(later(Instant::now(), wait)).await;
                self.dial(fresh).await
            };
            match away.until(shared, work).await {
                None => break Dialed::Ended,
                Some(Ok(upgraded)) => break Dialed::Open(Box::new(upgraded)),
                Some(Err(error)) => {
                    let why = Arc::new(error);
                    let attempt = self.attempt.number;
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
        // A session waits until the server has accepted it, not just the connection.
        if let Away::Plain(_) = away {
            shared
                .meter
                .wait(StallCause::Connecting, false, Instant::now());
        }
        dialed
    }

    /// Counts and announces the next attempt, and returns the wait before it. A wait that the
    /// server asked for is cut to `RETRY_AFTER_MAX`.
    fn begin_attempt(&mut self, shared: &Shared) -> Duration {
        let by_http = self.attempt.last_error.as_ref();
        let by_http = by_http.and_then(|error| error.retry_after());
        let asked = by_http.or(self.asked.take()).map(granted);
        let first = self.attempt.number == 0 && shared.meter.counters().connections == 0;
        self.attempt.number += 1;
        if first {
            return Duration::ZERO;
        }
        let after = match &mut self.backoff {
            Some(backoff) => backoff.next(asked),
            None => Duration::ZERO,
        };
        shared.events.push(Event::Reconnecting {
            attempt: self.attempt.number,
            after,
        });
        after
    }

    /// Runs one plain connection: first the hook, if there is one, then everything else.
    async fn converse(
        &self,
        open: Box<Upgraded>,
        shared: &Arc<Shared>,
        reading: &mut Reading,
    ) -> Ended {
        let ws = WebSocket::upgraded(open.unboxed(), Side::Client, &shared.options);
        let mut pump = Pump::new(ws, shared.clone(), Plain::new(reading, &shared.account));
        let Some(hook) = &self.hook else {
            return pump.run().await;
        };
        let ended = match Box::pin(set_up(hook, &mut pump, shared)).await {
            SetUp::Done => return pump.run().await,
            SetUp::Closing => pump.run().await,
            SetUp::Ended(ended) => ended,
            SetUp::Failed(why) => {
                pump.close(CloseRequest::new(
                    CloseCode::GOING_AWAY,
                    "",
                    shared.options.close_timeout,
                ));
                let mut ended = pump.run().await;
                ended.requested = shared.is_closing();
                ended.why = Some(why).filter(|_| !ended.requested);
                ended
            }
        };
        leave(&mut pump, shared);
        ended
    }
}

pub(super) fn identity(upgraded: &Upgraded) -> Identity {
    Identity {
        local: upgraded.local,
        peer: upgraded.peer,
        client: None,
        subprotocol: upgraded.subprotocol.clone(),
        compressed: upgraded.compression.is_some(),
        request: None,
        response: upgraded.response.clone(),
    }
}
