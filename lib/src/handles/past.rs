//! The last events of the connections that have ended, for who looks a moment later.

use std::{collections::VecDeque, sync::Mutex};

use super::Shared;
use crate::{
    defaults::{ENDED_KEPT, ENDED_KEPT_EVENTS},
    reports::TimedEvent,
};

/// A connection's number, and its last events.
type Past = (u64, Vec<TimedEvent>);

/// Those that ended last. The oldest first.
static PAST: Mutex<VecDeque<Past>> = Mutex::new(VecDeque::new());

/// Keeps the last events of a connection that is dropped.
pub(super) fn add(shared: &Shared) {
    let events = shared.events.kept(ENDED_KEPT_EVENTS);
    let oldest = {
        let mut past = PAST.lock().unwrap();
        let oldest = (past.len() >= ENDED_KEPT).then(|| past.pop_front());
        past.push_back((shared.id, events));
        oldest
    };
    // An error of the application may be in it, which is dropped without the lock.
    drop(oldest);
}

/// The last events of a connection that has ended, if they are still kept.
pub(crate) fn events(id: u64) -> Option<Vec<TimedEvent>> {
    let past = PAST.lock().unwrap();
    let found = past.iter().rev().find(|(it, _)| *it == id);
    found.map(|(_, events)| events.clone())
}
