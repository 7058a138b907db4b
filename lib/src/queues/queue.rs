//! Queues that mostly hold one item at a time.

use std::collections::VecDeque;

/// Appends an item. The first takes one place, not the four that the standard library would begin
/// with: a connection at rest keeps what its queues once grew to.
#[inline]
pub(crate) fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push_back(item);
}
