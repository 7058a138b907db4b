//! Many short messages at once, encoded outside of the lock.

use std::task::Waker;

use unstall_proto::{Records, limits::PACKET_FILL};

use super::Outbox;
use crate::{
    defaults::{MESSAGE_OVERHEAD_BYTES, RUN_BYTES},
    messages::{IntoMessage, Message, kind},
};

/// Messages that are being drawn from the user's iterator, for which there is room. Dropped, it
/// queues what was drawn, so that a panic of the iterator loses none.
struct Run<'o> {
    outbox: &'o Outbox,
    records: Records,
    /// Bytes reserved in the queue, and those that are needed.
    reserved: usize,
    cost: usize,
}

impl Outbox {
    /// Queues short messages until one is not short or finds no room: that one. `None`: all that
    /// `messages` had, or a packet's worth of them.
    ///
    /// # Errors
    /// What was drawn and not queued, because the connection ended meanwhile.
    pub(crate) fn push_run<M: IntoMessage>(
        &self,
        messages: &mut impl Iterator<Item = M>,
    ) -> Result<Option<M>, Vec<Message>> {
        let Some(mut run) = self.reserve_run(messages.size_hint().0) else {
            return Ok(messages.next());
        };
        let longest = self.longest_packed();
        let mut left = None;
        let mut bytes = 0;
        while bytes < PACKET_FILL
            && let Some(message) = messages.next()
        {
            let payload = message.payload();
            if payload.len() > longest || !run.push(message.is_text(), payload) {
                left = Some(message);
                break;
            }
            bytes += payload.len() + 1;
        }
        run.commit().map(|()| left)
    }

    /// Room for a run of about so many messages; `None`: there is none, or others wait for it.
    fn reserve_run(&self, messages: usize) -> Option<Run<'_>> {
        if self.has_line() {
            return None;
        }
        let (reserved, spare) = {
            let mut state = self.lock();
            if state.main.ended.is_some() {
                return None;
            }
            let reserved = state.main.reserve(RUN_BYTES, self.limit);
            if reserved == 0 {
                return None;
            }
            (reserved, state.spare.pop())
        };
        let records = spare.unwrap_or_else(|| match messages {
            0..64 => Records::default(),
            _ => Records::with_capacity(PACKET_FILL),
        });
        Some(Run {
            outbox: self,
            records,
            reserved,
            cost: 0,
        })
    }
}

impl Run<'_> {
    /// `false`: it does not fit.
    fn push(&mut self, text: bool, payload: &[u8]) -> bool {
        let cost = self.cost + payload.len() + MESSAGE_OVERHEAD_BYTES;
        let fits = cost <= self.reserved && self.records.push_bytes(kind(text), payload);
        if fits {
            self.cost = cost;
        }
        fits
    }

    /// Queues what was drawn, and gives back the room that it does not need.
    ///
    /// # Errors
    /// All of it, if the connection ended meanwhile.
    fn commit(&mut self) -> Result<(), Vec<Message>> {
        let mut records = std::mem::take(&mut self.records);
        let reserved = std::mem::take(&mut self.reserved);
        let (ended, pump) = {
            let mut state = self.outbox.lock();
            let ended = state.main.ended.is_some();
            let cost = if ended { 0 } else { self.cost };
            let queued = match ended {
                true => Records::default(),
                false => std::mem::take(&mut records),
            };
            state.main.push_reserved(queued, reserved, cost);
            (ended, state.pump.take())
        };
        if self.outbox.has_line() {
            self.outbox.written.notify_waiters();
        }
        pump.into_iter().for_each(Waker::wake);
        let mut refused = records.into_batch();
        match ended && !refused.is_finished() {
            true => Err(std::iter::from_fn(|| Message::cut(&mut refused)).collect()),
            false => Ok(()),
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.reserved > 0 {
            // The user's code has panicked. With the connection ended as well, nobody is left to tell.
            let _ = self.commit();
        }
    }
}
