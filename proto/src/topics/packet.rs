//! Packets: each is one WebSocket binary message (SPEC-TOPICS.md, "Packets").

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::code::Code;
use super::hello::{AccessToken, ClientHello, ServerReject, ServerWelcome};
use super::limits::MAX_PACKET;
use super::position::{Offset, StoredAt};
use super::subscribe::{self, Subscribe};
use super::terms::{Durability, Gap, GapReason, Refusal, SubscriptionEnd};
use crate::error::{ErrorCode, ProtocolError};
use crate::util::cut_reason;
use crate::varint;
use crate::wire::{Fields, kind as shared};

/// The first byte of each kind of packet that sessions do not have.
pub(super) mod kind {
    pub(crate) const TOKEN: u8 = 0x04;
    pub(crate) const SUBSCRIBED: u8 = 0x21;
    pub(crate) const MESSAGES: u8 = 0x22;
    pub(crate) const GAP: u8 = 0x23;
    pub(crate) const CAUGHT_UP: u8 = 0x24;
    pub(crate) const CREDIT: u8 = 0x25;
    pub(crate) const UNSUBSCRIBE: u8 = 0x26;
    pub(crate) const ENDED: u8 = 0x27;
    pub(crate) const PUBLISH: u8 = 0x30;
    pub(crate) const PUBLISHED: u8 = 0x31;
    pub(crate) const REFUSED: u8 = 0x32;
}

/// The bytes before the records of a MESSAGES packet: the kind and the subscription.
pub(super) const MESSAGES_HEAD: usize = 5;

/// The bytes before the records of a PUBLISH packet: the kind and the first number.
pub(super) const PUBLISH_HEAD: usize = 9;

/// A decoded packet of topics. Times are as the sender names them: nothing is cut here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicPacket {
    /// The client's first packet.
    Hello(ClientHello),
    /// The server accepts HELLO.
    Welcome(ServerWelcome),
    /// The server refuses HELLO.
    Reject(ServerReject),
    /// The client has another token.
    Token(AccessToken),
    /// Asks for [`TopicPacket::Pong`] with the same number.
    Ping(u64),
    /// Answers [`TopicPacket::Ping`].
    Pong(u64),
    /// The peer broke the protocol, or its application gives up.
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
    /// The client subscribes.
    Subscribe(Subscribe),
    /// The server says where delivery begins.
    Subscribed {
        /// The subscription.
        subscription: u32,
        /// The place behind which delivery begins.
        after: Offset,
        /// The time of the message there.
        time: StoredAt,
        /// The last message of the log at that moment.
        end: Offset,
        /// The time of that message.
        end_time: StoredAt,
    },
    /// Messages of a subscription. [`TopicRecord`](super::TopicRecord) reads them one by one.
    Messages {
        /// The subscription.
        subscription: u32,
        /// The encoded records. They are not checked yet.
        records: Bytes,
    },
    /// Messages are or may be missing.
    Gap {
        /// The subscription.
        subscription: u32,
        /// What is missing, and why.
        gap: Gap,
    },
    /// Everything up to a place is sent.
    CaughtUp {
        /// The subscription.
        subscription: u32,
        /// The place.
        offset: Offset,
        /// The time of the message there.
        time: StoredAt,
    },
    /// The server may send up to this sum of costs.
    Credit {
        /// The subscription.
        subscription: u32,
        /// The sum.
        limit: u64,
    },
    /// The client wants no more of a subscription.
    Unsubscribe(u32),
    /// A subscription is over.
    Ended {
        /// The subscription.
        subscription: u32,
        /// Why.
        reason: SubscriptionEnd,
        /// Why, in words.
        text: String,
    },
    /// The client publishes messages.
    Publish {
        /// The number of the message of the first record.
        first: u64,
        /// The encoded records. They are not checked yet.
        records: Bytes,
    },
    /// Messages are stored.
    Published {
        /// How safe they are.
        durability: Durability,
        /// The number of the first one.
        first: u64,
        /// The encoded runs. They are checked; [`runs`](published_runs) reads them.
        runs: Bytes,
    },
    /// A message is not stored.
    Refused {
        /// Its number.
        number: u64,
        /// Why.
        reason: Refusal,
        /// Why, in words.
        text: String,
    },
    /// A packet of an unknown kind that is to be ignored.
    Unknown(u8),
}

/// A run in PUBLISHED: so many messages with numbers that follow each other, and offsets that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedRun {
    /// How many messages.
    pub count: u64,
    /// The offset of the first one. `None`: they were stored before, and their offsets are no
    /// longer known.
    pub offset: Option<Offset>,
}

/// The runs of a [`TopicPacket::Published`].
pub fn published_runs(runs: &[u8]) -> impl Iterator<Item = PublishedRun> {
    let mut rest = runs;
    std::iter::from_fn(move || read_run(&mut rest).ok())
}

fn read_run(bytes: &mut &[u8]) -> Result<PublishedRun, ProtocolError> {
    let mut number = || {
        let (number, size) = varint::read(bytes).ok_or(ProtocolError::Malformed("cut short"))?;
        *bytes = &bytes[size..];
        Ok(number)
    };
    let (count, offset) = (number()?, number()?);
    if count == 0 {
        return Err(ProtocolError::Malformed("a run of no messages"));
    }
    let offset = Offset::new(offset).filter(|offset| *offset != Offset::START);
    if offset.is_some_and(|first| first.checked_add(count - 1).is_none()) {
        return Err(ProtocolError::Malformed("a run beyond the largest offset"));
    }
    Ok(PublishedRun { count, offset })
}

/// Appends a run.
pub(super) fn write_run(buf: &mut BytesMut, count: u64, offset: Option<Offset>) {
    varint::write(buf, count);
    varint::write(buf, offset.map_or(0, Offset::get));
}

impl TopicPacket {
    /// Whether a packet carries a token, so it must not be compressed (SPEC-TOPICS.md, "Agreement").
    pub fn is_secret(packet: &[u8]) -> bool {
        matches!(packet.first(), Some(&(shared::HELLO | kind::TOKEN)))
    }

    /// Decodes one WebSocket binary message. Records are not read yet.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`] and [`ProtocolError::UnknownKind`].
    pub fn decode(mut packet: Bytes) -> Result<TopicPacket, ProtocolError> {
        if packet.len() > MAX_PACKET {
            return Err(ProtocolError::Malformed("longer than the largest packet"));
        }
        let Some(&first_byte) = packet.first() else {
            return Err(ProtocolError::Malformed("empty"));
        };
        match first_byte {
            kind::MESSAGES => return decode_messages(&packet),
            kind::PUBLISH => return decode_publish(&packet),
            subscribe::KIND => return Subscribe::decode(&packet).map(TopicPacket::Subscribe),
            kind::PUBLISHED => return decode_published(&packet),
            _ => packet.advance(1),
        }
        let mut fields = Fields(&packet);
        let decoded = match first_byte {
            kind::SUBSCRIBED..=kind::ENDED => of_subscription(first_byte, &mut fields)?,
            shared::HELLO => TopicPacket::Hello(ClientHello::decode(&mut fields)?),
            shared::WELCOME => TopicPacket::Welcome(ServerWelcome::decode(&mut fields)?),
            shared::REJECT => TopicPacket::Reject(ServerReject::decode(&mut fields)?),
            kind::TOKEN => TopicPacket::Token(AccessToken::decode(&mut fields)?),
            shared::PING => TopicPacket::Ping(fields.u64()?),
            shared::PONG => TopicPacket::Pong(fields.u64()?),
            shared::ABORT => TopicPacket::Abort {
                code: ErrorCode(fields.u16()?),
                reason: fields.reason()?,
            },
            shared::GO_AWAY => TopicPacket::GoAway {
                within_millis: fields.millis()?,
                reason: fields.reason()?,
            },
            kind::REFUSED => TopicPacket::Refused {
                number: number(&mut fields)?,
                reason: Refusal::from_code(fields.u8()?)?,
                text: fields.reason()?,
            },
            shared::IGNORABLE.. => return Ok(TopicPacket::Unknown(first_byte)),
            unknown => return Err(ProtocolError::UnknownKind(unknown)),
        };
        fields.end()?;
        Ok(decoded)
    }

    /// Appends the encoded packet. [`decode`](TopicPacket::decode) then gives an equal packet, if it
    /// could have given this one.
    pub fn encode(&self, buf: &mut BytesMut) {
        match self {
            TopicPacket::Hello(hello) => hello.encode(buf),
            TopicPacket::Welcome(welcome) => welcome.encode(buf),
            TopicPacket::Reject(reject) => reject.encode(buf),
            TopicPacket::Token(token) => {
                buf.put_u8(kind::TOKEN);
                buf.put_slice(token.as_str().as_bytes());
            }
            TopicPacket::Ping(number) => numbered(buf, shared::PING, *number),
            TopicPacket::Pong(number) => numbered(buf, shared::PONG, *number),
            TopicPacket::Abort { code, reason } => {
                buf.put_u8(shared::ABORT);
                buf.put_u16(code.0);
                text(buf, reason);
            }
            TopicPacket::GoAway {
                within_millis,
                reason,
            } => {
                numbered(buf, shared::GO_AWAY, *within_millis);
                text(buf, reason);
            }
            TopicPacket::Publish { first, records } => {
                numbered(buf, kind::PUBLISH, *first);
                buf.put_slice(records);
            }
            TopicPacket::Published {
                durability,
                first,
                runs,
            } => {
                buf.put_u8(kind::PUBLISHED);
                buf.put_u8(durability.code());
                buf.put_u64(*first);
                buf.put_slice(runs);
            }
            TopicPacket::Refused {
                number,
                reason,
                text: why,
            } => {
                numbered(buf, kind::REFUSED, *number);
                buf.put_u8(reason.code());
                text(buf, why);
            }
            TopicPacket::Unknown(kind) => buf.put_u8(*kind),
            of_subscription => of_subscription.encode_of_subscription(buf),
        }
    }

    fn encode_of_subscription(&self, buf: &mut BytesMut) {
        match self {
            TopicPacket::Subscribe(subscribe) => subscribe.encode(buf),
            TopicPacket::Subscribed {
                subscription,
                after,
                time,
                end,
                end_time,
            } => {
                of(buf, kind::SUBSCRIBED, *subscription);
                buf.put_u64(after.get());
                buf.put_u64(time.millis());
                buf.put_u64(end.get());
                buf.put_u64(end_time.millis());
            }
            TopicPacket::Messages {
                subscription,
                records,
            } => {
                of(buf, kind::MESSAGES, *subscription);
                buf.put_slice(records);
            }
            TopicPacket::Gap { subscription, gap } => {
                of(buf, kind::GAP, *subscription);
                buf.put_u8(gap.reason.code());
                buf.put_u8(gap.certain.into());
                buf.put_u64(gap.after.get());
                buf.put_u64(gap.through.get());
            }
            TopicPacket::CaughtUp {
                subscription,
                offset,
                time,
            } => {
                of(buf, kind::CAUGHT_UP, *subscription);
                buf.put_u64(offset.get());
                buf.put_u64(time.millis());
            }
            TopicPacket::Credit {
                subscription,
                limit,
            } => {
                of(buf, kind::CREDIT, *subscription);
                buf.put_u64(*limit);
            }
            TopicPacket::Unsubscribe(subscription) => of(buf, kind::UNSUBSCRIBE, *subscription),
            TopicPacket::Ended {
                subscription,
                reason,
                text: why,
            } => {
                of(buf, kind::ENDED, *subscription);
                buf.put_u8(reason.code());
                text(buf, why);
            }
            _ => debug_assert!(false, "the other kinds are encoded above"),
        }
    }

    /// The encoded packet.
    pub fn to_bytes(&self) -> Bytes {
        let mut buf = BytesMut::new();
        self.encode(&mut buf);
        buf.freeze()
    }
}

fn numbered(buf: &mut BytesMut, kind: u8, number: u64) {
    buf.put_u8(kind);
    buf.put_u64(number);
}

fn of(buf: &mut BytesMut, kind: u8, subscription: u32) {
    buf.put_u8(kind);
    buf.put_u32(subscription);
}

fn text(buf: &mut BytesMut, text: &str) {
    buf.put_slice(cut_reason(text).as_bytes());
}

/// The packets of a subscription whose fields have fixed lengths.
fn of_subscription(kind: u8, fields: &mut Fields<'_>) -> Result<TopicPacket, ProtocolError> {
    let subscription = fields.u32()?;
    Ok(match kind {
        kind::SUBSCRIBED => TopicPacket::Subscribed {
            subscription,
            after: Offset::decode(fields)?,
            time: StoredAt::decode(fields)?,
            end: Offset::decode(fields)?,
            end_time: StoredAt::decode(fields)?,
        },
        kind::GAP => TopicPacket::Gap {
            subscription,
            gap: Gap {
                reason: GapReason::from_code(fields.u8()?)?,
                certain: match fields.u8()? {
                    0 => false,
                    1 => true,
                    _ => {
                        return Err(ProtocolError::Malformed(
                            "a gap that is neither certain nor not",
                        ));
                    }
                },
                after: Offset::decode(fields)?,
                through: Offset::decode(fields)?,
            },
        },
        kind::CAUGHT_UP => TopicPacket::CaughtUp {
            subscription,
            offset: Offset::decode(fields)?,
            time: StoredAt::decode(fields)?,
        },
        kind::CREDIT => TopicPacket::Credit {
            subscription,
            limit: fields.u64()?,
        },
        kind::UNSUBSCRIBE => TopicPacket::Unsubscribe(subscription),
        kind::ENDED => TopicPacket::Ended {
            subscription,
            reason: SubscriptionEnd::from_code(fields.u8()?)?,
            text: fields.reason()?,
        },
        unknown => return Err(ProtocolError::UnknownKind(unknown)),
    })
}

fn decode_messages(packet: &Bytes) -> Result<TopicPacket, ProtocolError> {
    let mut fields = Fields(&packet[1..]);
    let subscription = fields.u32()?;
    if fields.rest().is_empty() {
        return Err(ProtocolError::Malformed("a packet without records"));
    }
    Ok(TopicPacket::Messages {
        subscription,
        records: packet.slice(MESSAGES_HEAD..),
    })
}

fn decode_publish(packet: &Bytes) -> Result<TopicPacket, ProtocolError> {
    let mut fields = Fields(&packet[1..]);
    let first = number(&mut fields)?;
    if fields.rest().is_empty() {
        return Err(ProtocolError::Malformed("a packet without records"));
    }
    Ok(TopicPacket::Publish {
        first,
        records: packet.slice(PUBLISH_HEAD..),
    })
}

fn decode_published(packet: &Bytes) -> Result<TopicPacket, ProtocolError> {
    let mut fields = Fields(&packet[1..]);
    let durability = Durability::from_code(fields.u8()?)?;
    let first = number(&mut fields)?;
    let mut rest = fields.rest();
    let runs = packet.slice_ref(rest);
    if rest.is_empty() {
        return Err(ProtocolError::Malformed("an answer to no message"));
    }
    let mut last = first - 1;
    while !rest.is_empty() {
        let count = read_run(&mut rest)?.count;
        let next = last.checked_add(count);
        last = next.ok_or(ProtocolError::Malformed("a run beyond the largest number"))?;
    }
    Ok(TopicPacket::Published {
        durability,
        first,
        runs,
    })
}

/// The number of a published message.
fn number(fields: &mut Fields<'_>) -> Result<u64, ProtocolError> {
    match fields.u64()? {
        0 => Err(ProtocolError::Malformed("a message with the number 0")),
        number => Ok(number),
    }
}
