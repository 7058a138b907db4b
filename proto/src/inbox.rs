//! What was received: in order, each once, whole messages, until the application takes them.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::credit::{Progress, ReceiveCredit};
use crate::error::ProtocolError;
use crate::kept::Kept;
use crate::limits::record_cost;
use crate::message::{Batch, Kind};
use crate::number::{Position, Seq};
use crate::packet::{Record, append};
use crate::queue;

/// Received messages that were not handed over yet, and how far everything has come.
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
    /// What the messages take in memory that were received whole and not taken.
    kept: Kept,
    duplicates: u64,
    /// The length of the latest message of several records: what the next may need.
    expected: usize,
}

/// A message whose last record has not come yet. It is bounded by the largest message.
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
            // Doubles, so that a long message is not copied for each record, but never past the
            // limit. The first guess is the length of the message before.
            let limit = usize::try_from(max_message).unwrap_or(usize::MAX);
            let capacity = (2 * size).max(expected).min(limit);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        append(part, |piece| self.payload.extend_from_slice(piece));
        Ok(())
    }

    fn finish(mut self, end: Position) -> Result<Batch, ProtocolError> {
        if self.kind == Kind::Text && !is_utf8(&self.payload) {
            return Err(ProtocolError::InvalidText);
        }
        // It may wait for long: what it had room to grow is given back.
        self.payload.shrink_to_fit();
        Ok(Batch::assembled(
            self.kind,
            self.payload.into(),
            self.start,
            end,
        ))
    }
}

/// By positions only: what was received does not change.
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

/// What a packet may not pass.
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

    /// How many records came twice.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// What everything received and not taken takes in memory, in bytes.
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

    /// Takes the records of one data packet: drops those that came before, checks and keeps the
    /// rest.
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

    /// Steps over the `known` records that were received before: where the new ones begin.
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

    /// Queues the whole messages from `at` on, up to one that continues: where they end.
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
            // A record is never larger than any limit on messages.
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
            // A slice keeps its whole packet in memory, so it must be all of it: what was not
            // paid for by credit, as duplicates, must not be held.
            let run = match at - from == records.len() {
                true => records.clone(),
                false => Bytes::copy_from_slice(&records[from..at]),
            };
            self.kept.add(end.seq, run.len());
            let batch = Batch::records(run, self.received, end);
            queue::push(&mut self.batches, batch);
            self.received = end;
        }
        Ok(at)
    }

    /// Where so many records more would end, if credit, numbers and CLOSE allow them.
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

    /// Adds the record at `at` to the incomplete message, and queues the message when it is its
    /// last one: where the record ends.
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
            queue::push(&mut self.batches, batch);
        }
        Ok(at + record.size())
    }

    /// Hands over the next batch.
    pub(crate) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        queue::trim(&mut self.batches);
        self.handed = batch.end();
        Some(batch)
    }

    /// The application has come as far as `position`. `false`, and nothing changes, when that is
    /// no position of what was handed over.
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

    /// Lets go of a message that can no longer become whole.
    pub(crate) fn drop_partial(&mut self) {
        self.partial = None;
    }
}

/// Whether the payload is UTF-8. Plain ASCII is told apart many bytes at a time.
#[inline]
fn is_utf8(payload: &[u8]) -> bool {
    payload.is_ascii() || std::str::from_utf8(payload).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_RECORD;
    use bytes::BytesMut;

    const MAX_MESSAGE: u64 = 1 << 20;

    fn accept(
        inbox: &mut Inbox,
        first: u64,
        records: &[(Kind, bool, &[u8])],
    ) -> Result<(), ProtocolError> {
        let credit = ReceiveCredit::new(1 << 21, 1 << 21);
        let mut buf = BytesMut::new();
        for (kind, continues, payload) in records {
            Record::write(&mut buf, *kind, *continues, payload);
        }
        let bounds = Bounds {
            credit: &credit,
            max_message: MAX_MESSAGE,
            last: None,
        };
        inbox.accept(Seq::new(first), buf.freeze(), &bounds)
    }

    fn texts(inbox: &mut Inbox) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(batch) = inbox.pop() {
            all.extend(batch.map(|m| String::from_utf8(m.payload.to_vec()).unwrap()));
        }
        all
    }

    use Kind::{Binary, Text};

    #[test]
    fn records_come_out_in_order_and_empty_messages_are_messages() {
        let mut inbox = Inbox::default();
        accept(
            &mut inbox,
            1,
            &[
                (Text, false, b"a"),
                (Text, false, b""),
                (Binary, false, b"c"),
            ],
        )
        .unwrap();
        assert_eq!(inbox.received(), Seq::new(3));
        assert_eq!(texts(&mut inbox), ["a", "", "c"]);
    }

    #[test]
    fn a_gap_is_an_error_and_nothing_of_it_is_kept() {
        let mut inbox = Inbox::default();
        let error = accept(&mut inbox, 2, &[(Text, false, b"b")]).unwrap_err();
        assert_eq!(
            error,
            ProtocolError::SequenceGap {
                expected: Seq::new(1),
                first: Seq::new(2)
            }
        );
        assert!(error.is_resumable());
        assert!(inbox.pop().is_none());
        assert_eq!(inbox.received(), Seq::ZERO);
    }

    #[test]
    fn a_duplicate_is_dropped_and_counted_also_when_it_is_a_part_of_a_packet() {
        let mut inbox = Inbox::default();
        accept(&mut inbox, 1, &[(Text, false, b"a"), (Text, false, b"b")]).unwrap();
        accept(&mut inbox, 1, &[(Text, false, b"a")]).unwrap();
        accept(&mut inbox, 2, &[(Text, false, b"b"), (Text, false, b"c")]).unwrap();
        assert_eq!(inbox.duplicates(), 2);
        assert_eq!(texts(&mut inbox), ["a", "b", "c"]);
    }

    #[test]
    fn a_message_in_several_records_comes_out_whole_between_its_neighbours() {
        let mut inbox = Inbox::default();
        accept(
            &mut inbox,
            1,
            &[
                (Text, false, b"a"),
                (Text, true, "\u{e9}".as_bytes().split_at(1).0),
            ],
        )
        .unwrap();
        assert_eq!(inbox.progress().incomplete, 65);
        accept(
            &mut inbox,
            3,
            &[
                (Text, false, "\u{e9}".as_bytes().split_at(1).1),
                (Text, false, b"z"),
            ],
        )
        .unwrap();
        assert_eq!(inbox.progress().incomplete, 0);
        assert_eq!(texts(&mut inbox), ["a", "\u{e9}", "z"]);
    }

    #[test]
    fn text_that_is_not_utf_8_is_an_error_whole_or_in_parts() {
        let mut inbox = Inbox::default();
        assert_eq!(
            accept(&mut inbox, 1, &[(Text, false, b"\xff")]),
            Err(ProtocolError::InvalidText)
        );
        let mut inbox = Inbox::default();
        assert_eq!(
            accept(&mut inbox, 1, &[(Text, true, b"\xc3"), (Text, false, b"a")]),
            Err(ProtocolError::InvalidText)
        );
    }

    #[test]
    fn a_message_past_the_limit_is_an_error_before_it_is_held() {
        let mut inbox = Inbox::default();
        let part = [0; MAX_RECORD];
        for first in 1..=16 {
            accept(&mut inbox, first, &[(Binary, true, &part)]).unwrap();
        }
        assert_eq!(
            accept(&mut inbox, 17, &[(Binary, true, b"x")]),
            Err(ProtocolError::MessageTooLarge { limit: MAX_MESSAGE })
        );
    }

    #[test]
    fn nothing_is_accepted_past_the_last_sequence_number() {
        let mut inbox = Inbox::default();
        inbox.received.seq = Seq::new(u64::MAX - 1);
        accept(&mut inbox, u64::MAX, &[(Text, false, b"last")]).unwrap();
        assert_eq!(
            accept(&mut inbox, u64::MAX, &[(Text, false, b"again")]),
            Err(ProtocolError::SequenceExhausted)
        );
        let mut inbox = Inbox::default();
        inbox.received.seq = Seq::new(u64::MAX - 1);
        assert_eq!(
            accept(
                &mut inbox,
                u64::MAX,
                &[(Text, false, b"a"), (Text, false, b"b")]
            ),
            Err(ProtocolError::SequenceExhausted)
        );
    }

    #[test]
    fn only_what_was_handed_over_can_be_taken() {
        let mut inbox = Inbox::default();
        accept(
            &mut inbox,
            1,
            &[(Text, false, b"a"), (Text, false, b"b"), (Text, false, b"")],
        )
        .unwrap();
        let end = inbox.received;
        assert!(!inbox.take_up_to(end), "not handed over");
        let mut batch = inbox.pop().unwrap();
        batch.next_ref().unwrap();
        let first = batch.position();
        assert!(inbox.take_up_to(first));
        assert_eq!(inbox.taken(), first);
        assert!(inbox.take_up_to(end) && inbox.take_up_to(first));
        assert_eq!(inbox.taken(), end, "what was taken stays taken");
        // Of other sessions: one that is ahead, and those whose messages are longer or shorter.
        for (seq, offset) in [(4, 260), (2, 194), (2, 140), (3, 260), (0, 64)] {
            let other = Position {
                seq: Seq::new(seq),
                offset: crate::Offset::new(offset),
            };
            assert!(!inbox.take_up_to(other), "{other:?}");
            assert_eq!(inbox.taken(), end);
        }
    }
}
