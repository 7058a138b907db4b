//! The end of what was compressed before: what later messages may refer to.

use super::contexts;

/// The last bytes of a stream, at most as many as the window has. It grows with what comes.
#[derive(Debug)]
pub(super) struct History {
    window: usize,
    bytes: Vec<u8>,
    /// Where the oldest byte lies, once the window is full.
    oldest: usize,
    /// `bytes` is compressed, and `unpack` has to come before anything else.
    packed: bool,
}

impl History {
    pub(super) fn new(window_bits: u8) -> History {
        History {
            window: 1 << window_bits,
            bytes: Vec::new(),
            oldest: 0,
            packed: false,
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        debug_assert!(!self.packed);
        let tail = &data[data.len().saturating_sub(self.window)..];
        let room = self.window - self.bytes.len();
        let (grows, replaces) = tail.split_at(tail.len().min(room));
        if self.bytes.capacity() - self.bytes.len() < grows.len() {
            let size = self.bytes.len() + grows.len();
            let size = size.next_power_of_two().min(self.window);
            self.bytes.reserve_exact(size - self.bytes.len());
        }
        self.bytes.extend_from_slice(grows);
        let end = replaces.len().min(self.window - self.oldest);
        let (until_end, from_begin) = replaces.split_at(end);
        self.bytes[self.oldest..self.oldest + end].copy_from_slice(until_end);
        self.bytes[..from_begin.len()].copy_from_slice(from_begin);
        self.oldest = (self.oldest + replaces.len()) % self.window;
    }

    /// All of it, in two parts from the oldest byte on.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        let (newer, older) = self.bytes.split_at(self.oldest);
        [older, newer]
    }

    /// How much memory it holds.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = History {
            window: self.window,
            bytes: Vec::new(),
            oldest: 0,
            packed: false,
        };
    }

    /// Compresses itself, because it is not needed for now. What was compressed before mostly
    /// becomes a fraction of its size again.
    pub(super) fn pack(&mut self) {
        if self.packed || self.bytes.is_empty() {
            return;
        }
        let packed = contexts::packed(self.parts());
        self.packed = packed.len() < self.bytes.len();
        if self.packed {
            self.bytes = packed;
            self.oldest = 0;
        } else {
            self.bytes.shrink_to_fit();
        }
    }

    pub(super) fn unpack(&mut self) {
        if std::mem::take(&mut self.packed) {
            self.bytes = contexts::unpacked(&self.bytes, self.window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_last_bytes_of_the_window_are_kept_in_order(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..12),
        ) {
            let mut history = History::new(8);
            let mut all = Vec::new();
            for piece in &pieces {
                history.push(piece);
                all.extend_from_slice(piece);
                let kept = history.parts().concat();
                prop_assert_eq!(&kept, &all[all.len().saturating_sub(256)..]);
                prop_assert!(history.held() <= 256);
                history.pack();
                history.unpack();
                prop_assert_eq!(&history.parts().concat(), &kept);
            }
        }
    }
}
