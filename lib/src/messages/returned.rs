//! Messages that come back to the application that sent them.

use std::{error::Error, fmt, sync::Arc};

use super::Message;
use crate::reports::{Close, ConnectionError};

/// A message was refused, and no later attempt will fare better. The message comes back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SendError {
    /// The message, whole.
    pub message: Message,
    /// Why it was refused.
    pub reason: SendRefusal,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message was not sent: {}", self.reason)
    }
}

impl Error for SendError {
    /// The source of the reason: the reason itself is in the text already.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.source()
    }
}

/// Why a message was refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SendRefusal {
    /// The message is larger than [`Options::max_message_bytes`](crate::Options::max_message_bytes)
    /// allows, on this side or on the peer's. Send it in parts, or raise the limit.
    TooLarge {
        /// The message's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection has ended or is closing. No later message will be accepted.
    Ended(Arc<ConnectionError>),
}

impl fmt::Display for SendRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendRefusal::TooLarge { size, limit } => {
                write!(f, "it has {size} bytes, over the limit of {limit}")
            }
            SendRefusal::Ended(_) => f.write_str("the connection has ended"),
        }
    }
}

impl Error for SendRefusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendRefusal::TooLarge { .. } => None,
            SendRefusal::Ended(why) => Some(&**why),
        }
    }
}

/// [`try_send`](crate::Sender::try_send) did not accept a message. The message comes back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The outbox has no room now. Try again later, or wait for room with
    /// [`send`](crate::Sender::send).
    #[error("the message was not sent: the outbox is full")]
    Full(Message),
    /// The message was refused, and no later attempt will fare better.
    #[error(transparent)]
    Refused(#[from] SendError),
}

impl TrySendError {
    /// The message, whole.
    pub fn into_message(self) -> Message {
        match self {
            TrySendError::Full(message) => message,
            TrySendError::Refused(error) => error.message,
        }
    }
}

/// A message that was accepted and that the peer's application never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the message comes back only once"]
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
#[must_use = "the report has the messages that were not delivered"]
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
