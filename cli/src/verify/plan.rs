//! The messages of a run and their sizes.

use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use unstall::Message;
use unstall_proto::Kind;

use super::text;
use crate::faults::Random;
use crate::packets::{HEADER_BYTES, MAX_PACKET_BYTES, intact_index, packet};

/// The sizes of messages, evenly distributed. The size of one index is always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sizes {
    from: usize,
    to: usize,
    seed: u64,
    /// Some messages are text.
    texts: bool,
}

/// If some messages are text, these are: one of so many.
const TEXT_EVERY: u64 = 4;

impl Sizes {
    pub(super) fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Some messages are text, for a peer that has to keep the kind.
    pub(super) fn with_texts(self) -> Self {
        Self {
            texts: true,
            ..self
        }
    }

    pub(super) fn largest(self) -> usize {
        self.to
    }

    /// The approximate number of bytes of this many messages.
    pub(super) fn bytes(self, count: u64) -> u64 {
        count.saturating_mul((self.from + self.to) as u64) / 2
    }

    fn of(self, index: u64) -> usize {
        let span = (self.to - self.from) as u64 + 1;
        self.from + Random::new(self.seed ^ index).below(span) as usize
    }

    fn is_text(self, index: u64) -> bool {
        self.texts && index.is_multiple_of(TEXT_EVERY)
    }

    /// The kind and the payload of the message of this index.
    pub(super) fn payload(self, index: u64) -> (Kind, Bytes) {
        match self.is_text(index) {
            true => (Kind::Text, self.text(index).into()),
            false => (Kind::Binary, packet(index, self.of(index))),
        }
    }

    /// The message of this index.
    pub(super) fn message(self, index: u64) -> Message {
        match self.is_text(index) {
            true => Message::text(self.text(index)),
            false => Message::binary(packet(index, self.of(index))),
        }
    }

    fn text(self, index: u64) -> String {
        text::of(&packet(index, self.of_packet(index)))
    }

    /// The size of the packet that a text stands for.
    fn of_packet(self, index: u64) -> usize {
        (self.of(index) / text::BYTES_PER_BYTE).max(HEADER_BYTES)
    }

    /// The index of a message, if the message is exactly as [`message`](Self::message) makes it.
    pub(super) fn index_of(self, message: &Message) -> Option<u64> {
        let kind = match message.as_text() {
            Some(_) => Kind::Text,
            None => Kind::Binary,
        };
        self.intact_index(kind, message.as_bytes())
    }

    /// The index of a message, if it is exactly as [`payload`](Self::payload) makes it.
    pub(super) fn intact_index(self, kind: Kind, payload: &[u8]) -> Option<u64> {
        match kind {
            Kind::Binary => intact_index(payload)
                .filter(|&index| !self.is_text(index) && self.of(index) == payload.len()),
            Kind::Text => {
                let packet = text::packet(std::str::from_utf8(payload).ok()?)?;
                intact_index(&packet)
                    .filter(|&index| self.is_text(index) && self.of_packet(index) == packet.len())
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| {
            text.trim()
                .parse()
                .ok()
                .filter(|size| (HEADER_BYTES..=MAX_PACKET_BYTES).contains(size))
                .ok_or_else(|| format!("a size must be {HEADER_BYTES} to {MAX_PACKET_BYTES} bytes"))
        };
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let (from, to) = (size(from)?, size(to)?);
        if from > to {
            return Err("the first size is larger than the second".to_owned());
        }
        Ok(Self {
            from,
            to,
            seed: 0,
            texts: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_within_their_bounds_and_reach_both() {
        let sizes = Sizes::from_str("16..19").unwrap().with_seed(5);
        let drawn: Vec<_> = (0..200).map(|index| sizes.of(index)).collect();
        for size in 16..20 {
            assert!(drawn.contains(&size), "{size}");
        }
        assert!(drawn.iter().all(|size| (16..20).contains(size)));
        let one = Sizes::from_str("64").unwrap();
        assert_eq!((one.of(3), one.bytes(10)), (64, 640));
    }

    #[test]
    fn a_message_of_another_size_is_not_intact() {
        let sizes = Sizes::from_str("16..4096").unwrap().with_seed(5);
        assert_eq!(sizes.index_of(&sizes.message(77)), Some(77));
        let other = Message::binary(packet(77, sizes.of(77) + 1));
        assert_eq!(sizes.index_of(&other), None);
    }

    #[test]
    fn a_message_of_the_other_kind_is_not_intact() {
        let sizes = Sizes::from_str("16..64").unwrap().with_seed(5).with_texts();
        let all: Vec<_> = (0..40).map(|index| sizes.message(index)).collect();
        for (index, message) in (0..).zip(&all) {
            assert_eq!(message.as_text().is_some(), index % TEXT_EVERY == 0);
            assert_eq!(sizes.index_of(message), Some(index));
        }
        let as_binary = Message::binary(all[0].as_bytes().to_vec());
        assert_eq!(sizes.index_of(&as_binary), None);
        assert_eq!(sizes.index_of(&Message::text("\u{e9}")), None);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for wrong in ["", "15", "16..", "..16", "9..8", "64..16", "16777217", "a"] {
            assert!(Sizes::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
