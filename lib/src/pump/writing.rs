//! From the outbox to the socket.

use std::{collections::VecDeque, task::Poll};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{TurnContext, flushing::Flushing};
use unstall_proto::{self as proto, Kind};

use crate::{
    defaults::{WRITE_BATCH_BYTES, WRITE_TURN_BYTES},
    handles::Shared,
    queues::outbox::{Done, Entry, Packed},
    reports::{Counters, Event},
    ws::{Failure, WebSocket},
};

/// What is in the write buffer, or was found expired, since the last flush.
#[derive(Default)]
struct Encoded {
    messages: u64,
    payload: u64,
    done: Done,
}

/// A packet whose messages are being put into frames.
struct Cutting {
    packet: proto::Batch,
    /// The number of its next message.
    next: u64,
}

#[derive(Default)]
pub(super) struct Writing {
    batch: VecDeque<Entry>,
    /// Comes before the batch.
    cutting: Option<Cutting>,
    /// How much of the batch's first message is in frames already.
    offset: usize,
    encoded: Encoded,
    /// A small batch is held back for company until then.
    held_until: Option<Instant>,
}

impl Writing {
    /// Fills the write buffer and flushes it, until the outbox is empty, the socket full, or the
    /// turn used up.
    pub(super) fn turn<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        flushing: &mut Flushing,
        context: TurnContext<'_, '_>,
        open: bool,
    ) -> Result<bool, Failure> {
        let TurnContext {
            shared,
            counters,
            cx,
            now,
        } = context;
        let mut written = 0;
        self.held_until = None;
        loop {
            match flushing.poll(ws, shared, cx, now) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            self.settle(shared, counters);
            if !open {
                return Ok(false);
            }
            if written >= WRITE_TURN_BYTES {
                return Ok(true);
            }
            if self.has_none() {
                let delay = shared.options.pack_delay;
                let hold = (!delay.is_zero() && !shared.is_closing())
                    .then_some((delay, WRITE_BATCH_BYTES));
                if let Poll::Ready(held) = shared.outbox.take(&mut self.batch, hold, now, cx) {
                    self.held_until = held;
                }
                if self.has_none() {
                    return Ok(false);
                }
            }
            written += self.fill(ws, shared, now)?;
        }
    }

    fn has_none(&self) -> bool {
        self.batch.is_empty() && self.cutting.is_none()
    }

    /// Puts messages into the write buffer, a batch's worth of bytes.
    fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        shared: &Shared,
        now: Instant,
    ) -> Result<usize, Failure> {
        let mut bytes = 0;
        let mut expired = 0;
        while bytes < WRITE_BATCH_BYTES {
            if let Some(cutting) = &mut self.cutting {
                match cutting.write_one(ws, &mut self.encoded)? {
                    Some(written) => bytes += written,
                    None => self.cutting = None,
                }
                continue;
            }
            let queued = match self.batch.front() {
                None => break,
                Some(Entry::One(queued)) => queued,
                Some(Entry::Packed(_)) => {
                    self.cutting = self.batch.pop_front().and_then(Cutting::begin);
                    continue;
                }
            };
            let message = &queued.message;
            let in_time = self.offset > 0 || queued.expires.is_none_or(|expires| expires > now);
            if in_time {
                let end = ws.write(message.is_text(), &message.bytes(), self.offset)?;
                bytes += end - self.offset + 1;
                if end < message.len() {
                    self.offset = end;
                    continue;
                }
                self.encoded.messages += 1;
                self.encoded.payload += message.len() as u64;
            } else {
                expired += 1;
            }
            self.offset = 0;
            let done = self.batch.pop_front().map(|entry| entry.done());
            done.into_iter()
                .for_each(|done| self.encoded.done.add(done));
        }
        if expired > 0 {
            shared.outbox.count_expired(expired);
            shared.events.push(Event::Expired { messages: expired });
        }
        Ok(bytes)
    }

    /// Everything in the write buffer has left: its room is free again.
    fn settle(&mut self, shared: &Shared, counters: &mut Counters) {
        let encoded = std::mem::take(&mut self.encoded);
        counters.messages_sent += encoded.messages;
        counters.bytes_sent += encoded.payload;
        if encoded.messages > 0 {
            // Before `flush` returns to who may look at them.
            shared.meter.publish(*counters);
        }
        shared.outbox.done(encoded.done);
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.held_until
    }

    /// Whether everything accepted is on the socket.
    pub(super) fn is_idle(&self, shared: &Shared) -> bool {
        self.has_none() && self.encoded.messages == 0 && !shared.outbox.has_queued()
    }

    /// The connection is gone: what was not begun, or not finished within the write buffer, goes
    /// back to the outbox. Returns how many messages may or may not have left.
    pub(super) fn abandon(&mut self, shared: &Shared) -> u64 {
        let encoded = std::mem::take(&mut self.encoded);
        shared.outbox.done(encoded.done);
        if let Some(cutting) = self
            .cutting
            .take()
            .filter(|cutting| !cutting.packet.is_finished())
        {
            let left = Packed::again(cutting.packet, cutting.next);
            self.batch.push_front(Entry::Packed(left));
        }
        shared.outbox.put_back(std::mem::take(&mut self.batch));
        self.offset = 0;
        encoded.messages
    }
}

impl Cutting {
    fn begin(entry: Entry) -> Option<Cutting> {
        let Entry::Packed(packed) = entry else {
            return None;
        };
        Some(Cutting {
            packet: packed.records.into_batch(),
            next: packed.first,
        })
    }

    /// Puts the next message into the write buffer, whole; how many bytes that is, if there is one.
    fn write_one<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        encoded: &mut Encoded,
    ) -> Result<Option<usize>, Failure> {
        let Some(message) = self.packet.next_ref() else {
            return Ok(None);
        };
        let len = message.payload.len();
        ws.write_short(message.kind == Kind::Text, message.payload)?;
        encoded.messages += 1;
        encoded.payload += len as u64;
        encoded.done.add_cut(len, self.next);
        self.next += 1;
        Ok(Some(len + 1))
    }
}
