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
    /// What was drawn and is not queued, and what it costs.
    records: Records,
    cost: usize,
    /// Bytes reserved in the queue for that, and for what follows.
    reserved: usize,
    /// About how many messages are still to come.
    expected: usize,
}

impl Outbox {
    /// Queues short messages until one is not short or finds no room: that one. `None`: all that
    /// `messages` had.
    ///
    /// # Errors
    /// What was drawn and not queued, because the connection ended meanwhile.
    pub(crate) fn push_run<M: IntoMessage>(
        &self,
        messages: &mut impl Iterator<Item = M>,
    ) -> Result<Option<M>, Vec<Message>> {
        let longest = self.longest_packed();
        let mut run = Run {
            outbox: self,
            records: Records::default(),
            cost: 0,
            reserved: 0,
            expected: messages.size_hint().0,
        };
        let mut left = None;
        for message in messages {
            let payload = message.payload();
            if payload.len() > longest || !run.push(message.is_text(), payload)? {
                left = Some(message);
                break;
            }
        }
        run.queue(true).map(|()| left)
    }
}

impl Run<'_> {
    /// Takes one message in; `false`: there is no room for it.
    ///
    /// # Errors
    /// As [`Outbox::push_run`].
    fn push(&mut self, text: bool, payload: &[u8]) -> Result<bool, Vec<Message>> {
        let cost = payload.len() + MESSAGE_OVERHEAD_BYTES;
        if self.cost + cost > self.reserved && !self.reserve(cost) {
            return Ok(false);
        }
        if self.records.is_empty() {
            self.records = self.packet(payload.len());
        }
        if !self.records.push_bytes(kind(text), payload) {
            self.queue(false)?;
            self.records = self.packet(payload.len());
            self.records.push_bytes(kind(text), payload);
        }
        self.cost += cost;
        self.expected = self.expected.saturating_sub(1);
        Ok(true)
    }

    /// Makes room for a message, and for some more behind it. `false`: there is none, others wait
    /// for it, or the connection has ended.
    fn reserve(&mut self, cost: usize) -> bool {
        if self.outbox.has_line() {
            return false;
        }
        let mut state = self.outbox.lock();
        let lane = &mut state.main;
        if lane.ended.is_none() {
            self.reserved += lane.reserve(RUN_BYTES, self.outbox.limit);
        }
        self.cost + cost <= self.reserved
    }

    /// An empty packet, with room for what is expected.
    fn packet(&self, payload: usize) -> Records {
        self.outbox.lock().spare.pop().unwrap_or_else(|| {
            let expected = self.expected.max(1).saturating_mul(payload + 4);
            Records::with_capacity(expected.min(PACKET_FILL))
        })
    }

    /// Queues what was drawn. At the `end` the room that is left is given back.
    ///
    /// # Errors
    /// What was drawn, if the connection has ended.
    fn queue(&mut self, end: bool) -> Result<(), Vec<Message>> {
        let records = std::mem::take(&mut self.records);
        let cost = std::mem::take(&mut self.cost);
        let rest = self.reserved - cost;
        let (refused, pump) = {
            let mut state = self.outbox.lock();
            let lane = &mut state.main;
            let refused = if lane.ended.is_some() {
                lane.give_back(self.reserved);
                self.reserved = 0;
                Some(records)
            } else {
                if end {
                    lane.give_back(rest);
                }
                self.reserved = if end { 0 } else { rest };
                lane.push_records(records, self.reserved);
                None
            };
            (refused, state.pump.take())
        };
        if end && self.outbox.has_line() {
            self.outbox.written.notify_waiters();
        }
        pump.into_iter().for_each(Waker::wake);
        let Some(refused) = refused.filter(|records| !records.is_empty()) else {
            return Ok(());
        };
        let mut packet = refused.into_batch();
        Err(std::iter::from_fn(|| Message::cut(&mut packet)).collect())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.reserved > 0 {
            // The user's code has panicked. With the connection ended as well, nobody is left to tell.
            let _ = self.queue(true);
        }
    }
}
