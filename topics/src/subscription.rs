//! What the application reads of a topic.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use unstall_proto::topics::{
    self as proto, Filter, MessageBatch, NameError, Position, Start, StoredAt, SubscribeOptions,
    SubscriptionEnd, SubscriptionId,
};

use crate::{
    clock::now,
    defaults::TAKEN_STEP,
    keeper::{EXPIRED, Handle},
    message::{Delivery, Message, copied},
    stats::SubscriptionStats,
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
    messages: u64,
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
            messages: 0,
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
    ///
    /// Of a snapshot ([`Start::Latest`]), save none before [`Delivery::CaughtUp`]: it stands for the
    /// messages behind it, and not for the latest of each topic before it.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// How the subscription stands.
    pub fn stats(&self) -> SubscriptionStats {
        let state = self.handle.shared.lock();
        let client = &state.client;
        let (waiting_bytes, partial_bytes) = client.held(self.id);
        let arrived = client.position(self.id);
        let told = client.welcome().map(|welcome| welcome.last);
        let end = told
            .max(arrived.map(|it| it.offset))
            .max(client.end(self.id));
        let place = self.position.or(arrived.filter(|_| waiting_bytes == 0));
        let lag = end.zip(place).map(|(end, place)| {
            let (end, place) = (end.get(), place.offset.get());
            end.saturating_sub(place)
        });
        SubscriptionStats {
            position: self.position,
            arrived,
            messages: self.messages,
            waiting_bytes,
            partial_bytes,
            credit_bytes: client.credit(self.id),
            end,
            lag,
            lag_time: lag.zip(place).and_then(|(lag, place)| age(lag, place.time)),
        }
    }

    fn next_message(&mut self) -> Option<Message> {
        let batch = self.batch.as_mut()?;
        let log = batch.log();
        let Some(message) = batch.next() else {
            self.batch = None;
            return None;
        };
        self.taken += message.cost;
        self.messages += 1;
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

/// How long ago a message was stored, if it is not the last one.
fn age(lag: u64, time: StoredAt) -> Option<Duration> {
    match (lag, time) {
        (0, _) => Some(Duration::ZERO),
        (_, StoredAt::UNKNOWN) => None,
        _ => {
            let millis = now().millis().saturating_sub(time.millis());
            Some(Duration::from_millis(millis))
        }
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
