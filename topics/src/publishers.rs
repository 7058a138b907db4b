//! What a store remembers of publishers, so that each message is stored once (SPEC-TOPICS.md,
//! "Publishing").

use std::collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry};

use unstall_proto::topics::{Offset, Publisher, StoredAt};

use crate::{
    clock::{earlier, millis},
    defaults::{ONCE_STEPS, RUNS},
    limits::Limits,
};

type Id = [u8; 16];

/// All publishers that are remembered. A publisher is remembered for at least
/// [`Limits::once`] after its last message, so their number is bounded by refusing new ones.
#[derive(Debug)]
pub(crate) struct Publishers {
    limits: Limits,
    known: HashMap<Id, Known>,
    /// Who is forgotten next: each one's step of time, and its id.
    /// Invariant: one for each of `known`.
    order: BTreeSet<(u64, Id)>,
}

/// What is remembered of one publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) epoch: u64,
    /// The highest number stored.
    pub(crate) highest: u64,
    /// When that was.
    pub(crate) last: StoredAt,
    /// Where the last messages are. Invariant: in the order of numbers, and at most [`RUNS`].
    pub(crate) runs: VecDeque<Run>,
}

/// Messages with consecutive numbers and consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) count: u64,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Store,
    /// It was stored before, at this offset if that is still known.
    Before(Option<Offset>),
    /// Another process publishes under the same id, with a higher epoch.
    Fenced,
    /// So many publishers are remembered that there is no room for one more.
    Full,
}

impl Publishers {
    pub(crate) fn new(limits: &Limits) -> Publishers {
        Publishers {
            limits: limits.clone(),
            known: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Forgets whoever published last longer ago than [`Limits::once`].
    pub(crate) fn forget(&mut self, now: StoredAt) {
        // The step that the limit falls into is not over.
        let limit = self.step(earlier(now, self.limits.once));
        while let Some(&(step, id)) = self.order.first() {
            if step >= limit {
                break;
            }
            self.order.pop_first();
            self.known.remove(&id);
        }
        if self.known.len() < self.known.capacity() / 8 {
            self.known.shrink_to(2 * self.known.len());
        }
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn get(&self, id: &Id) -> Option<&Known> {
        self.known.get(id)
    }

    /// What to do with a message.
    pub(crate) fn judge(&self, publisher: Publisher, number: u64) -> Verdict {
        let Some(known) = self.known.get(&publisher.id) else {
            return match self.known.len() < self.limits.max_publishers {
                true => Verdict::Store,
                false => Verdict::Full,
            };
        };
        if publisher.epoch < known.epoch {
            Verdict::Fenced
        } else if publisher.epoch > known.epoch || number > known.highest {
            Verdict::Store
        } else {
            Verdict::Before(known.offset_of(number))
        }
    }

    /// Remembers a message for which the verdict was to store it.
    pub(crate) fn stored(
        &mut self,
        (publisher, number): (Publisher, u64),
        offset: Offset,
        time: StoredAt,
    ) {
        let id = publisher.id;
        let step = self.step(time);
        let known = match self.known.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(Known::new(publisher.epoch)),
        };
        let before = std::mem::replace(&mut known.last, time);
        if publisher.epoch > known.epoch {
            *known = Known::new(publisher.epoch);
            known.last = time;
        }
        known.highest = number;
        known.push(number, offset.get());
        self.reorder(id, before, step);
    }

    /// Takes a message into account that was found in the log. Whether it was not known is the answer.
    #[cfg(feature = "embedded")]
    pub(crate) fn found(
        &mut self,
        (publisher, number): (Publisher, u64),
        offset: Offset,
        time: StoredAt,
    ) -> bool {
        let is_new = match self.judge(publisher, number) {
            // There may be more than the limit if it was higher when they came.
            Verdict::Store | Verdict::Full => true,
            Verdict::Before(_) | Verdict::Fenced => false,
        };
        if is_new {
            self.stored((publisher, number), offset, time);
        }
        is_new
    }

    /// Remembers a publisher as it was written.
    #[cfg(feature = "embedded")]
    pub(crate) fn insert(&mut self, id: Id, known: Known) {
        let step = self.step(known.last);
        let before = self.known.insert(id, known);
        let before = before.map_or(StoredAt::UNKNOWN, |before| before.last);
        self.reorder(id, before, step);
    }

    /// Moves a publisher in the order of forgetting. `before` is when it published last until now,
    /// unknown if it was not there.
    fn reorder(&mut self, id: Id, before: StoredAt, step: u64) {
        if before != StoredAt::UNKNOWN {
            let before = self.step(before);
            if before == step {
                return;
            }
            self.order.remove(&(before, id));
        }
        self.order.insert((step, id));
    }

    /// A time, rounded down.
    fn step(&self, time: StoredAt) -> u64 {
        time.millis() / (millis(self.limits.once) / ONCE_STEPS).max(1)
    }
}

impl Known {
    fn new(epoch: u64) -> Known {
        Known {
            epoch,
            highest: 0,
            last: StoredAt::UNKNOWN,
            runs: VecDeque::new(),
        }
    }

    fn offset_of(&self, number: u64) -> Option<Offset> {
        let run = self.runs.iter().rev().find(|run| run.number <= number)?;
        let behind = number - run.number;
        (behind < run.count).then(|| Offset::new(run.offset + behind))?
    }

    fn push(&mut self, number: u64, offset: u64) {
        if let Some(run) = self.runs.back_mut()
            && run.number + run.count == number
            && run.offset + run.count == offset
        {
            run.count += 1;
            return;
        }
        if self.runs.len() == RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(Run {
            number,
            offset,
            count: 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn publisher(id: u8, epoch: u64) -> Publisher {
        Publisher {
            id: [id; 16],
            epoch,
        }
    }

    fn at(millis: u64) -> StoredAt {
        StoredAt::new(millis).unwrap()
    }

    fn offset(number: u64) -> Offset {
        Offset::new(number).unwrap()
    }

    /// Stores messages at consecutive offsets.
    fn store(
        publishers: &mut Publishers,
        publisher: Publisher,
        numbers: &[u64],
        first: u64,
        time: StoredAt,
    ) {
        for (place, &number) in numbers.iter().enumerate() {
            assert_eq!(publishers.judge(publisher, number), Verdict::Store);
            let offset = offset(first + place as u64);
            publishers.stored((publisher, number), offset, time);
        }
    }

    #[test]
    fn the_last_sixteen_runs_tell_offsets_and_older_ones_only_that_it_was_stored() {
        let mut publishers = Publishers::new(&Limits::default());
        // Two messages in a row, then one of somebody else: 17 runs.
        for run in 0..17 {
            let numbers = [2 * run + 1, 2 * run + 2];
            store(
                &mut publishers,
                publisher(1, 1),
                &numbers,
                1 + 3 * run,
                at(1),
            );
        }
        for run in 0..17 {
            for behind in 0..2 {
                let verdict = publishers.judge(publisher(1, 1), 2 * run + 1 + behind);
                let known = (run > 0).then(|| offset(1 + 3 * run + behind));
                assert_eq!(verdict, Verdict::Before(known), "run {run}");
            }
        }
        let known = &publishers.known[&[1; 16]];
        assert_eq!(known.runs.len(), RUNS);
    }

    #[test]
    fn a_number_that_was_skipped_counts_as_stored_at_an_unknown_place() {
        let mut publishers = Publishers::new(&Limits::default());
        store(&mut publishers, publisher(1, 1), &[1, 3], 1, at(1));
        let verdict = publishers.judge(publisher(1, 1), 2);
        assert_eq!(verdict, Verdict::Before(None));
    }

    #[test]
    fn a_publisher_is_remembered_for_the_whole_time_and_its_place_is_free_soon_after() {
        let once = Duration::from_millis(6_400);
        let limits = Limits::default().once(once).max_publishers(1);
        let mut publishers = Publishers::new(&limits);
        store(&mut publishers, publisher(1, 1), &[1], 1, at(1_000));
        store(&mut publishers, publisher(1, 1), &[2], 2, at(5_050));
        publishers.forget(at(5_050 + 6_400));
        assert_eq!(
            publishers.judge(publisher(2, 1), 1),
            Verdict::Full,
            "its numbers may still come again"
        );
        assert_eq!(
            publishers.judge(publisher(1, 1), 2),
            Verdict::Before(Some(offset(2)))
        );
        publishers.forget(at(5_050 + 6_400 + 100));
        assert_eq!(publishers.judge(publisher(2, 1), 1), Verdict::Store);
        assert!(publishers.order.is_empty());
    }
}
