//! The world: sessions, applications and connections on one virtual clock.
//!
//! The driver is as good as a real one and no better: it calls a session when a packet, an
//! application, a timer or a free connection gives the reason, and then does what the session's
//! polls say, until they say nothing. Nobody looks again without a reason, so a wake-up that is
//! lost stays lost, and shows.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use unstall_proto::{
    EndReason, Epoch, Event, Generation, HandleError, Hello, Incoming, Offset, Packet,
    ProtocolError, Record, Rejection, SendError, Seq, Session, SessionId, Time,
};

use crate::application::{Application, Sent};
use crate::link::Wire;
use crate::plan::{Limits, Plan, Traffic};
use crate::random::Random;

thread_local! {
    /// What happened, if somebody wants to read it. It outlives the panic that ends a world.
    pub static TRANSCRIPT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The client's place in `World::ends`; all others are sessions of the server.
pub const CLIENT: usize = 0;

/// One side of a session.
pub struct End {
    pub session: Session,
    pub limits: Limits,
    pub application: Application,
    /// Every message accepted for sending.
    pub sent: Vec<Sent>,
    /// The end of what was handed to connections.
    pub given: Seq,
    given_cost: u64,
    /// The last record that arrived in order.
    pub arrived: Seq,
    /// The newest connection.
    newest: Generation,
    timer: Option<Time>,
    pub ended: Option<EndReason>,
    /// The process has ended, and the session with it.
    pub vanished: bool,
    /// The application asked to close.
    pub closes: bool,
}

/// What happened how often, over many worlds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub worlds: u64,
    pub messages: u64,
    pub packets: u64,
    pub connections: u64,
    pub resumed: u64,
    pub replayed: u64,
    pub superseded: u64,
    pub gaps: u64,
    pub full: u64,
    pub blocked: u64,
    pub handshakes_timed_out: u64,
    pub rejected: u64,
    pub reopened: u64,
    pub vanished: u64,
    pub closed: u64,
    pub close_timed_out: u64,
    pub expired: u64,
    pub aborted: u64,
    pub maybe_delivered: u64,
    pub not_sent: u64,
    pub slowest_millis: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        macro_rules! sum { ($($field:ident)*) => { $( self.$field += other.$field; )* } }
        sum!(worlds messages packets connections resumed replayed superseded gaps full blocked
             handshakes_timed_out rejected reopened vanished closed close_timed_out expired aborted
             maybe_delivered not_sent);
        self.slowest_millis = self.slowest_millis.max(other.slowest_millis);
    }
}

pub struct World {
    pub now: Time,
    pub plan: Plan,
    pub random: Random,
    /// The client, and each session that the server ever opened.
    pub ends: Vec<End>,
    pub wires: Vec<Wire>,
    /// The session that the server holds.
    pub held: Option<usize>,
    /// The server's session that welcomed the client.
    pub peer: Option<usize>,
    epoch: Epoch,
    pub connect_at: Option<Time>,
    /// When the client connects although it has a connection.
    pub reconnect_at: Option<Time>,
    pub offline_until: Time,
    pub full_until: Time,
    /// No more faults.
    pub healed: bool,
    pub record: bool,
    pub tally: Tally,
}

/// A line of the transcript.
macro_rules! log {
    ($world:expr, $($text:tt)*) => {
        if $world.record { $world.line(format!($($text)*)); }
    };
}
pub(crate) use log;

fn name(who: usize) -> String {
    match who {
        CLIENT => "client".to_owned(),
        server => format!("server {server}"),
    }
}

/// A packet in a few words.
fn describe(packet: &Bytes) -> String {
    match Packet::decode(packet.clone()) {
        Ok(Packet::Data { first, records }) => {
            let (count, cost) = walk(&records, 0);
            format!("DATA from {first}, {count} records, cost {cost}")
        }
        Ok(Packet::Hello(h)) => format!(
            "HELLO generation {} epoch {:?} received {} acked {} credit {}",
            h.generation, h.epoch, h.received, h.acked, h.credit
        ),
        Ok(Packet::Welcome(w)) => format!(
            "WELCOME generation {} received {} acked {} credit {}",
            w.generation, w.received, w.acked, w.credit
        ),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("{error}"),
    }
}

/// How many records follow, and what those after the first `skip` cost.
fn walk(mut records: &[u8], skip: u64) -> (u64, u64) {
    let (mut count, mut cost) = (0, 0);
    while let (false, Ok(record)) = (records.is_empty(), Record::read(records)) {
        if count >= skip {
            cost += record.payload.len() as u64 + unstall_proto::limits::RECORD_OVERHEAD;
        }
        count += 1;
        records = &records[record.size()..];
    }
    (count, cost)
}

impl End {
    fn new(session: Session, limits: Limits, runs: bool) -> End {
        End {
            session,
            limits,
            application: Application::new(runs),
            sent: Vec::new(),
            given: Seq::ZERO,
            given_cost: 0,
            arrived: Seq::ZERO,
            newest: Generation::ZERO,
            timer: None,
            ended: None,
            vanished: false,
            closes: false,
        }
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let plan = Plan::new(&mut random);
        let client = Session::client(
            plan.client.config.clone(),
            SessionId(random.bytes()),
            random.token(),
        );
        let runs = random.chance(80);
        World {
            now: Time::ORIGIN,
            ends: vec![End::new(client, plan.client.clone(), runs)],
            wires: Vec::new(),
            held: None,
            peer: None,
            epoch: World::draw_epoch(&mut random),
            connect_at: Some(Time::ORIGIN),
            reconnect_at: None,
            offline_until: Time::ORIGIN,
            full_until: Time::ORIGIN,
            healed: false,
            record: TRANSCRIPT.with_borrow(Option::is_some),
            tally: Tally {
                worlds: 1,
                ..Tally::default()
            },
            plan,
            random,
        }
    }

    fn draw_epoch(random: &mut Random) -> Epoch {
        Epoch(NonZeroU64::new(random.next()).unwrap_or(NonZeroU64::MIN))
    }

    pub fn line(&self, text: String) {
        let at = self.now.since_origin();
        TRANSCRIPT.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push(format!("{:>12.6} {text}", at.as_secs_f64()));
            }
        });
    }

    /// A moment up to `millis` from now.
    pub fn soon(&mut self, millis: u64) -> Time {
        let micros = self.random.below(millis * 1_000 + 1);
        self.now.after(Duration::from_micros(micros))
    }

    // Time.

    /// When something happens by itself next.
    pub fn next_time(&self) -> Option<Time> {
        let ends = self.ends.iter().filter(|end| !end.vanished);
        let ends = ends.filter_map(|end| earliest(end.timer, end.application.next()));
        let wires = self.wires.iter().filter_map(|wire| {
            let pipes = earliest(wire.to_server.next(), wire.to_client.next());
            let client = wire.client_notices.filter(|_| wire.client_open);
            let server = wire.server_notices.filter(|_| wire.server_open);
            earliest(pipes, earliest(client, server))
        });
        ends.chain(wires)
            .chain(earliest(self.connect_at, self.reconnect_at))
            .min()
    }

    /// Everything that is due now happens.
    pub fn step(&mut self) {
        let due = |at: Option<Time>, now| at.is_some_and(|at| at <= now);
        for index in 0..self.wires.len() {
            self.deliver(index, true);
            self.deliver(index, false);
            self.notice(index);
        }
        for who in 0..self.ends.len() {
            if self.ends[who].vanished {
                continue;
            }
            if due(self.ends[who].timer, self.now) {
                self.ends[who].session.handle_timeout(self.now);
                self.after(who);
            }
            let application = &self.ends[who].application;
            if application.runs && due(application.takes_at, self.now) {
                self.take(who);
            }
            let by_hand = self.ends[who].application.acknowledges_at;
            if self.ends[who].application.runs && due(by_hand.map(|(at, _)| at), self.now) {
                self.acknowledge(who);
            }
            let answers_at = self.ends[who].application.answers_at;
            if self.ends[who].application.runs && due(answers_at, self.now) {
                self.answer_close(who);
            }
        }
        if due(self.connect_at, self.now) || due(self.reconnect_at, self.now) {
            self.connect();
        }
        self.wires.retain(|wire| !wire.is_gone());
    }

    // Connections.

    /// The client connects; an older connection may still be there.
    fn connect(&mut self) {
        self.connect_at = None;
        self.reconnect_at = None;
        if self.offline_until > self.now {
            self.connect_at = Some(self.offline_until);
            return;
        }
        let Some(generation) = self.ends[CLIENT].session.attach(self.now) else {
            return;
        };
        log!(self, "client connects as {generation}");
        self.tally.connections += 1;
        self.ends[CLIENT].newest = generation;
        for index in 0..self.wires.len() {
            let at = self.soon(500);
            let wire = &mut self.wires[index];
            wire.client_notices = earliest(wire.client_notices, Some(at));
        }
        let mut wire = Wire::new(
            generation,
            self.plan.delay,
            self.plan.socket,
            &mut self.random,
        );
        if !self.healed && self.random.chance(self.plan.cuts) {
            wire.fuse = Some(1 + self.random.below(12));
        }
        self.wires.push(wire);
        self.after(CLIENT);
    }

    /// A packet, or the end of the connection, reaches one side.
    fn deliver(&mut self, index: usize, to_server: bool) {
        loop {
            let wire = &mut self.wires[index];
            let (pipe, open) = match to_server {
                true => (&mut wire.to_server, wire.server_open),
                false => (&mut wire.to_client, wire.client_open),
            };
            if !open {
                pipe.discard();
                return;
            }
            let Some(packet) = pipe.arrived(self.now) else {
                if pipe.closed(self.now) {
                    pipe.eof = None;
                    self.lose(index, !to_server);
                }
                return;
            };
            let sender = match to_server {
                true => Some(CLIENT),
                false => wire.server.map(|(who, _)| who),
            };
            self.receive(index, to_server, packet);
            // Room for another packet is a reason to look.
            if let Some(sender) = sender.filter(|_| self.plan.socket != usize::MAX) {
                self.after(sender);
            }
        }
    }

    fn receive(&mut self, index: usize, to_server: bool, packet: Bytes) {
        self.tally.packets += 1;
        let wire = &self.wires[index];
        let (who, generation) = match (to_server, wire.server) {
            (true, None) => return self.greet(index, packet),
            (true, Some(server)) => server,
            (false, _) => (CLIENT, wire.client),
        };
        log!(
            self,
            "{} gets on {generation}: {}",
            name(who),
            describe(&packet)
        );
        let had_ended = self.ends[who].ended.is_some();
        let last = data_end(&packet);
        let newest = self.ends[who].newest;
        let result = self.ends[who]
            .session
            .handle_packet(self.now, generation, packet);
        if generation < newest {
            assert_eq!(
                result,
                Err(HandleError::Superseded),
                "{}: a packet on the fenced connection {generation} was not refused",
                name(who)
            );
        }
        match result {
            Ok(()) => {
                if let (Some(last), false) = (last, had_ended) {
                    self.ends[who].arrived = self.ends[who].arrived.max(last);
                }
                if who == CLIENT && self.peer.is_none() && self.ends[CLIENT].session.is_attached() {
                    self.peer = self.wires[index].server.map(|(server, _)| server);
                }
                self.after(who);
            }
            Err(error) => self.refused(index, who, generation, error),
        }
    }

    /// A session refused a packet: its connection is closed, after what is still to be sent.
    fn refused(&mut self, index: usize, who: usize, generation: Generation, error: HandleError) {
        log!(self, "{} refuses: {error}", name(who));
        match &error {
            HandleError::Superseded => self.tally.superseded += 1,
            HandleError::Rejected(rejection) => self.check_rejection(*rejection),
            HandleError::Protocol(ProtocolError::SequenceGap { .. }) if self.wires[index].lost => {
                self.tally.gaps += 1;
            }
            error => panic!("{}: an honest peer was refused: {error:?}", name(who)),
        }
        self.after(who);
        self.ends[who].session.detach(self.now, generation);
        self.wires[index].close(who == CLIENT, self.now);
        self.after(who);
    }

    fn check_rejection(&mut self, rejection: Rejection) {
        self.tally.rejected += 1;
        let plan = &self.plan;
        let possible = match rejection {
            Rejection::Full { .. } | Rejection::Unknown => plan.cruel,
            Rejection::Expired => plan.cruel || plan.closes || self.healed,
            Rejection::NotYours => self.ends.len() > 2,
            _ => false,
        };
        assert!(possible, "a rejection that cannot be: {rejection:?}");
    }

    /// The server looks the session up, as SPEC.md ("The server, on HELLO") says.
    fn greet(&mut self, index: usize, packet: Bytes) {
        log!(self, "server gets {}", describe(&packet));
        let hello = Hello::from_packet(packet).expect("the client says HELLO first");
        let token = self.random.token();
        let forgets = self.plan.forgets;
        let held = self
            .held
            .filter(|who| !(forgets && self.ends[*who].session.is_over()));
        let full = self.full_until > self.now;
        let answer = match held {
            Some(who) => {
                let granted = self.ends[who].session.resume(&hello, token);
                granted.map(|generation| (who, generation))
            }
            None if full && hello.epoch.is_none() => Err(Rejection::Full {
                retry_after_millis: 5,
            }),
            None => {
                let config = self.plan.server.config.clone();
                Session::server(config, &hello, self.epoch, token).map(|(session, generation)| {
                    let runs = self.random.chance(80) || self.healed;
                    let end = End::new(session, self.plan.server.clone(), runs);
                    self.ends.push(end);
                    self.held = Some(self.ends.len() - 1);
                    self.tally.reopened += u64::from(self.ends.len() > 2);
                    (self.ends.len() - 1, generation)
                })
            }
        };
        match answer {
            Ok((who, generation)) => self.granted(index, who, generation),
            Err(rejection) => {
                log!(self, "server rejects: {rejection}");
                let wire = &mut self.wires[index];
                wire.put(false, self.now, rejection.to_packet(), &mut self.random);
                wire.close(false, self.now);
            }
        }
    }

    /// The wire carries the session `who` from now on; older ones are closed, some late.
    fn granted(&mut self, index: usize, who: usize, generation: Generation) {
        self.ends[who].newest = generation;
        for other in 0..self.wires.len() {
            if self.wires[other].server.is_some_and(|(s, _)| s == who) {
                let at = self.soon(300);
                let wire = &mut self.wires[other];
                wire.server_notices = earliest(wire.server_notices, Some(at));
            }
        }
        self.wires[index].server = Some((who, generation));
        self.after(who);
    }

    /// One side notices that the connection is lost.
    fn notice(&mut self, index: usize) {
        let now = self.now;
        for client in [true, false] {
            let wire = &mut self.wires[index];
            let (notices, open) = match client {
                true => (&mut wire.client_notices, wire.client_open),
                false => (&mut wire.server_notices, wire.server_open),
            };
            if notices.is_some_and(|at| at <= now) {
                *notices = None;
                if open {
                    self.lose(index, client);
                }
            }
        }
    }

    /// One side closes the connection, or sees it closed.
    pub fn lose(&mut self, index: usize, client: bool) {
        let wire = &mut self.wires[index];
        wire.close(client, self.now);
        let end = match client {
            true => Some((CLIENT, wire.client)),
            false => wire.server,
        };
        if let Some((who, generation)) = end.filter(|(who, _)| !self.ends[*who].vanished) {
            log!(self, "{} loses {generation}", name(who));
            self.ends[who].session.detach(self.now, generation);
            self.after(who);
        }
    }

    /// The server process restarts without its sessions.
    pub fn restart(&mut self) {
        log!(self, "the server restarts");
        self.epoch = World::draw_epoch(&mut self.random);
        if let Some(who) = self.held.take() {
            self.ends[who].vanished = true;
            self.tally.vanished += 1;
        }
        for wire in &mut self.wires {
            wire.close(false, self.now);
        }
    }

    // What a session says after each call.

    /// Something happened to this session: do what it says until it says nothing.
    pub fn after(&mut self, who: usize) {
        loop {
            let mut acted = false;
            while let Some(event) = self.ends[who].session.poll_event() {
                acted = true;
                self.on_event(who, event);
            }
            acted |= self.hand_over(who);
            acted |= self.transmit(who);
            if !acted {
                break;
            }
        }
        let slack = self.plan.timer_slack;
        let session = &self.ends[who].session;
        self.ends[who].timer = session.poll_timeout().map(|at| at.after(slack));
        if self.ends[who].session.is_over() {
            for index in 0..self.wires.len() {
                if self.carrier(index, who).is_some() {
                    self.wires[index].close(who == CLIENT, self.now);
                }
            }
        }
        if who == CLIENT {
            self.plan_connection();
        }
        self.check_bounds(who);
    }

    fn plan_connection(&mut self) {
        let session = &self.ends[CLIENT].session;
        let connected = self
            .wires
            .iter()
            .any(|wire| wire.client_open && session.is_current(wire.client));
        if session.wants_connection() && !connected && self.connect_at.is_none() {
            self.connect_at = Some(self.soon(100));
        }
    }

    fn on_event(&mut self, who: usize, event: Event) {
        log!(self, "{}: {event:?}", name(who));
        match event {
            Event::Writable => {
                if let Some(message) = self.ends[who].application.waits.take() {
                    self.send(who, message);
                }
            }
            Event::Resumed { replayed, .. } => {
                self.tally.resumed += 1;
                self.tally.replayed += replayed;
            }
            Event::HandshakeTimedOut(generation) => {
                self.tally.handshakes_timed_out += 1;
                for wire in &mut self.wires {
                    if wire.client == generation {
                        wire.close(true, self.now);
                    }
                }
            }
            Event::GoAway { within, .. } => {
                let at = self.soon(within.as_millis() as u64);
                self.reconnect_at = Some(at);
            }
            Event::Ended(reason) => {
                let end = &mut self.ends[who];
                assert_eq!(end.ended, None, "{} ended twice", name(who));
                end.application.waits = None;
                end.ended = Some(reason);
            }
            Event::Closing(_) => match self.ends[who].limits.answers_by_hand {
                true => self.ends[who].application.answers_at = Some(self.soon(100)),
                false => self.ends[who].application.waits = None,
            },
            _ => {}
        }
    }

    /// This side's number of a connection that it has open.
    fn carrier(&self, index: usize, who: usize) -> Option<Generation> {
        let wire = &self.wires[index];
        match who {
            CLIENT => wire.client_open.then_some(wire.client),
            _ => wire
                .server
                .filter(|(server, _)| wire.server_open && *server == who)
                .map(|(_, generation)| generation),
        }
    }

    fn transmit(&mut self, who: usize) -> bool {
        let mut acted = false;
        for index in 0..self.wires.len() {
            let Some(generation) = self.carrier(index, who) else {
                continue;
            };
            while self.wires[index].has_room(who == CLIENT) {
                let session = &mut self.ends[who].session;
                let current = session.is_current(generation);
                let wants = current && session.wants_transmit();
                let packet = session.poll_transmit(self.now, generation);
                assert_eq!(
                    wants,
                    packet.is_some(),
                    "{}: wants_transmit says {wants}, poll_transmit on {generation} gives {packet:?}",
                    name(who)
                );
                let Some(packet) = packet else { break };
                assert_eq!(
                    generation,
                    self.ends[who].newest,
                    "{} transmits on a fenced connection",
                    name(who)
                );
                acted = true;
                self.put(index, who, packet);
            }
        }
        acted
    }

    fn put(&mut self, index: usize, who: usize, packet: Bytes) {
        log!(self, "{} sends {}", name(who), describe(&packet));
        self.note_given(who, &packet);
        let wire = &mut self.wires[index];
        let data = packet[0] == 0x10;
        if data && self.plan.lossy && !self.healed && self.random.chance(3) {
            log!(self, "… which is lost in the middle");
            self.wires[index].lost = true;
            return;
        }
        wire.put(who == CLIENT, self.now, packet, &mut self.random);
    }

    /// Notes how far the connections were given data, and that credit covers it.
    fn note_given(&mut self, who: usize, packet: &Bytes) {
        self.tally.blocked += u64::from(packet[0] == 0x13);
        let Ok(Packet::Data { first, records }) = Packet::decode(packet.clone()) else {
            return;
        };
        let end = &mut self.ends[who];
        let next = end.given.get() + 1;
        assert!(
            first.get() <= next,
            "{} skips records {next} to {first}",
            name(who)
        );
        let (count, cost) = walk(&records, next - first.get());
        let last = Seq::new(first.get() + count - 1);
        if last > end.given {
            end.given = last;
            end.given_cost += cost;
        }
        let sent = Offset::new(end.given_cost);
        let peer = match who {
            CLIENT => self.peer,
            _ => Some(CLIENT),
        };
        if let Some(peer) = peer {
            let granted = self.ends[peer].session.granted();
            assert!(
                sent <= granted,
                "{} sends up to {sent} with credit up to {granted}",
                name(who)
            );
        }
    }

    // Applications.

    /// The application says `message`.
    pub fn send(&mut self, who: usize, mut message: Sent) {
        let end = &mut self.ends[who];
        match message.give_to(&mut end.session) {
            Ok(seq) => {
                let last = end.sent.last().map_or(Seq::ZERO, |last| last.seq);
                assert!(seq > last, "{}: {seq} after {last}", name(who));
                message.seq = seq;
                end.sent.push(message);
                self.tally.messages += 1;
            }
            Err(SendError::Full) => {
                end.application.waits.get_or_insert(message);
                self.tally.full += 1;
            }
            Err(SendError::TooLarge { limit, .. }) => {
                let limits = &self.plan;
                let least = limits.client.max_message.min(limits.server.max_message);
                assert!(limit == least && message.length as u64 > limit);
            }
            Err(SendError::Closed) => {
                let closing = end.closes || end.ended.is_some() || end.session.send("").is_err();
                assert!(closing, "{} is closed for no reason", name(who));
            }
            Err(other) => panic!("{}: {other}", name(who)),
        }
    }

    /// The application says several things at once.
    pub fn burst(&mut self, who: usize) {
        let count = match self.plan.traffic {
            Traffic::Talk => self.random.below(20),
            Traffic::Flood => self.random.below(1_500),
            Traffic::Bulk => self.random.below(5),
        };
        for _ in 0..count {
            if self.ends[who].application.waits.is_some() && !self.random.chance(20) {
                break;
            }
            let length = self.draw_length(who);
            let message = Sent::new(&mut self.random, length as usize);
            self.send(who, message);
        }
        log!(self, "{} said up to {count} things", name(who));
        self.after(who);
    }

    fn draw_length(&mut self, who: usize) -> u64 {
        let largest = self.ends[who].limits.max_message;
        match (self.plan.traffic, self.random.below(20)) {
            (Traffic::Flood, _) => self.random.below(4),
            (_, 0..3) => 0,
            (Traffic::Talk, 3) => self.random.below(20_000),
            (Traffic::Bulk, 3..12) => self.random.below(largest + 1),
            (Traffic::Bulk, 12) => largest,
            _ => self.random.below(300),
        }
    }

    /// A running application is handed everything there is.
    fn hand_over(&mut self, who: usize) -> bool {
        let mut acted = false;
        while self.ends[who].application.runs {
            let Some(incoming) = self.ends[who].session.recv() else {
                break;
            };
            acted = true;
            let application = &mut self.ends[who].application;
            assert!(
                application.end.is_none(),
                "{}: more after the end",
                name(who)
            );
            match incoming {
                Incoming::Messages(batch) => application.held.push_back(batch),
                end => application.end = Some(end),
            }
        }
        let application = &self.ends[who].application;
        if !application.held.is_empty() && application.takes_at.is_none() {
            self.ends[who].application.takes_at = Some(self.soon(8));
        }
        acted
    }

    /// The application takes some of what it was handed.
    pub fn take(&mut self, who: usize) {
        let most = match self.plan.traffic {
            Traffic::Flood => 1 + self.random.below(3_000),
            _ => 1 + self.random.below(20),
        };
        let mut held = std::mem::take(&mut self.ends[who].application.held);
        let mut position = None;
        let mut count = 0;
        while let (true, Some(batch)) = (count < most, held.front_mut()) {
            match batch.next_ref() {
                Some(message) => {
                    self.check_message(who, &message);
                    self.ends[who].application.received += 1;
                    position = Some(message.end);
                    count += 1;
                }
                None => {
                    held.pop_front();
                }
            }
        }
        held.retain(|batch| batch.remaining() > 0);
        let again = (!held.is_empty()).then(|| self.soon(8));
        let end = &mut self.ends[who];
        end.application.held = held;
        end.application.takes_at = again;
        let Some(position) = position else { return };
        log!(self, "{} takes up to {}", name(who), position.seq());
        let end = &mut self.ends[who];
        end.application.taken = position;
        if !end.limits.by_hand {
            end.application.processed = position;
        } else if end.application.acknowledges_at.is_none() {
            let at = self.soon(60);
            self.ends[who].application.acknowledges_at = Some((at, position));
        }
        assert!(self.ends[who].session.taken(self.now, position));
        self.after(who);
    }

    /// The peer closes, and the application has said what it still had to say.
    fn answer_close(&mut self, who: usize) {
        let later = self.soon(100);
        let application = &mut self.ends[who].application;
        // What waits for room was promised to be sent.
        let waits = application.waits.is_some() && self.ends[who].ended.is_none();
        self.ends[who].application.answers_at = waits.then_some(later);
        if waits {
            return;
        }
        log!(self, "{} answers the close", name(who));
        self.ends[who].session.answer_close();
        self.after(who);
    }

    /// The application has processed what it took a while ago.
    fn acknowledge(&mut self, who: usize) {
        let at = self.soon(60);
        let application = &mut self.ends[who].application;
        let Some((_, position)) = application.acknowledges_at.take() else {
            return;
        };
        application.processed = position;
        if application.taken > position {
            application.acknowledges_at = Some((at, application.taken));
        }
        log!(self, "{} acknowledges up to {}", name(who), position.seq());
        assert!(self.ends[who].session.acknowledge(self.now, position));
        self.after(who);
    }
}

fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    a.into_iter().chain(b).min()
}

/// The last record of a data packet.
fn data_end(packet: &Bytes) -> Option<Seq> {
    match Packet::decode(packet.clone()) {
        Ok(Packet::Data { first, records }) => {
            let (count, _) = walk(&records, u64::MAX);
            Some(Seq::new(first.get() + count - 1))
        }
        _ => None,
    }
}
