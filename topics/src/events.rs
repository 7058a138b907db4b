//! What happens to a client of topics.

use std::sync::Arc;

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
        /// The node's name, in its own words.
        node: String,
    },
    /// A connection was lost, or none was made. The client tries again, unless it has ended.
    Disconnected {
        /// Why.
        why: Arc<str>,
    },
}

/// The events of a client, from [`Topics::events`](crate::Topics::events). Who does not read them for
/// long misses the oldest.
#[derive(Debug)]
pub struct TopicsEvents(pub(crate) broadcast::Receiver<TopicsEvent>);

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

#[derive(Debug)]
pub(crate) struct EventsSender(pub(crate) broadcast::Sender<TopicsEvent>);

impl Default for EventsSender {
    fn default() -> EventsSender {
        EventsSender(broadcast::Sender::new(EVENT_BACKLOG))
    }
}

impl EventsSender {
    pub(crate) fn send(&self, event: TopicsEvent) {
        // Nobody need listen.
        let _ = self.0.send(event);
    }
}
