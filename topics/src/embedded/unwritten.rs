//! Publishers of whom the disk does not know the latest in a place of their own.
//!
//! Each message names its publisher, so what is remembered of publishers changes in the same commit.
//! A place of its own for each of them is written later, a few with each commit: to write it with
//! each message took as long as the message. What was not written when a process ended is found by
//! reading the messages again, from [`Unwritten::from`] on.

use std::collections::{HashSet, VecDeque};

type Id = [u8; 16];

/// A queue of publishers, each with the offset of its first message that has to be read again.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Invariant: the offsets do not fall.
    queue: VecDeque<(Id, u64)>,
    ids: HashSet<Id>,
}

impl Unwritten {
    /// A publisher has a message at an offset, or has to be written for another reason.
    pub(super) fn push(&mut self, id: Id, offset: u64) {
        if self.ids.insert(id) {
            self.queue.push_back((id, offset));
        }
    }

    /// The first publishers, as many as this, or fewer.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = Id> {
        self.queue.iter().take(count).map(|(id, _)| *id)
    }

    /// From which message on the log has to be read again, once the first `count` are written. `None`
    /// if nothing is left.
    pub(super) fn from(&self, count: usize) -> Option<u64> {
        self.queue.get(count).map(|(_, offset)| *offset)
    }

    /// The first publishers are written.
    pub(super) fn pop(&mut self, count: usize) {
        for (id, _) in self.queue.drain(..count.min(self.queue.len())) {
            self.ids.remove(&id);
        }
    }

    /// How many have messages below an offset that are to be read again.
    pub(super) fn below(&self, offset: u64) -> usize {
        self.queue.partition_point(|(_, from)| *from < offset)
    }
}
