//! What the application reads of a topic.

use std::sync::Arc;

use tokio::sync::Notify;
use unstall_proto::topics::{
    self as proto, Filter, MessageBatch, NameError, Position, Start, SubscribeOptions,
    SubscriptionEnd, SubscriptionId,
};

use crate::{
    defaults::TAKEN_STEP,
    keeper::{EXPIRED, Handle},
    message::{Delivery, Message, copied},
};

/// Delivers the messages of a filter, once and in order, over lost connections and restarts.
///
/// A subscription holds at most its window in memory, and one message. An application that stops
/// receiving stalls this subscription alone.
///
/// Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    handle: Arc<Handle>,
    id: SubscriptionId,
    news: Arc<Notify>,
    /// What was delivered and not yet received.
    batch: Option<MessageBatch>,
    /// What was received and not yet told to the node.
    taken: u64,
    position: Option<Position>,
    caught_up: bool,
    end: Option<Result<(), SubscriptionError>>,
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
    pub(crate) fn new(
        handle: &Arc<Handle>,
        filter: &str,
        start: Start,
        options: SubscribeOptions,
    ) -> Result<Subscription, NameError> {
        let filter = Filter::new(filter)?;
        let news = Arc::new(Notify::new());
        let id = handle.shared.with(|state, _| {
            let id = state.client.subscribe(filter, start, options);
            state.readers.insert(id, news.clone());
            id
        });
        Ok(Subscription {
            handle: handle.clone(),
            id,
            news,
            batch: None,
            taken: 0,
            position: None,
            caught_up: false,
            end: None,
        })
    }

    /// The next message, gap or mark. `None` when the topic is complete: its final message was
    /// delivered.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    ///
    /// # Errors
    /// See [`SubscriptionError`]. Everything that arrived before comes first. Later calls return the
    /// same.
    pub async fn recv(&mut self) -> Result<Option<Delivery>, SubscriptionError> {
        loop {
            if let Some(message) = self.next_message() {
                return Ok(Some(Delivery::Message(message)));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            match self.take() {
                Some(delivery) => {
                    if let Some(delivery) = self.delivered(delivery) {
                        return Ok(Some(delivery));
                    }
                }
                // A notification that came before this is kept.
                None if self.end.is_none() => self.news.notified().await,
                None => {}
            }
        }
    }

    /// Where the subscription stands: behind what [`recv`](Self::recv) returned last. Save it to go
    /// on from here with [`Start::After`]. `None` before anything was delivered.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    fn next_message(&mut self) -> Option<Message> {
        let batch = self.batch.as_mut()?;
        let log = batch.log();
        let Some(message) = batch.next() else {
            self.batch = None;
            return None;
        };
        self.taken += message.cost;
        let message = Message {
            log,
            offset: message.offset,
            time: message.time,
            topic: message.topic,
            kind: message.kind,
            is_final: message.is_final,
            payload: copied(message.payload),
        };
        self.position = Some(message.position());
        if self.taken >= TAKEN_STEP {
            self.tell_taken();
        }
        Some(message)
    }

    /// The node may send more.
    fn tell_taken(&mut self) {
        let (id, taken) = (self.id, std::mem::take(&mut self.taken));
        if taken > 0 {
            self.handle
                .shared
                .with(|state, _| state.client.taken(id, taken));
        }
    }

    fn take(&mut self) -> Option<proto::Delivery> {
        self.tell_taken();
        let mut state = self.handle.shared.lock();
        let delivery = state.client.poll_delivery(self.id);
        if delivery.is_none()
            && let Some(why) = &state.ended
        {
            self.end = Some(Err(SubscriptionError::ClientEnded(why.clone())));
        }
        delivery
    }

    /// What the application gets to see of it.
    fn delivered(&mut self, delivery: proto::Delivery) -> Option<Delivery> {
        match delivery {
            proto::Delivery::Messages(batch) => self.batch = Some(batch),
            proto::Delivery::Gap { gap, position } => {
                self.position = Some(position);
                return Some(Delivery::Gap(gap));
            }
            proto::Delivery::CaughtUp { position } => {
                self.position = Some(position);
                if !std::mem::replace(&mut self.caught_up, true) {
                    return Some(Delivery::CaughtUp(position));
                }
            }
            proto::Delivery::Progress { position } => self.position = Some(position),
            proto::Delivery::Ended { reason, .. } => self.ended(reason),
            _ => {}
        }
        None
    }

    fn ended(&mut self, reason: SubscriptionEnd) {
        let shared = &self.handle.shared;
        let elsewhere = match reason {
            SubscriptionEnd::Unavailable => Some("the node cannot read the log"),
            SubscriptionEnd::Expired if shared.renews_tokens => Some(EXPIRED),
            _ => None,
        };
        let Some(why) = elsewhere else {
            self.end = Some(SubscriptionError::of(reason));
            return;
        };
        shared.with(|state, _| {
            // The client may have left that node already.
            if state.client.resubscribe(self.id) {
                state.leave = Some(why);
            }
        });
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.shared.with(|state, _| {
            state.readers.remove(&self.id);
            state.client.unsubscribe(self.id);
        });
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
