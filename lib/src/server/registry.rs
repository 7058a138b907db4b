//! A server's sessions: which there are, who may resume them, and which go first.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tracing::Instrument;
use unstall_proto::{self as proto, Epoch, Hello, Rejection, SessionId, Token};

use super::{
    handshake,
    keeper::{Keeper, Newcomer},
};
use crate::{
    defaults,
    handles::{Connection, Identity, Shared, span},
    pump::Reading,
    reports::{CloseCode, ConnectionError},
    session::{Kept, Session, over_packets, random},
    settings::{Budget, Options},
    ws::{
        Failure, Received, Side, WebSocket,
        transport::{Transport, Upgraded},
    },
};

/// Who a client is, as the authentication hook found: put it into the request's extensions. A
/// session is resumed only by the principal that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub String);

/// How many sessions a server keeps, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    pub(crate) sessions: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions: defaults::SERVER_SESSIONS,
        }
    }
}

impl SessionLimits {
    /// Sessions at once, with or without a connection. Default 20,000. When there are more, the
    /// one that has been without a connection for longest is ended first; if all have one, the
    /// newcomer is told that the server is full.
    pub fn sessions(mut self, sessions: usize) -> SessionLimits {
        self.sessions = sessions;
        self
    }
}

struct Entry {
    mailbox: mpsc::Sender<Box<Newcomer>>,
    principal: Option<Principal>,
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
    /// Since when it has no connection.
    detached: Option<Instant>,
}

type Entries = HashMap<SessionId, Entry>;

/// What became of a connection that asked for a session.
pub(crate) enum Attached {
    New(Box<Connection>, AbortHandle),
    Resumed,
    Refused(Rejection),
}

/// The sessions of a server, or of the routes of one that share them.
///
/// A [`Server`](crate::Server) makes its own. With axum, make one, keep it in the application's
/// state, and give it to each [`Upgrade`](crate::axum::Upgrade).
#[derive(Clone, Debug)]
pub struct Sessions(pub(crate) Arc<Registry>);

impl Sessions {
    /// No sessions yet.
    pub fn new(limits: SessionLimits) -> Sessions {
        Sessions(Registry::new(limits))
    }

    /// Sessions in all, with or without a connection.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions without a connection now.
    pub fn detached(&self) -> usize {
        self.0.detached()
    }

    /// Asks every session to close with code 1001, within its
    /// [`Options::close_timeout`](crate::Options::close_timeout), and its client to come back, to
    /// another server, at a random moment within `spread`. [`Server`](crate::Server) does so when it
    /// shuts down.
    pub fn close_all(&self, spread: Duration) {
        self.0.close_all(spread);
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::new(SessionLimits::default())
    }
}

pub(crate) struct Registry {
    epoch: Epoch,
    limits: SessionLimits,
    origin: Instant,
    /// What sessions may hold together where the options bring no budget.
    budget: Budget,
    entries: Mutex<Entries>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sessions = self.entries.lock().unwrap().len();
        f.debug_struct("Registry")
            .field("sessions", &sessions)
            .finish()
    }
}

impl Registry {
    pub(crate) fn new(limits: SessionLimits) -> Arc<Registry> {
        let epoch = NonZeroU64::new(u64::from_be_bytes(random())).unwrap_or(NonZeroU64::MIN);
        Arc::new(Registry {
            epoch: Epoch(epoch),
            limits,
            origin: Instant::now(),
            budget: Budget::new(defaults::SERVER_PROCESS_BYTES),
            entries: Mutex::default(),
        })
    }

    /// Hears a new connection's HELLO, and opens the session or hands the connection to it.
    pub(crate) async fn attach(
        self: &Arc<Self>,
        upgraded: Upgraded,
        request: http::Request<()>,
        options: &Options,
    ) -> Result<Attached, ConnectionError> {
        let identity = Identity {
            local: upgraded.local,
            peer: upgraded.peer,
            subprotocol: upgraded.subprotocol.clone(),
            request: Some(Arc::new(handshake::apart(request))),
            response: None,
        };
        let mut ws = over_packets(upgraded, Side::Server, options);
        let hello = match read_hello(&mut ws).await {
            Ok(hello) => hello,
            Err(error) => {
                if let ConnectionError::Protocol(why) = &error {
                    dismiss(ws, None, CloseCode::PROTOCOL_ERROR, why.clone());
                }
                return Err(error);
            }
        };
        let principal = identity
            .request
            .as_ref()
            .and_then(|request| request.extensions().get::<Principal>().cloned());
        loop {
            let mailbox = match self.find(&hello.id, &principal) {
                Ok(mailbox) => mailbox,
                Err(rejection) => return Ok(refuse(ws, rejection)),
            };
            if let Some(mailbox) = mailbox {
                return Ok(hand_over(&mailbox, hello, ws, identity).await);
            }
            let opened = self.open(&hello, identity.clone(), principal.clone(), options);
            match opened {
                Ok((connection, keeper)) => {
                    let task = self.start(keeper, ws);
                    return Ok(Attached::New(Box::new(connection), task));
                }
                Err(Some(rejection)) => return Ok(refuse(ws, rejection)),
                // Another connection of the same session was faster.
                Err(None) => {}
            }
        }
    }

    fn find(
        &self,
        id: &SessionId,
        principal: &Option<Principal>,
    ) -> Result<Option<mpsc::Sender<Box<Newcomer>>>, Rejection> {
        match self.entries.lock().unwrap().get(id) {
            Some(entry) if entry.principal != *principal => Err(Rejection::NotYours),
            Some(entry) => Ok(Some(entry.mailbox.clone())),
            None => Ok(None),
        }
    }

    /// Makes a new session. `Err(None)`: it exists already.
    fn open(
        self: &Arc<Self>,
        hello: &Hello,
        identity: Identity,
        principal: Option<Principal>,
        options: &Options,
    ) -> Result<(Connection, Box<Keeper>), Option<Rejection>> {
        let config = options.session_config();
        let (protocol, generation) =
            proto::Session::server(config, hello, self.epoch, Token(random()))?;
        let mut options = options.clone();
        if options.budget.is_none() {
            options = options.budget(self.budget.clone());
        }
        let shared = Shared::new(options, identity);
        let mut session = Session::new(protocol, self.origin, &shared.account);
        session.attached(generation);
        let (mailbox, newcomers) = mpsc::channel(1);
        {
            let mut entries = self.entries.lock().unwrap();
            if entries.contains_key(&hello.id) {
                return Err(None);
            }
            if !self.make_room(&mut entries, 1) {
                let retry_after_millis = defaults::SERVER_RETRY_AFTER.as_millis() as u64;
                return Err(Some(Rejection::Full { retry_after_millis }));
            }
            let entry = Entry {
                mailbox,
                principal,
                shared: shared.clone(),
                task: None,
                detached: None,
            };
            entries.insert(hello.id, entry);
        }
        let (connection, guard) = Connection::over(shared.clone());
        let keeper = Box::new(Keeper {
            registry: self.clone(),
            id: hello.id,
            reading: Reading::new(&shared.options),
            kept: Kept::new(session, shared),
            newcomers,
            _guard: guard,
        });
        Ok((connection, keeper))
    }

    fn start(&self, keeper: Box<Keeper>, ws: WebSocket<Transport>) -> AbortHandle {
        let (id, shared) = (keeper.id, keeper.kept.shared.clone());
        let task = tokio::spawn(keeper.run(Box::new(ws)).instrument(span(&shared))).abort_handle();
        self.with_entry(&id, &shared, |entry| entry.task = Some(task.clone()));
        task
    }

    /// Makes room for so many sessions more: ends those without a connection, the longest away
    /// first. `false` if that is not enough.
    fn make_room(&self, entries: &mut Entries, more: usize) -> bool {
        while entries.len() + more > self.limits.sessions {
            let longest = entries
                .iter()
                .filter_map(|(id, entry)| entry.detached.map(|since| (since, *id)))
                .min_by_key(|(since, _)| *since);
            // Its mailbox goes with the entry, which is how the session learns of it.
            if longest.and_then(|(_, id)| entries.remove(&id)).is_none() {
                return false;
            }
        }
        true
    }

    fn with_entry(&self, id: &SessionId, shared: &Arc<Shared>, act: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock().unwrap();
        // After an eviction another session may have the name.
        if let Some(entry) = entries.get_mut(id)
            && Arc::ptr_eq(&entry.shared, shared)
        {
            act(entry);
        }
    }

    pub(super) fn set_detached(
        &self,
        id: &SessionId,
        shared: &Arc<Shared>,
        detached: Option<Instant>,
    ) {
        self.with_entry(id, shared, |entry| entry.detached = detached);
    }

    pub(super) fn remove(&self, id: &SessionId, shared: &Arc<Shared>) {
        let mut entries = self.entries.lock().unwrap();
        if entries
            .get(id)
            .is_some_and(|entry| Arc::ptr_eq(&entry.shared, shared))
        {
            entries.remove(id);
        }
    }

    /// Sessions without a connection now.
    pub(crate) fn detached(&self) -> usize {
        let entries = self.entries.lock().unwrap();
        entries
            .values()
            .filter(|entry| entry.detached.is_some())
            .count()
    }

    /// Sessions in all.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    /// Asks every session to close, its clients to come back within `spread`.
    pub(crate) fn close_all(&self, spread: Duration) {
        for entry in self.entries.lock().unwrap().values() {
            entry.shared.board.go_away(spread);
            entry
                .shared
                .request_close(CloseCode::GOING_AWAY, "the server shuts down");
        }
    }

    /// Ends what is left at once.
    pub(crate) fn abort_all(&self) -> usize {
        let entries = std::mem::take(&mut *self.entries.lock().unwrap());
        entries
            .values()
            .filter_map(|entry| entry.task.as_ref())
            .for_each(AbortHandle::abort);
        entries.len()
    }
}

async fn read_hello(ws: &mut WebSocket<Transport>) -> Result<Hello, ConnectionError> {
    let protocol = |why: String| ConnectionError::Protocol(why);
    loop {
        let hello = std::future::poll_fn(|cx| {
            ws.poll_read(cx).map(|received| match received {
                Ok(Received::Message { payload, .. }) => Ok(Some(payload.into_bytes())),
                Ok(Received::Part(_) | Received::Ping | Received::Pong(_)) => Ok(None),
                Ok(Received::Close(_)) | Err(Failure::Closed) => Err(ConnectionError::EndOfStream),
                Err(Failure::Broken(why)) => Err(why),
            })
        });
        if let Some(packet) = hello.await? {
            return Hello::from_packet(packet).map_err(|error| protocol(error.to_string()));
        }
        // However many frames stand before it, others have their turn.
        tokio::task::coop::consume_budget().await;
    }
}

/// Hands the connection to the session that it asks for.
async fn hand_over(
    mailbox: &mpsc::Sender<Box<Newcomer>>,
    hello: Hello,
    ws: WebSocket<Transport>,
    identity: Identity,
) -> Attached {
    let (answer, answered) = oneshot::channel();
    let newcomer = Box::new(Newcomer {
        hello,
        ws,
        identity,
        answer,
    });
    if let Err(error) = mailbox.send(newcomer).await {
        return refuse(error.0.ws, Rejection::Expired);
    }
    match answered.await {
        Ok(Ok(())) => Attached::Resumed,
        Ok(Err(rejection)) => Attached::Refused(rejection),
        Err(_) => Attached::Refused(Rejection::Expired),
    }
}

/// Tells the client why, beside.
pub(super) fn refuse(ws: WebSocket<Transport>, rejection: Rejection) -> Attached {
    let packet = Some(rejection.to_packet());
    dismiss(ws, packet, CloseCode::NORMAL, rejection.to_string());
    Attached::Refused(rejection)
}

/// Says the last words on a connection, beside.
fn dismiss(mut ws: WebSocket<Transport>, packet: Option<Bytes>, code: CloseCode, why: String) {
    let tell = async move {
        if packet.is_some_and(|packet| ws.write_packet(packet.into()).is_err())
            || ws.close(code, &why).is_err()
        {
            return;
        }
        let flushed = std::future::poll_fn(|cx| ws.poll_flush(cx)).await;
        if flushed.is_ok() {
            std::future::poll_fn(|cx| ws.poll_linger(cx)).await;
        }
    };
    // The connection holds its place among the server's until then.
    tokio::spawn(timeout(defaults::SERVER_REFUSAL_TIMEOUT, tell));
}
