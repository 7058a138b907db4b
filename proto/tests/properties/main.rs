//! What holds for every packet, every number and every order.

#![allow(unreachable_pub)]

mod numbers;
mod packets;
mod peer;

use bytes::{Bytes, BytesMut};
use packets::{mutate, mutation, packet};
use proptest::prelude::*;
use unstall_proto::{Hello, Packet, ProtocolError, Record};

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(packet in packet()) {
        prop_assert_eq!(Packet::decode(packet.to_bytes()), Ok(packet));
    }

    #[test]
    fn every_cut_of_a_control_packet_is_malformed_or_shorter_text(packet in packet()) {
        let bytes = packet.to_bytes();
        for end in 0..bytes.len() {
            let _ = Packet::decode(bytes.slice(..end));
        }
    }

    #[test]
    fn no_mutation_of_a_packet_panics_and_what_decodes_encodes_again(
        packet in packet(),
        mutations in proptest::collection::vec(mutation(), 0..4),
    ) {
        let bytes = mutate(&packet.to_bytes(), &mutations);
        let _ = Hello::from_packet(bytes.clone());
        if let Ok(decoded) = Packet::decode(bytes) {
            prop_assert_eq!(Packet::decode(decoded.to_bytes()), Ok(decoded));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        if let Ok(Packet::Data { records, .. }) = Packet::decode(bytes.clone()) {
            let mut rest = &records[..];
            while let Ok(record) = Record::read(rest) {
                rest = &rest[record.size()..];
            }
        }
    }
}

#[test]
fn a_packet_past_the_largest_is_refused_by_its_length_alone() {
    let bytes = BytesMut::zeroed(unstall_proto::limits::MAX_PACKET + 1).freeze();
    assert!(matches!(
        Packet::decode(bytes),
        Err(ProtocolError::Malformed(_))
    ));
}
