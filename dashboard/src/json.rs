//! The answers, as the guide's chapter "The status of a process, as JSON" promises them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use unstall::{
    QueueStats, StallCause,
    status::{ConnectionState, ConnectionStatus, ServersStatus, Totals},
};
use unstall_topics::{LogStats, NodeSubscription, SubscriptionStage};

use crate::limits::{NAME_CHARS, SAME_WAIT, STALLED_AFTER};

/// The version of the answers.
pub(crate) const VERSION: u32 = 1;

/// The process, as it names itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started: u64,
}

/// The present state without its lists.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Now {
    pub(crate) version: u32,
    pub(crate) now: u64,
    pub(crate) process: Process,
    pub(crate) totals: Sums,
    pub(crate) rates: Rates,
    pub(crate) causes: Vec<Cause>,
    pub(crate) server: Option<Servers>,
    pub(crate) log: Option<LogNow>,
    pub(crate) connections_total: usize,
    pub(crate) subscriptions_total: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sums {
    open: usize,
    connecting: usize,
    closing: usize,
    stalled: usize,
    sessions: usize,
    plain: usize,
    server: usize,
    client: usize,
    messages_sent: u64,
    bytes_sent: u64,
    messages_received: u64,
    bytes_received: u64,
    inbox_messages: usize,
    inbox_bytes: usize,
    outbox_messages: usize,
    outbox_bytes: usize,
    held_bytes: usize,
    spilled_bytes: u64,
    connects: u64,
    reconnects: u64,
    resumes: u64,
    dropped: u64,
}

impl Sums {
    /// `stalled`: how many connections wait for long.
    pub(crate) fn new(totals: &Totals, stalled: usize) -> Sums {
        let alive = totals.open + totals.connecting + totals.closing;
        Sums {
            open: totals.open,
            connecting: totals.connecting,
            closing: totals.closing,
            stalled,
            sessions: totals.sessions,
            plain: alive.saturating_sub(totals.sessions),
            server: totals.server,
            client: alive.saturating_sub(totals.server),
            messages_sent: totals.messages_sent,
            bytes_sent: totals.bytes_sent,
            messages_received: totals.messages_received,
            bytes_received: totals.bytes_received,
            inbox_messages: totals.inbox.0,
            inbox_bytes: totals.inbox.1,
            outbox_messages: totals.outbox.0,
            outbox_bytes: totals.outbox.1,
            held_bytes: totals.held_bytes,
            spilled_bytes: totals.spilled_bytes,
            connects: totals.connects,
            reconnects: totals.reconnects,
            resumes: totals.resumes,
            dropped: totals.dropped,
        }
    }
}

/// What passes in a second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Rates {
    messages_sent: f64,
    bytes_sent: f64,
    messages_received: f64,
    bytes_received: f64,
}

impl Rates {
    pub(crate) fn between(before: &Totals, after: &Totals, seconds: f64) -> Rates {
        let rate = |of: fn(&Totals) -> u64| {
            per_second(of(after).saturating_sub(of(before)) as f64, seconds)
        };
        Rates {
            messages_sent: rate(|it| it.messages_sent),
            bytes_sent: rate(|it| it.bytes_sent),
            messages_received: rate(|it| it.messages_received),
            bytes_received: rate(|it| it.bytes_received),
        }
    }
}

/// With one decimal. Nothing passes in no time.
pub(crate) fn per_second(count: f64, seconds: f64) -> f64 {
    match seconds > 0.0 {
        true => (count / seconds * 10.0).round() / 10.0,
        false => 0.0,
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cause {
    cause: &'static str,
    words: String,
    connections: usize,
    total_ms: u64,
}

pub(crate) fn causes(totals: &Totals) -> Vec<Cause> {
    let all = StallCause::ALL.into_iter().zip(totals.stalled);
    let all = all.map(|(cause, (connections, total))| Cause {
        cause: cause.name(),
        words: cause.to_string(),
        connections,
        total_ms: span(total),
    });
    all.collect()
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Servers {
    arrived: u64,
    accepted: u64,
    refused: u64,
    handshakes_failed: u64,
    sessions_resumed: u64,
    accept_errors: u64,
    handler_panics: u64,
    handshaking: usize,
    waiting: usize,
    open: usize,
    sessions: usize,
    held_bytes: usize,
    held_limit_bytes: usize,
}

impl From<ServersStatus> for Servers {
    fn from(it: ServersStatus) -> Servers {
        let handshakes = it.stats.handshakes;
        let failed = handshakes.timed_out + handshakes.failed + handshakes.evicted;
        Servers {
            arrived: it.stats.arrived,
            accepted: it.stats.accepted,
            refused: it.stats.refused.total(),
            handshakes_failed: failed,
            sessions_resumed: it.stats.sessions_resumed,
            accept_errors: it.stats.accept_errors,
            handler_panics: it.stats.handler_panics,
            handshaking: it.stats.handshaking,
            waiting: it.stats.waiting,
            open: it.stats.open,
            sessions: it.stats.sessions,
            held_bytes: it.held_bytes,
            held_limit_bytes: it.held_limit_bytes,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LogNow {
    first: u64,
    last: u64,
    stored: u64,
    refused: u64,
    waiting_bytes: u64,
    cached_bytes: usize,
}

impl From<LogStats> for LogNow {
    fn from(it: LogStats) -> LogNow {
        LogNow {
            first: it.first.get(),
            last: it.last.get(),
            stored: it.stored,
            refused: it.refused,
            waiting_bytes: it.waiting_bytes,
            cached_bytes: it.cached_bytes,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Queue {
    messages: usize,
    bytes: usize,
    limit: usize,
    oldest_ms: u64,
}

impl From<QueueStats> for Queue {
    fn from(it: QueueStats) -> Queue {
        Queue {
            messages: it.messages,
            bytes: it.bytes,
            limit: it.limit,
            oldest_ms: it.oldest.map_or(0, span),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Stall {
    cause: &'static str,
    words: String,
    since: u64,
    for_ms: u64,
}

/// A connection.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: u64,
    peer: Option<String>,
    principal: Option<String>,
    kind: &'static str,
    side: &'static str,
    since: u64,
    state: &'static str,
    messages_sent: u64,
    bytes_sent: u64,
    messages_received: u64,
    bytes_received: u64,
    inbox: Queue,
    outbox: Queue,
    held_bytes: usize,
    spilled_bytes: u64,
    round_trip_us: Option<u64>,
    connects: u64,
    resumes: u64,
    dropped: u64,
    stalls: Vec<Stall>,
    stalled_ms: BTreeMap<&'static str, u64>,
}

impl Row {
    /// `now` is the time of the look, in milliseconds.
    pub(crate) fn new(it: &ConnectionStatus, now: u64) -> Row {
        let stats = &it.stats;
        let mut stalls: Vec<Stall> = stats
            .stalls
            .iter()
            .filter_map(|stall| {
                let for_ms = span(stall.now?);
                Some(Stall {
                    cause: stall.cause.name(),
                    words: stall.cause.to_string(),
                    since: now.saturating_sub(for_ms),
                    for_ms,
                })
            })
            .collect();
        stalls.sort_by_key(|stall| stall.since);
        let waited = stats.stalls.iter().filter(|stall| span(stall.total) > 0);
        Row {
            id: stats.id,
            peer: it.peer.map(|peer| peer.to_string()),
            principal: it.principal.as_deref().map(shown_name),
            kind: if it.is_session { "session" } else { "plain" },
            side: if it.is_server { "server" } else { "client" },
            since: now.saturating_sub(span(it.age)),
            state: match it.state {
                ConnectionState::Connecting => "connecting",
                ConnectionState::Closing => "closing",
                _ => "open",
            },
            messages_sent: stats.messages_sent,
            bytes_sent: stats.bytes_sent,
            messages_received: stats.messages_received,
            bytes_received: stats.bytes_received,
            inbox: stats.inbox.into(),
            outbox: stats.outbox.into(),
            held_bytes: it.held_bytes,
            spilled_bytes: stats.spilled.1,
            round_trip_us: stats.round_trip.map(|it| it.as_micros() as u64),
            connects: stats.connections,
            resumes: stats.resumes,
            dropped: stats.overflowed + stats.expired + stats.discarded,
            stalled_ms: waited.map(|it| (it.cause.name(), span(it.total))).collect(),
            stalls,
        }
    }

    /// How long it has waited, if it waits.
    pub(crate) fn waits(&self) -> u64 {
        self.stalls.first().map_or(0, |stall| stall.for_ms)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.waits() >= STALLED_AFTER.as_millis() as u64
    }

    /// Keeps the moments that an earlier look saw: the beginning of one thing has one time.
    pub(crate) fn settle(&mut self, before: &Row) {
        self.since = before.since;
        for stall in &mut self.stalls {
            let same = before.stalls.iter().find(|it| it.cause == stall.cause);
            if let Some(same) = same.filter(|it| it.since.abs_diff(stall.since) < SAME_WAIT) {
                stall.since = same.since;
            }
        }
    }

    /// Whether nothing has changed but times that go on by themselves.
    pub(crate) fn is_same(&self, before: &Row) -> bool {
        fn still(row: &Row) -> impl PartialEq + use<> {
            let queue = |it: &Queue| (it.messages, it.bytes, it.limit);
            let waits: Vec<_> = row.stalls.iter().map(|it| (it.cause, it.since)).collect();
            let counts = [
                row.messages_sent,
                row.bytes_sent,
                row.messages_received,
                row.bytes_received,
                row.spilled_bytes,
                row.connects,
                row.resumes,
                row.dropped,
                row.held_bytes as u64,
                row.round_trip_us.unwrap_or(u64::MAX),
            ];
            (
                queue(&row.inbox),
                queue(&row.outbox),
                waits,
                counts,
                row.kind,
                row.state,
            )
        }
        still(self) == still(before)
            && self.peer == before.peer
            && self.principal == before.principal
    }
}

/// A subscription of a hub's client.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubscriptionRow {
    pub(crate) connection: Option<u64>,
    pub(crate) filter: String,
    pub(crate) state: &'static str,
    pub(crate) offset: u64,
    pub(crate) lag: u64,
    pub(crate) credit_bytes: u64,
    pub(crate) waits_for_credit: bool,
}

impl From<&NodeSubscription> for SubscriptionRow {
    fn from(it: &NodeSubscription) -> SubscriptionRow {
        SubscriptionRow {
            connection: it.connection,
            filter: shown_name(it.filter.as_str()),
            state: match it.stage {
                SubscriptionStage::Opening => "opening",
                SubscriptionStage::History => "history",
                SubscriptionStage::Ending => "ending",
                _ => "live",
            },
            offset: it.offset.get(),
            lag: it.lag,
            credit_bytes: it.credit_bytes,
            waits_for_credit: it.waits_for_credit,
        }
    }
}

/// A name that a peer may have chosen: printable, and not too long.
pub(crate) fn shown_name(name: &str) -> String {
    cut(name, NAME_CHARS)
}

/// The first characters of a text, printable. An ellipsis stands for the rest.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    // Each character may become several, which are still its own.
    let head: String = text.chars().take(chars).collect();
    let mut shown = unstall::printable(&head).to_string();
    if head.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The Unix time in milliseconds.
pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, span)
}

pub(crate) fn span(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_are_printable_and_cut() {
        assert_eq!(shown_name("alice"), "alice");
        assert_eq!(shown_name("a\u{1b}[2J"), r"a\u{1b}[2J");
        let long = shown_name(&"x".repeat(1_000_000));
        assert_eq!(long.chars().count(), NAME_CHARS + 1);
        assert!(long.ends_with('…'));
    }
}
