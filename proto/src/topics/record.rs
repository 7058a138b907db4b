//! Records of MESSAGES and PUBLISH packets (SPEC-TOPICS.md, "Records").

use bytes::{BufMut, BytesMut};

use super::limits::record_cost;
use super::name::MAX_NAME;
use super::position::{Offset, StoredAt};
use crate::error::ProtocolError;
use crate::limits::MAX_RECORD;
use crate::payload::Kind;
use crate::util::copy_in_pieces;
use crate::varint;

const TEXT: u64 = 1;
const CONTINUES: u64 = 2;
const FINAL: u64 = 4;
const FLAG_BITS: u32 = 3;

/// The most bytes that come before a record's payload.
pub(super) const MAX_HEAD: usize = 4 + 8 + 8 + 1 + MAX_NAME;

/// One record: a whole message, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicRecord<'a> {
    /// Whether the message is text or binary.
    pub kind: Kind,
    /// Whether the message continues in the next record.
    pub continues: bool,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// What the first record of a message has in addition.
    pub first: Option<FirstRecord<'a>>,
    /// The record's share of the message.
    pub payload: &'a [u8],
    /// The bytes that the record takes in its packet.
    pub size: usize,
}

/// The fields that only the first record of a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FirstRecord<'a> {
    /// The place and the time of a stored message. Without meaning in PUBLISH.
    pub stored: (Offset, StoredAt),
    /// The topic, as it came. It may be no valid name.
    pub topic: &'a [u8],
}

/// Which fields the first record of a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As in MESSAGES: offset, time, topic.
    Stored,
    /// As in PUBLISH: topic.
    Published,
}

impl<'a> TopicRecord<'a> {
    /// Reads the record at the beginning of `bytes`, in a MESSAGES packet. `begins` says whether it
    /// is the first one of its message.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`] when the record is cut short, has a field out of its range, or
    /// continues although it is empty.
    pub fn read_stored(bytes: &'a [u8], begins: bool) -> Result<TopicRecord<'a>, ProtocolError> {
        TopicRecord::read(bytes, begins, Form::Stored)
    }

    /// Reads the record at the beginning of `bytes`, in a PUBLISH packet.
    ///
    /// # Errors
    /// As [`read_stored`](TopicRecord::read_stored).
    pub fn read_published(bytes: &'a [u8], begins: bool) -> Result<TopicRecord<'a>, ProtocolError> {
        TopicRecord::read(bytes, begins, Form::Published)
    }

    #[inline]
    pub(super) fn read(
        bytes: &'a [u8],
        begins: bool,
        form: Form,
    ) -> Result<TopicRecord<'a>, ProtocolError> {
        let mut at = 0;
        let word = number(bytes, &mut at)?;
        let length = word >> FLAG_BITS;
        if length > MAX_RECORD as u64 {
            return Err(ProtocolError::Malformed(
                "a record longer than the largest record",
            ));
        }
        let continues = word & CONTINUES != 0;
        if continues && length == 0 {
            return Err(ProtocolError::Malformed("an empty record that continues"));
        }
        let first = match begins {
            true => Some(FirstRecord::read(bytes, &mut at, form)?),
            false => None,
        };
        let end = at + length as usize;
        let payload = bytes.get(at..end).ok_or(CUT)?;
        Ok(TopicRecord {
            kind: if word & TEXT != 0 {
                Kind::Text
            } else {
                Kind::Binary
            },
            continues,
            is_final: word & FINAL != 0,
            first,
            payload,
            size: end,
        })
    }

    /// What the record costs in credit.
    pub fn cost(&self) -> u64 {
        let topic = self.first.map_or(0, |first| first.topic.len());
        record_cost(topic, self.payload.len())
    }
}

impl<'a> FirstRecord<'a> {
    #[inline]
    fn read(bytes: &'a [u8], at: &mut usize, form: Form) -> Result<Self, ProtocolError> {
        let stored = match form {
            // A varint is below 2^62, as offsets and times are.
            Form::Stored => (
                Offset::new(number(bytes, at)?).ok_or(CUT)?,
                StoredAt::new(number(bytes, at)?).ok_or(CUT)?,
            ),
            Form::Published => (Offset::START, StoredAt::UNKNOWN),
        };
        if form == Form::Stored && stored.0 == Offset::START {
            return Err(ProtocolError::Malformed("a message with the offset 0"));
        }
        let length = usize::from(*bytes.get(*at).ok_or(CUT)?);
        let begin = *at + 1;
        *at = begin + length;
        let topic = bytes.get(begin..*at).ok_or(CUT)?;
        Ok(FirstRecord { stored, topic })
    }
}

const CUT: ProtocolError = ProtocolError::Malformed("a record is cut short");

#[inline]
fn number(bytes: &[u8], at: &mut usize) -> Result<u64, ProtocolError> {
    let (number, size) = varint::read(&bytes[*at..]).ok_or(CUT)?;
    *at += size;
    Ok(number)
}

/// What is encoded before the payload of a record.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) kind: Kind,
    pub(super) continues: bool,
    pub(super) is_final: bool,
    /// Of the first record: the place and time, if it is stored, and the topic.
    pub(super) first: Option<(Option<(Offset, StoredAt)>, &'a str)>,
}

impl Head<'_> {
    /// Appends the head of a record with a payload of that length.
    #[inline]
    pub(super) fn write(self, buf: &mut BytesMut, length: usize) {
        let mut word = (length as u64) << FLAG_BITS;
        if self.kind == Kind::Text {
            word |= TEXT;
        }
        if self.continues {
            word |= CONTINUES;
        }
        if self.is_final {
            word |= FINAL;
        }
        varint::write(buf, word);
        let Some((stored, topic)) = self.first else {
            return;
        };
        if let Some((offset, time)) = stored {
            varint::write(buf, offset.get());
            varint::write(buf, time.millis());
        }
        debug_assert!(topic.len() <= MAX_NAME);
        buf.put_u8(topic.len() as u8);
        buf.put_slice(topic.as_bytes());
    }

    /// Appends a record.
    #[inline]
    pub(super) fn write_record(self, buf: &mut BytesMut, payload: &[u8]) {
        self.write(buf, payload.len());
        copy_in_pieces(payload, |piece| buf.extend_from_slice(piece));
    }
}
