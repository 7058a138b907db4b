//! Counters of a connection, and for how long it waited for what.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

use crate::{
    reports::{Event, EventLog, StallCause},
    time::later,
};

/// The queue of one direction, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages waiting.
    pub messages: usize,
    /// Bytes waiting, with each message's overhead.
    pub bytes: usize,
    /// The most bytes that ever waited.
    pub high_water: usize,
    /// The limit in bytes.
    pub limit: usize,
    /// For how long the oldest message has waited; an upper bound.
    pub oldest: Option<Duration>,
}

/// Time spent waiting for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallStats {
    /// The cause.
    pub cause: StallCause,
    /// The time of all waits together, including the present one.
    pub total: Duration,
    /// For how long the present wait has lasted, if there is one.
    pub now: Option<Duration>,
}

/// A snapshot of a connection, from [`stats`](crate::Connection::stats).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The connection's number in this process, as in its tracing span.
    pub id: u64,
    /// Messages written to the socket.
    pub messages_sent: u64,
    /// Their payloads' bytes.
    pub bytes_sent: u64,
    /// Messages read from the socket.
    pub messages_received: u64,
    /// Their payloads' bytes.
    pub bytes_received: u64,
    /// Received messages that wait for the application.
    pub inbox: QueueStats,
    /// Sent messages that wait for the socket.
    pub outbox: QueueStats,
    /// Received messages that wait in the spill file: their number, and their bytes in the file.
    pub spilled: (u64, u64),
    /// Messages that an overflow policy dropped or replaced.
    pub overflowed: u64,
    /// Messages dropped unsent because their time to live had passed.
    pub expired: u64,
    /// Messages received after the `Receiver` was dropped.
    pub discarded: u64,
    /// The last round trip of a ping.
    pub round_trip: Option<Duration>,
    /// WebSocket connections of this handle so far, including the present one.
    pub connections: u64,
    /// How often a session went on over a new connection.
    pub resumes: u64,
    /// The time spent waiting for each cause, in the order of [`StallCause::ALL`].
    pub stalls: Vec<StallStats>,
}

impl Stats {
    /// What the connection waits for at this moment.
    pub fn stalled_by(&self) -> impl Iterator<Item = StallCause> + '_ {
        self.stalls
            .iter()
            .filter(|stall| stall.now.is_some())
            .map(|stall| stall.cause)
    }
}

/// Counters that the pump keeps, published once a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) spilled: (u64, u64),
    pub(crate) round_trip: Option<Duration>,
    pub(crate) connections: u64,
    pub(crate) resumes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    since: Option<Instant>,
    reported: bool,
    total: Duration,
}

#[derive(Debug, Default)]
struct MeterState {
    counters: Counters,
    waits: [Wait; StallCause::ALL.len()],
}

/// Collects [`Stats`]: the pump writes it, any handle reads it.
#[derive(Debug)]
pub(crate) struct Meter {
    state: Mutex<MeterState>,
    events: Arc<EventLog>,
    stall_after: Duration,
}

impl Meter {
    pub(crate) fn new(events: Arc<EventLog>, stall_after: Duration) -> Meter {
        Meter {
            state: Mutex::default(),
            events,
            stall_after,
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.state.lock().unwrap().counters
    }

    pub(crate) fn count_resume(&self) {
        self.state.lock().unwrap().counters.resumes += 1;
    }

    pub(crate) fn publish(&self, counters: Counters) {
        self.state.lock().unwrap().counters = counters;
    }

    pub(crate) fn stalls(&self, now: Instant) -> Vec<StallStats> {
        let state = self.state.lock().unwrap();
        StallCause::ALL
            .into_iter()
            .zip(state.waits)
            .map(|(cause, wait)| {
                let waiting = wait.since.map(|since| now.saturating_duration_since(since));
                StallStats {
                    cause,
                    total: wait.total.saturating_add(waiting.unwrap_or_default()),
                    now: waiting,
                }
            })
            .collect()
    }

    /// Notes whether something waits for `cause` now. Begins the stall, or ends and reports it.
    pub(crate) fn wait(&self, cause: StallCause, waiting: bool, now: Instant) {
        let event = {
            let mut state = self.state.lock().unwrap();
            let wait = &mut state.waits[cause as usize];
            if waiting {
                wait.since.get_or_insert(now);
                None
            } else {
                wait.since.take().and_then(|since| {
                    let after = now.saturating_duration_since(since);
                    wait.total = wait.total.saturating_add(after);
                    std::mem::take(&mut wait.reported).then_some(Event::Moving { cause, after })
                })
            }
        };
        if let Some(event) = event {
            self.events.push(event);
        }
    }

    /// Reports the waits that are due and returns when the next one will be.
    pub(crate) fn report(&self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let mut next = None;
        {
            let mut state = self.state.lock().unwrap();
            for (cause, wait) in StallCause::ALL.into_iter().zip(&mut state.waits) {
                let Some(since) = wait.since.filter(|_| !wait.reported) else {
                    continue;
                };
                let at = later(since, self.stall_after);
                if at <= now {
                    wait.reported = true;
                    due.push(Event::Stalled {
                        cause,
                        since: now.saturating_duration_since(since),
                    });
                } else {
                    next = Some(next.map_or(at, |next: Instant| next.min(at)));
                }
            }
        }
        due.into_iter().for_each(|event| self.events.push(event));
        next
    }
}
