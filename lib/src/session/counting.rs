//! Which of a session's messages the application has taken, in the session's own numbers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use unstall_proto::Position;

/// Counts received messages and knows where each ends.
#[derive(Default)]
pub(super) struct Ends {
    /// The ends of messages that were handed over and not counted off yet.
    ends: VecDeque<Position>,
    /// How many were counted off.
    counted: u64,
}

impl Ends {
    pub(super) fn push(&mut self, end: Position) {
        self.ends.push_back(end);
    }

    /// Whether every message was counted off.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Counts off up to `total` messages; the end of the last, if there was any. A total below
    /// zero is of messages from before this session.
    pub(super) fn count_to(&mut self, total: i64) -> Option<Position> {
        let more = total.saturating_sub_unsigned(self.counted);
        let more = u64::try_from(more).unwrap_or(0).min(self.ends.len() as u64);
        self.counted += more;
        self.ends.drain(..more as usize).next_back()
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

    #[test]
    fn what_an_earlier_session_left_is_not_counted_as_this_one() {
        let mut ends = Ends::default();
        (0..3).for_each(|_| ends.push(Position::START));
        assert!(ends.count_to(-2).is_none());
        assert!(ends.count_to(0).is_none());
        assert!(ends.count_to(2).is_some());
        assert!(ends.count_to(1).is_none(), "never backwards");
        assert!(!ends.is_empty());
        assert!(ends.count_to(9).is_some());
        assert!(ends.is_empty());
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
