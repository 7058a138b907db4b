//! Received messages.

use std::ops::Range;

use bytes::Bytes;

use crate::limits::{RECORD_OVERHEAD, record_cost};
use crate::number::Position;
use crate::payload::Kind;
use crate::record::Record;

/// A received message that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Whether it is text or binary. Text is UTF-8: this was checked.
    pub kind: Kind,
    /// The bytes. They are a slice of the packet that brought the message, and keep all of it in
    /// memory, up to [`MAX_PACKET`](crate::limits::MAX_PACKET) bytes. Copy what you keep for long.
    pub payload: Bytes,
    /// The end of the message, for [`Session::taken`](crate::Session::taken).
    pub end: Position,
}

impl Message {
    /// The text, if it is a text message.
    pub fn as_text(&self) -> Option<&str> {
        as_text(self.kind, &self.payload)
    }
}

/// A received message, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageRef<'a> {
    /// Whether it is text or binary. Text is UTF-8: this was checked.
    pub kind: Kind,
    /// The bytes.
    pub payload: &'a [u8],
    /// The end of the message, for [`Session::taken`](crate::Session::taken).
    pub end: Position,
}

impl<'a> MessageRef<'a> {
    /// The text, if it is a text message.
    pub fn as_text(&self) -> Option<&'a str> {
        as_text(self.kind, self.payload)
    }
}

fn as_text(kind: Kind, payload: &[u8]) -> Option<&str> {
    match kind {
        Kind::Text => std::str::from_utf8(payload).ok(),
        Kind::Binary => None,
    }
}

/// The received messages of one packet, in order. They are still encoded: any thread can read them.
///
/// [`next_ref`](Batch::next_ref) borrows each message and costs next to nothing. As an iterator, a
/// batch gives messages that are slices of the packet.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    /// The next record begins here in `bytes`.
    at: usize,
    content: Content,
    /// The end of the messages that were read.
    read: Position,
    end: Position,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Encoded records, each a whole message. Invariant: they were checked.
    Records,
    /// The payload of one message that came in several records.
    Assembled(Kind),
}

impl Batch {
    /// Its memory.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Checked records after `start` and up to `end`, each a whole message.
    pub(crate) fn records(bytes: Bytes, start: Position, end: Position) -> Batch {
        Batch {
            bytes,
            at: 0,
            content: Content::Records,
            read: start,
            end,
        }
    }

    /// One message that came in several records.
    pub(crate) fn assembled(kind: Kind, payload: Bytes, start: Position, end: Position) -> Batch {
        Batch {
            bytes: payload,
            at: 0,
            content: Content::Assembled(kind),
            read: start,
            end,
        }
    }

    /// Reads the next message and borrows it. `None` after the last one.
    #[inline]
    pub fn next_ref(&mut self) -> Option<MessageRef<'_>> {
        if self.read.seq == self.end.seq {
            return None;
        }
        let (kind, payload) = match self.content {
            Content::Records => {
                let record = Record::parse(self.bytes.get(self.at..)?)?;
                self.at += record.size();
                self.read = self.read.after(record_cost(record.payload.len()))?;
                (record.kind, record.payload)
            }
            Content::Assembled(kind) => {
                self.read = self.end;
                (kind, &self.bytes[..])
            }
        };
        Some(MessageRef {
            kind,
            payload,
            end: self.read,
        })
    }

    /// Reads the next message. `make` gets its kind, the bytes of the whole batch, and the range of
    /// the payload in them: it may copy the payload, or keep a slice. `None` after the last
    /// message.
    #[inline]
    pub fn next_as<T>(&mut self, make: impl FnOnce(Kind, &Bytes, Range<usize>) -> T) -> Option<T> {
        let MessageRef { kind, payload, .. } = self.next_ref()?;
        let length = payload.len();
        // A record's payload ends where the next record begins.
        let end = match self.content {
            Content::Records => self.at,
            Content::Assembled(_) => length,
        };
        Some(make(kind, &self.bytes, end - length..end))
    }

    /// Reads the next message if it came in one record and `make` returns something for it. `make`
    /// gets its kind, the bytes from its payload to the end of the batch, and its length. Otherwise
    /// the message stays the next one.
    #[inline]
    pub fn next_if<T>(&mut self, make: impl FnOnce(Kind, &[u8], usize) -> Option<T>) -> Option<T> {
        let (Content::Records, true) = (self.content, self.read.seq != self.end.seq) else {
            return None;
        };
        let rest = self.bytes.get(self.at..)?;
        let record = Record::parse(rest)?;
        let length = record.payload.len();
        let made = make(record.kind, &rest[record.header..], length)?;
        self.read = self.read.after(record_cost(length))?;
        self.at += record.header + length;
        Some(made)
    }

    /// Whether it has one message, which was put together from several packets.
    #[inline]
    pub fn is_assembled(&self) -> bool {
        matches!(self.content, Content::Assembled(_))
    }

    /// Whether all messages were read.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.read.seq == self.end.seq
    }

    /// The end of the last message. With it, [`Session::taken`](crate::Session::taken) reports all
    /// of them at once.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The end of the messages that were read, for [`Session::taken`](crate::Session::taken).
    pub fn position(&self) -> Position {
        self.read
    }

    /// How many messages are left to read.
    pub fn remaining(&self) -> u64 {
        match self.content {
            Content::Records => self.end.seq.since(self.read.seq),
            Content::Assembled(_) => u64::from(self.read != self.end),
        }
    }

    /// The bytes of the payloads that are left to read.
    pub fn payload(&self) -> u64 {
        match self.content {
            Content::Records => self.cost() - self.remaining() * RECORD_OVERHEAD,
            Content::Assembled(_) if self.read.seq == self.end.seq => 0,
            Content::Assembled(_) => self.bytes.len() as u64,
        }
    }

    /// The cost of the messages that are left to read, as credit counts it.
    pub fn cost(&self) -> u64 {
        self.end.offset.since(self.read.offset)
    }
}

impl Iterator for Batch {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        let (kind, payload) = self.next_as(|kind, bytes, range| (kind, bytes.slice(range)))?;
        let end = self.read;
        Some(Message { kind, payload, end })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.remaining()).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}
