//! A WebSocket server: accepts connections, checks and limits them, shuts down.

mod acceptance;
mod admit;
#[cfg(feature = "axum")]
pub mod axum;
mod bearer;
mod budgets;
mod builder;
#[cfg(feature = "tls")]
mod certificates;
mod crowd;
mod door;
#[cfg(feature = "axum")]
mod guests;
mod handshake;
mod hello;
mod holder;
#[cfg(feature = "http2")]
mod http2;
mod keeper;
mod limits;
mod line;
mod listen;
mod listener;
mod open;
mod origin;
mod places;
mod proxies;
mod queue;
mod registry;
#[cfg(any(feature = "metrics", feature = "status"))]
pub(crate) mod roll;
mod sessions;
mod stats;
mod table;
mod talk;

use std::{
    future::Future, io, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::{FutureExt, future::lazy};
use tokio::{
    net::ToSocketAddrs,
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::timeout as within,
};
use tracing::Instrument;

use crate::{
    defaults,
    handles::Connection,
    settings::{Budget, Terms},
    spans,
    ws::{Side, WebSocket, transport::Upgraded},
};

pub use acceptance::Acceptance;
pub use bearer::BearerToken;
pub use builder::ServerBuilder;
#[cfg(feature = "tls")]
pub use certificates::PeerCertificates;
pub use handshake::Rejection;
pub use holder::Principal;
pub use limits::ServerLimits;
pub use listener::Listener;
pub use proxies::{InvalidNetwork, PeerAddr, TrustedProxies};
pub use sessions::{SessionLimits, Sessions};
pub use stats::{HandshakeStats, RefusalStats, ServerStats};

use budgets::Budgets;
use builder::Config;
use door::Door;
use holder::Holders;
use open::Open;
use places::Places;
use queue::{Accepted, Queue};
use stats::Counters;

/// A WebSocket server on one listening socket.
///
/// Handshakes run concurrently, limited in number, time and size. Each one that succeeds yields a
/// [`Connection`], from [`accept`](Server::accept) or to the handler of [`serve`](Server::serve).
/// No client can end or delay the connections of others: see [`ServerLimits`].
///
/// A `Server` is a handle: clones share it. When the last clone is dropped, the server stops
/// listening and closes connections that were not accepted yet. Accepted connections stay open.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let server = unstall::Server::bind("127.0.0.1:9100").await?;
/// server
///     .serve(|mut connection| async move {
///         while let Ok(Some(incoming)) = connection.recv().await {
///             if let unstall::Incoming::Message(message) = incoming {
///                 let _ = connection.send(message).await;
///             }
///         }
///     })
///     .await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    handle: Arc<Handle>,
}

/// Stops the listening task with the last clone of the server.
#[derive(Debug)]
struct Handle {
    state: Arc<ServerState>,
    address: SocketAddr,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.advance(Stage::Draining);
        self.state.queue.close();
    }
}

/// ServerState shared by the listening task, the handshakes and the handles.
#[derive(Debug)]
struct ServerState {
    config: Config,
    counters: Counters,
    door: Arc<Door>,
    places: Arc<Places>,
    budgets: Budgets,
    /// Bounds how many clients are told at once that there is no free handshake slot.
    refusals: Arc<Semaphore>,
    open: Arc<Open>,
    queue: Queue,
    stage: watch::Sender<Stage>,
}

#[cfg(any(feature = "metrics", feature = "status"))]
impl Drop for ServerState {
    fn drop(&mut self) {
        roll::add_ended(&self.stats());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Accepting,
    Draining,
    /// The listener is closed.
    Closed,
    Stopped,
}

impl ServerState {
    /// The options of this client's connections, and the budget that they draw from.
    fn terms(&self, client: &Holders) -> Terms {
        Terms {
            options: self.config.options.clone(),
            budget: Some(self.budgets.of(client)),
        }
    }

    fn stats(&self) -> ServerStats {
        let sessions = self.config.sessions.as_ref();
        let mut stats = self.counters.snapshot();
        stats.handshakes.evicted = self.door.evicted();
        stats.handshaking = self.door.handshaking();
        stats.waiting = self.door.waiting();
        stats.open = self.places.taken();
        stats.sessions = sessions.map_or(0, Sessions::len);
        stats
    }

    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let later = *stage < to;
            *stage = (*stage).max(to);
            later
        });
    }

    async fn reached(&self, stage: Stage) {
        // The sender is in `self`: waiting cannot fail.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }
}

/// The result of [`Server::shutdown`]. It counts plain connections and sessions, also those without
/// a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How many ended, with their handlers, within the timeout.
    pub closed: usize,
    /// How many were cut after the timeout.
    pub aborted: usize,
}

impl Server {
    /// Listens on `address` with the default settings. Port 0 takes a free port; see
    /// [`local_addr`](Server::local_addr).
    ///
    /// # Errors
    /// The address cannot be resolved or bound.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Server> {
        Server::builder().bind(address).await
    }

    /// Builds a server with your own options, limits, TLS and hooks.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    fn start(config: Config, listener: impl Listener) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let address = address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let process = config.options.budget.clone();
        let process = process.unwrap_or_else(|| Budget::new(config.limits.process_bytes));
        let bytes = config.limits.bytes(process.limit());
        let state = Arc::new(ServerState {
            door: Door::new(config.limits.handshakes(), defaults::SERVER_LINE),
            places: Places::new(config.limits.connections()),
            budgets: Budgets::new(process, bytes),
            refusals: Arc::new(Semaphore::new(defaults::SERVER_REFUSALS)),
            counters: Counters::default(),
            open: Arc::default(),
            queue: Queue::default(),
            stage: watch::Sender::new(Stage::Accepting),
            config,
        });
        #[cfg(any(feature = "metrics", feature = "status"))]
        roll::add(&state);
        tokio::spawn(listen::run(listener, state.clone()));
        Ok(Server {
            handle: Arc::new(Handle { state, address }),
        })
    }

    fn state(&self) -> &Arc<ServerState> {
        &self.handle.state
    }

    /// The address that the server listens on. It is `0.0.0.0:0` for a Unix socket, and for a
    /// [`Listener`] without an address.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.address
    }

    /// Waits for the next connection whose handshake is done. `None` once the server shuts down.
    ///
    /// A session is accepted once: when its client connects again, it goes on in the same
    /// [`Connection`]. Several tasks may call it at once.
    ///
    /// Cancel safety: if dropped before it resolves, no connection is lost.
    pub async fn accept(&self) -> Option<Connection> {
        let accepted = self.state().queue.pop().await;
        accepted.map(|accepted| accepted.connection)
    }

    /// Runs `handler` for each connection, in a task of its own, until the server has shut down.
    ///
    /// If a handler panics, only its own connection ends, with code 1011. The panic is logged, and
    /// counted in [`ServerStats::handler_panics`]. A handler runs in a tracing span of its own.
    ///
    /// Cancel safety: if dropped, no further connections are handled. Running handlers go on.
    pub async fn serve<H, F>(&self, handler: H)
    where
        H: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let state = self.state();
        while let Some(accepted) = state.queue.pop().await {
            let Accepted {
                connection,
                member,
                place,
            } = accepted;
            let (handler, counted) = (handler.clone(), state.clone());
            let (span, running) = (handler_span(&connection), member.clone());
            // An `async` block would keep room for the connection beside the handler's future.
            let run = lazy(move |_| handler(connection)).flatten();
            let run = AssertUnwindSafe(run).catch_unwind().map(move |ended| {
                if ended.is_err() {
                    counted.counters.handler_panics.add();
                    tracing::error!("the handler panicked; its connection ends with code 1011");
                }
            });
            // The place is free again when both the connection and its handler have ended, and the
            // handler's span with it.
            let freed = move |()| drop((running, place));
            let task = tokio::spawn(run.instrument(span).map(freed));
            member.handled(task.abort_handle());
        }
        tokio::select! {
            () = state.open.emptied() => {}
            () = state.reached(Stage::Stopped) => {}
        }
    }

    /// Runs `handler` for each connection, as [`serve`](Server::serve) does, until `signal`
    /// resolves. Then shuts down within `timeout`, as [`shutdown`](Server::shutdown) does.
    ///
    /// ```no_run
    /// # async fn handler(_: unstall::Connection) {}
    /// # async fn ctrl_c() {}
    /// # async fn example() -> std::io::Result<()> {
    /// let server = unstall::Server::bind("127.0.0.1:9100").await?;
    /// let report = server
    ///     .serve_until(handler, ctrl_c(), std::time::Duration::from_secs(5))
    ///     .await;
    /// println!("{} closed, {} cut", report.closed, report.aborted);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel safety: as of [`serve`](Server::serve) and [`shutdown`](Server::shutdown).
    pub async fn serve_until<H, F>(
        &self,
        handler: H,
        signal: impl Future<Output = ()>,
        timeout: Duration,
    ) -> ShutdownReport
    where
        H: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::select! {
            () = self.serve(handler) => {}
            () = signal => {}
        }
        self.shutdown(timeout).await
    }

    /// Shuts down. Stops listening, closes every connection and session with code 1001, and waits
    /// until all of them and their handlers have ended. After `timeout` it cuts the rest. When it
    /// returns, another server can listen on the address.
    ///
    /// Handshakes under way are cut at once. The call takes at most `timeout`, plus one second in
    /// which cut tasks end.
    ///
    /// Cancel safety: if dropped, the server goes on shutting down. Another call waits for the
    /// rest.
    pub async fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        let state = self.state();
        state.advance(Stage::Draining);
        let started = state.open.drain(timeout);
        started.iter().for_each(|control| control.close(timeout));
        drop(started);
        state.queue.close();
        let mut aborted = 0;
        if within(timeout, state.open.emptied()).await.is_err() {
            aborted = state.open.abort_all();
            let _ = within(defaults::SHUTDOWN_ABORT_TIMEOUT, state.open.emptied()).await;
        }
        state.reached(Stage::Closed).await;
        state.advance(Stage::Stopped);
        ShutdownReport {
            closed: state.open.asked().saturating_sub(aborted),
            aborted,
        }
    }

    /// The server's counters since its start, and its present state.
    pub fn stats(&self) -> ServerStats {
        self.state().stats()
    }
}

/// The span of a connection's handler.
fn handler_span(connection: &Connection) -> tracing::Span {
    let request = connection.request();
    let headers = request.as_deref().map(http::Request::headers);
    spans::handler(connection.shared().id, connection.peer_addr(), headers)
}

/// Starts a plain connection. Aborting its task drops the socket.
fn start_plain(
    upgraded: Upgraded,
    request: http::Request<()>,
    peer: Option<PeerAddr>,
    terms: Terms,
) -> (Connection, AbortHandle) {
    let identity = hello::identity(&upgraded, request, peer);
    let ws = WebSocket::upgraded(upgraded, Side::Server, &terms.options);
    Connection::start(ws, terms, identity)
}
