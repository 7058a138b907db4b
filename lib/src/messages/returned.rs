//! Messages that come back to the application that sent them.

use std::sync::Arc;

use super::Message;
use crate::reports::{Close, ConnectionError};

/// A message that could not be sent comes back with the reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the message was not sent: {reason}")]
pub struct SendError {
    /// The message, whole.
    pub message: Message,
    /// Why.
    pub reason: SendRefusal,
}

/// A message that [`try_send`](crate::Sender::try_send) could not take comes back with the reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the message was not sent: {reason}")]
pub struct TrySendError {
    /// The message, whole.
    pub message: Message,
    /// Why.
    pub reason: SendRefusal,
}

/// Why a message was not taken.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendRefusal {
    /// The outbox has no room now; try again later. Only from `try_send`.
    #[error("the outbox is full")]
    Full,
    /// The message is over [`Options::max_message_bytes`](crate::Options::max_message_bytes).
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// The message's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection has ended or is closing; no later message will be taken either.
    #[error("{0}")]
    Ended(Arc<ConnectionError>),
}

/// A message that was accepted and that the peer's application never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The message, whole.
    pub message: Message,
    /// Whether any of it was sent: then the peer may have it.
    pub maybe_delivered: bool,
}

impl Undelivered {
    /// A message that the peer cannot have.
    pub(crate) fn unsent(message: Message) -> Undelivered {
        Undelivered {
            message,
            maybe_delivered: false,
        }
    }
}

/// What [`close`](crate::Sender::close) found out.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Whether both sides agreed to the end in time and nothing that was accepted comes back in
    /// this report.
    pub clean: bool,
    /// The peer's close frame, if one came.
    pub peer: Option<Close>,
    /// Messages that were not written whole, in order. Only the first report of a connection has
    /// them.
    pub unsent: Vec<Message>,
    /// Of a session: messages that were sent and that the peer's application never acknowledged, in
    /// order; it may have them or not. They come before those in `unsent`.
    pub maybe_delivered: Vec<Message>,
    /// How many messages were handed to the socket's write buffer without leaving it whole: each
    /// may or may not have reached the peer.
    pub in_flight: u64,
    /// Why the connection ended, where it was not by a normal close.
    pub error: Option<Arc<ConnectionError>>,
}
