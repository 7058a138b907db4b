//! The task of one session on a server, over all its connections.

use std::sync::Arc;

use futures_channel::mpsc;
use futures_util::StreamExt;
use tokio::{sync::oneshot, time::Instant};
use unstall_proto::{Hello, Rejection, SessionId};

use super::registry::Registry;
use crate::{
    handles::{Identity, Shared, TaskGuard},
    pump::{Pump, Reading},
    reports::{ConnectionError, Event, SessionLoss},
    session::{Packets, Session, SessionGuard},
    ws::{
        WebSocket,
        transport::{Held, Transport},
    },
};

/// A connection whose HELLO names an existing session.
pub(super) struct Newcomer {
    pub(super) hello: Hello,
    pub(super) ws: WebSocket<Transport>,
    pub(super) identity: Identity,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Where the newcomers of a session arrive. A channel of tokio's would take 800 bytes of each session.
pub(super) type Mailbox = mpsc::UnboundedSender<Box<Newcomer>>;

/// The outcome for a newcomer. On refusal its connection comes back, so that its client can be
/// told.
pub(super) type Answer = Result<(), (Rejection, WebSocket<Transport>)>;

impl Newcomer {
    fn refuse(self, rejection: Rejection) {
        let _ = self.answer.send(Err((rejection, self.ws)));
    }
}

/// The task of one session on a server.
pub(super) struct Keeper {
    pub(super) registry: Arc<Registry>,
    pub(super) id: SessionId,
    pub(super) newcomers: mpsc::UnboundedReceiver<Box<Newcomer>>,
    pub(super) guarded: SessionGuard,
    pub(super) reading: Reading,
    /// Dropped after `guarded`, so that the last report includes the undelivered messages.
    pub(super) _guard: TaskGuard,
    /// Counts it among the sessions, and among the server's open members.
    pub(super) _tenancy: Held,
    pub(super) _member: Option<Held>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.registry.remove(&self.id, &self.guarded.shared);
    }
}

/// The next step of the task.
enum Next {
    Connection(Box<WebSocket<Transport>>),
    Detached,
    /// The registry evicted the session.
    Evicted,
    Ended,
}

impl Keeper {
    pub(super) async fn run(mut self: Box<Self>, ws: Box<WebSocket<Transport>>) {
        self.guarded.session.begin_span();
        let mut next = Next::Connection(ws);
        loop {
            next = match next {
                Next::Connection(ws) => self.converse(*ws).await,
                Next::Detached => self.wait().await,
                Next::Evicted => {
                    let why = ConnectionError::SessionLost(SessionLoss::Evicted);
                    self.guarded.session.give_up(why);
                    Next::Ended
                }
                Next::Ended => break,
            };
        }
        self.registry.remove(&self.id, &self.guarded.shared);
        self.newcomers.close();
        while let Ok(newcomer) = self.newcomers.try_recv() {
            newcomer.refuse(Rejection::Expired);
        }
        self.guarded.finish(&mut self.reading).await;
    }

    /// Carries the session over one connection.
    async fn converse(&mut self, ws: WebSocket<Transport>) -> Next {
        let (SessionGuard { session, shared }, reading) = (&mut self.guarded, &mut self.reading);
        self.registry.set_detached(&self.id, shared, None);
        let packets = Packets { session, reading };
        let mut pump = Pump::new(ws, shared.clone(), packets);
        let ended = loop {
            tokio::select! {
                biased;
                newcomer = self.newcomers.next() => {
                    let Some(newcomer) = newcomer else { return Next::Evicted };
                    // Leaving the loop drops the older connection with its pump.
                    match resume(pump.traffic().session, newcomer, shared) {
                        Some(ws) => return Next::Connection(Box::new(ws)),
                        None => continue,
                    }
                }
                ended = pump.run() => break ended,
            }
        };
        drop(pump);
        session.detach(shared, Instant::now());
        if session.is_over() {
            return Next::Ended;
        }
        let why = Arc::new(ended.why.unwrap_or(ConnectionError::EndOfStream));
        shared
            .events
            .push(Event::Disconnected { why, in_flight: 0 });
        Next::Detached
    }

    /// Waits for the client to connect again.
    async fn wait(&mut self) -> Next {
        let (SessionGuard { session, shared }, reading) = (&mut self.guarded, &mut self.reading);
        self.registry
            .set_detached(&self.id, shared, Some(Instant::now()));
        loop {
            tokio::select! {
                biased;
                newcomer = self.newcomers.next() => {
                    let Some(newcomer) = newcomer else { return Next::Evicted };
                    if let Some(ws) = resume(session, newcomer, shared) {
                        return Next::Connection(Box::new(ws));
                    }
                }
                () = session.serve_detached(shared, reading) => return Next::Ended,
            }
        }
    }
}

/// Resumes the session on a new connection, or refuses it.
fn resume(
    session: &mut Session,
    newcomer: Box<Newcomer>,
    shared: &Shared,
) -> Option<WebSocket<Transport>> {
    match session.resume(&newcomer.hello, shared) {
        Ok(()) => {
            shared.set_identity(newcomer.identity);
            let _ = newcomer.answer.send(Ok(()));
            Some(newcomer.ws)
        }
        Err(rejection) => {
            newcomer.refuse(rejection);
            None
        }
    }
}
