//! The messages that are there now, as an iterator, so that they are handed on together.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use unstall::{Gap, Incoming, Message, Receiver, defaults::MESSAGE_OVERHEAD_BYTES};

use super::{
    limits, lock,
    remembered::{Covered, Full, Memory},
};

/// The messages that are there now, one after the other, up to a gap. They are counted together, so that
/// connections do not wait for each other's counters.
pub(super) struct Run<'r> {
    pub(super) first: Option<Incoming>,
    pub(super) from: &'r mut Receiver,
    pub(super) gap: &'r mut Option<Gap>,
    pub(super) count: u64,
    pub(super) extra: Extra<'r>,
    pub(super) counters: [&'r AtomicU64; 2],
}

/// What else happens with the messages of one direction.
pub(super) enum Extra<'r> {
    /// They are recorded.
    Copies(Option<&'r mut Copies>),
    /// The client's memory takes note of them.
    Noted(Noted<'r>),
}

/// What becomes of the client's messages if upstream is lost.
pub(super) struct Noted<'r> {
    pub(super) memory: Option<&'r Mutex<Memory>>,
    /// Counts those of which nobody will know whether upstream has them.
    pub(super) uncovered: &'r AtomicU64,
    /// There is no room for one of them. It ends the run.
    pub(super) full: &'r mut Option<Full>,
}

impl Noted<'_> {
    /// `false`: there is no room for it.
    fn note(&mut self, message: &Message) -> bool {
        let Some(memory) = self.memory else {
            return true;
        };
        match lock(memory).note(message) {
            Ok(Covered::No) => {
                self.uncovered.fetch_add(1, Relaxed);
            }
            Ok(_) => {}
            Err(full) => *self.full = Some(full),
        }
        self.full.is_none()
    }
}

/// Copies of the messages of a run.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) messages: Vec<Message>,
    bytes: usize,
}

impl Copies {
    fn add(&mut self, message: &Message) {
        let cost = MESSAGE_OVERHEAD_BYTES.saturating_add(message.len());
        self.bytes = self.bytes.saturating_add(cost);
        self.messages.push(message.clone());
    }

    fn is_full(&self) -> bool {
        self.bytes >= limits::RECORD_BATCH_BYTES
    }
}

impl Run<'_> {
    fn has_ended(&self) -> bool {
        self.gap.is_some()
            || match &self.extra {
                Extra::Copies(copies) => copies.as_ref().is_some_and(|copies| copies.is_full()),
                Extra::Noted(noted) => noted.full.is_some(),
            }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for counter in self.counters {
            counter.fetch_add(self.count, Relaxed);
        }
        // Without rules that is all of them.
        if let Extra::Noted(Noted {
            memory: None,
            uncovered,
            ..
        }) = &self.extra
        {
            uncovered.fetch_add(self.count, Relaxed);
        }
    }
}

impl Iterator for Run<'_> {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        if self.has_ended() {
            return None;
        }
        let next = match self.first.take() {
            Some(first) => first,
            None => self.from.try_recv()?,
        };
        match next {
            Incoming::Message(message) => {
                match &mut self.extra {
                    Extra::Copies(None) => {}
                    Extra::Copies(Some(copies)) => copies.add(&message),
                    Extra::Noted(noted) => {
                        if !noted.note(&message) {
                            return None;
                        }
                    }
                }
                self.count += 1;
                Some(message)
            }
            Incoming::Gap(gap) => {
                *self.gap = Some(gap);
                None
            }
        }
    }
}
