//! Messages, as they are sent and as they are received.

use std::ops::Range;

use bytes::Bytes;

use crate::limits::{RECORD_OVERHEAD, record_cost};
use crate::number::Position;
use crate::packet::Record;

/// Whether a message is text or binary (RFC 6455, section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// A message to send, borrowed: the session encodes it at once, so the caller keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Whether it is text or binary.
    pub fn kind(self) -> Kind {
        match self {
            Payload::Text(_) => Kind::Text,
            Payload::Binary(_) => Kind::Binary,
        }
    }

    /// Its bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Payload::Text(text) => text.as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Payload::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Payload::Binary(bytes)
    }
}

/// A received message that owns its payload: a slice of the packet it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whether it is text or binary. Text was checked to be UTF-8.
    pub kind: Kind,
    /// The bytes. They keep the whole packet alive, up to
    /// [`MAX_PACKET`](crate::limits::MAX_PACKET) bytes; copy what is kept for long.
    pub payload: Bytes,
    /// Where the message ends; for [`Session::taken`](crate::Session::taken).
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
pub struct MessageRef<'a> {
    /// Whether it is text or binary. Text was checked to be UTF-8.
    pub kind: Kind,
    /// The bytes.
    pub payload: &'a [u8],
    /// Where the message ends; for [`Session::taken`](crate::Session::taken).
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

/// Received messages in order: all that one packet brought, still encoded, to be cut into
/// messages where they are used, on any thread.
///
/// [`next_ref`](Batch::next_ref) borrows each message and costs next to nothing; as an iterator,
/// each message is a slice that shares the packet.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    /// Where the next record begins in `bytes`.
    at: usize,
    content: Content,
    /// Where the messages that were cut so far end.
    cut: Position,
    end: Position,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Encoded records, each a whole message. Invariant: they were walked and checked.
    Records,
    /// The payload of one message that came in several records.
    Assembled(Kind),
}

impl Batch {
    /// Checked records, each a whole message, from after `start` up to `end`.
    pub(crate) fn records(bytes: Bytes, start: Position, end: Position) -> Batch {
        Batch {
            bytes,
            at: 0,
            content: Content::Records,
            cut: start,
            end,
        }
    }

    /// One message that was put together.
    pub(crate) fn assembled(kind: Kind, payload: Bytes, start: Position, end: Position) -> Batch {
        Batch {
            bytes: payload,
            at: 0,
            content: Content::Assembled(kind),
            cut: start,
            end,
        }
    }

    /// The next message, borrowed; `None` when all were cut.
    #[inline]
    pub fn next_ref(&mut self) -> Option<MessageRef<'_>> {
        if self.cut.seq == self.end.seq {
            return None;
        }
        let (kind, payload) = match self.content {
            Content::Records => {
                let record = Record::parse(self.bytes.get(self.at..)?)?;
                self.at += record.size();
                self.cut = self.cut.after(record_cost(record.payload.len()))?;
                (record.kind, record.payload)
            }
            Content::Assembled(kind) => {
                self.cut = self.end;
                (kind, &self.bytes[..])
            }
        };
        Some(MessageRef {
            kind,
            payload,
            end: self.cut,
        })
    }

    /// The next message as `make` makes it of its kind, the bytes of the whole batch and where in
    /// them the payload lies: to copy it, or to keep a slice.
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

    /// The next message of one record if `make` makes something of it, given its kind, the bytes
    /// from its payload on to the end of the batch, and its length; else it stays the next.
    #[inline]
    pub fn next_if<T>(&mut self, make: impl FnOnce(Kind, &[u8], usize) -> Option<T>) -> Option<T> {
        let (Content::Records, true) = (self.content, self.cut.seq != self.end.seq) else {
            return None;
        };
        let rest = self.bytes.get(self.at..)?;
        let record = Record::parse(rest)?;
        let length = record.payload.len();
        let made = make(record.kind, &rest[record.header..], length)?;
        self.cut = self.cut.after(record_cost(length))?;
        self.at += record.header + length;
        Some(made)
    }

    /// Whether all messages were cut.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.cut.seq == self.end.seq
    }

    /// Where the last message ends; for [`Session::taken`](crate::Session::taken) of all at once.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Where the messages cut so far end; for [`Session::taken`](crate::Session::taken).
    pub fn position(&self) -> Position {
        self.cut
    }

    /// How many messages are left.
    pub fn remaining(&self) -> u64 {
        match self.content {
            Content::Records => self.end.seq.since(self.cut.seq),
            Content::Assembled(_) => u64::from(self.cut != self.end),
        }
    }

    /// The bytes of the payloads that are left.
    pub fn payload(&self) -> u64 {
        match self.content {
            Content::Records => self.cost() - self.remaining() * RECORD_OVERHEAD,
            Content::Assembled(_) if self.cut.seq == self.end.seq => 0,
            Content::Assembled(_) => self.bytes.len() as u64,
        }
    }

    /// What the messages that are left cost, as credit counts.
    pub fn cost(&self) -> u64 {
        self.end.offset.since(self.cut.offset)
    }
}

impl Iterator for Batch {
    type Item = Message;

    #[inline]
    fn next(&mut self) -> Option<Message> {
        let (kind, payload) = self.next_as(|kind, bytes, range| (kind, bytes.slice(range)))?;
        let end = self.cut;
        Some(Message { kind, payload, end })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.remaining()).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}
