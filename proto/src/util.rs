//! Helpers that this crate and `unstall` share. They are no part of the protocol: other crates
//! should not use them, and they may change in any release.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::{COPY_PIECE, MAX_REASON, SPARE_PLACES};

/// Appends an item to a queue that is mostly empty. The first item allocates one place; the
/// standard library would begin with four. Most connections are idle, and there are many of them.
#[inline]
pub fn push_back<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.capacity() == 0 {
        queue.reserve_exact(1);
    }
    queue.push_back(item);
}

/// Frees the memory of an empty queue that has grown past [`SPARE_PLACES`]. A burst that repeats
/// costs one more allocation for each [`SPARE_PLACES`] items at the most.
#[inline]
pub fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > SPARE_PLACES {
        *queue = VecDeque::new();
    }
}

/// Gives `bytes` to `put` in pieces of at most [`COPY_PIECE`].
#[inline(always)]
pub fn copy_in_pieces(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    if bytes.len() < COPY_PIECE {
        return put(bytes);
    }
    bytes.chunks(COPY_PIECE).for_each(put);
}

/// A copy of `bytes`, made in [pieces](copy_in_pieces).
pub fn copied(bytes: &[u8]) -> Bytes {
    let mut copy = Vec::with_capacity(bytes.len());
    copy_in_pieces(bytes, |piece| copy.extend_from_slice(piece));
    copy.into()
}

/// The longest beginning of `reason` that is no longer than [`MAX_REASON`] bytes. It ends between
/// two characters.
pub fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_keeps_little_of_what_it_grew_to() {
        let mut queue = VecDeque::new();
        push_back(&mut queue, 0);
        assert_eq!(queue.capacity(), 1);
        for item in 0..10_000 {
            push_back(&mut queue, item);
        }
        trim(&mut queue);
        assert_eq!(queue.len(), 10_001);
        queue.clear();
        trim(&mut queue);
        assert!(queue.capacity() <= SPARE_PLACES);
    }

    #[test]
    fn a_copy_is_the_same_at_every_length_around_the_pieces() {
        for length in [
            0,
            1,
            COPY_PIECE - 1,
            COPY_PIECE,
            COPY_PIECE + 1,
            5 * COPY_PIECE,
        ] {
            let bytes: Vec<_> = (0..length).map(|index| index as u8).collect();
            assert_eq!(copied(&bytes), bytes);
            copy_in_pieces(&bytes, |piece| assert!(piece.len() <= COPY_PIECE));
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(cut_reason("bye"), "bye");
        assert_eq!(cut_reason(&"x".repeat(200)), "x".repeat(MAX_REASON));
        let two_bytes_each = "\u{e9}".repeat(100);
        assert_eq!(cut_reason(&two_bytes_each).len(), MAX_REASON - 1);
    }
}
