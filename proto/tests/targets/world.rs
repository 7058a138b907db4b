//! A client and a server joined by connections that can be lost at any moment, and an action for
//! each single thing that can happen. The model checker tries all of them in every order; the
//! fuzzer tries scripts of them. Whatever breaks a promise is noted in [`Pair::broken`].

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use unstall_proto::{
    CloseFrame, Config, EndReason, Epoch, Event, Fate, Generation, HandleError, Hello, Incoming,
    Kind, Position, Rejection, SendError, Session, SessionId, Side, Time, Token,
};

const EPOCH: Epoch = Epoch(NonZeroU64::MIN);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The application sends a message of that kind and length.
    Send(Side, Kind, usize),
    /// The client connects, also while an older connection is still there.
    Connect,
    /// The current connection takes one packet.
    Transmit(Side),
    /// The next packet on the way to that side arrives.
    Deliver(usize, Side),
    /// That side loses the connection. What is on its way from it may still arrive.
    Lose(usize, Side),
    /// The application receives one batch, without saying that it has it.
    Receive(Side),
    /// The application says that it has taken what it received.
    Take(Side),
    /// The application says that it has processed what it received.
    Acknowledge(Side),
    /// The application closes, to be done within that time.
    Close(Side, Duration),
    /// The application ends the session at once.
    Abort(Side),
    /// The application asks for a sign of life.
    Ping(Side),
    /// The server asks the client to move.
    GoAway,
    /// The side's next timer fires.
    Timeout(Side),
}

/// A message that was accepted.
type Sent = (Kind, usize);

/// One session with its application.
#[derive(Clone, Debug)]
pub struct End {
    pub session: Session,
    sent: Vec<Sent>,
    /// How many messages the application has received.
    received: usize,
    /// The end of what the application has received, and of what it has said to have.
    held: Position,
    taken: Position,
    opened: bool,
    /// One side has closed.
    closing: bool,
    ended: Option<EndReason>,
    /// The application was told that nothing more comes; whether cleanly.
    told: Option<bool>,
}

/// A connection: what is on its way in both directions.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Generation,
    /// The server's session and generation, once HELLO was granted.
    server: Option<(usize, Generation)>,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    client_open: bool,
    server_open: bool,
}

/// What a session may hold, in bytes as credit counts them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub window: u64,
    /// The cost of one largest message.
    pub message: u64,
    pub replay: u64,
}

/// Both sides and the connections between them.
#[derive(Clone, Debug)]
pub struct Pair {
    pub now: Time,
    config: Config,
    limits: Limits,
    pub client: End,
    /// The server's sessions. A second one opens when the first has ended before the client knew
    /// of it, or when a HELLO from before the first WELCOME arrives after everything is over.
    pub servers: Vec<End>,
    /// The server's session that the client has opened.
    peer: Option<usize>,
    pub connections: Vec<Connection>,
    /// The promise that was broken first.
    pub broken: Option<String>,
}

/// Letters in an order that tells each place from those nearby. Messages are pieces of it, so that
/// making and checking them costs next to nothing.
static LETTERS: LazyLock<String> = LazyLock::new(|| {
    let letter = |at: usize| char::from(b'a' + ((at * 7 + at / 251) % 26) as u8);
    (0..300_000).map(letter).collect()
});

/// The message of that index and length, from the client (0) or one of the server's sessions.
fn content(index: usize, origin: usize, length: usize) -> &'static str {
    let start = (index * 7 + origin * 3) % 26;
    &LETTERS[start..start + length]
}

impl End {
    fn new(session: Session) -> End {
        End {
            session,
            sent: Vec::new(),
            received: 0,
            held: Position::START,
            taken: Position::START,
            opened: false,
            closing: false,
            ended: None,
            told: None,
        }
    }

    /// How many messages were accepted for sending.
    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// How many messages the application has received.
    pub fn received(&self) -> usize {
        self.received
    }

    pub fn ended(&self) -> Option<&EndReason> {
        self.ended.as_ref()
    }

    /// Whether the application has something that it did not say to have.
    pub fn has_held(&self) -> bool {
        self.held > self.taken
    }

    /// Whether messages are accepted.
    pub fn is_open(&self) -> bool {
        !self.closing && self.ended.is_none()
    }

    /// Whether the session ended with everything delivered.
    pub fn is_closed(&self) -> bool {
        matches!(self.ended, Some(EndReason::Closed(_)))
    }

    /// Whether there may be something to receive.
    pub fn may_receive(&self) -> bool {
        self.session.stats().untaken_cost > 0 || (!self.is_open() && self.told.is_none())
    }

    /// Whether everything accepted was acknowledged.
    pub fn is_delivered(&self) -> bool {
        self.session.acknowledged() == self.session.accepted()
    }

    /// The next batch or the end: whether there was something, or what was wrong with it.
    fn receive(&mut self, peer: &[Sent], origin: usize) -> Result<bool, String> {
        match self.session.recv() {
            Some(Incoming::Messages(batch)) => {
                if self.told.is_some() {
                    return Err("a message came after the end".into());
                }
                self.held = batch.end();
                for message in batch {
                    check_message(message.kind, &message.payload, peer, self.received, origin)?;
                    self.received += 1;
                }
                Ok(true)
            }
            Some(end) if self.told.is_none() => {
                self.told = Some(matches!(end, Incoming::Closed(_)));
                Ok(true)
            }
            Some(_) => Err("the end was told twice".into()),
            None => Ok(false),
        }
    }
}

/// Whether it is the message that comes next: once and in order.
fn check_message(
    kind: Kind,
    payload: &[u8],
    peer: &[Sent],
    index: usize,
    origin: usize,
) -> Result<(), String> {
    match peer.get(index) {
        Some((sent, length)) if *sent == kind && *length == payload.len() => {}
        other => {
            let length = payload.len();
            return Err(format!(
                "message {index} is {kind:?} {length}, sent was {other:?}"
            ));
        }
    }
    match payload == content(index, origin, payload.len()).as_bytes() {
        true => Ok(()),
        false => Err(format!("message {index} has the wrong content")),
    }
}

impl Connection {
    /// What the parties still see of it.
    pub fn is_open(&self, side: Side) -> bool {
        match side {
            Side::Client => self.client_open,
            Side::Server => self.server_open,
        }
    }

    pub fn has_packet_to(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.to_client.is_empty(),
            Side::Server => !self.to_server.is_empty(),
        }
    }
}

impl Pair {
    pub fn new(client: Config, server: Config, limits: Limits) -> Pair {
        let session = Session::client(client, SessionId([1; 16]), Token([0xff; 16]));
        Pair {
            now: Time::ORIGIN,
            config: server,
            limits,
            client: End::new(session),
            servers: Vec::new(),
            peer: None,
            connections: Vec::new(),
            broken: None,
        }
    }

    /// What tells two states apart. Messages and data packets count by their positions.
    pub fn fingerprint<H: Hasher>(&self, state: &mut H) {
        for end in self.servers.iter().chain([&self.client]) {
            end.session.hash(state);
            (end.sent.len(), end.received, end.held, end.taken).hash(state);
            (end.opened, end.closing, end.told, &end.ended).hash(state);
        }
        (self.servers.len(), self.peer).hash(state);
        for connection in &self.connections {
            (connection.client, connection.server).hash(state);
            (connection.client_open, connection.server_open).hash(state);
            for queue in [&connection.to_server, &connection.to_client] {
                queue.len().hash(state);
                for packet in queue {
                    (packet.len(), &packet[..packet.len().min(128)]).hash(state);
                }
            }
        }
        self.broken.hash(state);
    }

    pub fn end(&self, side: Side) -> Option<&End> {
        match side {
            Side::Client => Some(&self.client),
            Side::Server => self.servers.last(),
        }
    }

    fn end_mut(&mut self, side: Side) -> Option<&mut End> {
        match side {
            Side::Client => Some(&mut self.client),
            Side::Server => self.servers.last_mut(),
        }
    }

    /// The connection that carries the side's session now.
    pub fn current(&self, side: Side) -> Option<usize> {
        let end = self.end(side)?;
        self.connections.iter().position(|connection| match side {
            Side::Client => end.session.is_current(connection.client),
            Side::Server => connection.server.is_some_and(|(index, generation)| {
                index + 1 == self.servers.len() && end.session.is_current(generation)
            }),
        })
    }

    /// Does what happens. What cannot happen now has no effect.
    pub fn apply(&mut self, action: Action) {
        if let Err(broken) = self.act(action) {
            self.broken.get_or_insert(format!("{action:?}: {broken}"));
        }
        if let Err(broken) = self.check() {
            self.broken.get_or_insert(format!("{action:?}: {broken}"));
        }
    }

    /// Whether the server holds another session than the client's, which is over.
    fn is_usurped(&self) -> bool {
        self.peer.is_some_and(|peer| peer + 1 < self.servers.len())
    }

    /// Whether a packet of an older connection is on its way to the server's session.
    pub fn has_straggler(&self) -> bool {
        let current = self.current(Side::Server);
        let mut older = self.connections.iter().take(current.unwrap_or(0));
        older
            .any(|connection| connection.server.is_some() && connection.has_packet_to(Side::Server))
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        let now = self.now;
        match action {
            Action::Connect => {
                self.connect();
                return Ok(());
            }
            Action::Transmit(side) => {
                self.transmit(side);
                return Ok(());
            }
            Action::Deliver(index, side) => return self.deliver(index, side),
            Action::Lose(index, side) => {
                self.lose(index, side);
                return Ok(());
            }
            Action::Receive(side) => {
                return self.receive(side).map(drop);
            }
            _ => {}
        }
        let (Action::Send(side, ..)
        | Action::Take(side)
        | Action::Acknowledge(side)
        | Action::Close(side, _)
        | Action::Abort(side)
        | Action::Ping(side)
        | Action::Timeout(side)) = action
        else {
            if let Some(server) = self.servers.last_mut() {
                server.session.go_away(Duration::from_secs(1), "moving");
            }
            return Ok(());
        };
        let origin = self.servers.len();
        let Some(end) = self.end_mut(side) else {
            return Ok(());
        };
        match action {
            Action::Send(_, kind, length) => {
                let origin = if side == Side::Client { 0 } else { origin };
                return end.send(kind, length, origin);
            }
            Action::Take(_) => {
                end.taken = end.held;
                assert!(end.session.taken(now, end.held));
            }
            Action::Acknowledge(_) => {
                end.taken = end.held;
                assert!(end.session.acknowledge(now, end.held));
            }
            Action::Close(_, within) => {
                end.closing = true;
                end.session
                    .close(now, CloseFrame::new(1000, "done"), within);
            }
            Action::Abort(_) => end.session.abort("enough"),
            Action::Ping(_) => end.session.ping(),
            Action::Timeout(_) => {
                if let Some(at) = end.session.poll_timeout() {
                    end.session.handle_timeout(at);
                }
            }
            _ => {}
        }
        self.hear(side)
    }

    fn connect(&mut self) {
        if let Some(client) = self.client.session.attach(self.now) {
            self.connections.push(Connection {
                client,
                server: None,
                to_server: VecDeque::new(),
                to_client: VecDeque::new(),
                client_open: true,
                server_open: true,
            });
        }
    }

    fn transmit(&mut self, side: Side) {
        let (Some(index), now) = (self.current(side), self.now) else {
            return;
        };
        let connection = &mut self.connections[index];
        match side {
            Side::Client => {
                let packet = self.client.session.poll_transmit(now, connection.client);
                connection.to_server.extend(packet);
            }
            Side::Server => {
                if let (Some(end), Some((_, generation))) =
                    (self.servers.last_mut(), connection.server)
                {
                    let packet = end.session.poll_transmit(now, generation);
                    connection.to_client.extend(packet);
                }
            }
        }
        connection.sweep();
    }

    fn deliver(&mut self, index: usize, side: Side) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        let queue = match side {
            Side::Client => &mut connection.to_client,
            Side::Server => &mut connection.to_server,
        };
        let Some(packet) = queue.pop_front() else {
            return Ok(());
        };
        let (client, server) = (connection.client, connection.server);
        let now = self.now;
        let (result, fenced) = match (side, server) {
            (Side::Server, None) => return self.greet(index, packet),
            (Side::Server, Some((session, generation))) => {
                let session = &mut self.servers[session].session;
                let fenced = !session.is_current(generation);
                (session.handle_packet(now, generation, packet), fenced)
            }
            (Side::Client, _) => {
                let session = &mut self.client.session;
                let fenced = !session.is_current(client);
                (session.handle_packet(now, client, packet), fenced)
            }
        };
        match result {
            Ok(()) if fenced => return Err("a packet of an older connection was taken".into()),
            Ok(()) => {}
            Err(HandleError::Superseded) if fenced => self.lose(index, side),
            Err(HandleError::Rejected(Rejection::Expired)) => self.lose(index, side),
            // A session that a late HELLO has opened again stands where the client's was.
            Err(HandleError::Rejected(Rejection::NotYours)) if self.is_usurped() => {
                self.lose(index, side);
            }
            Err(error) => return Err(format!("an honest peer was refused: {error}")),
        }
        self.hear(side)?;
        if side == Side::Client && self.client.opened && self.peer.is_none() {
            self.peer = server.map(|(session, _)| session);
        }
        Ok(())
    }

    /// The server looks the session up, as a server does.
    fn greet(&mut self, index: usize, packet: Bytes) -> Result<(), String> {
        let hello = Hello::from_packet(packet).map_err(|error| error.to_string())?;
        // A token for each generation.
        let token = Token([hello.generation.get() as u8; 16]);
        let result = match self.servers.last_mut() {
            Some(end) if !end.session.is_over() => end.session.resume(&hello, token),
            _ => Session::server(self.config.clone(), &hello, EPOCH, token).map(|(session, on)| {
                self.servers.push(End::new(session));
                on
            }),
        };
        let last = self.servers.len().saturating_sub(1);
        let connection = &mut self.connections[index];
        match result {
            Ok(generation) => connection.server = Some((last, generation)),
            Err(rejection) => {
                connection.to_client.push_back(rejection.to_packet());
                connection.server_open = false;
                connection.sweep();
            }
        }
        self.hear(Side::Server)
    }

    fn lose(&mut self, index: usize, side: Side) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        match (side, connection.server) {
            (Side::Client, _) => {
                connection.client_open = false;
                self.client.session.detach(now, connection.client);
            }
            (Side::Server, server) => {
                connection.server_open = false;
                if let Some((session, generation)) = server {
                    self.servers[session].session.detach(now, generation);
                }
            }
        }
        connection.sweep();
        if let Err(broken) = self.hear(side) {
            self.broken.get_or_insert(broken);
        }
    }

    /// The application receives the next batch: whether there was something.
    pub fn receive(&mut self, side: Side) -> Result<bool, String> {
        match (side, self.peer, self.servers.last_mut()) {
            (Side::Client, Some(peer), _) => {
                self.client.receive(&self.servers[peer].sent, peer + 1)
            }
            (Side::Client, None, _) => self.client.receive(&[], 0),
            (Side::Server, _, Some(server)) => server.receive(&self.client.sent, 0),
            (Side::Server, _, None) => Ok(false),
        }
    }

    /// The application receives all that there is: whether there was something.
    pub fn receive_all(&mut self, side: Side) -> bool {
        let mut some = false;
        loop {
            match self.receive(side) {
                Ok(true) => some = true,
                Ok(false) => return some,
                Err(broken) => {
                    self.broken.get_or_insert(broken);
                    return true;
                }
            }
        }
    }

    /// Whether the current connection would get a packet from that side.
    pub fn wants_transmit(&self, side: Side) -> bool {
        let wants = |end: &End| end.session.wants_transmit();
        self.current(side).is_some() && self.end(side).is_some_and(wants)
    }

    /// What the session reports.
    fn hear(&mut self, side: Side) -> Result<(), String> {
        let Some(end) = self.end_mut(side) else {
            return Ok(());
        };
        let mut lost = None;
        while let Some(event) = end.session.poll_event() {
            match event {
                Event::Opened => end.opened = true,
                Event::Closing(_) => end.closing = true,
                Event::HandshakeTimedOut(generation) => lost = Some(generation),
                Event::Ended(_) if end.ended.is_some() => {
                    return Err("the session ended twice".into());
                }
                Event::Ended(reason) => end.ended = Some(reason),
                _ => {}
            }
        }
        if let Some(generation) = lost {
            let index = self.connections.iter().position(|c| c.client == generation);
            if let Some(index) = index {
                self.lose(index, Side::Client);
            }
        }
        Ok(())
    }

    /// What must hold after every action.
    fn check(&self) -> Result<(), String> {
        for end in self.servers.iter().chain([&self.client]) {
            let stats = end.session.stats();
            let most = self.limits.window + self.limits.message;
            if stats.untaken_cost > most || stats.unacknowledged_cost > self.limits.replay {
                return Err(format!("more is held than the limits allow: {stats:?}"));
            }
            if let Some(EndReason::Protocol(error)) = &end.ended {
                return Err(format!("honest peers broke the protocol: {error}"));
            }
        }
        let Some(server) = self.peer.map(|peer| &self.servers[peer]) else {
            return Ok(());
        };
        // What is acknowledged was taken by the other application, and no more.
        let pairs = [(&self.client, server), (server, &self.client)];
        for (sender, receiver) in pairs {
            if sender.session.acknowledged() > receiver.taken.seq() {
                return Err("a message was acknowledged that was not taken".into());
            }
        }
        Ok(())
    }

    /// What must hold when nothing more can happen: everything is delivered, or the session ended
    /// and the undelivered messages are exactly those that the peer's application lacks, or may.
    pub fn check_end(&self) -> Result<(), String> {
        let mut ends = self.clone();
        while ends.receive(Side::Client)? {}
        for server in &mut ends.servers {
            while server.receive(&self.client.sent, 0)? {}
        }
        let (mut client, peer) = (ends.client, ends.peer);
        for (index, server) in ends.servers.iter_mut().enumerate() {
            if Some(index) != peer {
                // The client does not know this one: nothing came, and nothing was received.
                if server.received > 0 {
                    return Err("a session that the client does not know has received".into());
                }
                server.check_complement(None)?;
            }
        }
        let Some(server) = peer.map(|peer| &mut ends.servers[peer]) else {
            return client.check_complement(None);
        };
        let ended = client.ended.is_some() || server.ended.is_some();
        if !(ended || client.is_delivered() && server.is_delivered()) {
            return Err("nothing moves, and not all is delivered".into());
        }
        client.check_complement(Some(server))?;
        server.check_complement(Some(&client))
    }
}

impl End {
    fn send(&mut self, kind: Kind, length: usize, origin: usize) -> Result<(), String> {
        let payload = content(self.sent.len(), origin, length);
        let result = match (self.sent.len() % 2, kind) {
            (0, Kind::Text) => self.session.send(payload),
            (0, Kind::Binary) => self.session.send(payload.as_bytes()),
            (_, kind) => {
                let shared = Bytes::from_static(payload.as_bytes());
                self.session.send_shared(kind, &shared)
            }
        };
        match result {
            Ok(_) => self.sent.push((kind, length)),
            Err(SendError::Full | SendError::Closed) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// What was received and what comes back make up what was sent, and overlap only in messages
    /// that may have been delivered.
    fn check_complement(&mut self, peer: Option<&End>) -> Result<(), String> {
        let received = peer.map_or(0, |peer| peer.received);
        let back: Vec<_> = self.session.undelivered().collect();
        if self.ended.is_none() {
            return match self.is_delivered() || peer.is_none_or(|peer| peer.ended.is_some()) {
                true => Ok(()),
                false => Err("not all is delivered, and nobody ended".into()),
            };
        }
        let Some(from) = self.sent.len().checked_sub(back.len()) else {
            return Err("more came back than was sent".into());
        };
        if from > received {
            return Err(format!("{} messages are lost in silence", from - received));
        }
        for (index, message) in back.iter().enumerate() {
            let index = from + index;
            if (message.kind, message.payload.len()) != self.sent[index] {
                return Err(format!("message {index} came back changed"));
            }
            if message.fate == Fate::NotSent && index < received {
                return Err(format!(
                    "message {index} was delivered and is said not to be sent"
                ));
            }
        }
        let clean = matches!(self.ended, Some(EndReason::Closed(_)));
        if clean && !back.is_empty() {
            return Err("closed cleanly with messages undelivered".into());
        }
        let Some(peer) = peer.filter(|_| self.opened) else {
            return Ok(());
        };
        if self.told == Some(true) && self.received != peer.sent.len() {
            return Err("told that the peer closed, and messages are missing".into());
        }
        Ok(())
    }
}

impl Connection {
    /// Drops the messages that nobody will read.
    fn sweep(&mut self) {
        if !self.client_open {
            self.to_client.clear();
        }
        if !self.server_open {
            self.to_server.clear();
        }
    }
}
