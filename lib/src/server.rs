//! A WebSocket server: accepts, checks, limits and shuts down.

mod admit;
#[cfg(feature = "axum")]
pub mod axum;
mod builder;
pub(crate) mod handshake;
mod keeper;
mod listen;
mod open;
mod queue;
pub(crate) mod registry;
mod stats;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::ToSocketAddrs;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::Instrument;

use crate::{
    defaults,
    handles::{Connection, Identity, span},
    settings::Options,
    ws::{Side, WebSocket, transport::Upgraded},
};

use admit::Admission;
use builder::Config;
pub use builder::{PeerAddr, ServerBuilder, ServerLimits};
pub use handshake::Rejection;
use open::{Control, Open};
use queue::Queue;
pub use registry::{Principal, SessionLimits, Sessions};
use stats::Counters;
pub use stats::ServerStats;

/// A WebSocket server on one listening socket.
///
/// Handshakes run beside, bounded in number, time and size; what comes out of them is a
/// [`Connection`] by [`accept`](Server::accept), or a call of the handler of
/// [`serve`](Server::serve). Nothing that one client does ends or holds up the others.
///
/// A `Server` is a handle: clones share it. When the last is dropped, the server stops accepting
/// and forgets what nobody accepted; connections that were handed over live on.
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
    state: Arc<State>,
    address: SocketAddr,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.stop();
        self.state.queue.close();
    }
}

/// What the listening task, the handshakes and the handles share.
#[derive(Debug)]
struct State {
    config: Config,
    counters: Counters,
    admission: Admission,
    open: Arc<Open>,
    queue: Queue,
    life: watch::Sender<Life>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Accepting,
    Draining,
    Stopped,
}

impl State {
    fn stop(&self) {
        self.advance(Life::Draining);
    }

    fn advance(&self, to: Life) {
        self.life.send_if_modified(|life| {
            let later = *life < to;
            *life = (*life).max(to);
            later
        });
    }

    async fn reached(&self, life: Life) {
        // The sender is in `self`: waiting cannot fail.
        let _ = self.life.subscribe().wait_for(|now| *now >= life).await;
    }
}

/// What [`Server::shutdown`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Connections that ended, with their handlers, before the deadline.
    pub closed: usize,
    /// Connections that had to be cut at the deadline.
    pub aborted: usize,
}

impl Server {
    /// Listens on `address` with all defaults. Port 0 takes a free port; see
    /// [`local_addr`](Server::local_addr).
    ///
    /// # Errors
    /// The address cannot be resolved or bound.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Server> {
        Server::builder().bind(address).await
    }

    /// A server with options, limits, TLS, hooks.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    fn start(config: Config, listener: tokio::net::TcpListener) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let open = Arc::new(Open::default());
        let state = Arc::new(State {
            admission: Admission::new(&config.limits, open.clone()),
            counters: Counters::default(),
            queue: Queue::default(),
            life: watch::Sender::new(Life::Accepting),
            config,
            open,
        });
        tokio::spawn(listen::run(listener, state.clone()));
        Ok(Server {
            handle: Arc::new(Handle { state, address }),
        })
    }

    fn state(&self) -> &Arc<State> {
        &self.handle.state
    }

    /// The address that is really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.address
    }

    /// The next connection whose handshake is done; `None` once the server shuts down.
    ///
    /// May be called by several tasks at once. Cancel safe: no connection is lost.
    pub async fn accept(&self) -> Option<Connection> {
        self.state()
            .queue
            .pop()
            .await
            .map(|(connection, _)| connection)
    }

    /// Runs `handler` for each connection, in a task of its own, until the server has shut down.
    ///
    /// A handler that panics ends its own connection, with code 1011, and nothing else; it is
    /// counted in [`ServerStats::handler_panics`] and logged. What a handler logs carries the span
    /// of its connection. Cancel safe: dropped, it takes no more
    /// connections, and running handlers go on.
    pub async fn serve<H, F>(&self, handler: H)
    where
        H: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let state = self.state();
        while let Some((connection, slot)) = state.queue.pop().await {
            let (handler, counted, place) = (handler.clone(), state.clone(), slot.id());
            let span = span(connection.shared());
            let run = async move {
                // The place is free again when socket and handler both have ended.
                let _slot = slot;
                let run = AssertUnwindSafe(async { handler(connection).await });
                if run.catch_unwind().await.is_err() {
                    counted.counters.handler_panics.add();
                    tracing::error!("the handler panicked; its connection ends with code 1011");
                }
            };
            let task = tokio::spawn(run.instrument(span));
            state.open.set_handler(place, task.abort_handle());
        }
        tokio::select! {
            () = state.open.emptied() => {}
            () = state.reached(Life::Stopped) => {}
        }
    }

    /// Shuts down: stops accepting, asks every connection to close with code 1001, waits until
    /// all of them and their handlers have ended, and cuts those that have not by `deadline`.
    ///
    /// Handshakes under way are cut at once; their clients try again elsewhere. Bounded by
    /// `deadline` and a second for tasks that were cut to be gone. Cancel safe: the server stays
    /// in shutdown, and a further call waits for the rest.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let state = self.state();
        state.stop();
        let sessions = state.config.sessions.as_ref();
        let open = state.open.drain();
        if let Some(sessions) = sessions {
            sessions.0.close_all(deadline.max(defaults::GO_AWAY_SPREAD));
        }
        open.iter().for_each(Control::close);
        state.queue.close();
        let mut aborted = 0;
        if timeout(deadline, state.open.emptied()).await.is_err() {
            aborted = state.open.abort_all();
            if let Some(sessions) = sessions {
                sessions.0.abort_all();
            }
            let _ = timeout(defaults::SHUTDOWN_ABORT_GRACE, state.open.emptied()).await;
        }
        state.advance(Life::Stopped);
        ShutdownReport {
            closed: state.open.asked().saturating_sub(aborted),
            aborted,
        }
    }

    /// The counters of the server since its start.
    pub fn stats(&self) -> ServerStats {
        let state = self.state();
        state
            .counters
            .snapshot(state.open.len(), state.admission.handshaking())
    }
}

/// The server's side of an upgrade, and the means to abort its task and so drop the socket.
fn start_plain(
    upgraded: Upgraded,
    request: http::Request<()>,
    options: Options,
) -> (Connection, AbortHandle) {
    let identity = Identity {
        local: upgraded.local,
        peer: upgraded.peer,
        subprotocol: upgraded.subprotocol,
        request: Some(Arc::new(handshake::apart(request))),
        response: None,
    };
    let ws = WebSocket::new(
        upgraded.transport,
        upgraded.leftover,
        Side::Server,
        &options,
    );
    Connection::start(ws, options, identity)
}
