//! A server's sessions: which there are, who may resume them, and which go first.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tracing::Instrument;
use unstall_proto::{Epoch, Hello, Rejection, Session, SessionId, Token, limits::MAX_PACKET};

use super::{Link, packets::Packets, random};
use crate::{
    connection::{Connection, TaskGuard, span},
    defaults,
    error::{CloseCode, ConnectionError},
    events::Event,
    message::Gap,
    options::Options,
    pump::Pump,
    shared::{Identity, Shared},
    transport::{Transport, Upgraded},
    ws::{Received, Side, WebSocket},
};

/// Who a client is, as the authentication hook found: put it into the request's extensions. A
/// session is resumed only by the principal that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub String);

/// How many sessions a server keeps, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    pub(crate) sessions: usize,
    pub(crate) bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions: defaults::SERVER_SESSIONS,
            bytes: defaults::SERVER_SESSION_BYTES,
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

    /// Bytes that all sessions together may keep for replay and for their applications. Default
    /// 1 GiB. Beyond it, sessions without a connection are ended, the longest away first.
    pub fn bytes(mut self, bytes: usize) -> SessionLimits {
        self.bytes = bytes;
        self
    }
}

/// A connection that has said HELLO for a session that exists.
struct Newcomer {
    hello: Hello,
    ws: WebSocket<Transport>,
    identity: Identity,
}

struct Entry {
    mailbox: mpsc::Sender<Newcomer>,
    principal: Option<Principal>,
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
    /// Since when it has no connection.
    detached: Option<Instant>,
}

/// What became of a connection that asked for a session.
pub(crate) enum Attached {
    New(Connection, AbortHandle),
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
    entries: Mutex<HashMap<SessionId, Entry>>,
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
            request: Some(Arc::new(request)),
            response: None,
        };
        let mut ws = over_packets(upgraded, Side::Server, options);
        let hello = read_hello(&mut ws).await?;
        let principal = identity
            .request
            .as_ref()
            .and_then(|request| request.extensions().get::<Principal>().cloned());
        let mailbox = match self.find(&hello.id, &principal) {
            Ok(mailbox) => mailbox,
            Err(rejection) => return Ok(refuse(ws, rejection)),
        };
        if let Some(mailbox) = mailbox {
            let newcomer = Newcomer {
                hello,
                ws,
                identity,
            };
            return Ok(match mailbox.try_send(newcomer) {
                Ok(()) => Attached::Resumed,
                Err(error) => refuse(error.into_inner().ws, Rejection::Superseded),
            });
        }
        Ok(self.open(hello, ws, identity, principal, options))
    }

    fn find(
        &self,
        id: &SessionId,
        principal: &Option<Principal>,
    ) -> Result<Option<mpsc::Sender<Newcomer>>, Rejection> {
        match self.entries.lock().unwrap().get(id) {
            Some(entry) if entry.principal != *principal => Err(Rejection::NotYours),
            Some(entry) => Ok(Some(entry.mailbox.clone())),
            None => Ok(None),
        }
    }

    fn open(
        self: &Arc<Self>,
        hello: Hello,
        ws: WebSocket<Transport>,
        identity: Identity,
        principal: Option<Principal>,
        options: &Options,
    ) -> Attached {
        if !self.make_room() {
            let retry_after_millis = defaults::SERVER_RETRY_AFTER.as_millis() as u64;
            return refuse(ws, Rejection::Full { retry_after_millis });
        }
        let shared = Shared::new(options.clone(), identity);
        let token = Token(random());
        let config = options.session_config();
        let (session, generation) = match Session::server(config, &hello, self.epoch, token) {
            Ok(opened) => opened,
            Err(rejection) => return refuse(ws, rejection),
        };
        let mut link = Link::new(session, &shared, self.origin);
        link.attached(generation);
        let (mailbox, newcomers) = mpsc::channel(1);
        let entry = Entry {
            mailbox,
            principal,
            shared: shared.clone(),
            task: None,
            detached: None,
        };
        let id = hello.id;
        self.entries.lock().unwrap().insert(id, entry);
        let (connection, guard) = Connection::over(shared.clone());
        let span = span(&shared);
        let keeper = Keeper {
            registry: self.clone(),
            id,
            shared,
            link,
            newcomers,
        };
        let task = tokio::spawn(keeper.run(ws, guard).instrument(span)).abort_handle();
        if let Some(entry) = self.entries.lock().unwrap().get_mut(&id) {
            entry.task = Some(task.clone());
        }
        Attached::New(connection, task)
    }

    /// Makes room for one more session; `false` if all that there are have a connection.
    fn make_room(&self) -> bool {
        let mut entries = self.entries.lock().unwrap();
        loop {
            let bytes: u64 = entries
                .values()
                .map(|entry| entry.shared.board.held_bytes())
                .sum();
            let full = entries.len() >= self.limits.sessions;
            if !full && bytes <= self.limits.bytes as u64 {
                return true;
            }
            let longest = entries
                .iter()
                .filter_map(|(id, entry)| entry.detached.map(|since| (since, *id)))
                .min_by_key(|(since, _)| *since);
            let Some((_, id)) = longest else { return !full };
            let Some(entry) = entries.remove(&id) else {
                return !full;
            };
            // Its mailbox goes with the entry, which is how the session learns of it.
            drop(entry);
        }
    }

    fn set_detached(&self, id: &SessionId, detached: Option<Instant>) {
        if let Some(entry) = self.entries.lock().unwrap().get_mut(id) {
            entry.detached = detached;
        }
    }

    fn remove(&self, id: &SessionId) {
        self.entries.lock().unwrap().remove(id);
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

/// A session's packets are bounded by the protocol, and never cut into frames.
pub(crate) fn over_packets(
    upgraded: Upgraded,
    side: Side,
    options: &Options,
) -> WebSocket<Transport> {
    let packets = options
        .clone()
        .max_message_bytes(MAX_PACKET)
        .fragment_bytes(usize::MAX);
    WebSocket::new(upgraded.transport, upgraded.leftover, side, &packets)
}

async fn read_hello(ws: &mut WebSocket<Transport>) -> Result<Hello, ConnectionError> {
    let protocol = |why: String| ConnectionError::Protocol(why);
    loop {
        let received = std::future::poll_fn(|cx| ws.poll_read(cx)).await;
        match received {
            Ok(Received::Message(packet)) => {
                return Hello::from_packet(packet.into_bytes())
                    .map_err(|error| protocol(error.to_string()));
            }
            Ok(Received::Ping | Received::Pong(_)) => {}
            Ok(Received::Close(_)) | Err(crate::ws::Failure::Closed) => {
                return Err(ConnectionError::EndOfStream);
            }
            Err(crate::ws::Failure::Broken(why)) => return Err(why),
        }
    }
}

/// Tells the client why, beside.
fn refuse(mut ws: WebSocket<Transport>, rejection: Rejection) -> Attached {
    let tell = async move {
        if ws.write_packet(rejection.to_packet()).is_err()
            || ws.close(CloseCode::NORMAL, &rejection.to_string()).is_err()
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
    Attached::Refused(rejection)
}

/// The task of one session on a server.
struct Keeper {
    registry: Arc<Registry>,
    id: SessionId,
    shared: Arc<Shared>,
    link: Link,
    newcomers: mpsc::Receiver<Newcomer>,
}

/// What ended a wait.
enum Next {
    Connection(Box<WebSocket<Transport>>),
    Detached,
    /// The registry gave the session up.
    Evicted,
    Over,
}

impl Keeper {
    async fn run(mut self, ws: WebSocket<Transport>, guard: TaskGuard) {
        let mut next = Next::Connection(Box::new(ws));
        loop {
            next = match next {
                Next::Connection(ws) => self.converse(*ws).await,
                Next::Detached => self.wait().await,
                Next::Evicted => {
                    self.link.session().abort("the server had to make room");
                    Next::Over
                }
                Next::Over => break,
            };
        }
        self.registry.remove(&self.id);
        let Keeper { shared, link, .. } = self;
        link.finish(&shared).await;
        drop(guard);
    }

    /// Carries the session over one connection.
    async fn converse(&mut self, ws: WebSocket<Transport>) -> Next {
        self.registry.set_detached(&self.id, None);
        let shared = self.shared.clone();
        let mut pump = Pump::new(ws, shared.clone(), Packets(&mut self.link));
        let ended = loop {
            tokio::select! {
                biased;
                newcomer = self.newcomers.recv() => {
                    let Some(newcomer) = newcomer else { return Next::Evicted };
                    // The older connection is dropped with its pump.
                    match resume(pump.traffic().0, newcomer, &shared) {
                        Some(ws) => return Next::Connection(Box::new(ws)),
                        None => continue,
                    }
                }
                ended = pump.run() => break ended,
            }
        };
        drop(pump);
        self.link.detach(&shared, Instant::now());
        if self.link.is_over() || self.link.end().is_some() {
            return Next::Over;
        }
        let why = Arc::new(ended.why.unwrap_or(ConnectionError::EndOfStream));
        shared
            .events
            .push(Event::Disconnected { why, in_flight: 0 });
        Next::Detached
    }

    /// Waits for the client to come back.
    async fn wait(&mut self) -> Next {
        self.registry.set_detached(&self.id, Some(Instant::now()));
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                biased;
                newcomer = self.newcomers.recv() => {
                    let Some(newcomer) = newcomer else { return Next::Evicted };
                    if let Some(ws) = resume(&mut self.link, newcomer, &shared) {
                        return Next::Connection(Box::new(ws));
                    }
                }
                () = self.link.serve_detached(&shared) => return Next::Over,
            }
        }
    }
}

/// Resumes the session on a new connection, or refuses it.
fn resume(link: &mut Link, newcomer: Newcomer, shared: &Shared) -> Option<WebSocket<Transport>> {
    let Newcomer {
        hello,
        ws,
        identity,
    } = newcomer;
    let now = Instant::now();
    match link.session().resume(&hello, Token(random())) {
        Ok(generation) => {
            link.lose(now);
            link.attached(generation);
            shared.set_identity(identity);
            Some(ws)
        }
        Err(rejection) => {
            refuse(ws, rejection);
            None
        }
    }
}

impl Link {
    /// Ends the handle with the session.
    pub(crate) async fn finish(mut self, shared: &Shared) {
        let end = self.conclude(shared);
        let report = self.report(end.clone());
        shared.end(end.clone(), report);
        if let Some(why) = &end {
            self.mark(Gap::SessionLost { why: why.clone() });
        }
        self.drain(shared).await;
        shared.inbox.end(end);
    }
}
