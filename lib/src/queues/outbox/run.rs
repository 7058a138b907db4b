//! `send_many` and `send_batch`: many short messages at once, encoded outside the lock.

use std::{ops::ControlFlow, task::Waker};

use unstall_proto::{Records, limits::PACKET_FILL};

use super::Outbox;
use crate::{
    defaults::{MESSAGE_OVERHEAD_BYTES, RUN_BYTES},
    messages::{Incoming, IntoMessage, Message, MessageRef, kind},
    queues::items::{Draw, Drawn},
};

/// Messages that were drawn from the user's iterator or from a batch, and are not queued yet. Dropping it
/// queues them, so that a panic of the iterator loses none.
struct Run<'o> {
    outbox: &'o Outbox,
    /// The longest message that shares a packet.
    longest: usize,
    records: Records,
    /// What `records` cost in the queue.
    cost: usize,
    /// Bytes that are reserved in the queue, for `records` and for later messages.
    reserved: usize,
    /// How many more messages the iterator promises, as a hint for allocations.
    expected: usize,
}

/// What ended a run over a batch.
pub(crate) enum Passed {
    /// Nothing more is there.
    All,
    /// This was not passed on: a gap, or a message that the caller held back.
    UpTo(Incoming),
    /// This message is long, or there is no room for it.
    NoRoom(Message),
}

impl Outbox {
    /// Queues short messages. Returns the first one that is long or finds no room; `None` after the
    /// last message.
    ///
    /// # Errors
    /// The connection has ended. The error has the messages that were drawn and not queued.
    pub(crate) fn push_run<M: IntoMessage>(
        &self,
        messages: &mut impl Iterator<Item = M>,
    ) -> Result<Option<M>, Vec<Message>> {
        let mut run = Run::new(self, messages.size_hint().0);
        let mut left = None;
        for message in messages {
            if !run.push(message.is_text(), message.payload())? {
                left = Some(message);
                break;
            }
        }
        run.queue(true).map(|()| left)
    }

    /// As [`push_run`](Self::push_run), for what a batch has, up to a gap. `each` is shown each message, and
    /// may end the run before it.
    ///
    /// # Errors
    /// As [`push_run`](Self::push_run).
    pub(crate) fn push_batch(
        &self,
        batch: &mut impl Draw,
        each: &mut impl FnMut(MessageRef<'_>) -> ControlFlow<()>,
    ) -> Result<Passed, Vec<Message>> {
        let mut run = Run::new(self, 0);
        let mut passed = Passed::All;
        while let Some(drawn) = batch.draw() {
            let message = match &drawn {
                Drawn::Packed(message) => *message,
                Drawn::Own(Incoming::Message(message)) => message.into(),
                Drawn::Own(Incoming::Gap(_)) => {
                    passed = Passed::UpTo(drawn.into_incoming());
                    break;
                }
            };
            if each(message).is_break() {
                passed = Passed::UpTo(drawn.into_incoming());
                break;
            }
            if !run.push(message.is_text(), message.as_bytes())? {
                if let Incoming::Message(message) = drawn.into_incoming() {
                    passed = Passed::NoRoom(message);
                }
                break;
            }
        }
        run.queue(true).map(|()| passed)
    }
}

impl Run<'_> {
    fn new(outbox: &Outbox, expected: usize) -> Run<'_> {
        Run {
            outbox,
            longest: outbox.longest_packed(),
            records: Records::default(),
            cost: 0,
            reserved: 0,
            expected,
        }
    }

    /// Encodes one message. `false`: it is long, or there is no room for it.
    ///
    /// # Errors
    /// As [`Outbox::push_run`].
    fn push(&mut self, text: bool, payload: &[u8]) -> Result<bool, Vec<Message>> {
        let cost = payload.len() + MESSAGE_OVERHEAD_BYTES;
        if payload.len() > self.longest {
            return Ok(false);
        }
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

    /// Reserves room for a message of this cost, and for some more after it. `false`: there is no
    /// room, senders wait for room, or the connection has ended.
    fn reserve(&mut self, cost: usize) -> bool {
        if self.outbox.has_line() {
            return false;
        }
        let mut state = self.outbox.lock();
        let lane = &mut state.main;
        if lane.ended.is_none() {
            let limit = self.outbox.limit.min(self.outbox.run_limit);
            self.reserved += lane.reserve(RUN_BYTES, limit);
        }
        let fits = self.cost + cost <= self.reserved;
        if !fits {
            self.outbox.note_filled(lane, self.outbox.run_limit);
        }
        fits
    }

    /// An empty packet, with room for the expected messages.
    fn packet(&self, payload: usize) -> Records {
        self.outbox.lock().packets.take(|| {
            let expected = self.expected.max(1).saturating_mul(payload + 4);
            expected.min(PACKET_FILL)
        })
    }

    /// Queues the drawn messages. At the `end`, gives the rest of the reserved room back.
    ///
    /// # Errors
    /// The connection has ended. The error has the drawn messages.
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
            // The user's code has panicked. If the connection has ended too, the drawn messages are lost:
            // nobody is there to take them back.
            let _ = self.queue(true);
        }
    }
}
