//! What a client tells its caller.

use std::time::Duration;

use bytes::Bytes;

use super::super::hello::{ServerReject, ServerWelcome};
use super::super::name::Topic;
use super::super::position::Offset;
use super::super::terms::{Durability, Refusal};
use super::SubscriptionId;
use crate::error::ErrorCode;
use crate::payload::Kind;

/// Something that happened to a [`Client`](super::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The server has accepted the connection.
    Welcomed(ServerWelcome),
    /// The server has refused the connection: close it, and call
    /// [`Client::detach`](super::Client::detach).
    Rejected(ServerReject),
    /// The server gives up: close the connection, and call
    /// [`Client::detach`](super::Client::detach).
    Aborted {
        /// Why, as a number.
        code: ErrorCode,
        /// Why, in the server's words.
        reason: String,
    },
    /// The server asks the client to connect again, to any node, at a random moment within this
    /// time.
    GoAway {
        /// The time, at most [`MAX_GO_AWAY`](crate::limits::MAX_GO_AWAY).
        within: Duration,
        /// Why, in the server's words.
        reason: String,
    },
    /// The answer to [`Client::ping`](super::Client::ping) has come.
    Pong {
        /// How long it took.
        round_trip: Duration,
    },
    /// There is something for [`Client::poll_delivery`](super::Client::poll_delivery). It comes once
    /// until that gave `None`.
    Readable(SubscriptionId),
    /// Messages are stored.
    Published {
        /// The number of the first one.
        first: u64,
        /// How many, with numbers that follow each other.
        count: u64,
        /// The offset of the first one. The others follow it. `None`: they were stored before, and
        /// their offsets are no longer known.
        offset: Option<Offset>,
        /// How safe they are.
        durability: Durability,
    },
    /// The server has not stored a message.
    Refused {
        /// Its number.
        number: u64,
        /// Why.
        reason: Refusal,
        /// It may be stored all the same: the store gave no answer ([`Refusal::Unknown`]), or the
        /// message was sent on an earlier connection too, and that answer was lost.
        may_be_stored: bool,
        /// Why, in the server's words.
        text: String,
    },
    /// It cannot be known whether messages are stored: their answers were lost with a connection,
    /// and they may not be sent again.
    Unknown {
        /// The number of the first one.
        first: u64,
        /// How many, with numbers that follow each other.
        count: u64,
    },
    /// [`Client::publish`](super::Client::publish) had no room, and now there is some.
    Room,
}

/// Why [`Client::publish`](super::Client::publish) took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Too many messages have no answer. Try again after [`ClientEvent::Room`].
    #[error("too many messages have no answer yet; wait for some")]
    Full,
    /// The message is larger than the server takes, or than 65,536 bytes before a server has said
    /// what it takes.
    #[error("the message is larger than the {limit} bytes that the server takes")]
    TooLarge {
        /// The largest message.
        limit: u64,
    },
}

/// A published message without an answer, given back by
/// [`Client::give_up`](super::Client::give_up).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unanswered {
    /// Its number.
    pub number: u64,
    /// The topic.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes.
    pub payload: Bytes,
    /// Whether it was sent, so that it may be stored. If not, it is not stored.
    pub may_be_stored: bool,
}
