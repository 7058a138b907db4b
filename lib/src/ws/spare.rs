//! Buffers that are used again.

use bytes::{Bytes, BytesMut};

use crate::defaults::SPARE_BUFFERS;

/// The buffers of the latest long messages. One that everybody else has let go is used again,
/// because each new allocation of that size costs page faults.
#[derive(Default)]
pub(super) struct Spare {
    kept: Vec<Bytes>,
}

impl Spare {
    /// An empty buffer of that capacity.
    pub(super) fn take(&mut self, size: usize) -> BytesMut {
        let free = self.kept.iter().position(Bytes::is_unique);
        let buffer = free.and_then(|at| self.kept.swap_remove(at).try_into_mut().ok());
        // Not much larger, because the application may keep the payload for long.
        match buffer.filter(|it| (size..=2 * size).contains(&it.capacity())) {
            Some(mut buffer) => {
                buffer.clear();
                buffer
            }
            None => BytesMut::with_capacity(size),
        }
    }

    pub(super) fn keep(&mut self, buffer: &Bytes) {
        if self.kept.len() == SPARE_BUFFERS {
            self.kept.swap_remove(0);
        }
        self.kept.push(buffer.clone());
    }

    /// How much memory it keeps.
    pub(super) fn held(&self) -> usize {
        self.kept.iter().map(Bytes::len).sum()
    }
}
