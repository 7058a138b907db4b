//! What was published, and what each subscriber received of it.

use serde::Serialize;

use super::talk::{Fate, Stretch};

/// What became of the messages of all publishers.
#[derive(Debug)]
pub(super) struct Published {
    /// By publisher and index.
    fates: Vec<Vec<Known>>,
    pub(super) stored: u64,
    pub(super) not_stored: u64,
    pub(super) unknown: u64,
    /// The highest offset of a confirmed message.
    pub(super) last: u64,
}

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    /// At this offset; 0 if it is not known.
    Stored(u64),
    Not,
    Unknown,
}

/// What one subscriber received.
#[derive(Debug)]
pub(super) struct Received {
    /// A bit for each message, by publisher.
    seen: Vec<Vec<u64>>,
    last: u64,
    /// Behind one offset, and up to another.
    gaps: Vec<(u64, u64)>,
    pub(super) counts: Counts,
}

/// The fields are those of the JSON object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Confirmed, not received, and no gap was told at their place.
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) corrupted: u64,
    /// At another offset than was confirmed, or not published, or refused and stored all the same.
    pub(super) false_messages: u64,
    pub(super) gaps_reported: u64,
    /// Confirmed, not received, and a gap was told at their place.
    pub(super) reported_missing: u64,
}

impl Counts {
    pub(super) fn and(self, other: Counts) -> Counts {
        Counts {
            lost: self.lost.saturating_add(other.lost),
            duplicated: self.duplicated.saturating_add(other.duplicated),
            reordered: self.reordered.saturating_add(other.reordered),
            corrupted: self.corrupted.saturating_add(other.corrupted),
            false_messages: self.false_messages.saturating_add(other.false_messages),
            gaps_reported: self.gaps_reported.saturating_add(other.gaps_reported),
            reported_missing: self.reported_missing.saturating_add(other.reported_missing),
        }
    }
}

impl Published {
    pub(super) fn new(publishers: u32, count: u64) -> Published {
        Published {
            fates: vec![vec![Known::Nothing; count as usize]; publishers as usize],
            stored: 0,
            not_stored: 0,
            unknown: 0,
            last: 0,
        }
    }

    /// Everything of which there is an answer.
    pub(super) fn answered(&self) -> u64 {
        self.stored
            .saturating_add(self.not_stored)
            .saturating_add(self.unknown)
    }

    pub(super) fn took(&mut self, fate: Fate, stretches: &[Stretch]) {
        for stretch in stretches {
            let Some(fates) = self.fates.get_mut(stretch.publisher as usize) else {
                continue;
            };
            for (index, offset) in stretch.messages() {
                let Some(known) = fates.get_mut(index as usize) else {
                    continue;
                };
                let (now, counter) = match fate {
                    Fate::Stored | Fate::StoredBefore => (Known::Stored(offset), &mut self.stored),
                    Fate::Not => (Known::Not, &mut self.not_stored),
                    Fate::Unknown => (Known::Unknown, &mut self.unknown),
                };
                *known = now;
                *counter = counter.saturating_add(1);
                self.last = self.last.max(offset);
            }
        }
    }
}

impl Received {
    pub(super) fn new(publishers: u32, count: u64) -> Received {
        let words = count.div_ceil(64) as usize;
        Received {
            seen: vec![vec![0; words]; publishers as usize],
            last: 0,
            gaps: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// How many different messages were received.
    pub(super) fn delivered(&self) -> u64 {
        let words = self.seen.iter().flatten();
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    pub(super) fn took(&mut self, stretches: &[Stretch]) {
        for stretch in stretches {
            for (index, offset) in stretch.messages() {
                self.took_one(stretch.publisher, index, offset);
            }
        }
    }

    fn took_one(&mut self, publisher: u32, index: u64, offset: u64) {
        let words = self.seen.get_mut(publisher as usize);
        let word = words.and_then(|words| words.get_mut((index / 64) as usize));
        let Some(word) = word else {
            self.counts.false_messages = self.counts.false_messages.saturating_add(1);
            return;
        };
        let bit = 1u64 << (index % 64);
        if *word & bit != 0 {
            self.counts.duplicated = self.counts.duplicated.saturating_add(1);
        } else if offset <= self.last {
            self.counts.reordered = self.counts.reordered.saturating_add(1);
        }
        *word |= bit;
        self.last = self.last.max(offset);
    }

    pub(super) fn gap(&mut self, after: u64, through: u64) {
        self.counts.gaps_reported = self.counts.gaps_reported.saturating_add(1);
        self.gaps.push((after, through));
    }

    pub(super) fn corrupted(&mut self, messages: u64) {
        self.counts.corrupted = self.counts.corrupted.saturating_add(messages);
    }

    /// The account at the end: what was confirmed is compared with what was received.
    pub(super) fn settled(&self, published: &Published) -> Counts {
        let mut counts = self.counts;
        for (fates, words) in published.fates.iter().zip(&self.seen) {
            for (index, known) in fates.iter().enumerate() {
                let word = words.get(index / 64).copied().unwrap_or(0);
                let seen = word >> (index % 64) & 1 == 1;
                let counter = match known {
                    Known::Stored(offset) if !seen => match self.is_in_a_gap(*offset) {
                        true => &mut counts.reported_missing,
                        false => &mut counts.lost,
                    },
                    Known::Not | Known::Nothing if seen => &mut counts.false_messages,
                    _ => continue,
                };
                *counter = counter.saturating_add(1);
            }
        }
        counts
    }

    /// An offset that is not known may be in any gap.
    fn is_in_a_gap(&self, offset: u64) -> bool {
        let mut gaps = self.gaps.iter();
        gaps.any(|(after, through)| offset == 0 || (after < &offset && offset <= *through))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(index: u64, offset: u64, count: u64) -> Vec<Stretch> {
        vec![Stretch {
            publisher: 0,
            index,
            offset,
            count,
        }]
    }

    /// Ten messages at the offsets 1 to 10.
    fn all_stored() -> Published {
        let mut published = Published::new(1, 12);
        published.took(Fate::Stored, &stretch(0, 1, 10));
        published
    }

    #[test]
    fn everything_once_and_in_order_is_a_clean_account() {
        let mut published = all_stored();
        published.took(Fate::Unknown, &stretch(10, 0, 2));
        let mut received = Received::new(1, 12);
        received.took(&stretch(0, 1, 11));
        assert_eq!(received.settled(&published), Counts::default());
        assert_eq!(
            (received.delivered(), published.stored, published.unknown),
            (11, 10, 2)
        );
    }

    #[test]
    fn what_is_missing_is_lost_unless_a_gap_tells_of_it() {
        let published = all_stored();
        let mut received = Received::new(1, 12);
        received.took(&stretch(0, 1, 2));
        received.gap(2, 6);
        received.took(&stretch(7, 8, 3));
        let counts = received.settled(&published);
        assert_eq!(
            (counts.lost, counts.reported_missing, counts.gaps_reported),
            (1, 4, 1)
        );
    }

    #[test]
    fn a_message_twice_or_too_late_or_from_nowhere_is_counted() {
        let mut published = all_stored();
        published.took(Fate::Not, &stretch(10, 0, 1));
        let mut received = Received::new(1, 12);
        received.took(&stretch(0, 1, 5));
        received.took(&stretch(4, 5, 1));
        received.took(&stretch(6, 7, 4));
        received.took(&stretch(5, 6, 1));
        received.took(&stretch(10, 11, 2));
        received.took(&stretch(99, 20, 1));
        let counts = received.settled(&published);
        assert_eq!(
            (counts.duplicated, counts.reordered, counts.lost),
            (1, 1, 0)
        );
        // One was refused, one never published, and one is none of this run.
        assert_eq!(counts.false_messages, 3);
    }
}
