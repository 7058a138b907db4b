//! Records: what a DATA packet consists of (SPEC.md, "Records and messages").

use bytes::BytesMut;

use crate::error::ProtocolError;
use crate::limits::MAX_RECORD;
use crate::payload::Kind;
use crate::util::copy_in_pieces;
use crate::varint;

/// One record of a DATA packet: a whole message, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Whether the message is text or binary.
    pub kind: Kind,
    /// Whether the message continues in the next record.
    pub continues: bool,
    /// The record's share of the message.
    pub payload: &'a [u8],
    /// The length of the header before the payload, in bytes.
    pub header: usize,
}

const TEXT: u64 = 1;
const CONTINUES: u64 = 2;
const FLAG_BITS: u32 = 2;

/// The longest payload of an unmasked WebSocket frame whose header takes 2 bytes (RFC 6455 section
/// 5.2). The header of a longer one takes 4, up to the length of a record.
const SHORT_FRAME: usize = 125;

/// What comes before a record's payload.
#[derive(Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) kind: Kind,
    pub(crate) continues: bool,
    /// The length of the payload.
    pub(crate) length: usize,
    /// The length of the header itself.
    pub(crate) size: usize,
}

impl RecordHeader {
    /// Reads a header. `None` when it is cut short, or when it names a length above [`MAX_RECORD`].
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8]) -> Option<RecordHeader> {
        let (word, size) = varint::read(bytes)?;
        let length = word >> FLAG_BITS;
        if length > MAX_RECORD as u64 {
            return None;
        }
        let kind = if word & TEXT != 0 {
            Kind::Text
        } else {
            Kind::Binary
        };
        Some(RecordHeader {
            kind,
            continues: word & CONTINUES != 0,
            length: length as usize,
            size,
        })
    }

    #[inline]
    pub(crate) fn write(buf: &mut BytesMut, kind: Kind, continues: bool, length: usize) {
        varint::write(buf, RecordHeader::word(kind, continues, length));
    }

    /// Appends the header of a whole message in the form that is as long as the header of a WebSocket
    /// frame: 2 bytes up to a length of [`SHORT_FRAME`], 4 beyond.
    #[inline]
    fn write_like_frame(buf: &mut BytesMut, kind: Kind, length: usize) {
        let word = RecordHeader::word(kind, false, length);
        match length <= SHORT_FRAME {
            true => varint::write_2(buf, word),
            false => varint::write_4(buf, word),
        }
    }

    #[inline]
    fn word(kind: Kind, continues: bool, length: usize) -> u64 {
        let mut word = (length as u64) << FLAG_BITS;
        if kind == Kind::Text {
            word |= TEXT;
        }
        if continues {
            word |= CONTINUES;
        }
        word
    }
}

impl<'a> Record<'a> {
    /// Reads the record at the beginning of `bytes`. The next one begins after
    /// [`size`](Record::size) bytes.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`] when the record is cut short, is too long, or continues
    /// although it is empty.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Record<'a>, ProtocolError> {
        Record::parse(bytes).ok_or_else(|| Record::why_malformed(bytes))
    }

    /// [`Record::read`] without the reason: a `Result` with it is slow to return in a loop.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Record<'a>> {
        let RecordHeader {
            kind,
            continues,
            length,
            size: header,
        } = RecordHeader::read(bytes)?;
        let payload = bytes.get(header..header + length)?;
        if continues && length == 0 {
            return None;
        }
        Some(Record {
            kind,
            continues,
            payload,
            header,
        })
    }

    #[cold]
    fn why_malformed(bytes: &[u8]) -> ProtocolError {
        ProtocolError::Malformed(match varint::read(bytes) {
            None => "a record's header is cut short",
            Some((word, _)) if word >> FLAG_BITS > MAX_RECORD as u64 => {
                "a record longer than the largest record"
            }
            Some((word, header)) if (word >> FLAG_BITS) as usize > bytes.len() - header => {
                "a record's payload is cut short"
            }
            Some(_) => "an empty record that continues",
        })
    }

    /// The bytes that the record takes in its packet.
    #[inline]
    pub fn size(&self) -> usize {
        self.header + self.payload.len()
    }

    /// The most bytes that a record with a payload of this length takes.
    #[inline]
    pub(crate) const fn max_size(payload: usize) -> usize {
        4 + payload
    }

    /// Appends a record.
    #[inline]
    pub(crate) fn write(buf: &mut BytesMut, kind: Kind, continues: bool, payload: &[u8]) {
        RecordHeader::write(buf, kind, continues, payload.len());
        copy_in_pieces(payload, |piece| buf.extend_from_slice(piece));
    }

    /// Appends a whole message, whose header is as long as the header of a WebSocket frame.
    #[inline]
    pub(crate) fn write_like_frame(buf: &mut BytesMut, kind: Kind, payload: &[u8]) {
        RecordHeader::write_like_frame(buf, kind, payload.len());
        copy_in_pieces(payload, |piece| buf.extend_from_slice(piece));
    }
}
