//! Packets on the wire: decoding gives back what was encoded, and no bytes make it panic.

use std::num::NonZeroU64;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use unstall_proto::limits::{MAX_MAX_MESSAGE, MIN_MAX_MESSAGE};
use unstall_proto::{
    CloseFrame, Epoch, ErrorCode, Generation, Hello, Offset, Packet, ProtocolError, Record,
    Rejection, Seq, SessionId, Token, Welcome,
};

fn reason() -> impl Strategy<Value = String> {
    "[a-zé ]{0,40}"
}

fn millis() -> impl Strategy<Value = u64> {
    0..=315_360_000_000_u64
}

fn hello() -> impl Strategy<Value = Packet> {
    let numbers = (1..=u64::MAX, any::<u64>(), any::<u64>(), any::<u64>());
    let max_message = MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE;
    (any::<([u8; 16], [u8; 16], u64)>(), numbers, max_message).prop_map(
        |((id, token, epoch), (generation, received, acked, credit), max_message)| {
            Packet::Hello(Hello {
                id: SessionId(id),
                token: Token(token),
                epoch: NonZeroU64::new(epoch).map(Epoch),
                generation: Generation::new(generation),
                received: Seq::new(received),
                acked: Seq::new(acked),
                credit: Offset::new(credit),
                max_message,
            })
        },
    )
}

fn welcome() -> impl Strategy<Value = Packet> {
    let numbers = (
        1..=u64::MAX,
        1..=u64::MAX,
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    let max_message = MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE;
    (any::<[u8; 16]>(), numbers, max_message, millis()).prop_map(
        |(token, (epoch, generation, received, acked, credit), max_message, life_millis)| {
            Packet::Welcome(Welcome {
                token: Token(token),
                epoch: Epoch(NonZeroU64::new(epoch).unwrap()),
                generation: Generation::new(generation),
                received: Seq::new(received),
                acked: Seq::new(acked),
                credit: Offset::new(credit),
                max_message,
                life_millis,
            })
        },
    )
}

fn rejection() -> impl Strategy<Value = Packet> {
    prop_oneof![
        Just(Rejection::Expired),
        Just(Rejection::Unknown),
        Just(Rejection::NotYours),
        Just(Rejection::Superseded),
        Just(Rejection::Inconsistent),
        millis().prop_map(|retry_after_millis| Rejection::Full { retry_after_millis }),
        (7..=u8::MAX).prop_map(Rejection::Other),
    ]
    .prop_map(Packet::Reject)
}

fn packet() -> impl Strategy<Value = Packet> {
    let data = (1..=u64::MAX, proptest::collection::vec(any::<u8>(), 1..200)).prop_map(
        |(first, records)| Packet::Data {
            first: Seq::new(first),
            records: records.into(),
        },
    );
    let close = (any::<u64>(), millis(), any::<u16>(), reason()).prop_map(
        |(last, within_millis, code, reason)| Packet::Close {
            last: Seq::new(last),
            within_millis,
            frame: CloseFrame { code, reason },
        },
    );
    prop_oneof![
        hello(),
        welcome(),
        rejection(),
        data,
        close,
        any::<u64>().prop_map(|n| Packet::Ack(Seq::new(n))),
        any::<u64>().prop_map(|n| Packet::Credit(Offset::new(n))),
        any::<u64>().prop_map(|n| Packet::Blocked(Offset::new(n))),
        any::<u64>().prop_map(Packet::Ping),
        any::<u64>().prop_map(Packet::Pong),
        Just(Packet::End),
        (any::<u16>(), reason()).prop_map(|(code, reason)| Packet::Abort {
            code: ErrorCode(code),
            reason
        }),
        (millis(), reason()).prop_map(|(within_millis, reason)| Packet::GoAway {
            within_millis,
            reason
        }),
        (0x80..=u8::MAX).prop_map(Packet::Unknown),
    ]
}

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
