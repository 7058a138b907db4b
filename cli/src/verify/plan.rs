//! The messages of a run and their sizes.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::faults::Random;
use crate::packets::{HEADER_BYTES, MAX_PACKET_BYTES, intact_index, packet};

/// The sizes of messages, evenly distributed. The size of one index is always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sizes {
    from: usize,
    to: usize,
    seed: u64,
}

impl Sizes {
    pub(super) fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
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

    /// The message of this index.
    pub(super) fn message(self, index: u64) -> bytes::Bytes {
        packet(index, self.of(index))
    }

    /// The index of a message, if the message is exactly as [`message`](Self::message) makes it.
    pub(super) fn intact_index(self, message: &[u8]) -> Option<u64> {
        intact_index(message).filter(|&index| self.of(index) == message.len())
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
        Ok(Self { from, to, seed: 0 })
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
        assert_eq!(sizes.intact_index(&sizes.message(77)), Some(77));
        let other = packet(77, sizes.of(77) + 1);
        assert_eq!(sizes.intact_index(&other), None);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for wrong in ["", "15", "16..", "..16", "9..8", "64..16", "16777217", "a"] {
            assert!(Sizes::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
