//! The events of a connection.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_core::Stream;

use crate::{
    defaults::EVENT_BACKLOG,
    reports::{Close, ConnectError, ConnectionError, StallCause},
};

/// What happened to a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A WebSocket connection is open: the first, or a new one after a loss.
    Connected {
        /// The number of this connection among those of the handle, from 1.
        generation: u64,
    },
    /// The connection was lost.
    Disconnected {
        /// Why.
        why: Arc<ConnectionError>,
        /// Messages that were in the write buffer. Each may or may not have reached the peer.
        in_flight: u64,
    },
    /// The peer agreed to a session: from now on it outlives its connections.
    SessionOpened,
    /// The server agreed to `unstall.v1` and does not speak it. The next connection carries messages
    /// plainly: none of a session's promises hold on it. The one after asks for a session again.
    SessionNotSpoken,
    /// The session goes on over a new connection.
    Resumed {
        /// For how long there was no connection.
        after: Duration,
        /// Records that were sent again.
        replayed: u64,
    },
    /// The session ended and could not be resumed.
    SessionLost {
        /// Why.
        why: Arc<ConnectionError>,
        /// Messages that come back from
        /// [`Sender::take_undelivered`](crate::Sender::take_undelivered).
        undelivered: u64,
    },
    /// The application did not take the messages that earlier sessions gave back, and there is no
    /// room for more: the oldest were dropped. See
    /// [`Sender::take_undelivered`](crate::Sender::take_undelivered).
    UndeliveredDropped {
        /// How many.
        messages: u64,
    },
    /// The server goes away. This client connects again at a random moment within this time.
    GoAway {
        /// From now on. At most [`RETRY_AFTER_MAX`](crate::defaults::RETRY_AFTER_MAX).
        within: Duration,
    },
    /// An attempt to connect failed.
    AttemptFailed {
        /// The number of the attempt since the loss, from 1.
        attempt: u32,
        /// Why.
        why: Arc<ConnectError>,
    },
    /// The next attempt starts after this wait.
    Reconnecting {
        /// The number of the attempt since the loss, from 1.
        attempt: u32,
        /// The wait before it.
        after: Duration,
    },
    /// The inbox was full and its policy acted. There is at most one such event a second; it counts
    /// what happened since the last.
    Overflow {
        /// How many messages were dropped, replaced, or spilled.
        messages: u64,
        /// Bytes of their payloads.
        bytes: u64,
    },
    /// Nothing more can be written to the spill file. The fallback policy acts now.
    SpillFailed {
        /// Why.
        why: String,
    },
    /// Something has waited for longer than
    /// [`Options::stall_after`](crate::Options::stall_after).
    Stalled {
        /// What it waits for.
        cause: StallCause,
        /// For how long it has waited so far.
        since: Duration,
    },
    /// A wait that was reported is over.
    Moving {
        /// What it waited for.
        cause: StallCause,
        /// How long the wait lasted.
        after: Duration,
    },
    /// Queued messages were dropped unsent, because their time to live had passed.
    Expired {
        /// How many.
        messages: u64,
    },
    /// The peer sent its close frame.
    PeerClosed(Close),
    /// The connection has ended for good; `None` after a normal close.
    Ended {
        /// Why.
        why: Option<Arc<ConnectionError>>,
    },
    /// This many events were dropped, because the listener was slow.
    Missed(u64),
}

#[derive(Debug, Default)]
struct Log {
    events: VecDeque<Event>,
    /// How many events were ever dropped from the front.
    dropped: u64,
    ended: bool,
    listeners: Vec<Waker>,
}

/// The last events of one connection. Writing never waits for a listener.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    log: Mutex<Log>,
}

impl EventLog {
    pub(crate) fn push(&self, event: Event) {
        tracing::debug!(?event);
        let listeners = {
            let mut log = self.log.lock().unwrap();
            log.ended |= matches!(event, Event::Ended { .. });
            if log.events.len() == EVENT_BACKLOG {
                log.events.pop_front();
                log.dropped += 1;
            }
            log.events.push_back(event);
            std::mem::take(&mut log.listeners)
        };
        listeners.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn listen(self: &Arc<Self>) -> Events {
        Events {
            log: self.clone(),
            next: 0,
        }
    }
}

/// A stream of [`Event`]s, from the oldest of the last 256. It ends after [`Event::Ended`].
///
/// A slow listener never delays the connection: it misses events, and
/// [`Event::Missed`] says how many. A clone goes on from the same place.
#[derive(Clone, Debug)]
pub struct Events {
    log: Arc<EventLog>,
    /// The number of the next event, from 0.
    next: u64,
}

impl Events {
    /// The next event; `None` after the last.
    ///
    /// Cancel safety: if dropped before it resolves, no event is lost.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut log = self.log.log.lock().unwrap();
        if self.next < log.dropped {
            let missed = log.dropped - self.next;
            self.next = log.dropped;
            return Poll::Ready(Some(Event::Missed(missed)));
        }
        let index = (self.next - log.dropped) as usize;
        if let Some(event) = log.events.get(index) {
            self.next += 1;
            return Poll::Ready(Some(event.clone()));
        }
        if log.ended {
            return Poll::Ready(None);
        }
        if !log
            .listeners
            .iter()
            .any(|waker| waker.will_wake(cx.waker()))
        {
            log.listeners.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_listener_is_told_how_many_events_it_missed() {
        let log = Arc::new(EventLog::default());
        let mut events = log.listen();
        for messages in 0..EVENT_BACKLOG as u64 + 10 {
            log.push(Event::Expired { messages });
        }
        log.push(Event::Ended { why: None });
        assert!(matches!(events.recv().await, Some(Event::Missed(11))));
        assert!(matches!(
            events.recv().await,
            Some(Event::Expired { messages: 11 })
        ));
        let mut count = 1;
        while events.recv().await.is_some() {
            count += 1;
        }
        assert_eq!(count, EVENT_BACKLOG);
    }
}
