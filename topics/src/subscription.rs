//! What the application reads of a topic.

use std::sync::Arc;

use unstall_proto::topics::{Position, SubscriptionEnd};

use crate::{keeper::Handle, message::Delivery};

/// Delivers the messages of a filter, once and in order, over lost connections and restarts.
///
/// A subscription holds at most its window in memory, and one message. An application that stops
/// receiving stalls this subscription alone.
///
/// Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) handle: Arc<Handle>,
    pub(crate) reading: crate::keeper::Reading,
}

/// A subscription has ended, and not because its topic is complete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The client may not read this filter. It may be allowed with another token.
    #[error("subscribing is not allowed; use another filter or another token")]
    NotAllowed,
    /// The token has expired. Subscribe again, from the last position, with a new one.
    #[error("the token has expired; subscribe again with a new one")]
    Expired,
    /// The node refuses the filter.
    #[error("the node says that the filter is not valid")]
    InvalidFilter,
    /// The client has as many subscriptions as the node allows.
    #[error("the node allows no more subscriptions on one connection")]
    TooMany,
    /// The client has given up, or its last handle was dropped.
    #[error("the client has ended: {0}")]
    ClientEnded(Arc<str>),
}

impl Subscription {
    /// The next message, gap or mark. `None` when the topic is complete: its final message was
    /// delivered.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    ///
    /// # Errors
    /// See [`SubscriptionError`]. Everything that arrived before comes first. Later calls return the
    /// same.
    pub async fn recv(&mut self) -> Result<Option<Delivery>, SubscriptionError> {
        self.reading.next(&self.handle).await
    }

    /// Where the subscription stands: behind what [`recv`](Self::recv) returned last. Save it to go
    /// on from here with [`Start::After`](crate::Start::After). `None` before anything is known of
    /// the log.
    pub fn position(&self) -> Option<Position> {
        self.reading.position()
    }
}

impl SubscriptionError {
    /// What the end of a subscription means for the application. `Ok` is a normal end.
    pub(crate) fn of(end: SubscriptionEnd) -> Result<(), SubscriptionError> {
        Err(match end {
            SubscriptionEnd::Final | SubscriptionEnd::Unsubscribed => return Ok(()),
            SubscriptionEnd::NotAllowed => SubscriptionError::NotAllowed,
            SubscriptionEnd::Expired => SubscriptionError::Expired,
            SubscriptionEnd::TooMany => SubscriptionError::TooMany,
            _ => SubscriptionError::InvalidFilter,
        })
    }
}
