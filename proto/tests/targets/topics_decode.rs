//! Any bytes as a packet of topics: decoding never panics, and encoding what was decoded gives the
//! same packet.

use bytes::Bytes;
use unstall_proto::topics::limits::{MAX_PACKET, MIN_CREDIT};
use unstall_proto::topics::{TopicPacket, TopicRecord, published_runs};

pub fn run(input: &[u8]) {
    let Ok(packet) = TopicPacket::decode(Bytes::copy_from_slice(input)) else {
        return;
    };
    assert!(input.len() <= MAX_PACKET);
    match &packet {
        TopicPacket::Messages { records, .. } => walk(records, |bytes, begins| {
            TopicRecord::read_stored(bytes, begins)
        }),
        TopicPacket::Publish { records, .. } => walk(records, |bytes, begins| {
            TopicRecord::read_published(bytes, begins)
        }),
        TopicPacket::Published { runs, .. } => assert!(published_runs(runs).count() > 0),
        TopicPacket::Subscribe(subscribe) => assert!(subscribe.credit >= MIN_CREDIT),
        _ => {}
    }
    let again = packet.to_bytes();
    match &packet {
        TopicPacket::Unknown(kind) => assert!(*kind >= 0x80 && again == [*kind][..]),
        _ => assert_eq!(again, input),
    }
}

type Read = for<'a> fn(&'a [u8], bool) -> Result<TopicRecord<'a>, unstall_proto::ProtocolError>;

fn walk(mut records: &[u8], read: Read) {
    let mut begins = true;
    while let Ok(record) = read(records, begins) {
        assert!(record.size > 0 && record.cost() >= 64);
        begins = !record.continues;
        records = &records[record.size..];
    }
}
