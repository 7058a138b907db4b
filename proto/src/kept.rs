//! The memory of received packets, until the application has taken their messages.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::limits::RECEIVED_PACKET_MEMORY;
use crate::number::Seq;
use crate::util;

/// The account of received packets. It has one entry per packet, not per message, and none for
/// messages that were taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    packets: VecDeque<(Seq, u32)>,
    /// Invariant: the sum of what `packets` take.
    memory: u64,
}

impl Kept {
    /// Whole messages that end with the record `last` are kept in that many bytes.
    pub(crate) fn add(&mut self, last: Seq, bytes: usize) {
        // No message is longer than 1 GiB.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        util::push_back(&mut self.packets, (last, bytes));
        self.memory += u64::from(bytes) + RECEIVED_PACKET_MEMORY;
    }

    /// The application has taken everything up to `seq`.
    pub(crate) fn take_up_to(&mut self, seq: Seq) {
        while let Some((_, bytes)) = self.packets.front().filter(|(last, _)| *last <= seq) {
            self.memory -= u64::from(*bytes) + RECEIVED_PACKET_MEMORY;
            self.packets.pop_front();
        }
        util::trim(&mut self.packets);
    }

    /// The memory of all packets, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }
}

/// It follows from what was received and taken, so nothing is hashed.
impl Hash for Kept {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_counts_until_its_last_message_is_taken() {
        let mut kept = Kept::default();
        kept.add(Seq::new(3), 100);
        kept.add(Seq::new(4), 7);
        assert_eq!(kept.memory(), 107 + 2 * RECEIVED_PACKET_MEMORY);
        kept.take_up_to(Seq::new(2));
        assert_eq!(kept.memory(), 107 + 2 * RECEIVED_PACKET_MEMORY);
        kept.take_up_to(Seq::new(3));
        assert_eq!(kept.memory(), 7 + RECEIVED_PACKET_MEMORY);
        kept.take_up_to(Seq::new(9));
        assert_eq!(kept.memory(), 0);
    }
}
