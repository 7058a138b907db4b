//! What a server asks and tells its caller.

use std::time::Duration;

use bytes::Bytes;

use super::super::hello::{AccessToken, ClientHello};
use super::super::name::{Filter, Topic};
use super::super::position::Offset;
use super::super::terms::{Refusal, Start, SubscriptionEnd};
use crate::error::ErrorCode;
use crate::payload::Kind;

/// Names one subscription of a connection. A client may use its number again; a key is never used
/// again, so an answer that comes late meets nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    pub(super) number: u32,
    pub(super) serial: u32,
}

impl SubscriptionKey {
    /// The number that the client has drawn.
    pub fn number(self) -> u32 {
        self.number
    }
}

/// Something that the caller of a [`Server`](super::Server) has to answer or to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// The client's first packet. Answer with [`Server::welcome`](super::Server::welcome) or
    /// [`Server::reject`](super::Server::reject).
    Hello(ClientHello),
    /// The client has another token. Ask again for each of
    /// [`Server::subscriptions`](super::Server::subscriptions) whether it is allowed, and
    /// [end](super::Server::end) those that are not.
    Token(AccessToken),
    /// The client subscribes. Answer with [`Server::subscribed`](super::Server::subscribed) or
    /// [`Server::end`](super::Server::end).
    Subscribe(SubscribeRequest),
    /// A subscription is over, and not because the caller ended it.
    Ended {
        /// The subscription.
        key: SubscriptionKey,
        /// Why.
        reason: SubscriptionEnd,
    },
    /// The client publishes messages, in this order. Answer each by
    /// [`Server::published`](super::Server::published), at any time and in any order.
    ///
    /// If the store refuses a message for want of room or because it gives no answer, and remembers
    /// only the highest number of a publisher, it must store no later message of this connection
    /// that was handed over before that refusal was told. If the answer is lost, the client sends
    /// the message again, and its number would count as stored before. What comes from the client
    /// meanwhile waits in the server, until it knows that the client has the answer.
    Publish(Vec<PublishRequest>),
    /// The client gives up: close the connection.
    Aborted {
        /// Why, as a number.
        code: ErrorCode,
        /// Why, in the client's words.
        reason: String,
    },
}

/// A client subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscribeRequest {
    /// Names the subscription.
    pub key: SubscriptionKey,
    /// What it wants.
    pub filter: Filter,
    /// Where it begins.
    pub start: Start,
    /// How old the next message may be before the subscription is moved ahead. `None`: never.
    pub max_lag: Option<Duration>,
}

/// A client publishes a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishRequest {
    /// Its number.
    pub number: u64,
    /// The topic.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes. Those of text are UTF-8. It may be a slice of the packet that it came in: copy it
    /// before you keep it for long.
    pub payload: Bytes,
}

/// What happened to a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is stored, now or before. `None`: it was stored before, and its offset is no longer
    /// known.
    Stored(Option<Offset>),
    /// It is not stored, or for [`Refusal::Unknown`], it is not known whether it is.
    Refused {
        /// Why.
        reason: Refusal,
        /// Why, in words for the client. At most 123 bytes are sent.
        text: std::borrow::Cow<'static, str>,
    },
}

impl Outcome {
    /// A refusal without words of its own.
    pub fn refused(reason: Refusal) -> Outcome {
        Outcome::Refused {
            reason,
            text: "".into(),
        }
    }
}

/// What a subscription wants to read. Answer with [`Server::read`](super::Server::read) or one of
/// its siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadRequest {
    /// The subscription.
    pub key: SubscriptionKey,
    /// Read what matches this filter.
    pub filter: Filter,
    /// Read what is behind this offset.
    pub after: Offset,
    /// Read no further than this offset.
    pub through: Offset,
    /// Read about so many bytes of payloads and topics, and at least one message.
    pub max_bytes: usize,
    /// Read only the latest message of each topic.
    pub latest: bool,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionStage {
    /// It looks for its beginning.
    Opening,
    /// It sends what was there when it began.
    History,
    /// It has caught up once.
    Live,
    /// It is over, and its client is to be told.
    Ending,
}
