//! The indexes of a run that arrived, duplicated or out of order, in bounded memory.

use std::collections::BTreeMap;
use std::ops::Range;

/// The most holes that are kept; they take about 3 MiB. A run with more has failed anyway. The
/// oldest hole is then closed for good: its indexes stay missing, and one that arrives late counts
/// as duplicated.
pub(crate) const MAX_HOLES: usize = 1 << 16;

/// Counts the indexes of a run, from 0, as they arrive.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// One past the highest index that came.
    next: u64,
    /// Indexes below `next` that have not arrived, by their start; disjoint.
    holes: BTreeMap<u64, Hole>,
    /// The stream has reported a gap after the last index that arrived.
    gap: bool,
    /// Missing indexes of holes that are closed for good, and that the stream reported.
    told_for_good: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    /// Exclusive.
    end: u64,
    told: bool,
}

/// Indexes that are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) indexes: Range<u64>,
    /// A gap at their place in the stream reported them.
    pub(crate) told: bool,
}

impl Sequence {
    /// Counts the next index of the stream.
    pub(crate) fn take(&mut self, index: u64) {
        if index >= self.next {
            self.leap_to(index);
            self.next = index + 1;
            self.received += 1;
        } else {
            self.take_behind(index);
        }
    }

    /// Notes that the stream reports a gap at this place.
    pub(crate) fn mark_gap(&mut self) {
        self.gap = true;
    }

    /// Notes that no index from `count` on will arrive.
    pub(crate) fn end(&mut self, count: u64) {
        if count >= self.next {
            self.leap_to(count);
            self.next = count;
        }
    }

    /// The indexes between the highest one that arrived and this one become a hole.
    fn leap_to(&mut self, index: u64) {
        let told = std::mem::take(&mut self.gap);
        if index == self.next {
            return;
        }
        self.holes.insert(self.next, Hole { end: index, told });
        if self.holes.len() > MAX_HOLES
            && let Some((start, hole)) = self.holes.pop_first()
            && hole.told
        {
            self.told_for_good += hole.end - start;
        }
    }

    /// An index below the highest fills a hole, or arrived before.
    fn take_behind(&mut self, index: u64) {
        match self.holes.range(..=index).next_back() {
            Some((&start, &hole)) if index < hole.end => {
                self.holes.remove(&start);
                if start < index {
                    self.holes.insert(start, Hole { end: index, ..hole });
                }
                if index + 1 < hole.end {
                    self.holes.insert(index + 1, hole);
                }
                self.received += 1;
                self.reordered += 1;
            }
            _ => self.duplicated += 1,
        }
    }

    /// One past the highest index that came.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The indexes of a range that arrived.
    pub(crate) fn received_within(&self, range: Range<u64>) -> impl Iterator<Item = u64> + '_ {
        let end = range.end.min(self.next);
        (range.start..end).filter(|index| {
            let hole = self.holes.range(..=index).next_back();
            hole.is_none_or(|(_, hole)| *index >= hole.end)
        })
    }

    /// Different indexes that arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Indexes that arrived again.
    pub(crate) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Indexes that arrived after a higher one.
    pub(crate) fn reordered(&self) -> u64 {
        self.reordered
    }

    /// The holes in order, except those that are closed for good.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Missing> + '_ {
        self.holes.iter().map(|(&start, hole)| Missing {
            indexes: start..hole.end,
            told: hole.told,
        })
    }

    /// Missing indexes that the stream reported and that are not in [`missing`](Self::missing).
    pub(crate) fn told_for_good(&self) -> u64 {
        self.told_for_good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holes(sequence: &Sequence) -> Vec<(Range<u64>, bool)> {
        sequence
            .missing()
            .map(|missing| (missing.indexes, missing.told))
            .collect()
    }

    #[test]
    fn a_gap_tells_of_the_hole_at_its_place_and_of_no_other() {
        let mut sequence = Sequence::default();
        for index in [0, 1] {
            sequence.take(index);
        }
        sequence.mark_gap();
        sequence.take(5);
        sequence.take(8);
        sequence.mark_gap();
        sequence.take(9);
        sequence.take(11);
        sequence.mark_gap();
        sequence.end(15);
        assert_eq!(
            holes(&sequence),
            [(2..5, true), (6..8, false), (10..11, false), (12..15, true)]
        );
        assert_eq!(sequence.received(), 6);
    }

    #[test]
    fn a_hole_that_is_filled_late_keeps_what_was_told_of_the_rest() {
        let mut sequence = Sequence::default();
        sequence.mark_gap();
        sequence.take(4);
        sequence.take(2);
        assert_eq!(holes(&sequence), [(0..2, true), (3..4, true)]);
        assert_eq!((sequence.reordered(), sequence.duplicated()), (1, 0));
    }

    #[test]
    fn holes_beyond_the_limit_are_closed_and_still_counted_as_told() {
        let mut sequence = Sequence::default();
        for index in 0..MAX_HOLES as u64 + 3 {
            sequence.mark_gap();
            sequence.take(2 * index + 1);
        }
        assert_eq!(sequence.missing().count(), MAX_HOLES);
        assert_eq!(sequence.told_for_good(), 3);
        sequence.take(0);
        assert_eq!(sequence.duplicated(), 1);
    }
}
