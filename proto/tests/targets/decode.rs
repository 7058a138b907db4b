//! Any bytes: decoding never panics, and encoding what was decoded gives the same packet.

use bytes::Bytes;
use unstall_proto::limits::{MAX_MAX_MESSAGE, MAX_PACKET, MAX_REASON, MAX_RECORD, MIN_MAX_MESSAGE};
use unstall_proto::{Hello, Packet, Record};

pub fn run(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let hello = Hello::from_packet(bytes.clone());
    let packet = match Packet::decode(bytes) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(hello.is_err() && !error.is_resumable());
            return;
        }
    };
    assert!(input.len() <= MAX_PACKET);
    assert_eq!(hello.is_ok(), matches!(packet, Packet::Hello(_)));
    check(&packet);
    let again = packet.to_bytes();
    match &packet {
        Packet::Unknown(kind) => assert!(*kind >= 0x80 && again == [*kind][..]),
        // Every rejection but `full` forgets the time that it does not use.
        Packet::Reject(_) => assert_eq!(Packet::decode(again).as_ref(), Ok(&packet)),
        _ => assert_eq!(again, input),
    }
}

fn check(packet: &Packet) {
    match packet {
        Packet::Hello(hello) => {
            assert!((MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE).contains(&hello.max_message));
            assert!(hello.generation.get() > 0);
        }
        Packet::Welcome(welcome) => {
            assert!((MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE).contains(&welcome.max_message));
            assert!(welcome.generation.get() > 0);
        }
        Packet::Close { frame, .. } => assert!(frame.reason.len() <= MAX_REASON),
        Packet::Abort { reason, .. } | Packet::GoAway { reason, .. } => {
            assert!(reason.len() <= MAX_REASON);
        }
        Packet::Data { first, records } => {
            assert!(first.get() > 0 && !records.is_empty());
            walk(records);
        }
        _ => {}
    }
}

fn walk(mut records: &[u8]) {
    while let Ok(record) = Record::read(records) {
        assert!(record.payload.len() <= MAX_RECORD && record.size() > 0);
        assert!(!record.continues || !record.payload.is_empty());
        records = &records[record.size()..];
    }
}
