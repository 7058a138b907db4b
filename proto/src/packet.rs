//! Packets: what travels in one WebSocket binary message (SPEC.md, "Packets").

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{ErrorCode, ProtocolError};
use crate::limits::{MAX_MILLIS, MAX_PACKET, MAX_REASON, MAX_RECORD};
use crate::message::Kind;
use crate::number::{Offset, Seq};
use crate::resume::{Hello, Rejection, Welcome};
use crate::varint;

/// The first byte of each kind of packet.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const WELCOME: u8 = 0x02;
    pub(crate) const REJECT: u8 = 0x03;
    pub(crate) const DATA: u8 = 0x10;
    pub(crate) const ACK: u8 = 0x11;
    pub(crate) const CREDIT: u8 = 0x12;
    pub(crate) const BLOCKED: u8 = 0x13;
    pub(crate) const PING: u8 = 0x14;
    pub(crate) const PONG: u8 = 0x15;
    pub(crate) const CLOSE: u8 = 0x18;
    pub(crate) const END: u8 = 0x19;
    pub(crate) const ABORT: u8 = 0x1a;
    pub(crate) const GO_AWAY: u8 = 0x1b;
    /// Unknown kinds from here on are ignored; unknown kinds below are an error.
    pub(crate) const IGNORABLE: u8 = 0x80;
}

/// The bytes before the records of a data packet: the kind and the first sequence number.
pub(crate) const DATA_HEADER: usize = 9;

/// A code and a text, as in a WebSocket close frame (RFC 6455, section 5.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseFrame {
    /// The application's code, in WebSocket's ranges.
    pub code: u16,
    /// The reason, at most [`MAX_REASON`] bytes.
    pub reason: String,
}

impl CloseFrame {
    /// A close frame; a reason that is too long is cut at a character.
    pub fn new(code: u16, reason: &str) -> CloseFrame {
        CloseFrame {
            code,
            reason: cut_reason(reason).to_owned(),
        }
    }
}

/// The longest beginning of `reason` that fits a packet.
pub(crate) fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// A decoded packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packet {
    /// The client opens or resumes a session.
    Hello(Hello),
    /// The server's consent.
    Welcome(Welcome),
    /// The server's refusal.
    Reject(Rejection),
    /// Records, in order, the first with this sequence number. [`Record::read`] cuts them.
    Data {
        /// The first record's sequence number.
        first: Seq,
        /// The encoded records; not checked yet.
        records: Bytes,
    },
    /// Everything up to this record is taken, or processed.
    Ack(Seq),
    /// The peer may send up to this offset.
    Credit(Offset),
    /// The sender has more to send than this credit allows.
    Blocked(Offset),
    /// Asks for [`Packet::Pong`] with the same number.
    Ping(u64),
    /// Answers [`Packet::Ping`].
    Pong(u64),
    /// Nothing follows this last record.
    Close {
        /// The last record that the sender of this packet has sent.
        last: Seq,
        /// How long the close may take, in milliseconds.
        within_millis: u64,
        /// Why.
        frame: CloseFrame,
    },
    /// Everything both ways is acknowledged: the session is over.
    End,
    /// The session is over at once.
    Abort {
        /// Why.
        code: ErrorCode,
        /// The same in words.
        reason: String,
    },
    /// The server asks the client to move within this time.
    GoAway {
        /// In milliseconds; the client picks a random moment within.
        within_millis: u64,
        /// Why.
        reason: String,
    },
    /// A packet of an unknown kind that is to be ignored.
    Unknown(u8),
}

impl Packet {
    /// Decodes one WebSocket binary message. The records of a data packet are not walked yet.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`] and [`ProtocolError::UnknownKind`].
    pub fn decode(mut packet: Bytes) -> Result<Packet, ProtocolError> {
        if packet.len() > MAX_PACKET {
            return Err(ProtocolError::Malformed("longer than the largest packet"));
        }
        let Some(&first_byte) = packet.first() else {
            return Err(ProtocolError::Malformed("empty"));
        };
        if first_byte == kind::DATA {
            return decode_data(packet);
        }
        packet.advance(1);
        let mut fields = Fields(&packet);
        let decoded = match first_byte {
            kind::HELLO => Packet::Hello(Hello::decode(&mut fields)?),
            kind::WELCOME => Packet::Welcome(Welcome::decode(&mut fields)?),
            kind::REJECT => Packet::Reject(Rejection::decode(&mut fields)?),
            kind::ACK => Packet::Ack(Seq::new(fields.u64()?)),
            kind::CREDIT => Packet::Credit(Offset::new(fields.u64()?)),
            kind::BLOCKED => Packet::Blocked(Offset::new(fields.u64()?)),
            kind::PING => Packet::Ping(fields.u64()?),
            kind::PONG => Packet::Pong(fields.u64()?),
            kind::CLOSE => {
                let last = Seq::new(fields.u64()?);
                let within_millis = fields.millis()?;
                let frame = CloseFrame {
                    code: fields.u16()?,
                    reason: fields.reason()?,
                };
                Packet::Close {
                    last,
                    within_millis,
                    frame,
                }
            }
            kind::END => Packet::End,
            kind::ABORT => Packet::Abort {
                code: ErrorCode(fields.u16()?),
                reason: fields.reason()?,
            },
            kind::GO_AWAY => Packet::GoAway {
                within_millis: fields.millis()?,
                reason: fields.reason()?,
            },
            kind::IGNORABLE.. => return Ok(Packet::Unknown(first_byte)),
            unknown => return Err(ProtocolError::UnknownKind(unknown)),
        };
        fields.end()?;
        Ok(decoded)
    }

    /// Appends the encoded packet. Decoding it gives an equal packet back, provided that it is
    /// one that [`decode`](Packet::decode) could give.
    pub fn encode(&self, buf: &mut BytesMut) {
        let numbered = |buf: &mut BytesMut, kind: u8, number: u64| {
            buf.put_u8(kind);
            buf.put_u64(number);
        };
        match self {
            Packet::Hello(hello) => hello.encode(buf),
            Packet::Welcome(welcome) => welcome.encode(buf),
            Packet::Reject(rejection) => rejection.encode_into(buf),
            Packet::Data { first, records } => {
                numbered(buf, kind::DATA, first.get());
                buf.put_slice(records);
            }
            Packet::Ack(seq) => numbered(buf, kind::ACK, seq.get()),
            Packet::Credit(limit) => numbered(buf, kind::CREDIT, limit.get()),
            Packet::Blocked(limit) => numbered(buf, kind::BLOCKED, limit.get()),
            Packet::Ping(number) => numbered(buf, kind::PING, *number),
            Packet::Pong(number) => numbered(buf, kind::PONG, *number),
            Packet::Close {
                last,
                within_millis,
                frame,
            } => {
                numbered(buf, kind::CLOSE, last.get());
                buf.put_u64(*within_millis);
                buf.put_u16(frame.code);
                buf.put_slice(cut_reason(&frame.reason).as_bytes());
            }
            Packet::End => buf.put_u8(kind::END),
            Packet::Abort { code, reason } => {
                buf.put_u8(kind::ABORT);
                buf.put_u16(code.0);
                buf.put_slice(cut_reason(reason).as_bytes());
            }
            Packet::GoAway {
                within_millis,
                reason,
            } => {
                numbered(buf, kind::GO_AWAY, *within_millis);
                buf.put_slice(cut_reason(reason).as_bytes());
            }
            Packet::Unknown(kind) => buf.put_u8(*kind),
        }
    }

    /// The encoded packet.
    pub fn to_bytes(&self) -> Bytes {
        let mut buf = BytesMut::new();
        self.encode(&mut buf);
        buf.freeze()
    }
}

fn decode_data(packet: Bytes) -> Result<Packet, ProtocolError> {
    let Some(header) = packet.first_chunk::<DATA_HEADER>() else {
        return Err(ProtocolError::Malformed(
            "a data packet shorter than its header",
        ));
    };
    let [_, first @ ..] = *header;
    let first = Seq::new(u64::from_be_bytes(first));
    if first == Seq::ZERO {
        return Err(ProtocolError::Malformed("a record with the number 0"));
    }
    if packet.len() == DATA_HEADER {
        return Err(ProtocolError::Malformed("a data packet without records"));
    }
    Ok(Packet::Data {
        first,
        records: packet.slice(DATA_HEADER..),
    })
}

/// One record of a data packet (SPEC.md, "Records").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What stands before a record's payload.
#[derive(Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) kind: Kind,
    pub(crate) continues: bool,
    /// The payload's length.
    pub(crate) length: usize,
    /// The header's own.
    pub(crate) size: usize,
}

impl RecordHeader {
    /// `None`: it is cut short, or its length too large.
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
        let mut word = (length as u64) << FLAG_BITS;
        if kind == Kind::Text {
            word |= TEXT;
        }
        if continues {
            word |= CONTINUES;
        }
        varint::write(buf, word);
    }
}

impl<'a> Record<'a> {
    /// Reads the record at the beginning of `bytes`; the next one begins after
    /// [`size`](Record::size) bytes.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`] when the record is cut short, too long, or continues although
    /// it is empty.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Result<Record<'a>, ProtocolError> {
        Record::parse(bytes).ok_or_else(|| Record::why_malformed(bytes))
    }

    /// The same without the reason, which is dear to carry along.
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

    /// The most bytes that a record with this payload takes.
    #[inline]
    pub(crate) const fn max_size(payload: usize) -> usize {
        4 + payload
    }

    /// Appends a record.
    #[inline]
    pub(crate) fn write(buf: &mut BytesMut, kind: Kind, continues: bool, payload: &[u8]) {
        RecordHeader::write(buf, kind, continues, payload.len());
        append(payload, |piece| buf.extend_from_slice(piece));
    }
}

/// Appends in pieces below what the C library copies by `rep movsb`: on processors in wide use that
/// takes several times as long where both ends are not aligned alike, as they never are here.
#[inline(always)]
pub(crate) fn append(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    const PIECE: usize = 2 << 10;
    if bytes.len() < PIECE {
        return put(bytes);
    }
    bytes.chunks(PIECE).for_each(put);
}

/// The fields of a control packet, read from the front.
pub(crate) struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(ProtocolError::Malformed("cut short"));
        };
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A time in milliseconds.
    pub(crate) fn millis(&mut self) -> Result<u64, ProtocolError> {
        match self.u64()? {
            millis @ 0..=MAX_MILLIS => Ok(millis),
            _ => Err(ProtocolError::Malformed("a time of more than ten years")),
        }
    }

    /// The rest of the packet as text.
    fn reason(&mut self) -> Result<String, ProtocolError> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.len() > MAX_REASON {
            return Err(ProtocolError::Malformed("a reason of more than 123 bytes"));
        }
        match std::str::from_utf8(bytes) {
            Ok(reason) => Ok(reason.to_owned()),
            Err(_) => Err(ProtocolError::Malformed("a reason that is not UTF-8")),
        }
    }

    /// Nothing may be left.
    fn end(self) -> Result<(), ProtocolError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(ProtocolError::Malformed("bytes left over")),
        }
    }
}
