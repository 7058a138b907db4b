//! The index of the `Conflate` policy: where the latest message of each key is in the queue.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    defaults::{CONFLATE_OVERHEAD_BYTES, IDLE_QUEUE_PLACES},
    messages::Gap,
};

pub(super) type Key = Arc<[u8]>;

/// What a key costs in the index: its bytes and a fixed overhead. Zero without a key.
pub(super) fn key_cost(key: &Option<Key>) -> usize {
    key.as_ref()
        .map_or(0, |key| key.len() + CONFLATE_OVERHEAD_BYTES)
}

/// Where the latest message of each key is in the queue.
#[derive(Default)]
pub(super) struct Conflation {
    /// The number of the item. Items are numbered from the first that was ever queued.
    pub(super) latest: HashMap<Key, u64>,
    /// One for each item in the queue.
    pub(super) slots: VecDeque<Slot>,
    /// The number of the item at the queue's front.
    pub(super) front: u64,
    /// What the keys cost.
    pub(super) bytes: usize,
}

/// The key of a queued item, and how many messages and bytes it replaced.
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

    /// The front item leaves the queue. Returns the gap for the messages that it replaced.
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

    /// The queue is empty: frees memory that the index grew by.
    pub(super) fn shrink(&mut self) {
        if self.slots.capacity() > IDLE_QUEUE_PLACES {
            *self = Conflation {
                front: self.front,
                ..Conflation::default()
            };
        }
    }
}
