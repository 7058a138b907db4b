//! Counts lost, duplicated, reordered and corrupted packets of a run, in bounded memory.

use serde::Serialize;

use super::sequence::Sequence;
use super::{MAX_COUNT, intact_index};

/// Checks packets as they arrive and counts what is wrong with them.
#[derive(Debug)]
pub(crate) struct Checker {
    expected: Expected,
    sequence: Sequence,
    corrupted: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Expected {
    /// This many packets, of this size.
    Exactly { count: u64, size: usize },
    /// As many as the peer sends, of any size.
    Anything,
}

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// How many there should be: the number asked for, or one past the highest index seen.
    pub(crate) count: u64,
    /// Different intact packets that arrived.
    pub(crate) received: u64,
    /// `count` minus `received`.
    pub(crate) lost: u64,
    /// Intact packets that had arrived before.
    pub(crate) duplicated: u64,
    /// Packets that arrived after one with a higher index.
    pub(crate) reordered: u64,
    /// Wrong hash, wrong size, or an index that was not asked for.
    pub(crate) corrupted: u64,
}

impl Report {
    /// Whether every packet came intact, once and in order.
    pub(crate) fn is_perfect(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.corrupted == 0
    }
}

impl Checker {
    /// Checks for `count` packets of `size` bytes.
    pub(crate) fn exactly(count: u64, size: usize) -> Self {
        Self::new(Expected::Exactly { count, size })
    }

    /// Checks packets of any number and size, with indexes from 0.
    pub(crate) fn anything() -> Self {
        Self::new(Expected::Anything)
    }

    fn new(expected: Expected) -> Self {
        Self {
            expected,
            sequence: Sequence::default(),
            corrupted: 0,
            bytes: 0,
        }
    }

    /// Takes the next message of the run.
    pub(crate) fn take(&mut self, packet: &[u8]) {
        self.bytes += packet.len() as u64;
        match intact_index(packet).filter(|&index| self.is_expected(index, packet.len())) {
            None => self.corrupted += 1,
            Some(index) => self.sequence.take(index),
        }
    }

    fn is_expected(&self, index: u64, len: usize) -> bool {
        match self.expected {
            Expected::Exactly { count, size } => index < count && len == size,
            Expected::Anything => index < MAX_COUNT,
        }
    }

    /// Different intact packets so far.
    pub(crate) fn received(&self) -> u64 {
        self.sequence.received()
    }

    /// Bytes of all messages so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The counts so far.
    pub(crate) fn report(&self) -> Report {
        let count = match self.expected {
            Expected::Exactly { count, .. } => count,
            Expected::Anything => self.sequence.next(),
        };
        Report {
            count,
            received: self.received(),
            lost: count - self.received(),
            duplicated: self.sequence.duplicated(),
            reordered: self.sequence.reordered(),
            corrupted: self.corrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::sequence::MAX_HOLES;
    use super::super::{HEADER_BYTES, packet};
    use super::*;

    fn checked(count: u64, indexes: &[u64]) -> Report {
        let mut checker = Checker::exactly(count, HEADER_BYTES);
        for &index in indexes {
            checker.take(&packet(index, HEADER_BYTES));
        }
        checker.report()
    }

    #[test]
    fn all_in_order_is_perfect() {
        let report = checked(4, &[0, 1, 2, 3]);
        assert!(report.is_perfect());
        assert_eq!(report.received, 4);
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        let zero = Report {
            count: 4,
            received: 4,
            ..Report::default()
        };
        assert_eq!(
            checked(4, &[0, 2, 3]),
            Report {
                received: 3,
                lost: 1,
                ..zero
            }
        );
        assert_eq!(
            checked(4, &[0, 1, 2]),
            Report {
                received: 3,
                lost: 1,
                ..zero
            }
        );
        assert_eq!(
            checked(4, &[0, 1, 1, 2, 3]),
            Report {
                duplicated: 1,
                ..zero
            }
        );
        assert_eq!(
            checked(4, &[0, 2, 3, 1]),
            Report {
                reordered: 1,
                ..zero
            }
        );
        assert_eq!(
            checked(4, &[0, 2, 3, 1, 1]),
            Report {
                reordered: 1,
                duplicated: 1,
                ..zero
            }
        );
        assert_eq!(
            checked(4, &[0, 1, 2, 3, 4]),
            Report {
                corrupted: 1,
                ..zero
            }
        );
        assert_eq!(
            checked(4, &[]),
            Report {
                received: 0,
                lost: 4,
                ..zero
            }
        );
    }

    #[test]
    fn wrong_bytes_and_wrong_sizes_are_corrupted() {
        let mut checker = Checker::exactly(1, 64);
        checker.take(b"");
        checker.take(&packet(0, 63));
        let mut flipped = packet(0, 64).to_vec();
        flipped[63] ^= 1;
        checker.take(&flipped);
        assert_eq!(checker.report().corrupted, 3);
        checker.take(&packet(0, 64));
        assert_eq!(checker.report().received, 1);
        assert_eq!(checker.bytes(), 63 + 64 + 64);
    }

    #[test]
    fn a_hostile_index_costs_no_memory() {
        let mut checker = Checker::anything();
        checker.take(&packet(u64::MAX, HEADER_BYTES));
        checker.take(&packet(MAX_COUNT, HEADER_BYTES));
        assert_eq!(checker.report().corrupted, 2);
        for index in (1..4 * MAX_HOLES as u64).step_by(2) {
            checker.take(&packet(index, HEADER_BYTES));
        }
        assert_eq!(checker.sequence.missing().count(), MAX_HOLES);
        let report = checker.report();
        assert_eq!(
            (report.received, report.lost),
            (2 * MAX_HOLES as u64, 2 * MAX_HOLES as u64)
        );
    }

    proptest! {
        /// Compares with a model that remembers every index.
        #[test]
        fn any_order_is_counted_as_a_set_would(indexes in prop::collection::vec(0u64..40, 0..120)) {
            let (mut seen, mut highest) = (HashSet::new(), None);
            let (mut duplicated, mut reordered) = (0, 0);
            for &index in &indexes {
                if !seen.insert(index) {
                    duplicated += 1;
                } else if Some(index) < highest {
                    reordered += 1;
                }
                highest = highest.max(Some(index));
            }
            let received = seen.len() as u64;
            prop_assert_eq!(checked(40, &indexes), Report {
                count: 40, received, lost: 40 - received, duplicated, reordered, corrupted: 0,
            });
        }
    }
}
