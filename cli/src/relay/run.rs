//! What happens with the messages that pass together: they are counted, and copied for a recording.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use unstall::{Message, MessageRef, defaults::MESSAGE_OVERHEAD_BYTES};

use super::limits;

/// Messages that pass. They are counted together, so that connections do not wait for each other's
/// counters.
pub(super) struct Counted<'c> {
    messages: u64,
    counters: &'c [&'c AtomicU64],
}

impl Counted<'_> {
    pub(super) fn with<'c>(counters: &'c [&'c AtomicU64]) -> Counted<'c> {
        Counted {
            messages: 0,
            counters,
        }
    }

    pub(super) fn add(&mut self, messages: usize) {
        self.messages += messages as u64;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        for counter in self.counters {
            counter.fetch_add(self.messages, Relaxed);
        }
    }
}

/// Copies of messages that are recorded.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) messages: Vec<Message>,
    bytes: usize,
}

impl Copies {
    /// Breaks when they are enough to be recorded.
    pub(super) fn add(&mut self, message: MessageRef<'_>) -> ControlFlow<()> {
        let cost = MESSAGE_OVERHEAD_BYTES.saturating_add(message.as_bytes().len());
        self.bytes = self.bytes.saturating_add(cost);
        self.messages.push(message.to_message());
        match self.bytes >= limits::RECORD_BATCH_BYTES {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
