//! Queues that mostly hold one item at a time.

use std::collections::VecDeque;

use crate::limits::SPARE_PLACES;

/// Appends an item. The first takes one place, not the four that the standard library would begin
/// with: a session at rest keeps what its queues once grew to.
#[inline]
pub(crate) fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push_back(item);
}

/// Gives back what an empty queue grew to, once it is too much to keep. A burst that comes again and
/// again costs no more than one allocation for each [`SPARE_PLACES`] items.
#[inline]
pub(crate) fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > SPARE_PLACES {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_at_rest_keeps_little_of_what_it_grew_to() {
        let mut queue = VecDeque::new();
        push(&mut queue, 0);
        assert_eq!(queue.capacity(), 1);
        for item in 0..10_000 {
            push(&mut queue, item);
        }
        trim(&mut queue);
        assert_eq!(queue.len(), 10_001);
        queue.clear();
        trim(&mut queue);
        assert!(queue.capacity() <= SPARE_PLACES);
    }
}
