//! What is received: messages, and gaps where something is missing.

use std::{sync::Arc, time::Duration};

use crate::{
    defaults::MESSAGE_OVERHEAD_BYTES,
    messages::{Message, MessageRef},
    reports::ConnectionError,
};

/// A received message, or the place where some are missing, from [`recv`](crate::Receiver::recv).
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a program must not ignore a new kind in silence"
)]
pub enum Incoming {
    /// A message, in the order in which the peer sent it.
    Message(Message),
    /// Here something is missing. Nothing goes missing without one.
    Gap(Gap),
}

impl Incoming {
    /// The message, or `None` for a gap.
    pub fn into_message(self) -> Option<Message> {
        match self {
            Incoming::Message(message) => Some(message),
            Incoming::Gap(_) => None,
        }
    }

    pub(crate) fn cost(&self) -> usize {
        match self {
            Incoming::Message(message) => message.cost(),
            Incoming::Gap(_) => MESSAGE_OVERHEAD_BYTES,
        }
    }
}

/// A borrowed message, or the place where some are missing, from a [`Batch`](crate::Batch).
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a program must not ignore a new kind in silence"
)]
pub enum IncomingRef<'a> {
    /// A message, in the order in which the peer sent it.
    Message(MessageRef<'a>),
    /// Here something is missing. Nothing goes missing without one.
    Gap(&'a Gap),
}

/// Why messages are missing at this place of the received stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Gap {
    /// The connection was lost and made again. Whatever the peer sent in between is missing; a
    /// plain WebSocket cannot say how much.
    Reconnected {
        /// Why the previous connection ended.
        why: Arc<ConnectionError>,
        /// The time from its end to the new connection.
        away: Duration,
    },
    /// The session ended and could not be resumed. Another one may follow. What the peer's application
    /// sent and this one did not receive is missing. The peer's application gets it back.
    SessionLost {
        /// Why it ended.
        why: Arc<ConnectionError>,
    },
    /// The inbox was full and its policy dropped these messages here.
    Dropped {
        /// How many messages.
        messages: u64,
        /// Their payloads' bytes.
        bytes: u64,
    },
    /// The inbox was full: the message after this gap replaced older ones with the same key.
    Conflated {
        /// How many messages were replaced.
        messages: u64,
        /// Their payloads' bytes.
        bytes: u64,
    },
}

impl Gap {
    /// A fixed word for each reason.
    #[cfg(feature = "metrics")]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Gap::Reconnected { .. } => "reconnected",
            Gap::SessionLost { .. } => "session_lost",
            Gap::Dropped { .. } => "dropped",
            Gap::Conflated { .. } => "conflated",
        }
    }

    /// Takes in the next gap, if no message is between the two and one can stand for both.
    pub(crate) fn join(&mut self, next: &Gap) -> bool {
        match (self, next) {
            (
                Gap::Dropped { messages, bytes },
                Gap::Dropped {
                    messages: more,
                    bytes: more_bytes,
                },
            ) => {
                *messages += more;
                *bytes += more_bytes;
            }
            (Gap::Reconnected { away, .. }, Gap::Reconnected { away: more, .. }) => {
                *away = away.saturating_add(*more);
            }
            (Gap::SessionLost { why }, Gap::SessionLost { why: latest }) => *why = latest.clone(),
            _ => return false,
        }
        true
    }
}
