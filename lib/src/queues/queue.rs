//! Queues that mostly hold one item at a time.

use std::collections::VecDeque;

/// Appends an item. An empty queue first allocates one place; the standard library would allocate
/// four. An idle connection keeps that memory.
#[inline]
pub(crate) fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push_back(item);
}
