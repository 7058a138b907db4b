//! The status of a process, as it tells it over HTTP (docs/src/status.md). What is not known is left out,
//! and what is missing is empty.

mod ask;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

pub(crate) use ask::{Asker, Credentials, Identity, Problem};

/// The version of the answers that this command knows.
const VERSION: u32 = 1;

/// `GET /status.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) version: u32,
    pub(crate) now: u64,
    pub(crate) process: Process,
    pub(crate) totals: Totals,
    pub(crate) rates: Rates,
    pub(crate) causes: Vec<Cause>,
    pub(crate) server: Option<Server>,
    pub(crate) log: Option<Log>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) connections_total: usize,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) subscriptions_total: usize,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Totals {
    pub(crate) open: u64,
    pub(crate) connecting: u64,
    pub(crate) closing: u64,
    pub(crate) stalled: u64,
    pub(crate) sessions: u64,
    pub(crate) plain: u64,
    pub(crate) held_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rates {
    pub(crate) messages_sent: f64,
    pub(crate) bytes_sent: f64,
    pub(crate) messages_received: f64,
    pub(crate) bytes_received: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cause {
    pub(crate) words: String,
    pub(crate) connections: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Server {
    pub(crate) held_limit_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) refused: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subscription {
    pub(crate) lag: u64,
    pub(crate) waits_for_credit: bool,
}

/// A connection, or a session over all its connections.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) peer: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) kind: String,
    pub(crate) side: String,
    pub(crate) since: u64,
    pub(crate) state: String,
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) inbox: Queue,
    pub(crate) outbox: Queue,
    pub(crate) held_bytes: u64,
    pub(crate) spilled_bytes: u64,
    pub(crate) round_trip_us: Option<u64>,
    pub(crate) connects: u64,
    pub(crate) resumes: u64,
    pub(crate) dropped: u64,
    pub(crate) stalls: Vec<Stall>,
    pub(crate) stalled_ms: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Queue {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) limit: u64,
    pub(crate) oldest_ms: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stall {
    pub(crate) cause: String,
    pub(crate) words: String,
    pub(crate) for_ms: u64,
}

/// `GET /status/connections/ID.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    pub(crate) version: u32,
    pub(crate) now: u64,
    pub(crate) connection: Option<Connection>,
    pub(crate) events: Vec<Event>,
    pub(crate) doctor: Option<Verdict>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) at: u64,
    pub(crate) text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Verdict {
    pub(crate) sentence: String,
    pub(crate) advice: String,
}

impl Connection {
    /// How long it has waited for what it waits for now.
    pub(crate) fn waits(&self) -> Duration {
        Duration::from_millis(self.stalls.iter().map(|it| it.for_ms).max().unwrap_or(0))
    }

    /// The cause that it has waited for longest.
    pub(crate) fn cause(&self) -> Option<&Stall> {
        self.stalls.iter().max_by_key(|it| it.for_ms)
    }
}
