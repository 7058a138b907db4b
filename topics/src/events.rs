//! What happens to a client of topics.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;
use unstall_proto::topics::LogId;

use crate::defaults::EVENT_BACKLOG;

/// Something that happened to the connection of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TopicsEvent {
    /// A node has accepted the client.
    Connected {
        /// The log that it serves.
        log: LogId,
        /// The node's name, in its own words. Characters that act on a terminal are escaped.
        node: String,
    },
    /// A connection was lost, or none was made. The client tries again, unless it has ended.
    Disconnected {
        /// Why. What a node said in it is escaped.
        why: Arc<str>,
    },
}

/// The events of a client, from [`Topics::events`](crate::Topics::events). Who does not read them for
/// long misses the oldest.
#[derive(Debug)]
pub struct TopicsEvents(broadcast::Receiver<TopicsEvent>);

impl TopicsEvents {
    /// The next event. `None` when the client has ended.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    pub async fn next(&mut self) -> Option<TopicsEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Tells events, until the client has ended.
#[derive(Debug)]
pub(crate) struct EventsSender(Mutex<Option<broadcast::Sender<TopicsEvent>>>);

impl Default for EventsSender {
    fn default() -> EventsSender {
        EventsSender(Mutex::new(Some(broadcast::Sender::new(EVENT_BACKLOG))))
    }
}

impl EventsSender {
    pub(crate) fn subscribe(&self) -> TopicsEvents {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        TopicsEvents(match &*sender {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        })
    }

    pub(crate) fn send(&self, event: TopicsEvent) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            // Nobody need listen.
            let _ = sender.send(event);
        }
    }

    /// Nothing more happens.
    pub(crate) fn end(&self) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sender = None;
    }
}
