//! A session with a peer that says anything, in any order.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use unstall_proto::limits::{MIN_MAX_MESSAGE, MIN_WINDOW, message_cost, record_cost};
use unstall_proto::{
    CloseFrame, Config, Epoch, Generation, HandleError, Hello, Incoming, Offset, Packet,
    ProtocolError, Seq, Session, SessionId, Side, Time, Token,
};

use crate::packets::{Mutation, mutate, mutation, packet};

const NOW: Time = Time::ORIGIN;
const REPLAY: u64 = 300_000;

fn config() -> Config {
    Config::new()
        .max_message(MIN_MAX_MESSAGE)
        .window(MIN_WINDOW)
        .max_window(2 * MIN_WINDOW)
        .replay(REPLAY)
}

/// A session of that side, just opened.
fn opened(side: Side) -> (Session, Generation) {
    let mut client = Session::client(config(), SessionId([1; 16]), Token([2; 16]));
    let on_client = client.attach(NOW).unwrap();
    let hello = Hello::from_packet(client.poll_transmit(NOW, on_client).unwrap()).unwrap();
    let epoch = Epoch(NonZeroU64::MIN);
    let (mut server, on_server) = Session::server(config(), &hello, epoch, Token([3; 16])).unwrap();
    let welcome = server.poll_transmit(NOW, on_server).unwrap();
    client.handle_packet(NOW, on_client, welcome).unwrap();
    match side {
        Side::Client => (client, on_client),
        Side::Server => (server, on_server),
    }
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

/// What happens to the session.
#[derive(Clone, Debug)]
enum Act {
    /// Any packet, changed or not.
    Packet(Packet, Vec<Mutation>),
    /// Records that follow the last ones, or nearly: length, text, and whether they continue.
    Records {
        skip: i8,
        records: Vec<(u32, bool, bool)>,
        mutations: Vec<Mutation>,
    },
    Send(u32),
    Take,
    Transmit,
    Close,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let skip = prop_oneof![30 => Just(0), 1 => -3..3_i8];
    let length = prop_oneof![0..9_u32, Just(65_536), 0..70_000_u32];
    let records = vec((length, any::<bool>(), prop::bool::weighted(0.2)), 1..4);
    let few = || vec(mutation(), 0..3);
    prop_oneof![
        1 => (packet(), few()).prop_map(|(packet, mutations)| Act::Packet(packet, mutations)),
        12 => (skip, records, prop_oneof![30 => Just(Vec::new()), 1 => few()]).prop_map(
            |(skip, records, mutations)| Act::Records { skip, records, mutations }
        ),
        2 => (0..70_000_u32).prop_map(Act::Send),
        2 => Just(Act::Take),
        2 => Just(Act::Transmit),
        1 => Just(Act::Close),
        1 => (0..200_000_u64).prop_map(Act::Wait),
    ]
}

/// A data packet, written by hand: the session must not trust its sender.
fn data(first: u64, records: &[(u32, bool, bool)]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0x10);
    bytes.put_u64(first);
    for (length, text, continues) in records {
        let word = (length << 2) | (u32::from(*continues) << 1) | u32::from(*text);
        bytes.put_u32(word | 0x8000_0000);
        bytes.put_bytes(b'x', *length as usize);
    }
    bytes.freeze()
}

/// The session under test, and what it has accepted.
struct Subject {
    session: Session,
    generation: Generation,
    now: Time,
    next: u64,
}

impl Subject {
    fn apply(&mut self, act: &Act) {
        match act {
            Act::Packet(packet, mutations) => {
                self.packet(mutate(&packet.to_bytes(), mutations));
            }
            Act::Records {
                skip,
                records,
                mutations,
            } => {
                let first = self.next.saturating_add_signed(i64::from(*skip));
                let packet = mutate(&data(first, records), mutations);
                if self.packet(packet) && mutations.is_empty() {
                    self.next = self.next.max(first + records.len() as u64);
                }
            }
            Act::Send(length) => {
                let _ = self.session.send(&vec![7; *length as usize][..]);
            }
            Act::Take => {
                while let Some(Incoming::Messages(batch)) = self.session.recv() {
                    let end = batch.end();
                    let fits = |length: usize| length as u64 <= MIN_MAX_MESSAGE;
                    assert!(batch.into_iter().all(|m| fits(m.payload.len())));
                    assert!(self.session.taken(self.now, end));
                }
            }
            Act::Transmit => {
                // Whatever the peer says, the answer is short.
                let packets =
                    std::iter::from_fn(|| self.session.poll_transmit(self.now, self.generation));
                assert!(packets.take(1_000).count() < 1_000);
            }
            Act::Close => {
                let frame = CloseFrame::new(1000, "");
                let within = Duration::from_secs(5);
                self.session.close(self.now, frame, within);
            }
            Act::Wait(millis) => {
                self.now = self.now.after(Duration::from_millis(*millis));
                self.session.handle_timeout(self.now);
            }
        }
    }

    fn packet(&mut self, packet: Bytes) -> bool {
        let result = self
            .session
            .handle_packet(self.now, self.generation, packet);
        if let Err(HandleError::Protocol(_) | HandleError::Rejected(_)) = &result {
            self.session.detach(self.now, self.generation);
        }
        result.is_ok()
    }

    fn check(&mut self) {
        let stats = self.session.stats();
        let most = 2 * MIN_WINDOW + message_cost(MIN_MAX_MESSAGE);
        // A lone message of a few bytes takes about three times what it costs.
        assert!(stats.receive_memory <= 3 * most, "{stats:?}");
        assert!(stats.send_memory <= 3 * REPLAY + 1_200_000, "{stats:?}");
        assert!(stats.untaken_cost <= most, "{stats:?}");
        assert!(stats.unacknowledged_cost <= REPLAY, "{stats:?}");
        assert!(stats.window <= 2 * MIN_WINDOW, "{stats:?}");
        let events = std::iter::from_fn(|| self.session.poll_event());
        assert!(events.take(20).count() < 20);
    }
}

proptest! {
    #[test]
    fn no_peer_makes_a_session_panic_or_hold_more_than_its_limits(
        side in side(),
        acts in vec(act(), 1..60),
    ) {
        let (session, generation) = opened(side);
        let mut subject = Subject { session, generation, now: NOW, next: 1 };
        for act in &acts {
            subject.apply(act);
            subject.check();
        }
        subject.session.abort("enough");
        let ended = subject.session.is_over() || subject.session.is_attached();
        prop_assert!(ended);
        let back: u64 = subject.session.undelivered().map(|m| record_cost(m.payload.len())).sum();
        prop_assert!(back <= REPLAY);
    }

    #[test]
    fn a_record_is_accepted_exactly_while_credit_covers_it(
        side in side(),
        lengths in vec(prop_oneof![0..9_u32, 0..=65_536_u32], 1..40),
        takes in vec(prop::bool::weighted(0.1), 40),
    ) {
        let (mut session, generation) = opened(side);
        let mut end = 0;
        for (index, (length, takes)) in lengths.iter().zip(takes).enumerate() {
            end += record_cost(*length as usize);
            let granted = session.granted();
            let packet = data(index as u64 + 1, &[(*length, true, false)]);
            let result = session.handle_packet(NOW, generation, packet);
            prop_assert_eq!(result.is_ok(), end <= granted.get());
            if let Err(error) = result {
                let exceeded = ProtocolError::CreditExceeded { sent: Offset::new(end), granted };
                prop_assert_eq!(error, HandleError::Protocol(exceeded));
                break;
            }
            if takes {
                while let Some(Incoming::Messages(batch)) = session.recv() {
                    assert!(session.taken(NOW, batch.end()));
                }
                while session.poll_transmit(NOW, generation).is_some() {}
                prop_assert!(session.granted().get() - end > MIN_WINDOW / 2);
            }
        }
    }

    #[test]
    fn credit_that_is_repeated_or_comes_in_any_order_is_the_same_credit(
        side in side(),
        limits in vec(0..2_000_000_u64, 1..8),
        order in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (mut once, generation) = opened(side);
        let mut again = once.clone();
        let largest = limits.iter().max().copied().unwrap_or(0);
        let credit = |session: &mut Session, limit: u64| {
            let packet = Packet::Credit(Offset::new(limit)).to_bytes();
            session.handle_packet(NOW, generation, packet).unwrap();
        };
        credit(&mut once, largest);
        for limit in &limits {
            credit(&mut again, *limit);
        }
        for index in &order {
            credit(&mut again, *index.get(&limits));
        }
        prop_assert_eq!(once.stats().credit, again.stats().credit);
        prop_assert_eq!(again.stats().credit, largest.max(MIN_WINDOW));
        // And as much is sent with it.
        let packets = |mut session: Session| {
            while session.room() >= record_cost(5_000) {
                session.send(&[7; 5_000][..]).unwrap();
            }
            std::iter::from_fn(|| session.poll_transmit(NOW, generation)).collect::<Vec<_>>()
        };
        prop_assert_eq!(packets(once), packets(again));
    }

    #[test]
    fn acknowledgements_that_are_repeated_or_come_late_are_of_no_effect(
        side in side(),
        numbers in vec(0..=50_u64, 1..8),
        order in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (mut session, generation) = opened(side);
        for _ in 0..50 {
            session.send("message").unwrap();
        }
        while session.poll_transmit(NOW, generation).is_some() {}
        let mut largest = 0;
        let again = order.iter().map(|index| index.get(&numbers));
        for number in numbers.iter().chain(again) {
            let packet = Packet::Ack(Seq::new(*number)).to_bytes();
            session.handle_packet(NOW, generation, packet).unwrap();
            largest = largest.max(*number);
            prop_assert_eq!(session.acknowledged(), Seq::new(largest));
        }
        session.abort("enough");
        prop_assert_eq!(session.undelivered().count() as u64, 50 - largest);
    }
}
