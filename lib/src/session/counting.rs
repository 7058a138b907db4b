//! Which of a session's messages the application has taken, in the session's own numbers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::queues::queue;
use unstall_proto::{Batch, Position, Seq};

/// Packets that were handed over, until the application has taken their messages.
#[derive(Default)]
pub(super) struct HandedOver {
    packets: VecDeque<Batch>,
    /// How many messages were counted off.
    counted: u64,
}

impl HandedOver {
    pub(super) fn push(&mut self, packet: Batch) {
        queue::push(&mut self.packets, packet);
    }

    /// Whether every message was counted off.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Counts off up to `total` messages; the end of the last, if there was any. A total below
    /// zero is of messages from before this session.
    pub(super) fn count_to(&mut self, total: i64) -> Option<Position> {
        let mut end = None;
        let total = u64::try_from(total).unwrap_or(0);
        while let Some(packet) = self.packets.front_mut().filter(|_| self.counted < total) {
            let more = total - self.counted;
            if packet.remaining() <= more {
                self.counted += packet.remaining();
                end = Some(packet.end());
                self.packets.pop_front();
            } else {
                (0..more).for_each(|_| _ = packet.next_ref());
                self.counted = total;
                end = Some(Batch::position(packet));
            }
        }
        end
    }
}

/// Where each received message ends, for an application that acknowledges by hand, perhaps long
/// after it has taken them.
#[derive(Default)]
pub(super) struct Ends {
    ends: VecDeque<Position>,
    /// How many were counted off.
    counted: u64,
}

impl Ends {
    pub(super) fn push_all(&mut self, mut packet: Batch) {
        while let Some(message) = packet.next_ref() {
            self.ends.push_back(message.end);
        }
    }

    /// As [`HandedOver::count_to`].
    pub(super) fn count_to(&mut self, total: i64) -> Option<Position> {
        let more = total.saturating_sub_unsigned(self.counted);
        let more = u64::try_from(more).unwrap_or(0).min(self.ends.len() as u64);
        self.counted += more;
        self.ends.drain(..more as usize).next_back()
    }
}

/// Sent messages, until the peer has acknowledged them.
#[derive(Default)]
pub(super) struct Unacknowledged(VecDeque<Run>);

/// Messages accepted in a row, one record each; the first may have several.
struct Run {
    messages: u64,
    end: Seq,
}

impl Unacknowledged {
    pub(super) fn push(&mut self, messages: u64, end: Seq) {
        match self.0.back_mut() {
            Some(last) if last.end.checked_add(messages) == Some(end) => {
                last.messages += messages;
                last.end = end;
            }
            _ => queue::push(&mut self.0, Run { messages, end }),
        }
    }

    /// How many messages are acknowledged now that were not before.
    pub(super) fn count_to(&mut self, acknowledged: Seq) -> u64 {
        let mut count = 0;
        while let Some(run) = self.0.front_mut() {
            if run.end > acknowledged {
                // Only whole messages are acknowledged: behind the first, one a record.
                let left = run.end.since(acknowledged).min(run.messages);
                count += run.messages - left;
                run.messages = left;
                break;
            }
            count += run.messages;
            self.0.pop_front();
        }
        count
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The bytes that a session holds, and those of all sessions of a server together.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    own: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
    limit: u64,
}

impl Default for Held {
    /// Of a session alone.
    fn default() -> Held {
        Held::among(&Arc::default(), u64::MAX)
    }
}

impl Held {
    /// Of one more session beside those that share `all`.
    pub(crate) fn among(all: &Arc<AtomicU64>, limit: u64) -> Held {
        Held {
            own: Arc::default(),
            all: all.clone(),
            limit,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over_limit(&self) -> bool {
        self.all.load(Ordering::Relaxed) >= self.limit
    }

    /// One task sets it: that of the session.
    pub(super) fn set(&self, bytes: u64) {
        let before = self.own.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.all.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(messages: usize) -> Batch {
        let mut records = unstall_proto::Records::default();
        (0..messages).for_each(|_| assert!(records.push("x")));
        records.into_batch()
    }

    #[test]
    fn what_an_earlier_session_left_is_not_counted_as_this_one() {
        let mut taken = HandedOver::default();
        let mut processed = Ends::default();
        for messages in [1, 2] {
            taken.push(packet(messages));
            processed.push_all(packet(messages));
        }
        for total in [-2, 0] {
            assert!(taken.count_to(total).is_none());
            assert!(processed.count_to(total).is_none());
        }
        assert!(taken.count_to(2).is_some(), "within the second packet");
        assert!(processed.count_to(2).is_some());
        assert!(taken.count_to(1).is_none(), "never backwards");
        assert!(processed.count_to(1).is_none(), "never backwards");
        assert!(!taken.is_empty());
        assert!(taken.count_to(9).is_some());
        assert!(processed.count_to(9).is_some());
        assert!(taken.is_empty());
    }

    #[test]
    fn messages_are_counted_once_acknowledged_also_those_of_several_records() {
        let mut sent = Unacknowledged::default();
        sent.push(3, Seq::new(3));
        sent.push(2, Seq::new(5));
        // One message of four records, and one more of one.
        sent.push(1, Seq::new(9));
        sent.push(1, Seq::new(10));
        assert_eq!(sent.count_to(Seq::new(2)), 2);
        assert_eq!(sent.count_to(Seq::new(2)), 0);
        assert_eq!(sent.count_to(Seq::new(5)), 3);
        assert_eq!(sent.count_to(Seq::new(8)), 0);
        assert_eq!(sent.count_to(Seq::new(9)), 1);
        assert_eq!(sent.count_to(Seq::new(10)), 1);
        assert_eq!(sent.count_to(Seq::new(10)), 0);
    }

    #[test]
    fn the_sum_follows_each_session() {
        let all = Arc::default();
        let (one, two) = (Held::among(&all, 8), Held::among(&all, 8));
        one.set(10);
        two.set(5);
        one.set(3);
        assert_eq!(all.load(Ordering::Relaxed), 8);
        assert!(one.is_over_limit());
        two.set(0);
        one.set(0);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
