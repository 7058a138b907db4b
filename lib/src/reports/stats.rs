//! Counters of a connection, and how long it waited for each cause.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

use crate::{
    reports::{Event, EventLog, StallCause},
    time::later,
};

/// A snapshot of the queue of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages waiting.
    pub messages: usize,
    /// Bytes waiting, including each message's overhead.
    pub bytes: usize,
    /// The most bytes that ever waited.
    pub high_water: usize,
    /// The limit in bytes.
    pub limit: usize,
    /// How long the oldest message has waited; an upper bound.
    pub oldest: Option<Duration>,
}

/// Time spent waiting for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallStats {
    /// The cause.
    pub cause: StallCause,
    /// The total time of all waits, including the current one.
    pub total: Duration,
    /// How long the current wait has lasted, if there is one.
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
    /// Their payloads' bytes. In a session, the bytes of its packets.
    pub bytes_sent: u64,
    /// Messages read from the socket.
    pub messages_received: u64,
    /// Their payloads' bytes. In a session, the bytes of its packets.
    pub bytes_received: u64,
    /// Received messages that wait for the application.
    pub inbox: QueueStats,
    /// Sent messages that wait for the socket.
    pub outbox: QueueStats,
    /// Received messages that wait in the spill file: their number, and their bytes in the file.
    pub spilled: (u64, u64),
    /// Messages that an overflow policy dropped or replaced.
    pub overflowed: u64,
    /// Messages dropped before they were sent, because their time to live had passed.
    pub expired: u64,
    /// Messages received after the `Receiver` was dropped.
    pub discarded: u64,
    /// The last round trip of a ping.
    pub round_trip: Option<Duration>,
    /// WebSocket connections of this handle so far, including the current one.
    pub connections: u64,
    /// How often a session resumed over a new connection.
    pub resumes: u64,
    /// The time spent waiting for each cause, in the order of [`StallCause::ALL`].
    pub stalls: Vec<StallStats>,
}

impl Stats {
    /// The causes that the connection waits for now.
    pub fn stalled_by(&self) -> impl Iterator<Item = StallCause> + '_ {
        self.stalls
            .iter()
            .filter(|stall| stall.now.is_some())
            .map(|stall| stall.cause)
    }
}

/// The counters that the pump keeps. It publishes them once a turn.
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

    /// Records whether something waits for `cause`, while no pump runs to publish it.
    pub(crate) fn wait(&self, cause: StallCause, waiting: bool, now: Instant) {
        let mut events = Vec::new();
        self.state
            .lock()
            .unwrap()
            .wait(cause, waiting, now, &mut events);
        events.into_iter().for_each(|event| self.events.push(event));
    }

    /// Stores the report of a turn. Sends events for stalls that last too long, and for reported
    /// stalls that end. Returns when the next stall will have lasted too long.
    pub(crate) fn publish(&self, report: &mut Report, now: Instant) -> Option<Instant> {
        let mut events = Vec::new();
        let next = {
            let mut state = self.state.lock().unwrap();
            state.counters = report.counters;
            let ended = std::mem::take(&mut report.ended);
            if report.waits == Causes::default() && ended == Causes::default() {
                return None;
            }
            for cause in StallCause::ALL {
                if ended.has(cause) {
                    state.wait(cause, false, now, &mut events);
                }
                state.wait(cause, report.waits.has(cause), now, &mut events);
            }
            state.tell_stalls(self.stall_after, now, &mut events)
        };
        events.into_iter().for_each(|event| self.events.push(event));
        next
    }

    /// Sends events for stalls that last too long, while no pump runs. Returns when the next stall
    /// will have lasted too long.
    pub(crate) fn report(&self, now: Instant) -> Option<Instant> {
        let mut events = Vec::new();
        let mut state = self.state.lock().unwrap();
        let next = state.tell_stalls(self.stall_after, now, &mut events);
        drop(state);
        events.into_iter().for_each(|event| self.events.push(event));
        next
    }
}

impl MeterState {
    /// Starts or ends the stall of `cause`.
    fn wait(&mut self, cause: StallCause, waiting: bool, now: Instant, events: &mut Vec<Event>) {
        let wait = &mut self.waits[cause as usize];
        if waiting {
            wait.since.get_or_insert(now);
        } else if let Some(since) = wait.since.take() {
            let after = now.saturating_duration_since(since);
            wait.total = wait.total.saturating_add(after);
            if std::mem::take(&mut wait.reported) {
                events.push(Event::Moving { cause, after });
            }
        }
    }

    fn tell_stalls(
        &mut self,
        stall_after: Duration,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for (cause, wait) in StallCause::ALL.into_iter().zip(&mut self.waits) {
            let Some(since) = wait.since.filter(|_| !wait.reported) else {
                continue;
            };
            let at = later(since, stall_after);
            if at <= now {
                wait.reported = true;
                let since = now.saturating_duration_since(since);
                events.push(Event::Stalled { cause, since });
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next
    }
}

/// A set of causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Causes(u8);

impl Causes {
    fn has(self, cause: StallCause) -> bool {
        self.0 & Causes::bit(cause) != 0
    }

    fn set(&mut self, cause: StallCause, is_in: bool) {
        match is_in {
            true => self.0 |= Causes::bit(cause),
            false => self.0 &= !Causes::bit(cause),
        }
    }

    fn bit(cause: StallCause) -> u8 {
        1 << cause as u8
    }
}

/// The counters and waits of the pump, which it publishes once a turn.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) counters: Counters,
    /// What is waited for. Every wait that the meter has is here or in `ended`.
    waits: Causes,
    /// Waits that have ended since the last report. The same cause may wait again.
    ended: Causes,
}

impl Report {
    /// Starts from the last published counters and waits.
    pub(crate) fn of(meter: &Meter) -> Report {
        let state = meter.state.lock().unwrap();
        let mut waits = Causes::default();
        for cause in StallCause::ALL {
            waits.set(cause, state.waits[cause as usize].since.is_some());
        }
        Report {
            counters: state.counters,
            waits,
            ended: Causes::default(),
        }
    }

    /// Starts from the last published counters. Every wait has ended.
    pub(crate) fn idle(meter: &Meter) -> Report {
        let Report {
            counters, waits, ..
        } = Report::of(meter);
        Report {
            counters,
            waits: Causes::default(),
            ended: waits,
        }
    }

    /// Records whether something waits for `cause`.
    pub(crate) fn wait(&mut self, cause: StallCause, waiting: bool) {
        if self.waits.has(cause) && !waiting {
            self.ended.set(cause, true);
        }
        self.waits.set(cause, waiting);
    }
}
