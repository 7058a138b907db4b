//! One session and a hostile peer: any packets in any state, with the application's verbs in
//! between. Nothing panics, and nothing is held beyond the limits.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use unstall_proto::limits::{MAX_PACKET, MIN_MAX_MESSAGE, MIN_WINDOW, RECORD_OVERHEAD};
use unstall_proto::{
    Acknowledge, CloseFrame, Config, Epoch, Generation, Hello, Incoming, Offset, Packet, Position,
    Record, Seq, Session, SessionId, Side, Time, Token, Welcome,
};

use super::script::Script;

const EPOCH: Epoch = Epoch(NonZeroU64::MIN);
const ID: SessionId = SessionId([1; 16]);

/// The most that a run may hold, in bytes.
///
/// The window and the replay at what they cost, and for each record of 64 the entries of the
/// queues and allocations that it stands for; one largest message, twice while it grows; the
/// packet in work, blocks and queues.
pub const MOST_HELD: u64 = 4 * MAX_WINDOW + 2 * REPLAY + 2 * MIN_MAX_MESSAGE + 1_000_000;
const MAX_WINDOW: u64 = 2 * MIN_WINDOW;
const REPLAY: u64 = 300_000;

fn config(by_hand: bool) -> Config {
    Config::new()
        .window(MIN_WINDOW)
        .max_window(MAX_WINDOW)
        .max_message(MIN_MAX_MESSAGE)
        .replay(REPLAY)
        .session_life(Duration::from_secs(60))
        .acknowledge(match by_hand {
            true => Acknowledge::ByHand,
            false => Acknowledge::WhenTaken,
        })
}

struct Run<'a> {
    script: Script<'a>,
    session: Session,
    generation: Generation,
    now: Time,
    /// The last token given to the server's session.
    token: u8,
    held: Position,
    granted: Offset,
    acknowledged: Seq,
    told: bool,
    /// The last record that was accepted from the peer.
    received: u64,
}

/// Feeds a session, and counts what it holds.
pub fn run(input: &[u8]) {
    let held = allocation_counter::measure(|| feed(input));
    assert!(
        held.bytes_max <= MOST_HELD,
        "{} bytes were held at once",
        held.bytes_max
    );
}

fn feed(input: &[u8]) {
    let mut script = Script(input);
    let first = script.u8();
    let config = config(first & 2 != 0);
    let (session, generation) = match first & 1 == 0 {
        true => client(config, first & 4 != 0),
        false => server(config),
    };
    let mut run = Run {
        script,
        session,
        generation,
        now: Time::ORIGIN,
        token: 3,
        held: Position::START,
        granted: Offset::ZERO,
        acknowledged: Seq::ZERO,
        told: false,
        received: 0,
    };
    while !run.script.is_done() {
        run.act();
        run.check();
    }
    run.finish();
}

fn client(config: Config, welcomed: bool) -> (Session, Generation) {
    let mut session = Session::client(config, ID, Token([2; 16]));
    let generation = session.attach(Time::ORIGIN).expect("a new session");
    if welcomed {
        session.poll_transmit(Time::ORIGIN, generation);
        let welcome = welcome(generation, Seq::ZERO, Offset::new(MIN_WINDOW));
        let taken = session.handle_packet(Time::ORIGIN, generation, welcome);
        assert_eq!(taken, Ok(()));
    }
    (session, generation)
}

fn server(config: Config) -> (Session, Generation) {
    let hello = hello(2, None, 1, Seq::ZERO);
    Session::server(config, &hello, EPOCH, Token([3; 16])).expect("a valid HELLO")
}

fn hello(token: u8, epoch: Option<Epoch>, generation: u64, received: Seq) -> Hello {
    Hello {
        id: ID,
        token: Token([token; 16]),
        epoch,
        generation: Generation::new(generation),
        received,
        acked: Seq::ZERO,
        credit: Offset::new(MIN_WINDOW),
        max_message: MIN_MAX_MESSAGE,
    }
}

fn welcome(generation: Generation, received: Seq, credit: Offset) -> Bytes {
    Packet::Welcome(Welcome {
        token: Token([9; 16]),
        epoch: EPOCH,
        generation,
        received,
        acked: Seq::ZERO,
        credit,
        max_message: MIN_MAX_MESSAGE,
        life_millis: 60_000,
    })
    .to_bytes()
}

impl Run<'_> {
    fn act(&mut self) {
        match self.script.u8() % 24 {
            0..=3 => self.raw_packet(),
            4..=7 => self.data_packet(),
            8 => self.ack_packet(),
            9 => {
                let credit = self.script.u16();
                self.handle(Packet::Credit(Offset::new(u64::from(credit) * 64)).to_bytes());
            }
            10 => {
                let limit = self.session.granted();
                self.handle(Packet::Blocked(limit).to_bytes());
            }
            11 => self.reconnect(),
            12 => self.session.detach(self.now, self.generation),
            13 => self.send(),
            14 => self.receive(),
            15 => assert!(self.session.taken(self.now, self.held)),
            16 => assert!(self.session.acknowledge(self.now, self.held)),
            17 => self.transmit(1),
            18 | 19 => self.transmit(usize::MAX),
            20 => self.time(),
            21 => self.rare_verb(),
            22 => while self.session.poll_event().is_some() {},
            _ => {
                self.session.recv_into(&mut self.held, &mut self.told);
                assert!(self.session.taken(self.now, self.held));
            }
        }
    }

    fn handle(&mut self, packet: Bytes) {
        let end = last_record(&packet);
        let result = self
            .session
            .handle_packet(self.now, self.generation, packet);
        match result {
            Ok(()) => self.received = self.received.max(end),
            Err(error) => {
                // As the caller is told to: the last packets, and the end of the connection.
                self.transmit(usize::MAX);
                self.session.detach(self.now, self.generation);
                assert!(!self.session.is_over() || !error.is_resumable());
            }
        }
    }

    fn raw_packet(&mut self) {
        let packet = Bytes::copy_from_slice(self.script.bytes());
        if let Ok(hello) = Hello::from_packet(packet.clone()) {
            self.greet(&hello);
        }
        self.handle(packet);
    }

    /// Well-formed records of any size, near to the number that is expected.
    fn data_packet(&mut self) {
        let back = u64::from(self.script.u8() % 4);
        let first = (self.received + 1).saturating_sub(back);
        let mut buf = BytesMut::new();
        buf.put_u8(0x10);
        buf.put_u64(first);
        for _ in 0..=self.script.u8() % 5 {
            let flags = self.script.u8() & 3;
            let length = self.script.length();
            buf.put_u32(0x8000_0000 | (length as u32) << 2 | u32::from(flags));
            buf.put_bytes(b'x', length);
        }
        buf.truncate(MAX_PACKET + 1);
        self.handle(Bytes::copy_from_slice(&buf));
    }

    fn ack_packet(&mut self) {
        let back = u64::from(self.script.u8() % 4);
        let beyond = self.session.transmitted().get() + 1;
        self.handle(Packet::Ack(Seq::new(beyond.saturating_sub(back))).to_bytes());
    }

    /// A WebSocket text message, which ends every session that is not over.
    fn text(&mut self) {
        if self.session.handle_text(self.now, self.generation).is_err() {
            self.transmit(usize::MAX);
            self.session.detach(self.now, self.generation);
        } else {
            // Nothing matters any more.
            assert!(self.session.attach(self.now).is_none());
        }
    }

    /// A close that fits, or nearly.
    fn close_packet(&mut self) {
        let back = u64::from(self.script.u8() % 3);
        let last = Seq::new((self.received + 1).saturating_sub(back));
        let close = Packet::Close {
            last,
            within_millis: 5_000,
            frame: CloseFrame::new(1000, "done"),
        };
        self.handle(close.to_bytes());
    }

    /// Another connection, and the peer's side of the exchange.
    fn reconnect(&mut self) {
        let back = u64::from(self.script.u8() % 3);
        let received = Seq::new(self.session.transmitted().get().saturating_sub(back));
        match self.session.side() {
            Side::Client => {
                if let Some(generation) = self.session.attach(self.now) {
                    self.generation = generation;
                    self.transmit(1);
                    let credit = self.session.accepted().get() * 64;
                    let credit = Offset::new(MIN_WINDOW + credit);
                    self.handle(welcome(generation, received, credit));
                }
            }
            Side::Server => {
                let newer = self.generation.get() + 1;
                self.greet(&hello(self.token, Some(EPOCH), newer, received));
            }
        }
    }

    fn greet(&mut self, hello: &Hello) {
        let next = self.token.wrapping_add(1);
        let before = self.session.generation();
        match self.session.resume(hello, Token([next; 16])) {
            Ok(generation) => {
                assert!(generation > before);
                self.generation = generation;
                self.token = next;
            }
            Err(_) => assert_eq!(self.session.generation(), before),
        }
    }

    fn send(&mut self) {
        let length = self.script.length();
        let payload = vec![b's'; length];
        let room = self.session.room();
        let result = match self.script.flag() {
            true => self
                .session
                .send(std::str::from_utf8(&payload).expect("ASCII")),
            false => self.session.send(&payload[..]),
        };
        if result.is_ok() {
            assert!(length as u64 + RECORD_OVERHEAD <= room);
        }
    }

    fn receive(&mut self) {
        self.session.recv_into(&mut self.held, &mut self.told);
    }

    fn transmit(&mut self, most: usize) {
        for _ in 0..most {
            let wanted = self.session.wants_transmit();
            let Some(packet) = self.session.poll_transmit(self.now, self.generation) else {
                assert!(!wanted || !self.session.is_current(self.generation));
                return;
            };
            assert!(wanted && packet.len() <= MAX_PACKET);
            assert!(Packet::decode(packet).is_ok());
        }
    }

    fn time(&mut self) {
        let millis = u64::from(self.script.u16());
        self.now = match (self.session.poll_timeout(), millis % 2 == 0) {
            (Some(at), true) => self.now.max(at),
            _ => self.now.after(Duration::from_millis(millis)),
        };
        self.session.handle_timeout(self.now);
        assert!(self.session.poll_timeout().is_none_or(|at| at > self.now));
    }

    fn rare_verb(&mut self) {
        match self.script.u8() % 16 {
            0..=3 => self.session.ping(),
            4..=7 => self.session.go_away(Duration::from_secs(1), "moving"),
            8..=10 => {
                let within = Duration::from_millis(self.script.u16().into());
                self.session
                    .close(self.now, CloseFrame::new(1000, "done"), within);
            }
            11 => self.session.abort("enough"),
            12 => self.session.undelivered().for_each(drop),
            13 => self.close_packet(),
            14 => self.text(),
            _ => {
                let room = self.session.room();
                self.session.waits_for();
                assert!(room <= REPLAY);
            }
        }
    }

    fn check(&mut self) {
        let stats = self.session.stats();
        assert!(stats.unacknowledged_cost <= REPLAY, "{stats:?}");
        assert!(stats.window <= MAX_WINDOW, "{stats:?}");
        let memory = stats.send_memory + stats.receive_memory;
        assert!(memory <= MOST_HELD, "{stats:?}");
        let granted = self.session.granted();
        assert!(granted >= self.granted, "credit was taken back");
        self.granted = granted;
        let acknowledged = self.session.acknowledged();
        assert!(acknowledged >= self.acknowledged && acknowledged <= self.session.accepted());
        self.acknowledged = acknowledged;
    }

    /// The application gets all that was whole, and then the end.
    fn finish(&mut self) {
        self.session.abort("the script is done");
        while self.session.recv_into(&mut self.held, &mut self.told) {}
        assert!(self.told, "the application is told of the end");
        let accepted = self.session.accepted();
        let mut last = self.session.acknowledged();
        let mut count = 0;
        for message in self.session.undelivered() {
            assert!(message.seq > last, "in order");
            last = message.seq;
            count += 1;
        }
        assert!(count == 0 || last == accepted, "up to the last one");
    }
}

/// The number of the last record in a data packet; 0 for any other.
fn last_record(packet: &Bytes) -> u64 {
    let Ok(Packet::Data { first, records }) = Packet::decode(packet.clone()) else {
        return 0;
    };
    let (mut rest, mut count) = (&records[..], 0);
    while let Ok(record) = Record::read(rest) {
        rest = &rest[record.size()..];
        count += 1;
    }
    first.get().saturating_add(count).saturating_sub(1)
}

/// Receives as an application does: whether there was something.
trait Receive {
    fn recv_into(&mut self, held: &mut Position, told: &mut bool) -> bool;
}

impl Receive for Session {
    fn recv_into(&mut self, held: &mut Position, told: &mut bool) -> bool {
        match self.recv() {
            Some(Incoming::Messages(batch)) => {
                assert!(!*told, "nothing comes after the end");
                let end = batch.end();
                assert!(end > *held, "positions go on");
                *held = end;
                let (count, mut seen) = (batch.remaining(), 0);
                for message in batch {
                    assert!(message.payload.len() as u64 <= MIN_MAX_MESSAGE);
                    seen += 1;
                }
                assert_eq!(count, seen);
                true
            }
            Some(_) => {
                assert!(!*told, "the end is told once");
                *told = true;
                true
            }
            None => false,
        }
    }
}
