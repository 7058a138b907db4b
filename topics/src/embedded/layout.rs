//! Keys and values of a log on a disk.
//!
//! A generation has two keyspaces. In `log`, the key is the offset (8 bytes, big-endian) and the
//! value is the message. In `index` the first byte of the key says what it is:
//!
//! | key | value |
//! | --- | --- |
//! | `i`, topic, 0, offset | nothing: the topic has a message there |
//! | `t`, topic | nothing: the topic has a message in this generation |
//! | `p`, publisher's id | what is remembered of it |
//! | `m` | the state of the log after the last commit ([`Meta`]) |
//!
//! The format is version 1 of the directory ([`super::directory`]).

use std::collections::VecDeque;

use bytes::Buf;
use unstall_proto::{
    Kind,
    topics::{Publisher, StoredAt, Topic},
};

use crate::{
    defaults::RUNS,
    publishers::{Known, Run},
    store::Publication,
};

pub(super) const META: &[u8] = b"m";
pub(super) const TOPICS: u8 = b't';
pub(super) const PUBLISHERS: u8 = b'p';
const INDEX: u8 = b'i';

const TEXT: u8 = 1;
const FINAL: u8 = 2;
const PUBLISHED: u8 = 4;

/// Time, flags, length of the topic.
const HEAD: usize = 8 + 1 + 1;

/// The state of the log after a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The first offset that can be in this generation.
    pub(super) begin: u64,
    /// What the messages of this generation cost.
    pub(super) cost: u64,
    /// The last offset of the log.
    pub(super) last: u64,
    pub(super) last_time: StoredAt,
    /// Everything up to this offset is removed.
    pub(super) removed: u64,
    /// Messages from this offset on may have publishers that know less in their own place.
    pub(super) unwritten: u64,
}

impl Meta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let time = self.last_time.millis();
        let fields = [
            self.begin,
            self.cost,
            self.last,
            time,
            self.removed,
            self.unwritten,
        ];
        fields.into_iter().flat_map(u64::to_be_bytes).collect()
    }

    pub(super) fn decode(mut value: &[u8]) -> Option<Meta> {
        let mut field = || value.try_get_u64().ok();
        let meta = Meta {
            begin: field()?,
            cost: field()?,
            last: field()?,
            last_time: StoredAt::new(field()?)?,
            removed: field()?,
            unwritten: field()?,
        };
        value.is_empty().then_some(meta)
    }
}

/// The key of a message in the log.
pub(super) fn log_key(offset: u64) -> [u8; 8] {
    offset.to_be_bytes()
}

pub(super) fn offset_of_log_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The key of a message in the index.
pub(super) fn index_key(topic: &str, offset: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + topic.len() + 1 + 8);
    key.push(INDEX);
    key.extend_from_slice(topic.as_bytes());
    // No topic has a zero byte, so no topic's keys lie between those of another.
    key.push(0);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

pub(super) fn offset_of_index_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk()?))
}

/// The key that says that a topic has messages, or the beginning of the keys of many topics.
pub(super) fn topic_key(prefix: &str) -> Vec<u8> {
    [&[TOPICS], prefix.as_bytes()].concat()
}

pub(super) fn topic_of_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(1..)?).ok()
}

pub(super) fn publisher_key(id: &[u8; 16]) -> Vec<u8> {
    [&[PUBLISHERS], &id[..]].concat()
}

pub(super) fn publisher_of_key(key: &[u8]) -> Option<[u8; 16]> {
    key.get(1..)?.try_into().ok()
}

pub(super) fn encode_message(message: &Publication, time: StoredAt) -> Vec<u8> {
    let topic = message.topic.as_str().as_bytes();
    let mut publisher = Vec::new();
    if let Some((Publisher { id, epoch }, number)) = &message.publisher {
        publisher.reserve_exact(16 + 20);
        publisher.extend_from_slice(id);
        put(&mut publisher, *epoch);
        put(&mut publisher, *number);
    }
    // The memory is kept for a while, so it is no more than needed.
    let length = HEAD + topic.len() + publisher.len() + message.payload.len();
    let mut value = Vec::with_capacity(length);
    value.extend_from_slice(&time.millis().to_be_bytes());
    let text = if message.kind == Kind::Text { TEXT } else { 0 };
    let last = if message.is_final { FINAL } else { 0 };
    let published = if message.publisher.is_some() {
        PUBLISHED
    } else {
        0
    };
    value.push(text | last | published);
    // A topic has at most 255 bytes.
    value.push(topic.len() as u8);
    value.extend_from_slice(topic);
    value.extend_from_slice(&publisher);
    value.extend_from_slice(&message.payload);
    value
}

/// What a stored message has besides its topic, as it lies in its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) time: StoredAt,
    pub(super) kind: Kind,
    pub(super) is_final: bool,
    /// Who published it, and its number.
    pub(super) publisher: Option<(Publisher, u64)>,
    pub(super) payload: &'a [u8],
}

/// Takes a stored message apart.
pub(super) fn parts(value: &[u8]) -> Option<Parts<'_>> {
    let time = time_of_message(value)?;
    let flags = *value.get(HEAD - 2)?;
    let topic = name_of_message(value)?;
    let mut payload = &value[HEAD + topic.len()..];
    let mut publisher = None;
    if flags & PUBLISHED != 0 {
        let (id, behind) = payload.split_first_chunk()?;
        payload = behind;
        let epoch = take(&mut payload)?;
        let number = take(&mut payload)?;
        publisher = Some((Publisher { id: *id, epoch }, number));
    }
    Some(Parts {
        time,
        kind: match flags & TEXT {
            0 => Kind::Binary,
            _ => Kind::Text,
        },
        is_final: flags & FINAL != 0,
        publisher,
        payload,
    })
}

/// The name of the topic of a stored message, unchecked.
pub(super) fn name_of_message(value: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*value.get(HEAD - 1)?);
    value.get(HEAD..HEAD + length)
}

/// The topic of a stored message.
pub(super) fn topic_of_message(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(name_of_message(value)?).ok()
}

pub(super) fn time_of_message(value: &[u8]) -> Option<StoredAt> {
    StoredAt::new(u64::from_be_bytes(*value.first_chunk()?))
}

/// Whether a stored message can be read.
pub(super) fn is_message(value: &[u8]) -> bool {
    let topic = topic_of_message(value).map(Topic::new);
    parts(value).is_some() && matches!(topic, Some(Ok(_)))
}

pub(super) fn encode_publisher(known: &Known) -> Vec<u8> {
    let mut value = Vec::with_capacity(24 + 6 * known.runs.len());
    put(&mut value, known.epoch);
    put(&mut value, known.highest);
    put(&mut value, known.last.millis());
    let (mut number, mut offset) = (0, 0);
    for run in &known.runs {
        put(&mut value, run.number - number);
        put(&mut value, run.offset - offset);
        put(&mut value, run.count);
        (number, offset) = (run.number, run.offset);
    }
    value
}

pub(super) fn decode_publisher(mut value: &[u8]) -> Option<Known> {
    let value = &mut value;
    let epoch = take(value)?;
    let highest = take(value)?;
    let last = StoredAt::new(take(value)?)?;
    let mut runs = VecDeque::new();
    let (mut number, mut offset) = (0_u64, 0_u64);
    while !value.is_empty() && runs.len() < RUNS {
        number = number.checked_add(take(value)?)?;
        offset = offset.checked_add(take(value)?)?;
        let count = take(value)?;
        runs.push_back(Run {
            number,
            offset,
            count,
        });
    }
    Some(Known {
        epoch,
        highest,
        last,
        runs,
    })
}

/// Appends a number in LEB128.
fn put(value: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        value.push(number as u8 | 0x80);
        number >>= 7;
    }
    value.push(number as u8);
}

fn take(value: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = value.split_first()?;
        *value = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_is_the_same_after_it_was_encoded() {
        let run = |number, offset, count| Run {
            number,
            offset,
            count,
        };
        let known = Known {
            epoch: u64::MAX,
            highest: u64::MAX - 1,
            last: StoredAt::MAX,
            runs: [
                run(1, 7, 3),
                run(200, 300, 1),
                run(u64::MAX - 1, 1 << 61, 1),
            ]
            .into(),
        };
        let value = encode_publisher(&known);
        assert_eq!(decode_publisher(&value), Some(known));
        assert_eq!(decode_publisher(&value[..value.len() - 1]), None);
    }

    #[test]
    fn values_that_are_cut_short_are_refused() {
        let topic = Topic::new("a.b").unwrap();
        let mut message = Publication::new(topic, Kind::Text, "payload");
        let publisher = Publisher {
            id: [9; 16],
            epoch: u64::MAX,
        };
        message.publisher = Some((publisher, 300));
        let value = encode_message(&message, StoredAt::MAX);
        let decoded = parts(&value).unwrap();
        assert_eq!(decoded.payload, b"payload");
        assert_eq!(decoded.kind, Kind::Text);
        assert_eq!(topic_of_message(&value), Some("a.b"));
        assert_eq!(decoded.publisher, message.publisher);
        for length in 0..HEAD + 3 + 16 + 10 + 2 {
            assert!(parts(&value[..length]).is_none());
        }
        let meta = Meta {
            begin: 7,
            cost: 1,
            last: 2,
            last_time: StoredAt::MAX,
            removed: 4,
            unwritten: 5,
        };
        let value = meta.encode();
        assert_eq!(Meta::decode(&value), Some(meta));
        assert_eq!(Meta::decode(&value[1..]), None);
    }
}
