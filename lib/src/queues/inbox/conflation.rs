//! Where the latest message of each key stands, for `Conflate`.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    defaults::{CONFLATE_OVERHEAD_BYTES, IDLE_QUEUE_PLACES},
    messages::Gap,
};

pub(super) type Key = Arc<[u8]>;

/// What a key and its message's place in the index cost; nothing for other policies.
pub(super) fn key_cost(key: &Option<Key>) -> usize {
    key.as_ref()
        .map_or(0, |key| key.len() + CONFLATE_OVERHEAD_BYTES)
}

/// Where in the queue the latest message of each key stands.
#[derive(Default)]
pub(super) struct Conflation {
    pub(super) latest: HashMap<Key, u64>,
    /// One for each place in the queue.
    pub(super) slots: VecDeque<Slot>,
    /// How many slots there were before the queue's front.
    pub(super) front: u64,
    pub(super) bytes: usize,
}

/// The key of a queued message, and what it replaced.
pub(super) struct Slot {
    key: Option<Key>,
    messages: u64,
    bytes: u64,
}

impl Slot {
    pub(super) fn replaced(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }
}

impl Conflation {
    pub(super) fn appended(&mut self, key: Option<Key>) {
        self.bytes += key_cost(&key);
        if let Some(key) = &key {
            let place = self.front + self.slots.len() as u64;
            self.latest.insert(key.clone(), place);
        }
        self.slots.push_back(Slot {
            key,
            messages: 0,
            bytes: 0,
        });
    }

    pub(super) fn index_of(&self, key: &Key) -> Option<usize> {
        self.latest
            .get(key)
            .map(|place| (place - self.front) as usize)
    }

    /// The front goes to the receiver; returns the gap that stands before it.
    pub(super) fn popped(&mut self) -> Option<Gap> {
        let place = self.slots.pop_front()?;
        self.bytes -= key_cost(&place.key);
        if let Some(key) = &place.key
            && self.latest.get(key) == Some(&self.front)
        {
            self.latest.remove(key);
        }
        self.front += 1;
        let (messages, bytes) = (place.messages, place.bytes);
        (messages > 0).then_some(Gap::Conflated { messages, bytes })
    }

    /// Empty, it gives back the memory that it grew by.
    pub(super) fn shrink(&mut self) {
        if self.slots.capacity() > IDLE_QUEUE_PLACES {
            *self = Conflation {
                front: self.front,
                ..Conflation::default()
            };
        }
    }
}
