//! What happens to a client of topics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub(crate) struct EventsSender(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None`: the client has ended.
    sender: Option<broadcast::Sender<TopicsEvent>>,
    /// Whoever asks first gets what has happened since the start. Else the first connection could be
    /// missed, which is made in the background.
    first: Option<broadcast::Receiver<TopicsEvent>>,
}

impl Default for EventsSender {
    fn default() -> EventsSender {
        let (sender, first) = broadcast::channel(EVENT_BACKLOG);
        EventsSender(Mutex::new(State {
            sender: Some(sender),
            first: Some(first),
        }))
    }
}

impl EventsSender {
    pub(crate) fn subscribe(&self) -> TopicsEvents {
        let mut state = self.lock();
        let first = state.first.take();
        TopicsEvents(match (first, &state.sender) {
            (Some(first), _) => first,
            (None, Some(sender)) => sender.subscribe(),
            (None, None) => broadcast::channel(1).1,
        })
    }

    pub(crate) fn send(&self, event: TopicsEvent) {
        if let Some(sender) = &self.lock().sender {
            // Nobody need listen.
            let _ = sender.send(event);
        }
    }

    /// Nothing more happens.
    pub(crate) fn end(&self) {
        self.lock().sender = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(why: &str) -> TopicsEvent {
        TopicsEvent::Disconnected { why: why.into() }
    }

    async fn next(events: &mut TopicsEvents) -> Option<String> {
        match events.next().await? {
            TopicsEvent::Disconnected { why } => Some(why.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// Once a program that asked for events right after the start waited for a first connection that
    /// had been made already.
    #[tokio::test]
    async fn who_asks_first_gets_what_has_happened_before() {
        let sender = EventsSender::default();
        sender.send(lost("early"));
        let (mut first, mut second) = (sender.subscribe(), sender.subscribe());
        sender.send(lost("late"));
        sender.end();
        let words = [next(&mut first).await, next(&mut first).await];
        assert_eq!(words, [Some("early".to_owned()), Some("late".to_owned())]);
        assert_eq!(next(&mut second).await, Some("late".to_owned()));
        assert_eq!(
            (next(&mut first).await, next(&mut second).await),
            (None, None)
        );
    }
}
