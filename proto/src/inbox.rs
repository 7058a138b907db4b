//! Received messages: whole, in order and each once, until the application takes them.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::credit::{Progress, ReceiveCredit};
use crate::error::ProtocolError;
use crate::kept::Kept;
use crate::limits::record_cost;
use crate::message::Batch;
use crate::number::{Position, Seq};
use crate::payload::Kind;
use crate::record::Record;
use crate::util::{self, copy_in_pieces};

/// Received messages that were not handed over, and how far everything has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    batches: VecDeque<Batch>,
    partial: Option<Partial>,
    /// The end of what was received.
    received: Position,
    /// The end of what was handed over.
    handed: Position,
    /// The end of what the application has taken. Invariant: taken ≤ handed ≤ received.
    taken: Position,
    /// The memory of whole messages that are not taken.
    kept: Kept,
    duplicates: u64,
    /// The length of the last message of several records. The next one may be as long.
    expected: usize,
}

/// A message whose last record has not arrived. It is bounded by the largest message.
#[derive(Clone, Debug)]
struct Partial {
    kind: Kind,
    payload: Vec<u8>,
    start: Position,
}

impl Partial {
    fn push(
        &mut self,
        part: &[u8],
        expected: usize,
        max_message: u64,
    ) -> Result<(), ProtocolError> {
        let size = self.payload.len() + part.len();
        if size as u64 > max_message {
            return Err(ProtocolError::MessageTooLarge { limit: max_message });
        }
        if size > self.payload.capacity() {
            // It doubles, so that a long message is not copied for each record; but never past the
            // limit. The first guess is the length of the last message.
            let limit = usize::try_from(max_message).unwrap_or(usize::MAX);
            let capacity = (2 * size).max(expected).min(limit);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        copy_in_pieces(part, |piece| self.payload.extend_from_slice(piece));
        Ok(())
    }

    fn finish(mut self, end: Position) -> Result<Batch, ProtocolError> {
        if self.kind == Kind::Text && !is_utf8(&self.payload) {
            return Err(ProtocolError::InvalidText);
        }
        // The message may wait for long, so the room to grow is given back.
        self.payload.shrink_to_fit();
        Ok(Batch::assembled(
            self.kind,
            self.payload.into(),
            self.start,
            end,
        ))
    }
}

/// Only positions are hashed: they say which messages there are.
impl Hash for Inbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for batch in &self.batches {
            (batch.position(), batch.end()).hash(state);
        }
        let partial = self.partial.as_ref();
        partial
            .map(|partial| (partial.kind, partial.start))
            .hash(state);
        (self.received, self.handed, self.taken).hash(state);
    }
}

/// The bounds that a packet must keep to.
pub(crate) struct Bounds<'a> {
    pub(crate) credit: &'a ReceiveCredit,
    pub(crate) max_message: u64,
    /// The peer's last record, once its CLOSE has named it.
    pub(crate) last: Option<Seq>,
}

impl Inbox {
    /// The last record received.
    pub(crate) fn received(&self) -> Seq {
        self.received.seq
    }

    /// The end of what the application has taken.
    pub(crate) fn taken(&self) -> Position {
        self.taken
    }

    /// How many records came twice and were dropped.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The memory of everything that was received and is not taken, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let partial = self.partial.as_ref();
        let partial = partial.map_or(0, |partial| partial.payload.capacity());
        self.kept.memory() + partial as u64
    }

    pub(crate) fn progress(&self) -> Progress {
        let incomplete = match &self.partial {
            Some(partial) => self.received.offset.since(partial.start.offset),
            None => 0,
        };
        Progress {
            received: self.received.offset,
            taken: self.taken.offset,
            incomplete,
        }
    }

    /// Accepts the records of one DATA packet. Those that came before are dropped; the rest is
    /// checked and kept.
    pub(crate) fn accept(
        &mut self,
        first: Seq,
        records: Bytes,
        bounds: &Bounds<'_>,
    ) -> Result<(), ProtocolError> {
        let Some(expected) = self.received.seq.next() else {
            return Err(ProtocolError::SequenceExhausted);
        };
        if first > expected {
            return Err(ProtocolError::SequenceGap { expected, first });
        }
        let at = self.skip_duplicates(&records, expected.since(first))?;
        self.accept_new(&records, at, bounds)
    }

    /// Skips the `known` records that were received before. Returns where the new ones begin.
    fn skip_duplicates(&mut self, records: &[u8], known: u64) -> Result<usize, ProtocolError> {
        let mut at = 0;
        for _ in 0..known {
            if at == records.len() {
                break;
            }
            at += Record::read(&records[at..])?.size();
            self.duplicates += 1;
        }
        Ok(at)
    }

    fn accept_new(
        &mut self,
        records: &Bytes,
        mut at: usize,
        bounds: &Bounds<'_>,
    ) -> Result<(), ProtocolError> {
        while at < records.len() {
            if self.partial.is_none() {
                at = self.accept_run(records, at, bounds)?;
            }
            if at < records.len() {
                at = self.accept_part(records, at, bounds)?;
            }
        }
        Ok(())
    }

    /// Queues the whole messages at `from`, up to one that continues. Returns where they end.
    fn accept_run(
        &mut self,
        records: &Bytes,
        from: usize,
        bounds: &Bounds<'_>,
    ) -> Result<usize, ProtocolError> {
        let (mut count, mut cost) = (0, 0);
        let mut rest = &records[from..];
        while !rest.is_empty() {
            let record = Record::read(rest)?;
            if record.continues {
                break;
            }
            if record.payload.len() as u64 > bounds.max_message {
                let limit = bounds.max_message;
                return Err(ProtocolError::MessageTooLarge { limit });
            }
            if record.kind == Kind::Text && !is_utf8(record.payload) {
                return Err(ProtocolError::InvalidText);
            }
            rest = &rest[record.size()..];
            count += 1;
            cost += record_cost(record.payload.len());
        }
        let at = records.len() - rest.len();
        if count > 0 {
            let end = self.advance(count, cost, bounds)?;
            // A slice keeps its whole packet in memory. What credit has not paid for, such as
            // duplicates, must not be kept, so a part of a packet is copied.
            let run = match at - from == records.len() {
                true => records.clone(),
                false => Bytes::copy_from_slice(&records[from..at]),
            };
            self.kept.add(end.seq, run.len());
            let batch = Batch::records(run, self.received, end);
            util::push_back(&mut self.batches, batch);
            self.received = end;
        }
        Ok(at)
    }

    /// The end of that many more records, if credit, sequence numbers and CLOSE allow them.
    fn advance(
        &self,
        records: u64,
        cost: u64,
        bounds: &Bounds<'_>,
    ) -> Result<Position, ProtocolError> {
        let end = self.received.after_records(records, cost);
        let end = end.ok_or(ProtocolError::SequenceExhausted)?;
        if bounds.last.is_some_and(|last| end.seq > last) {
            return Err(ProtocolError::Unexpected("records after CLOSE"));
        }
        bounds.credit.check(end.offset)?;
        Ok(end)
    }

    /// Adds the record at `at` to the incomplete message. The last record completes the message,
    /// which is queued. Returns where the record ends.
    fn accept_part(
        &mut self,
        records: &Bytes,
        at: usize,
        bounds: &Bounds<'_>,
    ) -> Result<usize, ProtocolError> {
        let record = Record::read(&records[at..])?;
        let end = self.advance(1, record_cost(record.payload.len()), bounds)?;
        let mut partial = match self.partial.take() {
            Some(partial) if partial.kind != record.kind => {
                return Err(ProtocolError::Malformed("a message that changes its kind"));
            }
            Some(partial) => partial,
            None => Partial {
                kind: record.kind,
                payload: Vec::new(),
                start: self.received,
            },
        };
        partial.push(record.payload, self.expected, bounds.max_message)?;
        self.received = end;
        if record.continues {
            self.partial = Some(partial);
        } else {
            self.expected = partial.payload.len();
            let batch = partial.finish(end)?;
            self.kept.add(end.seq, self.expected);
            util::push_back(&mut self.batches, batch);
        }
        Ok(at + record.size())
    }

    /// Hands over the next batch.
    pub(crate) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        util::trim(&mut self.batches);
        self.handed = batch.end();
        Some(batch)
    }

    /// The application has taken everything up to `position`. `false`, and nothing changes, when no
    /// message that was handed over can end there.
    pub(crate) fn take_up_to(&mut self, position: Position) -> bool {
        if !self.handed.can_follow(position) {
            return false;
        }
        if !position.can_follow(self.taken) {
            return self.taken.can_follow(position);
        }
        self.taken = position;
        self.kept.take_up_to(position.seq);
        true
    }

    /// Whether a message is incomplete.
    pub(crate) fn has_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Drops a message that will never be whole.
    pub(crate) fn drop_partial(&mut self) {
        self.partial = None;
    }
}

/// Whether the payload is UTF-8. Plain ASCII is recognised many bytes at a time.
#[inline]
fn is_utf8(payload: &[u8]) -> bool {
    payload.is_ascii() || std::str::from_utf8(payload).is_ok()
}
