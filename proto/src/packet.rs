//! Packets: each is one WebSocket binary message (SPEC.md, "Packets").

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{ErrorCode, ProtocolError};
use crate::limits::MAX_PACKET;
use crate::number::{Offset, Seq};
use crate::resume::{Hello, Rejection, Welcome};
use crate::util::cut_reason;
use crate::wire::{DATA_HEADER, Fields, kind};

/// A code and a text, as in a WebSocket close frame (RFC 6455, section 5.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CloseFrame {
    /// The application's code, in the ranges of WebSocket.
    pub code: u16,
    /// The reason, at most [`MAX_REASON`](crate::limits::MAX_REASON) bytes.
    pub reason: String,
}

impl CloseFrame {
    /// A close frame. A reason of more than [`MAX_REASON`](crate::limits::MAX_REASON) bytes is cut
    /// after a character.
    pub fn new(code: u16, reason: &str) -> CloseFrame {
        CloseFrame {
            code,
            reason: cut_reason(reason).to_owned(),
        }
    }
}

/// A decoded packet. Times are as the sender names them: nothing is cut here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packet {
    /// The client opens or resumes a session.
    Hello(Hello),
    /// The server accepts HELLO.
    Welcome(Welcome),
    /// The server refuses HELLO.
    Reject(Rejection),
    /// Messages, as records in order. [`Record::read`](crate::Record::read) reads them one by one.
    Data {
        /// The sequence number of the first record.
        first: Seq,
        /// The encoded records. They are not checked yet.
        records: Bytes,
    },
    /// Everything up to this record is taken or processed by the receiving application.
    Ack(Seq),
    /// The peer may send up to this offset.
    Credit(Offset),
    /// The sender has more to send than this credit allows.
    Blocked(Offset),
    /// Asks for [`Packet::Pong`] with the same number.
    Ping(u64),
    /// Answers [`Packet::Ping`].
    Pong(u64),
    /// The sender of this packet sends no more records after the last one.
    Close {
        /// The last record.
        last: Seq,
        /// How long the close may take, in milliseconds.
        within_millis: u64,
        /// The code and the reason.
        frame: CloseFrame,
    },
    /// Everything is acknowledged both ways: the session is over.
    End,
    /// The session is over at once.
    Abort {
        /// The reason, as a number.
        code: ErrorCode,
        /// The reason in words.
        reason: String,
    },
    /// The server asks the client to connect anew.
    GoAway {
        /// The time within which the client picks a random moment, in milliseconds.
        within_millis: u64,
        /// The reason in words.
        reason: String,
    },
    /// A packet of an unknown kind that is to be ignored.
    Unknown(u8),
}

impl Packet {
    /// Decodes one WebSocket binary message. The records of a DATA packet are not read yet.
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

    /// Appends the encoded packet. [`decode`](Packet::decode) then gives an equal packet, if it
    /// could have given this one.
    pub fn encode(&self, buf: &mut BytesMut) {
        let numbered = |buf: &mut BytesMut, kind: u8, number: u64| {
            buf.put_u8(kind);
            buf.put_u64(number);
        };
        match self {
            Packet::Hello(hello) => hello.encode(buf),
            Packet::Welcome(welcome) => welcome.encode(buf),
            Packet::Reject(rejection) => rejection.encode(buf),
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

impl Hello {
    /// Decodes the first packet of a client, for a server that then looks the session up. A packet
    /// is a WebSocket binary message: refuse a connection whose first message is text.
    ///
    /// After calling this: if the server has the session, call
    /// [`Session::resume`](crate::Session::resume), otherwise
    /// [`Session::server`](crate::Session::server), which opens it. Either may give a
    /// [`Rejection`]: send it, and close the connection.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`], or [`ProtocolError::Unexpected`] for any other packet. There
    /// is no session yet that could be told: close the connection with the WebSocket code 1002.
    pub fn from_packet(packet: Bytes) -> Result<Hello, ProtocolError> {
        match Packet::decode(packet)? {
            Packet::Hello(hello) => Ok(hello),
            _ => Err(ProtocolError::Unexpected("the first packet is not HELLO")),
        }
    }
}

impl Rejection {
    /// The packet that tells the client. Send it, then close the connection.
    pub fn to_packet(self) -> Bytes {
        Packet::Reject(self).to_bytes()
    }
}
