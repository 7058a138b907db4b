//! The account of one direction: which messages were sent, received, and reported as missing.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::packets::Sequence;

/// The counts of messages. `sent` is the sum of `delivered`, `lost` and `reported_undelivered`. The
/// fields are those of the JSON object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Account {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    /// Missing, and not reported.
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) corrupted: u64,
    /// Missing and reported: the sender got them back, or the receiver got a gap at their place.
    pub(super) reported_undelivered: u64,
}

impl Sum for Account {
    fn sum<I: Iterator<Item = Self>>(accounts: I) -> Self {
        accounts.fold(Self::default(), |all, one| Self {
            sent: all.sent + one.sent,
            delivered: all.delivered + one.delivered,
            lost: all.lost + one.lost,
            duplicated: all.duplicated + one.duplicated,
            reordered: all.reordered + one.reordered,
            corrupted: all.corrupted + one.corrupted,
            reported_undelivered: all.reported_undelivered + one.reported_undelivered,
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    sequence: Sequence,
    sent: u64,
    corrupted: u64,
    ended: Option<u64>,
    /// Messages that are sent again, and that were received before: they may arrive once more.
    again: BTreeSet<u64>,
    /// Of those, the ones that did.
    repeated: u64,
    /// Messages that came back to the sender: start to end (exclusive), disjoint.
    returned: BTreeMap<u64, u64>,
    /// When a new message was received last.
    last: Option<Instant>,
    longest_silence: Duration,
}

impl Ledger {
    /// Records that messages below `next` may have been sent.
    pub(super) fn sending(&mut self, next: u64) {
        self.sent = next;
    }

    /// One past the highest index that may have been sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn took(&mut self, first: u64, last: u64, at: Instant) {
        let before = self.sequence.received();
        for index in first..=last {
            match self.again.remove(&index) {
                true => self.repeated += 1,
                false => self.sequence.take(index),
            }
        }
        if self.sequence.received() > before {
            self.not_silent(at);
        }
    }

    fn not_silent(&mut self, at: Instant) {
        if let Some(last) = self.last.replace(at) {
            self.longest_silence = self.longest_silence.max(at.saturating_duration_since(last));
        }
    }

    /// Messages are sent again, because their receiver did not acknowledge them.
    pub(super) fn again(&mut self, first: u64, end: u64) {
        // Those that have not arrived yet arrive for the first time.
        let received = self.sequence.received_within(first..end);
        self.again = received.collect();
    }

    /// How many messages arrived once more than they would have without being sent again.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    pub(super) fn corrupted(&mut self, count: u64) {
        self.corrupted += count;
    }

    pub(super) fn gap(&mut self) {
        self.sequence.mark_gap();
    }

    /// Ends the account: every message below `count` was received or is missing.
    pub(super) fn ended(&mut self, count: u64) {
        self.sequence.end(count);
        self.ended = Some(count);
    }

    /// Whether the receiver knows that it has every message.
    pub(super) fn is_ended(&self) -> bool {
        self.ended == Some(self.sent)
    }

    /// Records messages that came back to the sender, both ends included.
    pub(super) fn returned(&mut self, first: u64, last: u64) {
        let (mut start, mut end) = (first, last + 1);
        while let Some((&other_start, &other_end)) = self.returned.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.returned.remove(&other_start);
            (start, end) = (start.min(other_start), end.max(other_end));
        }
        self.returned.insert(start, end);
    }

    /// Messages that arrived so far.
    pub(super) fn received(&self) -> u64 {
        self.sequence.received()
    }

    /// When a new message was received last.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    pub(super) fn longest_silence(&self) -> Duration {
        self.longest_silence
    }

    /// The account at the end of the run.
    pub(super) fn close(mut self) -> Account {
        self.sequence.end(self.sent);
        let told: u64 = self
            .sequence
            .missing()
            .map(|missing| {
                if missing.told {
                    missing.indexes.end - missing.indexes.start
                } else {
                    self.returned_of(missing.indexes.start, missing.indexes.end)
                }
            })
            .sum::<u64>()
            + self.sequence.told_for_good();
        let delivered = self.sequence.received();
        Account {
            sent: self.sent,
            delivered,
            lost: self.sent.saturating_sub(delivered + told),
            duplicated: self.sequence.duplicated(),
            reordered: self.sequence.reordered(),
            corrupted: self.corrupted,
            reported_undelivered: told,
        }
    }

    /// How many of these came back to the sender.
    fn returned_of(&self, start: u64, end: u64) -> u64 {
        self.returned
            .range(..end)
            .rev()
            .take_while(|(_, other_end)| **other_end > start)
            .map(|(&other_start, &other_end)| other_end.min(end) - other_start.max(start))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sent: u64, taken: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.sending(sent);
        for &(first, last) in taken {
            ledger.took(first, last, Instant::now());
        }
        ledger
    }

    #[test]
    fn what_nobody_was_told_of_is_lost() {
        let account = ledger(10, &[(0, 3), (6, 7)]).close();
        let expected = Account {
            sent: 10,
            delivered: 6,
            lost: 4,
            ..Account::default()
        };
        assert_eq!(account, expected);
    }

    #[test]
    fn what_came_back_or_lies_in_a_gap_is_reported_and_counted_once() {
        let mut ledger = ledger(20, &[(0, 3)]);
        ledger.gap();
        ledger.took(6, 9, Instant::now());
        // 5 is in the gap, 9 was delivered, and 15 and above are not reported.
        ledger.returned(9, 12);
        ledger.returned(5, 5);
        ledger.returned(13, 14);
        ledger.returned(11, 13);
        let account = ledger.close();
        assert_eq!(
            (account.delivered, account.reported_undelivered),
            (8, 2 + 5)
        );
        assert_eq!(account.lost, 5);
        assert_eq!(
            account.sent,
            account.delivered + account.lost + account.reported_undelivered
        );
    }

    #[test]
    fn a_gap_without_a_hole_tells_of_nothing_later() {
        let mut ledger = ledger(10, &[(0, 3)]);
        ledger.gap();
        ledger.took(4, 5, Instant::now());
        ledger.took(8, 9, Instant::now());
        assert_eq!(ledger.close().lost, 2);
    }

    #[test]
    fn the_end_counts_only_when_it_is_that_of_the_producer() {
        let mut ledger = ledger(10, &[(0, 9)]);
        ledger.ended(8);
        assert!(!ledger.is_ended());
        ledger.ended(10);
        assert!(ledger.is_ended());
    }

    #[test]
    fn what_is_sent_again_may_arrive_once_more_and_not_twice_more() {
        let mut ledger = ledger(10, &[(0, 1), (3, 5)]);
        // 2 is missing, 6 and above were under way.
        ledger.again(2, 8);
        for (first, last) in [(3, 5), (3, 3), (6, 9)] {
            ledger.took(first, last, Instant::now());
        }
        assert_eq!(ledger.repeated(), 3);
        let account = ledger.close();
        assert_eq!((account.duplicated, account.lost), (1, 1));
    }

    #[test]
    fn doubled_and_late_messages_are_counted_as_what_they_are() {
        let account = ledger(4, &[(0, 1), (3, 3), (2, 2), (0, 1)]).close();
        assert_eq!((account.delivered, account.lost), (4, 0));
        assert_eq!((account.reordered, account.duplicated), (1, 2));
    }
}
