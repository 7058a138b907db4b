//! What a session says that it holds is what it holds, and an empty hand holds nothing.

mod world;

use std::num::NonZeroU64;

use bytes::{BufMut, Bytes, BytesMut};
use unstall_proto::limits::{MAX_MAX_MESSAGE, MAX_PACKET, MAX_RECORD};
use unstall_proto::{
    Acknowledge, Config, Epoch, Generation, Hello, Incoming, Kind, Offset, Packet, Position,
    Records, Seq, Session, SessionId, Stats, Time, Token,
};

const NOW: Time = Time::ORIGIN;
const MIB: u64 = 1 << 20;

/// A server's session whose client has credit for all that it can name.
fn server(config: Config) -> (Session, Generation) {
    let hello = Hello {
        id: SessionId([1; 16]),
        token: Token([2; 16]),
        epoch: None,
        generation: Generation::new(1),
        received: Seq::ZERO,
        acked: Seq::ZERO,
        credit: Offset::new(u64::MAX),
        max_message: MAX_MAX_MESSAGE,
    };
    let epoch = Epoch(NonZeroU64::MIN);
    let (mut session, generation) = Session::server(config, &hello, epoch, Token([3; 16])).unwrap();
    session.poll_transmit(NOW, generation).unwrap();
    (session, generation)
}

/// Runs it: what is allocated then and was not before, in bytes, and what the session says it
/// holds.
fn measured(session: &mut Session, run: impl FnOnce(&mut Session)) -> (u64, Stats) {
    let before = session.stats();
    let held = allocation_counter::measure(|| run(session));
    let mut stats = session.stats();
    stats.send_memory -= before.send_memory;
    stats.receive_memory -= before.receive_memory;
    (u64::try_from(held.bytes_current).unwrap(), stats)
}

/// What is told is what is held, but for a quarter: queues grow by doubling.
fn assert_told(told: u64, held: u64, what: &str) {
    let close = told.abs_diff(held) <= held / 4 + 4_096;
    assert!(close, "{what}: {held} bytes are held, {told} told");
    println!("{what}: {held} bytes are held, {told} told");
}

/// A peer that sends records of that many bytes, as many to a packet as fit, of messages that are
/// whole or go on.
struct Peer {
    record: Bytes,
    each: usize,
    sent: u64,
}

impl Peer {
    fn new(length: usize, continues: bool, most: usize) -> Peer {
        let mut record = BytesMut::new();
        record.put_u32(0x8000_0000 | (length as u32) << 2 | u32::from(continues) << 1);
        record.put_bytes(b'x', length);
        let each = ((MAX_PACKET - 9) / record.len()).min(most);
        Peer {
            record: record.freeze(),
            each,
            sent: 0,
        }
    }

    /// One packet, sent and handed over; not taken.
    fn send(&mut self, session: &mut Session, generation: Generation) {
        let mut packet = Vec::with_capacity(9 + self.each * self.record.len());
        packet.put_u8(0x10);
        packet.put_u64(self.sent + 1);
        for _ in 0..self.each {
            packet.put_slice(&self.record);
        }
        self.sent += self.each as u64;
        let packet = Bytes::from(packet.into_boxed_slice());
        session.handle_packet(NOW, generation, packet).unwrap();
        while session.poll_transmit(NOW, generation).is_some() {}
    }
}

/// Once one client froze all sessions of a server. A message in records of one byte costs 65 for
/// each byte, and what it cost counted as memory: 16 MiB of a message stood for 1 GiB.
#[test]
fn a_message_in_records_of_one_byte_counts_for_what_it_takes() {
    let (mut session, generation) = server(Config::new().max_message(8 * MIB));
    let mut peer = Peer::new(1, true, usize::MAX);
    let (held, stats) = measured(&mut session, |session| {
        while peer.sent < 6 * MIB {
            peer.send(session, generation);
        }
    });
    assert_told(stats.receive_memory, held, "incomplete");
    assert!(stats.receive_memory <= 8 * MIB, "{stats:?}");
    assert!(stats.untaken_cost > 6 * MIB * 65);

    // The same for the whole message, until it is taken.
    let mut last = Peer::new(1, false, 1);
    last.sent = peer.sent;
    last.send(&mut session, generation);
    let Some(Incoming::Messages(batch)) = session.recv() else {
        panic!("the message is whole");
    };
    let memory = session.stats().receive_memory;
    assert!(
        memory >= peer.sent && memory < peer.sent + 4_096,
        "{memory}"
    );
    assert!(session.taken(NOW, batch.end()));
    assert_eq!(session.stats().receive_memory, 0);
}

/// The sibling: whole messages of one byte cost 65 each as well, and a packet of them takes 5 bytes
/// for each.
#[test]
fn what_is_received_counts_for_what_it_takes() {
    for (length, most) in [
        (0, 1),
        (1, 1),
        (1, usize::MAX),
        (64, 1),
        (64, usize::MAX),
        (5_000, usize::MAX),
        (MAX_RECORD, 1),
    ] {
        let (mut session, generation) = server(Config::new());
        let mut peer = Peer::new(length, false, most);
        let mut batches = Vec::with_capacity(16_384);
        let (held, stats) = measured(&mut session, |session| {
            while session.stats().untaken_cost < MIB / 2 {
                peer.send(session, generation);
                while let Some(Incoming::Messages(batch)) = session.recv() {
                    batches.push(batch);
                }
            }
        });
        let what = format!("{most} records of {length}");
        // The batches that the test keeps are places in the application's queue.
        let places = (batches.len() * size_of_val(&batches[0])) as u64;
        assert_told(stats.receive_memory, held + places, &what);
        assert!(session.taken(NOW, batches.last().unwrap().end()));
        assert_eq!(session.stats().receive_memory, 0, "{what}");
    }
}

#[test]
fn what_is_kept_for_replay_counts_for_what_it_takes() {
    for length in [0, 1, 64, 5_000, MAX_RECORD, 3 * MAX_RECORD + 7] {
        let (mut session, generation) = server(Config::new());
        let payload = vec![7; length];
        let (held, stats) = measured(&mut session, |session| {
            for _ in 0..(MIB as usize / (length + 64)) {
                session.send(&payload[..]).unwrap();
                // Each message travels at once, in a packet of its own.
                while session.poll_transmit(NOW, generation).is_some() {}
            }
        });
        assert_told(stats.send_memory, held, &format!("messages of {length}"));
    }
}

#[test]
fn encoded_records_count_with_all_that_their_blocks_take() {
    let (mut session, generation) = server(Config::new());
    let (held, stats) = measured(&mut session, |session| {
        for _ in 0..20 {
            let mut records = Records::with_capacity(MAX_RECORD);
            assert!(records.push_bytes(Kind::Binary, &[7; 9_000]));
            session.send_records(&mut records).unwrap();
            while session.poll_transmit(NOW, generation).is_some() {}
        }
    });
    assert_told(stats.send_memory, held, "9,000 bytes in blocks of 64 KiB");
}

#[test]
fn a_shared_message_counts_with_its_own_length() {
    let (mut session, generation) = server(Config::new());
    let payload = Bytes::from(vec![7; MIB as usize]);
    session.send_shared(Kind::Binary, &payload).unwrap();
    while session.poll_transmit(NOW, generation).is_some() {}
    let memory = session.stats().send_memory;
    assert!((MIB..MIB + 100_000).contains(&memory), "{memory}");
}

/// What an application holds that acknowledges by hand is its own. The session keeps two numbers,
/// however many messages were taken and not processed; an honest peer stops at its replay limit,
/// and another one gains nothing.
#[test]
fn taken_but_unprocessed_messages_cost_nothing() {
    let config = Config::new().acknowledge(Acknowledge::ByHand);
    let (mut session, generation) = server(config);
    let mut peer = Peer::new(0, false, 4_000);
    let mut end = Position::START;
    let mut round = |session: &mut Session| {
        peer.send(session, generation);
        while let Some(Incoming::Messages(batch)) = session.recv() {
            end = batch.end();
            assert!(session.taken(NOW, end));
        }
        peer.sent
    };
    round(&mut session);
    let (held, stats) = measured(&mut session, |session| while round(session) < 4_000_000 {});
    assert_eq!((held, stats.receive_memory), (0, 0));
    let acknowledged = |session: &mut Session| {
        session.hurry_acknowledgement();
        let packets = std::iter::from_fn(|| session.poll_transmit(NOW, generation));
        let packets = packets.filter_map(|it| match Packet::decode(it) {
            Ok(Packet::Ack(seq)) => Some(seq.get()),
            _ => None,
        });
        packets.last()
    };
    assert_eq!(acknowledged(&mut session), None, "nothing was processed");
    assert!(session.acknowledge(NOW, end));
    assert_eq!(acknowledged(&mut session), Some(4_000_000));
}

/// Once a session's queues kept for its whole life what a burst had made them grow to.
#[test]
fn a_session_at_rest_gives_back_what_a_burst_took() {
    let (mut session, generation) = server(Config::new());
    let mut peer = Peer::new(0, false, 1);
    let (held, stats) = measured(&mut session, |session| {
        for _ in 0..16_000 {
            peer.send(session, generation);
            session.send("").unwrap();
            while session.poll_transmit(NOW, generation).is_some() {}
        }
        let mut end = Position::START;
        while let Some(Incoming::Messages(batch)) = session.recv() {
            end = batch.end();
        }
        assert!(session.taken(NOW, end));
        let ack = Packet::Ack(Seq::new(16_000)).to_bytes();
        session.handle_packet(NOW, generation, ack).unwrap();
    });
    assert_eq!(stats.receive_memory, 0);
    assert!(held < 1_000_000, "{held} bytes");
}
