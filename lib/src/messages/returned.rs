//! Messages that come back to the application that sent them.

use std::{error::Error, fmt, sync::Arc};

use super::Message;
use crate::reports::{Close, ConnectionError};

/// [`send`](crate::Sender::send) refused a message, and no later attempt will fare better. The
/// message comes back.
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
    /// The message is larger than
    /// [`Options::max_message_bytes`](crate::Options::max_message_bytes) of this side or, in a
    /// session, of the peer. Send it in parts, or raise the limit.
    TooLarge {
        /// The size of the message's payload in bytes.
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
                write!(
                    f,
                    "it has {size} bytes and the limit is {limit}: send it in parts, or raise \
                     max_message_bytes"
                )
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

/// A message that was queued and that the peer's application did not acknowledge, from
/// [`take_undelivered`](crate::Sender::take_undelivered).
///
/// A [`CloseReport`] sorts such messages into two lists, so that `unsent` ones can be sent elsewhere
/// without a thought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the message comes back only once"]
pub struct Undelivered {
    /// The message, whole.
    pub message: Message,
    /// Whether the peer may have it. `true`: it was sent, so sending it again may double it. `false`:
    /// the peer cannot have it.
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

/// How a connection ended, and what it did not deliver: from [`close`](crate::Sender::close) and
/// [`ended`](crate::Sender::ended).
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "the report has the messages that were not delivered"]
pub struct CloseReport {
    /// Whether both sides agreed to the end within
    /// [`Options::close_timeout`](crate::Options::close_timeout), and no message comes back in this
    /// report.
    pub clean: bool,
    /// The peer's close frame, or `None` if it sent none.
    pub peer: Option<Close>,
    /// Messages that the peer cannot have, in order: they were not written, or not as a whole. Only
    /// the first report of a connection has them.
    pub unsent: Vec<Message>,
    /// In a session, messages that were sent and that the peer's application did not acknowledge, in
    /// order. The peer may have them or not. They were queued before those in `unsent`. Only the
    /// first report of a connection has them.
    pub maybe_delivered: Vec<Message>,
    /// On a plain connection, how many messages were in the write buffer at the end. Each may or may
    /// not have reached the peer, and does not come back.
    pub in_flight: u64,
    /// Why the connection ended, or `None` after a normal close.
    pub error: Option<Arc<ConnectionError>>,
}
