//! Consumers that were read from and may be read from again: a reader who catches up reads chunk by
//! chunk, and a consumer costs the servers an agreement to make.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use unstall_proto::topics::{Filter, Offset};

use super::{
    consumer::Consumer,
    limits::{CONSUMER_IDLE, KEPT_CONSUMERS},
};

/// What a consumer delivers next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// Messages behind this offset,
    pub(super) after: Offset,
    /// that match this filter.
    pub(super) filter: Filter,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The one that was used last is the last.
    consumers: Mutex<VecDeque<(Next, Instant, Consumer)>>,
}

impl Kept {
    /// Takes a consumer that delivers this, if one is kept.
    pub(super) fn take(&self, next: &Next) -> Option<Consumer> {
        let mut consumers = self
            .consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The server may have removed it already, or is about to.
        let fresh = |since: &Instant| since.elapsed() < CONSUMER_IDLE / 2;
        let old = consumers
            .iter()
            .take_while(|(_, since, _)| !fresh(since))
            .count();
        let old: Vec<_> = consumers.drain(..old).collect();
        let at = consumers.iter().position(|(kept, ..)| kept == next);
        let taken = at.and_then(|at| consumers.remove(at));
        drop(consumers);
        drop(old);
        taken.map(|(_, _, consumer)| consumer)
    }

    pub(super) fn keep(&self, next: Next, consumer: Consumer) {
        let mut consumers = self
            .consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        consumers.push_back((next, Instant::now(), consumer));
        let oldest = (consumers.len() > KEPT_CONSUMERS).then(|| consumers.pop_front());
        drop(consumers);
        drop(oldest);
    }
}
