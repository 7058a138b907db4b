//! Any packet, and what can become of one on a bad day.

use std::num::NonZeroU64;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use unstall_proto::limits::{MAX_MAX_MESSAGE, MIN_MAX_MESSAGE};
use unstall_proto::{
    CloseFrame, Epoch, ErrorCode, Generation, Hello, Offset, Packet, Rejection, Seq, SessionId,
    Token, Welcome,
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

pub fn packet() -> impl Strategy<Value = Packet> {
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
            frame: CloseFrame::new(code, &reason),
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

/// A change to the bytes of a packet.
#[derive(Clone, Debug)]
pub enum Mutation {
    Truncate(Index),
    Insert(Index, u8),
    Flip(Index, u8),
    Replace(Index, u8),
    Append(Vec<u8>),
    /// Eight bytes become a number at an edge.
    Number(Index, u64),
}

pub fn mutation() -> impl Strategy<Value = Mutation> {
    let edge = prop_oneof![0..9_u64, u64::MAX - 9..=u64::MAX, Just(1 << 62)];
    prop_oneof![
        any::<Index>().prop_map(Mutation::Truncate),
        any::<(Index, u8)>().prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        any::<(Index, u8)>().prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        proptest::collection::vec(any::<u8>(), 1..20).prop_map(Mutation::Append),
        (any::<Index>(), edge).prop_map(|(at, number)| Mutation::Number(at, number)),
    ]
}

pub fn mutate(packet: &Bytes, mutations: &[Mutation]) -> Bytes {
    let mut bytes = packet.to_vec();
    for mutation in mutations {
        let length = bytes.len();
        let place = |at: &Index| at.index(length.max(1));
        match mutation {
            Mutation::Truncate(at) => bytes.truncate(place(at)),
            Mutation::Insert(at, byte) => bytes.insert(place(at), *byte),
            Mutation::Append(more) => bytes.extend_from_slice(more),
            Mutation::Flip(at, bits) if length > 0 => bytes[place(at)] ^= bits,
            Mutation::Replace(at, byte) if length > 0 => bytes[place(at)] = *byte,
            Mutation::Number(at, number) if length >= 9 => {
                let at = at.index(length - 8);
                bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
            }
            _ => {}
        }
    }
    bytes.into()
}
