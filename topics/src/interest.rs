//! Who wants to be woken for which topics, so that a publication wakes those that it concerns.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::sync::Notify;
use unstall_proto::topics::{Filter, Offset, Standing, SubscriptionStage, Topic};

use crate::stats::NodeSubscription;

/// The subscriptions of a log's nodes that wait for messages, by what they wait for.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    state: Mutex<State>,
    /// Everything up to this offset was told to those whom it concerns.
    told: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Filters without wildcards.
    topics: HashMap<Topic, BTreeMap<u64, Arc<Waiter>>>,
    /// All others.
    patterns: BTreeMap<u64, Arc<Waiter>>,
}

/// A subscription that waits. It knows where messages of its filter are, so that one whose topic is
/// quiet need not look at everything that was published under others.
///
/// Invariant: a message of the filter behind both `place` and the end of the log when this was made
/// is not before `first`, and not behind `last`, once it was told.
#[derive(Debug)]
struct Waiter {
    notify: Arc<Notify>,
    filter: Filter,
    /// The connection that it came over.
    connection: Option<u64>,
    /// How it stood when it was last at rest, for whoever watches.
    standing: Mutex<Option<Standing>>,
    /// The subscription has read up to here. It never goes back.
    place: AtomicU64,
    /// Where the first messages behind the place were that concern it. 0: not known.
    first: AtomicU64,
    /// The end of the last ones.
    last: AtomicU64,
}

/// An entry of [`Interests`]. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Interest {
    interests: Arc<Interests>,
    waiter: Arc<Waiter>,
    id: u64,
}

impl Waiter {
    /// Messages between these offsets concern it, the ends included.
    fn wake(&self, (first, last): (Offset, Offset)) {
        if self.place.load(Acquire) >= self.last.load(Relaxed) {
            self.first.store(first.get(), Release);
        }
        self.last.fetch_max(last.get(), Release);
        self.notify.notify_one();
    }

    fn subscription(&self) -> NodeSubscription {
        let standing = *self.standing();
        let stage = standing.map_or(SubscriptionStage::Opening, |it| it.stage);
        let offset = standing.map_or(Offset::START, |it| it.place);
        let lag = match stage {
            SubscriptionStage::History | SubscriptionStage::Live => {
                self.last.load(Acquire).saturating_sub(offset.get())
            }
            _ => 0,
        };
        NodeSubscription {
            connection: self.connection,
            filter: self.filter.clone(),
            stage,
            offset,
            lag,
            lag_bytes: 0,
            lag_time: Duration::ZERO,
            credit_bytes: standing.map_or(0, |it| it.credit),
            waits_for_credit: lag > 0 && standing.is_some_and(|it| it.has_no_credit),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Option<Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interests {
    /// Wakes `notify` for each publication that matches, from now on. `end` says where the log ends.
    pub(crate) fn add(
        self: &Arc<Self>,
        filter: &Filter,
        connection: Option<u64>,
        notify: &Arc<Notify>,
        end: impl FnOnce() -> Offset,
    ) -> Interest {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        // What is told from now on is told to it. Of what was there before, nothing is known.
        let waiter = Arc::new(Waiter {
            notify: notify.clone(),
            filter: filter.clone(),
            connection,
            standing: Mutex::new(None),
            place: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(end().get()),
        });
        match filter.as_topic() {
            Some(topic) => {
                let waiting = state.topics.entry(topic).or_default();
                waiting.insert(id, waiter.clone());
            }
            None => {
                state.patterns.insert(id, waiter.clone());
            }
        }
        Interest {
            interests: self.clone(),
            waiter,
            id,
        }
    }

    /// Messages between these offsets were published under these topics.
    pub(crate) fn wake(&self, topics: &[&Topic], range: (Offset, Offset)) {
        let state = self.lock();
        for topic in topics {
            let waiting = state.topics.get(*topic);
            waiting
                .into_iter()
                .flatten()
                .for_each(|(_, it)| it.wake(range));
        }
        for waiter in state.patterns.values() {
            if topics
                .iter()
                .any(|topic| waiter.filter.matches(topic.as_str()))
            {
                waiter.wake(range);
            }
        }
        self.told.fetch_max(range.1.get(), Release);
    }

    /// Something happened between these offsets that may concern all.
    pub(crate) fn wake_all(&self, range: (Offset, Offset)) {
        self.each(|waiter| waiter.wake(range));
        self.told.fetch_max(range.1.get(), Release);
    }

    /// The log has lost its end. What was told of is no longer known.
    pub(crate) fn begin_anew(&self, last: Offset) {
        self.told.store(last.get(), Release);
    }

    /// Lets all take notice of where the log ends.
    pub(crate) fn nudge_all(&self) {
        self.each(|waiter| waiter.notify.notify_one());
    }

    fn each(&self, tell: impl Fn(&Waiter)) {
        self.lock().waiters().for_each(|waiter| tell(waiter));
    }

    /// All subscriptions, in no order. What their lags are in bytes and time is not known here.
    pub(crate) fn all(&self) -> Vec<NodeSubscription> {
        // Publishers need the lock, so it is held only to copy the list.
        let waiters: Vec<_> = self.lock().waiters().cloned().collect();
        waiters.iter().map(|waiter| waiter.subscription()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waiters(&self) -> impl Iterator<Item = &Arc<Waiter>> {
        let exact = self.topics.values().flatten().map(|(_, it)| it);
        exact.chain(self.patterns.values())
    }
}

impl Interest {
    /// How the subscription stands, for whoever watches.
    pub(crate) fn stands(&self, standing: Standing) {
        *self.waiter.standing() = Some(standing);
    }

    /// The subscription has everything up to `after`. Returns up to where nothing of its filter
    /// follows: at least `after`.
    pub(crate) fn quiet_through(&self, after: Offset) -> Offset {
        // What is told later than this may not be noted yet.
        let told = self.interests.told.load(Acquire);
        self.waiter.place.store(after.get(), Release);
        let last = self.waiter.last.load(Acquire);
        let first = self.waiter.first.load(Acquire);
        let quiet = match () {
            () if last <= after.get() => told,
            () if first > after.get() => first - 1,
            () => after.get(),
        };
        Offset::new(quiet).map_or(after, |quiet| quiet.max(after))
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = self.interests.lock();
        let Some(topic) = self.waiter.filter.as_topic() else {
            state.patterns.remove(&self.id);
            return;
        };
        if let Some(waiting) = state.topics.get_mut(&topic) {
            waiting.remove(&self.id);
            if waiting.is_empty() {
                state.topics.remove(&topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn woken(notify: &Notify) -> bool {
        notify.notified().now_or_never().is_some()
    }

    fn at(offset: u64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn a_publication_wakes_those_that_it_concerns_and_no_others() {
        let interests = Arc::new(Interests::default());
        let notifies: Vec<_> = (0..4).map(|_| Arc::new(Notify::new())).collect();
        let filters = ["a.b", "a.*", "x", ">"];
        let kept: Vec<_> = filters
            .iter()
            .zip(&notifies)
            .map(|(filter, notify)| {
                let filter = Filter::new(filter).unwrap();
                interests.add(&filter, None, notify, || Offset::START)
            })
            .collect();
        interests.wake(&[&Topic::new("a.b").unwrap()], (at(1), at(1)));
        let now: Vec<_> = notifies.iter().map(|it| woken(it)).collect();
        assert_eq!(now, [true, true, false, true]);
        interests.wake_all((at(2), at(3)));
        assert!(notifies.iter().all(|it| woken(it)));
        drop(kept);
        interests.wake_all((at(4), at(5)));
        assert!(!notifies.iter().any(|it| woken(it)));
        assert!(interests.lock().topics.is_empty());
    }

    /// Random publications and reads against what a filter would have found.
    #[test]
    fn what_is_said_to_be_quiet_has_no_message_of_the_filter() {
        let topics = ["mine", "other"].map(|name| Topic::new(name).unwrap());
        let mut skipped = 0;
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let interests = Arc::new(Interests::default());
            let (mut log, mut after) = (vec![false; rng.usize(0..5)], 0);
            log.iter_mut().for_each(|mine| *mine = rng.bool());
            let end = at(log.len() as u64);
            let filter = Filter::new("mine").unwrap();
            let interest = interests.add(&filter, None, &Arc::default(), || end);
            for _ in 0..40 {
                if rng.bool() {
                    let first = log.len() as u64 + 1;
                    let mine = rng.u32(0..4) == 0;
                    log.extend((0..rng.usize(1..4)).map(|_| mine));
                    let topic = &topics[usize::from(!mine)];
                    interests.wake(&[topic], (at(first), at(log.len() as u64)));
                } else {
                    let quiet = interest.quiet_through(at(after)).get() as usize;
                    assert!(quiet <= log.len());
                    let missed = log[after as usize..quiet.max(after as usize)].contains(&true);
                    assert!(
                        !missed,
                        "seed {seed}: a message up to {quiet} behind {after}"
                    );
                    skipped += quiet as u64 - after;
                    // It reads on, some of it.
                    let left = log.len() as u64 - quiet as u64;
                    after = quiet as u64 + rng.u64(0..=left.min(3));
                }
            }
        }
        assert!(skipped > 10_000, "only {skipped} were passed by");
    }
}
