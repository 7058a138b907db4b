//! Who wants to be woken for which topics, so that a publication wakes those that it concerns.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use unstall_proto::topics::{Filter, Topic};

/// The subscriptions of a node that wait for messages, by what they wait for.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Filters without wildcards.
    topics: HashMap<Topic, BTreeMap<u64, Arc<Notify>>>,
    /// All others.
    patterns: BTreeMap<u64, (Filter, Arc<Notify>)>,
}

/// An entry of [`Interests`]. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Interest {
    interests: Arc<Interests>,
    id: u64,
    topic: Option<Topic>,
}

impl Interests {
    /// Wakes `notify` for each publication that matches, from now on.
    pub(crate) fn add(self: &Arc<Self>, filter: &Filter, notify: &Arc<Notify>) -> Interest {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let topic = filter.as_topic();
        let notify = notify.clone();
        match &topic {
            Some(topic) => {
                let waiting = state.topics.entry(topic.clone()).or_default();
                waiting.insert(id, notify);
            }
            None => {
                state.patterns.insert(id, (filter.clone(), notify));
            }
        }
        Interest {
            interests: self.clone(),
            id,
            topic,
        }
    }

    /// Messages were published under these topics.
    pub(crate) fn wake(&self, topics: &[&Topic]) {
        let state = self.lock();
        for topic in topics {
            let waiting = state.topics.get(*topic);
            waiting
                .into_iter()
                .flatten()
                .for_each(|(_, it)| it.notify_one());
        }
        for (filter, notify) in state.patterns.values() {
            if topics.iter().any(|topic| filter.matches(topic.as_str())) {
                notify.notify_one();
            }
        }
    }

    /// Something happened that concerns all: messages were removed, or came from elsewhere.
    pub(crate) fn wake_all(&self) {
        let state = self.lock();
        let exact = state.topics.values().flatten().map(|(_, it)| it);
        let patterns = state.patterns.values().map(|(_, it)| it);
        exact.chain(patterns).for_each(|it| it.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = self.interests.lock();
        let Some(topic) = &self.topic else {
            state.patterns.remove(&self.id);
            return;
        };
        if let Some(waiting) = state.topics.get_mut(topic) {
            waiting.remove(&self.id);
            if waiting.is_empty() {
                state.topics.remove(topic);
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

    #[test]
    fn a_publication_wakes_those_that_it_concerns_and_no_others() {
        let interests = Arc::new(Interests::default());
        let notifies: Vec<_> = (0..4).map(|_| Arc::new(Notify::new())).collect();
        let filters = ["a.b", "a.*", "x", ">"];
        let kept: Vec<_> = filters
            .iter()
            .zip(&notifies)
            .map(|(filter, notify)| interests.add(&Filter::new(filter).unwrap(), notify))
            .collect();
        interests.wake(&[&Topic::new("a.b").unwrap()]);
        let now: Vec<_> = notifies.iter().map(|it| woken(it)).collect();
        assert_eq!(now, [true, true, false, true]);
        interests.wake_all();
        assert!(notifies.iter().all(|it| woken(it)));
        drop(kept);
        interests.wake_all();
        assert!(!notifies.iter().any(|it| woken(it)));
        assert!(interests.lock().topics.is_empty());
    }
}
