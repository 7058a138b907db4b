//! How a connection begins: HELLO, WELCOME, REJECT, and tokens (SPEC-TOPICS.md, "Hello").

use std::{fmt, sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};

use super::code::Code;
use super::limits::{MAX_TOKEN, MIN_PUBLISH_WINDOW};
use super::position::{LogId, Offset};
use super::terms::{Durability, Publisher};
use crate::error::ProtocolError;
use crate::limits::{MAX_MAX_MESSAGE, MAX_MILLIS, MAX_RETRY_AFTER, MIN_MAX_MESSAGE};
use crate::util::cut_reason;
use crate::wire::{Fields, kind};

/// Says who a client is: at most 8,192 bytes of visible ASCII. It is a secret, so it is never
/// printed. Cloning is cheap: clones share the text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccessToken(Option<Arc<str>>);

/// A text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has at most {MAX_TOKEN} bytes of visible ASCII, without spaces; encode it")]
#[non_exhaustive]
pub struct InvalidToken;

impl AccessToken {
    /// The client says nothing of itself.
    pub const NONE: AccessToken = AccessToken(None);

    /// Checks a token. An empty one is [`AccessToken::NONE`].
    ///
    /// # Errors
    /// [`InvalidToken`] when it is too long or has other characters than visible ASCII.
    pub fn new(token: &str) -> Result<AccessToken, InvalidToken> {
        if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        Ok(AccessToken((!token.is_empty()).then(|| token.into())))
    }

    /// The token. Never print it.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<AccessToken, ProtocolError> {
        let text = std::str::from_utf8(fields.rest()).ok();
        let token = text.and_then(|text| AccessToken::new(text).ok());
        token.ok_or(ProtocolError::Malformed("a token that is none"))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "AccessToken(…)"
        } else {
            "AccessToken(none)"
        })
    }
}

/// The client's first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientHello {
    /// Who publishes on this connection. `None`: nothing is known of what is sent again.
    pub publisher: Option<Publisher>,
    /// The largest message that the client accepts, in bytes.
    pub max_message: u64,
    /// Who the client is.
    pub token: AccessToken,
}

/// The server's answer to HELLO.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerWelcome {
    /// The log that this node serves.
    pub log: LogId,
    /// The first message that the log has. If it has none, one more than `last`.
    pub first: Offset,
    /// The last message that the log ever had.
    pub last: Offset,
    /// The largest message that the server accepts, in bytes.
    pub max_message: u64,
    /// The cost of the messages that may be without an answer at a time.
    pub publish_window: u64,
    /// For how long a publisher's numbers are remembered after its last message, in milliseconds.
    /// 0: as long as the log lives.
    pub once_millis: u64,
    /// How many subscriptions this connection may have. At least 1.
    pub subscriptions: u32,
    /// How safe a confirmed message is.
    pub durability: Durability,
    /// The name of the node, at most 123 bytes.
    pub name: String,
}

/// What a server says of its log in WELCOME.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogInfo {
    /// The log's id.
    pub id: LogId,
    /// The first message that the log has. If it has none, one more than `last`.
    pub first: Offset,
    /// The last message that the log ever had.
    pub last: Offset,
    /// For how long a publisher's numbers are remembered. `None`: as long as the log lives.
    pub once: Option<Duration>,
    /// How safe a confirmed message is.
    pub durability: Durability,
}

impl LogInfo {
    /// A log with these messages.
    pub fn new(id: LogId, first: Offset, last: Offset, durability: Durability) -> LogInfo {
        LogInfo {
            id,
            first,
            last,
            once: None,
            durability,
        }
    }

    /// The same, with numbers that are remembered for this long only.
    #[must_use]
    pub fn once(mut self, once: Option<Duration>) -> LogInfo {
        self.once = once;
        self
    }
}

/// Why a server refuses HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The client may not connect with this token.
    #[error("this token is not allowed to connect; use another one")]
    NotAllowed = 1,
    /// The node has no room. Connect again later, or to another node at once.
    #[error("the node is full; try another node, or this one later")]
    Full = 2,
    /// The node cannot reach the log.
    #[error("the node cannot reach the log; try another node, or this one later")]
    Unavailable = 3,
}

/// A server's refusal of HELLO.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReject {
    /// Why.
    pub reason: RejectReason,
    /// When to try this node again, in milliseconds; 0 leaves it to the client. As the server says
    /// it: see [`ServerReject::retry_after`].
    pub retry_after_millis: u64,
    /// Why, in words. At most 123 bytes.
    pub text: String,
}

impl ServerReject {
    /// A refusal. A text of more than 123 bytes is cut.
    pub fn new(reason: RejectReason, retry_after: Duration, text: &str) -> ServerReject {
        ServerReject {
            reason,
            retry_after_millis: super::limits::millis(retry_after),
            text: cut_reason(text).to_owned(),
        }
    }

    /// Whether connecting to this node again can help without another token.
    pub fn is_retryable(&self) -> bool {
        self.reason != RejectReason::NotAllowed
    }

    /// How long to wait before connecting to this node again, if the server says so; at most
    /// [`MAX_RETRY_AFTER`].
    pub fn retry_after(&self) -> Option<Duration> {
        let wait = Duration::from_millis(self.retry_after_millis);
        (!wait.is_zero()).then(|| wait.min(MAX_RETRY_AFTER))
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<ServerReject, ProtocolError> {
        Ok(ServerReject {
            reason: RejectReason::from_code(fields.u8()?)?,
            retry_after_millis: fields.millis()?,
            text: fields.reason()?,
        })
    }

    pub(super) fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(kind::REJECT);
        buf.put_u8(self.reason.code());
        buf.put_u64(self.retry_after_millis);
        buf.put_slice(cut_reason(&self.text).as_bytes());
    }
}

impl Code for RejectReason {
    const ALL: &'static [RejectReason] = &[
        RejectReason::NotAllowed,
        RejectReason::Full,
        RejectReason::Unavailable,
    ];
    const UNKNOWN: &'static str = "a rejection for a reason that does not exist";

    fn code(self) -> u8 {
        self as u8
    }
}

impl ClientHello {
    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<ClientHello, ProtocolError> {
        let (id, epoch) = (fields.array::<16>()?, fields.u64()?);
        let publisher = match (id == [0; 16], epoch == 0) {
            (true, true) => None,
            (false, false) => Some(Publisher { id, epoch }),
            _ => {
                return Err(ProtocolError::Malformed(
                    "a publisher's id without an epoch, or the other way round",
                ));
            }
        };
        Ok(ClientHello {
            publisher,
            max_message: max_message(fields)?,
            token: AccessToken::decode(fields)?,
        })
    }

    pub(super) fn encode(&self, buf: &mut BytesMut) {
        let (id, epoch) = match self.publisher {
            Some(publisher) => (publisher.id, publisher.epoch),
            None => ([0; 16], 0),
        };
        buf.put_u8(kind::HELLO);
        buf.put_slice(&id);
        buf.put_u64(epoch);
        buf.put_u64(self.max_message);
        buf.put_slice(self.token.as_str().as_bytes());
    }
}

impl ServerWelcome {
    /// For how long a publisher's numbers are remembered. `None`: as long as the log lives.
    pub fn once(&self) -> Option<Duration> {
        (self.once_millis > 0).then(|| Duration::from_millis(self.once_millis))
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<ServerWelcome, ProtocolError> {
        let welcome = ServerWelcome {
            log: LogId(fields.array()?),
            first: Offset::decode(fields)?,
            last: Offset::decode(fields)?,
            max_message: max_message(fields)?,
            publish_window: fields.u64()?,
            once_millis: fields.millis()?,
            subscriptions: fields.u32()?,
            durability: Durability::from_code(fields.u8()?)?,
            name: fields.reason()?,
        };
        let (first, last) = (welcome.first.get(), welcome.last.get());
        if first == 0 || first > last + 1 {
            return Err(ProtocolError::Malformed("a first message behind the end"));
        }
        if welcome.publish_window < MIN_PUBLISH_WINDOW {
            return Err(ProtocolError::Malformed(
                "a publish window that is too small",
            ));
        }
        if welcome.subscriptions == 0 {
            return Err(ProtocolError::Malformed(
                "a connection without subscriptions",
            ));
        }
        Ok(welcome)
    }

    pub(super) fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(kind::WELCOME);
        buf.put_slice(&self.log.0);
        buf.put_u64(self.first.get());
        buf.put_u64(self.last.get());
        buf.put_u64(self.max_message);
        buf.put_u64(self.publish_window);
        buf.put_u64(self.once_millis.min(MAX_MILLIS));
        buf.put_u32(self.subscriptions);
        buf.put_u8(self.durability.code());
        buf.put_slice(cut_reason(&self.name).as_bytes());
    }
}

fn max_message(fields: &mut Fields<'_>) -> Result<u64, ProtocolError> {
    match fields.u64()? {
        size @ MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE => Ok(size),
        _ => Err(ProtocolError::Malformed(
            "a largest message that is out of its range",
        )),
    }
}
