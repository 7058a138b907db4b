//! The events of a connection.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
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
    /// A WebSocket connection opened: the first one, or a new one after a loss.
    Connected {
        /// The number of this connection of the handle, from 1.
        generation: u64,
    },
    /// The connection was lost.
    Disconnected {
        /// Why.
        why: Arc<ConnectionError>,
        /// Messages that were in the write buffer. Each may or may not have reached the peer.
        in_flight: u64,
    },
    /// The peer accepted the session. From now on it outlives its connections.
    SessionOpened,
    /// The server agreed to `unstall.v1` but does not speak it. The next connection is plain, without
    /// the promises of a session. The connection after that asks for a session again.
    SessionNotSpoken,
    /// The session resumed over a new connection.
    Resumed {
        /// How long there was no connection.
        after: Duration,
        /// The number of records that were sent again.
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
    /// The application did not collect the undelivered messages of earlier sessions. There is no
    /// room for more, so the oldest were dropped. See
    /// [`Sender::take_undelivered`](crate::Sender::take_undelivered).
    UndeliveredDropped {
        /// How many.
        messages: u64,
    },
    /// The server is shutting down. This client connects again at a random moment within this time.
    GoAway {
        /// The time, from now. At most [`RETRY_AFTER_MAX`](crate::defaults::RETRY_AFTER_MAX).
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
    /// The inbox was full, and its policy acted. There is at most one such event a second. It
    /// counts what happened since the last one.
    Overflow {
        /// How many messages were dropped, replaced, or spilled.
        messages: u64,
        /// Bytes of their payloads.
        bytes: u64,
    },
    /// Nothing more can be written to the spill file. The fallback policy takes over.
    SpillFailed {
        /// Why.
        why: String,
    },
    /// Something has waited for longer than
    /// [`Options::stall_after`](crate::Options::stall_after).
    Stalled {
        /// What it waits for.
        cause: StallCause,
        /// How long it has waited so far.
        since: Duration,
    },
    /// A reported wait is over.
    Moving {
        /// What it waited for.
        cause: StallCause,
        /// How long the wait lasted.
        after: Duration,
    },
    /// Queued messages were dropped because their time to live had passed.
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
    /// This many events were dropped because the listener was too slow.
    Missed(u64),
}

/// An event, and when it happened.
pub(crate) type TimedEvent = (SystemTime, Event);

/// The event in a sentence without its period, for people. The words may change.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected { generation: 1 } => f.write_str("connected"),
            Event::Connected { generation } => {
                write!(f, "connected again, connection {generation}")
            }
            Event::Disconnected { why, in_flight: 0 } => {
                write!(f, "the connection was lost: {why}")
            }
            Event::Disconnected { why, in_flight } => write!(
                f,
                "the connection was lost: {why}; {} on their way",
                Count(*in_flight, "message")
            ),
            Event::SessionOpened => f.write_str("the session is open"),
            Event::SessionNotSpoken => {
                f.write_str("the server agreed to unstall.v1 and does not speak it")
            }
            Event::Resumed { after, replayed } => write!(
                f,
                "resumed {} later; {} sent again",
                Span(*after),
                Count(*replayed, "record")
            ),
            Event::SessionLost { why, undelivered } => write!(
                f,
                "the session was lost: {why}; {} came back",
                Count(*undelivered, "message")
            ),
            Event::UndeliveredDropped { messages } => write!(
                f,
                "{} dropped, which came back and nobody collected",
                Count(*messages, "message")
            ),
            Event::GoAway { within } => {
                write!(
                    f,
                    "the server asked to connect again within {}",
                    Span(*within)
                )
            }
            Event::AttemptFailed { attempt, why } => write!(f, "attempt {attempt} failed: {why}"),
            Event::Reconnecting { attempt, after } => {
                write!(f, "attempt {attempt} begins in {}", Span(*after))
            }
            Event::Overflow { messages, bytes } => write!(
                f,
                "the inbox was full; its policy took {} ({bytes} bytes)",
                Count(*messages, "message")
            ),
            Event::SpillFailed { why } => write!(f, "the spill file cannot be written: {why}"),
            Event::Stalled { cause, since } => write!(f, "waits for {}: {cause}", Span(*since)),
            Event::Moving { cause, after } => {
                write!(f, "moves again after {}: {cause}", Span(*after))
            }
            Event::Expired { messages } => {
                write!(f, "{} dropped: too old", Count(*messages, "message"))
            }
            Event::PeerClosed(close) => write!(f, "the peer closed: {close}"),
            Event::Ended { why: None } => f.write_str("ended by a normal close"),
            Event::Ended { why: Some(why) } => write!(f, "ended: {why}"),
            Event::Missed(count) => write!(f, "{} missing here", Count(*count, "event")),
        }
    }
}

/// How many of a thing there are.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(count, what) = *self;
        write!(f, "{count} {what}{}", if count == 1 { "" } else { "s" })
    }
}

/// A time with a unit that suits it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds => write!(f, "{} min {} s", seconds / 60, seconds % 60),
        }
    }
}

#[derive(Debug, Default)]
struct Log {
    events: VecDeque<TimedEvent>,
    /// How many events were ever dropped from the front.
    dropped: u64,
    /// When the connection was lost, until there is another one.
    #[cfg(feature = "status")]
    lost: Option<SystemTime>,
    ended: bool,
    listeners: Vec<Waker>,
}

/// The latest events of one connection. Writing never waits for a listener.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    #[cfg_attr(not(feature = "status"), allow(dead_code))]
    connection: u64,
    log: Mutex<Log>,
}

impl EventLog {
    pub(crate) fn of(connection: u64) -> EventLog {
        EventLog {
            connection,
            log: Mutex::default(),
        }
    }

    pub(crate) fn push(&self, event: Event) {
        tracing::debug!(?event);
        #[cfg(feature = "metrics")]
        super::counted::event(&event);
        let now = SystemTime::now();
        let listeners = {
            let mut log = self.log.lock().unwrap();
            #[cfg(feature = "status")]
            if let Some(after) = log.recovered(&event, now) {
                super::recoveries::add(self.connection, now, after);
            }
            log.ended |= matches!(event, Event::Ended { .. });
            if log.events.len() == EVENT_BACKLOG {
                log.events.pop_front();
                log.dropped += 1;
            }
            log.events.push_back((now, event));
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

    /// At most the last `count` events that are kept, the oldest first.
    #[cfg(feature = "status")]
    pub(crate) fn kept(&self, count: usize) -> Vec<TimedEvent> {
        let log = self.log.lock().unwrap();
        let skipped = log.events.len().saturating_sub(count);
        log.events.iter().skip(skipped).cloned().collect()
    }
}

#[cfg(feature = "status")]
impl Log {
    /// How long there was no connection, if this event is the end of that.
    fn recovered(&mut self, event: &Event, now: SystemTime) -> Option<Duration> {
        match event {
            Event::Disconnected { .. } => {
                self.lost.get_or_insert(now);
                None
            }
            // The clock of the system may be set.
            Event::Connected { .. } => {
                let lost = self.lost.take()?;
                Some(now.duration_since(lost).unwrap_or_default())
            }
            _ => None,
        }
    }
}

/// A stream of [`Event`]s. It starts at the oldest of the last 256 events and ends after
/// [`Event::Ended`].
///
/// A slow listener never delays the connection. It misses events, and [`Event::Missed`] says how
/// many. A clone continues at the same event.
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
        if let Some((_, event)) = log.events.get(index) {
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
