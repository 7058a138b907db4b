//! Plain messages on their way from the outbox to the socket.

use std::{collections::VecDeque, task::Poll};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::TurnContext;
use unstall_proto::{self as proto, Kind, Records};

use crate::{
    defaults::WRITE_BATCH_BYTES,
    handles::Shared,
    queues::outbox::{Done, Entry, Packed},
    reports::Event,
    ws::{Failure, WebSocket},
};

/// The messages that were put into the write buffer, or had expired, since the last flush.
#[derive(Default)]
struct Encoded {
    messages: u64,
    payload: u64,
    done: Done,
}

/// A packet whose messages are being written one by one.
struct Cutting {
    packet: proto::Batch,
    /// The number of its next message.
    next: u64,
}

#[derive(Default)]
pub(super) struct Writing {
    /// What was taken from the outbox.
    batch: VecDeque<Entry>,
    /// A packet that comes before the batch.
    cutting: Option<Cutting>,
    /// How many bytes of the batch's first message are written as fragments.
    offset: usize,
    encoded: Encoded,
    /// The memory of packets whose messages are written, for the outbox.
    spare: Vec<Records>,
    /// The same of packets that were written where they are. The write buffer has them until it is
    /// flushed.
    lent: Vec<Bytes>,
    /// The outbox was told how packets are written.
    told: bool,
    /// Until when the outbox holds a small batch back, so that more messages share the write.
    held_until: Option<Instant>,
}

impl Writing {
    /// Forgets that a batch was held back. `fill` may not be called in this turn, and a moment that is
    /// over would wake the pump again and again.
    pub(super) fn begin_turn(&mut self) {
        self.held_until = None;
    }

    fn has_none(&self) -> bool {
        self.batch.is_empty() && self.cutting.is_none()
    }

    /// Fills the write buffer with about a batch. Returns how many bytes. Zero: there are no messages,
    /// or the outbox holds a small batch back.
    pub(super) fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<usize, Failure> {
        loop {
            if self.has_none() {
                self.take(ws, turn);
            }
            if self.has_none() {
                return Ok(0);
            }
            // Nothing may be left of a packet.
            match self.encode(ws, turn)? {
                0 => {}
                bytes => return Ok(bytes),
            }
        }
    }

    fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) {
        let shared = turn.shared;
        if !std::mem::replace(&mut self.told, true) {
            shared.outbox.set_for_frames(ws.writes_packed());
        }
        let delay = shared.options.pack_delay;
        let hold = (!delay.is_zero() && !shared.is_closing()).then_some((delay, WRITE_BATCH_BYTES));
        let outbox = &shared.outbox;
        if let Poll::Ready(held) = outbox.take(&mut self.batch, hold, turn.now, turn.cx) {
            self.held_until = held;
        }
    }

    /// Writes about a batch of what was taken, as frames. Returns how many bytes.
    fn encode<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<usize, Failure> {
        let (shared, now) = (turn.shared, turn.now);
        let mut bytes = 0;
        let mut expired = 0;
        while bytes < WRITE_BATCH_BYTES {
            if let Some(cutting) = &mut self.cutting {
                match cutting.write_one(ws, &mut self.encoded)? {
                    Some(written) => bytes += written,
                    None => {
                        let cut = self.cutting.take();
                        self.spare
                            .extend(cut.and_then(|it| Records::reuse(it.packet)));
                    }
                }
                continue;
            }
            let queued = match self.batch.front() {
                None => break,
                Some(Entry::One(queued)) => queued,
                Some(Entry::Packed(packed)) => {
                    let whole = packed.records.is_for_frames() && ws.writes_packed();
                    let Some(Entry::Packed(packed)) = self.batch.pop_front() else {
                        continue;
                    };
                    match whole {
                        true => bytes += self.write_whole(packed, ws)?,
                        false => self.cutting = Some(Cutting::begin(packed)),
                    }
                    continue;
                }
            };
            let message = &queued.message;
            let manner = queued.manner;
            let in_time = self.offset > 0 || manner.expires.is_none_or(|expires| expires > now);
            if in_time {
                let (text, payload) = (message.is_text(), message.bytes());
                let end = match manner.uncompressed {
                    true => ws.write_uncompressed(text, &payload, self.offset)?,
                    false => ws.write(text, &payload, self.offset)?,
                };
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
        // Expired messages write nothing, but the result must not be zero, so that they are settled.
        Ok(bytes + expired as usize)
    }

    /// Writes all messages of a packet, where they are. Returns how many bytes.
    fn write_whole<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        packed: Packed,
        ws: &mut WebSocket<S>,
    ) -> Result<usize, Failure> {
        let (done, messages, payload) =
            (packed.done(), packed.records.messages(), packed.payload());
        let written = ws.write_packed(packed.records)?;
        self.encoded.messages += messages;
        self.encoded.payload += payload;
        self.encoded.done.add(done);
        let bytes = written.len();
        self.lent.push(written);
        Ok(bytes)
    }

    /// The write buffer was flushed: frees the room of its messages.
    pub(super) fn settle(&mut self, turn: &mut TurnContext<'_, '_>) {
        if self.encoded.done.is_nothing() {
            return;
        }
        let encoded = std::mem::take(&mut self.encoded);
        turn.report.counters.messages_sent += encoded.messages;
        turn.report.counters.bytes_sent += encoded.payload;
        if encoded.messages > 0 {
            // Before `flush` resolves, because its caller may look at the counters.
            turn.shared.meter.publish(turn.report, turn.now);
        }
        let lent = self.lent.drain(..).filter_map(Records::reuse_bytes);
        let spare = self.spare.drain(..).chain(lent);
        turn.shared.outbox.done(encoded.done, spare);
    }

    /// Frees the queues if they are empty.
    pub(super) fn shrink(&mut self) {
        if self.has_none() && self.spare.is_empty() && self.lent.is_empty() {
            self.batch = VecDeque::new();
            self.spare = Vec::new();
            self.lent = Vec::new();
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.held_until
    }

    /// Whether every accepted message is on the socket.
    pub(super) fn is_idle(&self, shared: &Shared) -> bool {
        self.has_none() && self.encoded.messages == 0 && !shared.outbox.has_queued()
    }

    /// The connection is lost. Messages that are not whole in the write buffer go back to the outbox.
    /// Returns how many messages of the write buffer may or may not have been sent.
    pub(super) fn abandon(&mut self, shared: &Shared) -> u64 {
        let encoded = std::mem::take(&mut self.encoded);
        shared.outbox.done(encoded.done, std::iter::empty());
        self.lent.clear();
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
    fn begin(packed: Packed) -> Cutting {
        Cutting {
            packet: packed.records.into_batch(),
            next: packed.first,
        }
    }

    /// Writes the next message. Returns about how many bytes. `None` after the last message.
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
