use super::*;
use crate::topics::{TopicPacket, TopicRecord};

fn message(offset: u64, topic: &'static str, payload: &'static [u8]) -> StoredMessage<'static> {
    StoredMessage {
        offset: Offset::new(offset).unwrap(),
        time: StoredAt::new(1_700_000_000_000 + offset).unwrap(),
        topic,
        kind: Kind::Binary,
        is_final: offset == 9,
        payload,
    }
}

static LONG: [u8; 150_000] = [7; 150_000];

fn block() -> Block {
    Block::new([
        message(3, "a.b", b"one"),
        message(5, "c", &LONG),
        message(9, "a.b", b""),
    ])
}

#[test]
fn the_beginning_of_a_block_is_a_packet_for_the_first_subscription() {
    let block = block();
    let packet = TopicPacket::decode(block.packet(1)).unwrap();
    let TopicPacket::Messages {
        subscription,
        records,
    } = packet
    else {
        panic!("{packet:?}");
    };
    assert_eq!(subscription, 1);
    assert_eq!(records, block.slice(0..1));
    let record = TopicRecord::read_stored(&records, true).unwrap();
    assert_eq!((record.payload, record.size), (&b"one"[..], records.len()));
    let first = record.first.unwrap();
    assert_eq!((first.stored.0.get(), first.topic), (3, &b"a.b"[..]));
}

#[test]
fn a_long_message_is_cut_into_records_and_is_whole_again() {
    let block = block();
    assert_eq!(block.find(Offset::new(3).unwrap()), 1);
    assert_eq!(block.message_end(1), 4, "three records");
    assert_eq!(block.length(1), 150_000);
    assert_eq!(block.cost(1..4), 150_000 + 1 + 3 * 64);
    let all: Vec<_> = block.messages(Offset::START).collect();
    assert_eq!(all.len(), 3);
    assert_eq!((all[1].topic, &all[1].payload[..]), ("c", &LONG[..]));
    assert!(all[2].is_final && all[2].payload.is_empty());
    let behind = block.messages(Offset::new(5).unwrap()).count();
    assert_eq!(behind, 1);
}

#[test]
fn as_many_records_fit_as_bytes_and_credit_allow() {
    let block = block();
    assert_eq!(block.fit(0..5, usize::MAX, u64::MAX), 5);
    assert_eq!(block.fit(0..5, block.size(0..1), u64::MAX), 1);
    assert_eq!(block.fit(0..5, block.size(0..1) - 1, u64::MAX), 0);
    assert_eq!(block.fit(0..5, usize::MAX, block.cost(0..3)), 3);
    assert_eq!(block.fit(0..5, usize::MAX, block.cost(0..3) - 1), 2);
    assert_eq!(block.fit(2..5, usize::MAX, block.cost(2..4)), 4);
}

#[test]
fn a_block_takes_only_offsets_that_grow_and_topics_that_have_a_length() {
    let mut builder = BlockBuilder::default();
    assert!(builder.push(message(3, "a", b"x")));
    assert!(!builder.push(message(3, "a", b"x")));
    assert!(!builder.push(message(4, "", b"x")));
    let block = builder.finish();
    assert_eq!(block.messages(Offset::START).count(), 1);
    assert!(Block::new([]).is_empty());
}
