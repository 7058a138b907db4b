//! Where the log stood at moments of the past, so that it is known how far a place lies behind its end.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use unstall_proto::topics::{Offset, StoredAt};

use crate::defaults::{MARK_EVERY, MARK_PART, MARKS};

/// Moments of a log in this process, about a second apart. As they get many, the older ones get fewer.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    marks: VecDeque<Mark>,
    last: Mark,
}

/// The end of the log at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    offset: u64,
    /// When the message at this offset was stored, in milliseconds.
    at: u64,
    /// What was added since this process opened the log, up to this offset.
    bytes: u64,
}

impl State {
    /// Leaves out marks that lie closer to each other than a part of their age. Those that are left are
    /// about 64 for each time that the age grows by the factor of three.
    fn thin(&mut self, now: u64) {
        let mut kept = VecDeque::with_capacity(MARKS);
        let mut marks = std::mem::take(&mut self.marks).into_iter().rev().peekable();
        let mut newer = now;
        while let Some(mark) = marks.next() {
            let part = now.saturating_sub(mark.at) / MARK_PART;
            let closes_a_gap = match marks.peek() {
                Some(older) => newer.saturating_sub(older.at) > part,
                None => true,
            };
            if closes_a_gap {
                newer = mark.at;
                kept.push_front(mark);
            }
        }
        self.marks = kept;
    }
}

impl Marks {
    /// Messages of so many bytes were added, up to this one.
    pub(crate) fn add(&self, bytes: usize, offset: Offset, at: StoredAt) {
        let mut state = self.lock();
        let mark = Mark {
            offset: offset.get(),
            at: at.millis(),
            bytes: state.last.bytes.saturating_add(bytes as u64),
        };
        state.last = mark;
        let due = state.marks.back().is_none_or(|newest| {
            let passed = mark.at.saturating_sub(newest.at);
            passed >= MARK_EVERY.as_millis() as u64
        });
        if !due {
            return;
        }
        if state.marks.len() >= MARKS {
            state.thin(mark.at);
        }
        state.marks.push_back(mark);
    }

    /// The bytes behind a place, and how long ago the first of them was stored. Messages that were there
    /// before this process opened the log have no bytes here, and are as old as the first that it knows.
    pub(crate) fn behind(&self, place: Offset, now: StoredAt) -> (u64, Duration) {
        let state = self.lock();
        if place.get() >= state.last.offset {
            return (0, Duration::ZERO);
        }
        let next = state
            .marks
            .partition_point(|mark| mark.offset <= place.get());
        let before = next.checked_sub(1).and_then(|at| state.marks.get(at));
        let bytes = before.map_or(0, |mark| mark.bytes);
        let first = state.marks.get(next).unwrap_or(&state.last);
        let age = now.millis().saturating_sub(first.at);
        (
            state.last.bytes.saturating_sub(bytes),
            Duration::from_millis(age),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn time(millis: u64) -> StoredAt {
        StoredAt::new(millis).unwrap()
    }

    /// A log that grows by a message of 10 bytes every 100 ms, for two hours.
    #[test]
    fn a_place_lies_so_far_behind_as_its_second_says() {
        let marks = Marks::default();
        let count = 72_000;
        for nth in 1..=count {
            marks.add(10, at(nth), time(nth * 100));
        }
        let now = time(count * 100);
        assert!(marks.lock().marks.len() <= MARKS);
        for behind in [1, 30, 500, 5_000, 60_000, count - 1] {
            let (bytes, age) = marks.behind(at(count - behind), now);
            // A second of ten messages, or a part of the lag.
            let slack = 11 + behind / 50;
            assert!(bytes >= behind * 10, "{behind}: {bytes}");
            assert!(bytes <= (behind + slack) * 10, "{behind}: {bytes}");
            let age = age.as_millis() as u64;
            assert!(age <= behind * 100, "{behind}: {age}");
            assert!(age + slack * 100 >= behind * 100, "{behind}: {age}");
        }
        assert_eq!(marks.behind(at(count), now), (0, Duration::ZERO));
    }

    #[test]
    fn what_was_there_before_is_as_old_as_what_is_known() {
        let marks = Marks::default();
        assert_eq!(marks.behind(at(3), time(9_000)).0, 0);
        marks.add(100, at(51), time(5_000));
        let (bytes, age) = marks.behind(at(3), time(9_000));
        assert_eq!((bytes, age), (100, Duration::from_secs(4)));
    }
}
