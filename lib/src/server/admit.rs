//! One connection from TCP to WebSocket, or to its refusal.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::State;
use super::builder::{Config, PeerAddr, ServerLimits};
use super::open::{Open, Slot};
use super::stats::{Counter, Counters};
use crate::handles::Connection;
use crate::reports::ConnectionError;
use crate::server::handshake::{self, Agreement, Rejection};
use crate::server::registry::Attached;
use crate::time::{earlier, later};
use crate::ws::transport::{Held, Transport, Upgraded};
use crate::{defaults, dial::tls};

/// Who may come in: the limits of connections, of handshakes, and of refusals being told.
#[derive(Debug)]
pub(super) struct Admission {
    open: Arc<Open>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    max_handshakes: usize,
    refusals: Arc<Semaphore>,
}

pub(super) enum Admitted {
    In(Entry),
    Refused(Over, Option<OwnedSemaphorePermit>),
}

/// A place among the connections and one among the handshakes.
pub(super) struct Entry {
    slot: Arc<Slot>,
    _handshake: OwnedSemaphorePermit,
}

/// The limit that was reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Over {
    Connections,
    Handshakes,
}

impl Over {
    pub(super) fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Over::Connections => &counters.refused_connections,
            Over::Handshakes => &counters.refused_handshakes,
        }
    }

    fn rejection(self, retry_after: Duration) -> Rejection {
        let why = match self {
            Over::Connections => "The server has as many connections as it may; try again later.\n",
            Over::Handshakes => "Too many clients connect at once; try again later.\n",
        };
        Rejection::unavailable(why, retry_after)
    }
}

impl Admission {
    pub(super) fn new(limits: &ServerLimits, open: Arc<Open>) -> Admission {
        let semaphore = |n: usize| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)));
        let max_handshakes = limits.max_handshakes.clamp(1, Semaphore::MAX_PERMITS);
        Admission {
            open,
            connections: semaphore(limits.max_connections),
            handshakes: semaphore(max_handshakes),
            max_handshakes,
            refusals: semaphore(defaults::SERVER_REFUSALS),
        }
    }

    pub(super) fn ask(&self) -> Admitted {
        let refused =
            |over| Admitted::Refused(over, self.refusals.clone().try_acquire_owned().ok());
        let Ok(place) = self.connections.clone().try_acquire_owned() else {
            return refused(Over::Connections);
        };
        let Ok(handshake) = self.handshakes.clone().try_acquire_owned() else {
            return refused(Over::Handshakes);
        };
        Admitted::In(Entry {
            slot: self.open.take(place),
            _handshake: handshake,
        })
    }

    /// Waits until a handshake may begin.
    pub(super) async fn room(&self) {
        // The semaphore is never closed. Only one task takes from it: the place is still there.
        let _ = self.handshakes.acquire().await;
    }

    /// Handshakes under way.
    pub(super) fn handshaking(&self) -> usize {
        self.max_handshakes - self.handshakes.available_permits()
    }
}

/// A request that passed everything.
struct Accepted {
    request: Request<()>,
    subprotocol: Option<String>,
    upgrade: OnUpgrade,
}

/// Does the handshake with a client that was let in.
pub(super) async fn open(tcp: TcpStream, peer: SocketAddr, entry: Entry, state: Arc<State>) {
    let (config, counters) = (&state.config, &state.counters);
    let deadline = later(Instant::now(), config.limits.handshake_timeout);
    let decide = |request| decide(request, peer, deadline, config, counters);
    let talk = async { converse(secure(tcp, config).await?, config, decide).await };
    match timeout_at(deadline, talk).await {
        Err(_) => counters.handshakes_timed_out.add(),
        Ok(Err(error)) => {
            counters.handshakes_failed.add();
            tracing::debug!(%peer, %error, "a handshake failed");
        }
        // Refused, and counted where it was decided.
        Ok(Ok(None)) => {}
        Ok(Ok(Some((accepted, transport, leftover)))) => {
            counters.accepted.add();
            let transport = transport.holding(Held(entry.slot.clone()));
            let upgraded = Upgraded {
                local: transport.local(),
                transport,
                leftover,
                subprotocol: accepted.subprotocol,
                response: None,
                peer: Some(peer),
            };
            let options = config.options.clone();
            let sessions = config.sessions.as_ref().filter(|_| upgraded.is_session());
            let started = match sessions {
                None => Some(super::start_plain(upgraded, accepted.request, options)),
                Some(sessions) => {
                    let attach = sessions.0.attach(upgraded, accepted.request, &options);
                    attached(timeout_at(deadline, attach).await, peer, counters)
                }
            };
            if let Some((connection, pump)) = started {
                state.open.opened(&entry.slot, &connection, pump);
                state.queue.push((connection, entry.slot));
            }
        }
    }
}

/// The new connection, if that is what came of a client that asked for a session.
fn attached(
    result: Result<Result<Attached, ConnectionError>, Elapsed>,
    peer: SocketAddr,
    counters: &Counters,
) -> Option<(Connection, AbortHandle)> {
    match result {
        Err(_) => counters.handshakes_timed_out.add(),
        Ok(Err(error)) => {
            counters.handshakes_failed.add();
            tracing::debug!(%peer, ?error, "a session's handshake failed");
        }
        Ok(Ok(Attached::New(connection, task))) => return Some((*connection, task)),
        Ok(Ok(Attached::Resumed)) => counters.sessions_resumed.add(),
        Ok(Ok(Attached::Refused(rejection))) => {
            counters.sessions_refused.add();
            tracing::debug!(%peer, %rejection, "a session was refused");
        }
    }
    None
}

/// Tells a client that a limit is reached. It is heard out first, because an answer that comes
/// before the request is lost on most clients.
pub(super) async fn refuse(
    tcp: TcpStream,
    over: Over,
    _permit: OwnedSemaphorePermit,
    state: Arc<State>,
) {
    let config = &state.config;
    let limits = &config.limits;
    let within = defaults::SERVER_REFUSAL_TIMEOUT.min(limits.handshake_timeout);
    let decide = |_| async { Err(over.rejection(limits.retry_after)) };
    let talk = async { converse(secure(tcp, config).await?, config, decide).await };
    // Whether it listened does not matter: it was counted as refused.
    let _ = timeout_at(later(Instant::now(), within), talk).await;
}

async fn secure(tcp: TcpStream, config: &Config) -> io::Result<Transport> {
    match &config.tls {
        None => Ok(Transport::tcp_stream(tcp)),
        Some(tls) => {
            crate::ws::transport::set_options(&tcp);
            tls::accept(tls.clone(), tcp).await
        }
    }
}

/// Reads one request, answers it as `decide` says, and takes the connection back out of hyper's
/// hands if that was 101.
async fn converse<D, F>(
    transport: Transport,
    config: &Config,
    decide: D,
) -> io::Result<Option<(Accepted, Transport, Bytes)>>
where
    D: Fn(Parts) -> F,
    F: Future<Output = Result<(Accepted, Agreement), Rejection>>,
{
    let accepted = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let decision = decide(request.into_parts().0);
        async {
            let response: Response<Full<Bytes>> = match decision.await {
                Err(rejection) => {
                    let mut answer = rejection.answer();
                    // One request a connection. Not hyper's `keep_alive(false)`: that puts `close`
                    // into the 101 as well, which tungstenite's clients refuse.
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().append(header::CONNECTION, close);
                    answer
                }
                Ok((passed, agreement)) => {
                    *accepted.lock().unwrap() = Some(passed);
                    agreement.response()
                }
            };
            Ok::<_, Infallible>(response)
        }
    });
    let header_bytes = config.limits.header_bytes;
    let connection = http1::Builder::new()
        // The handshake's own deadline covers it.
        .header_read_timeout(None)
        .max_headers(defaults::SERVER_HEADERS)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(HYPER_SMALLEST_BUFFER))
        .serve_connection(TokioIo::new(transport), service);
    connection.with_upgrades().await.map_err(io::Error::other)?;
    let Some(mut accepted) = accepted.into_inner().unwrap() else {
        return Ok(None);
    };
    let upgraded = (&mut accepted.upgrade).await.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<Transport>>();
    let parts = parts.expect("hyper gives back the stream that it was given");
    Ok(Some((accepted, parts.io.into_inner(), parts.read_buf)))
}

/// hyper takes no smaller `max_buf_size`.
const HYPER_SMALLEST_BUFFER: usize = 8192;

/// The checks in their order: RFC 6455, Origin, the application.
async fn decide(
    mut parts: Parts,
    peer: SocketAddr,
    deadline: Instant,
    config: &Config,
    counters: &Counters,
) -> Result<(Accepted, Agreement), Rejection> {
    let agreement = handshake::check(&parts, &config.subprotocols)
        .inspect_err(|_| counters.refused_requests.add())?;
    if let Some(origins) = &config.origins {
        handshake::check_origin(&parts.headers, origins)
            .inspect_err(|_| counters.refused_origins.add())?;
    }
    let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| {
        counters.refused_requests.add();
        Rejection::new(
            StatusCode::BAD_REQUEST,
            "This request cannot be upgraded.\n",
        )
    })?;
    let mut request = Request::from_parts(parts, ());
    if let Some(hook) = &config.authenticate {
        request.extensions_mut().insert(PeerAddr(peer));
        request = authenticated(hook(request), deadline, &config.limits, counters).await?;
    }
    let subprotocol = agreement.subprotocol.clone();
    Ok((
        Accepted {
            request,
            subprotocol,
            upgrade,
        },
        agreement,
    ))
}

/// Waits for the hook, but not so long that no time is left to tell the client.
async fn authenticated(
    hook: impl Future<Output = Result<Request<()>, Rejection>>,
    deadline: Instant,
    limits: &ServerLimits,
    counters: &Counters,
) -> Result<Request<()>, Rejection> {
    let to_answer = defaults::SERVER_ANSWER_GRACE.min(limits.handshake_timeout / 10);
    match timeout_at(earlier(deadline, to_answer), hook).await {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(rejection)) => {
            counters.refused_unauthenticated.add();
            Err(rejection)
        }
        Err(_) => {
            counters.handshakes_timed_out.add();
            let why = "Authentication took too long; try again later.\n";
            Err(Rejection::unavailable(why, limits.retry_after))
        }
    }
}
