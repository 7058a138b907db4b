//! What all connections and servers of the process do, told to the [`::metrics`] facade.
//!
//! Install a recorder, such as `metrics-exporter-prometheus`. Call [`update`] before each time that it
//! is read, for example in the handler of `GET /metrics`.
//! ```no_run
//! # struct Recorder;
//! # impl Recorder { fn render(&self) -> String { String::new() } }
//! # let recorder = Recorder;
//! unstall::metrics::describe(); // once, after the recorder is installed
//! // In the handler:
//! unstall::metrics::update();
//! let page = recorder.render();
//! # let _ = page;
//! ```
//! Nothing is counted a second time for this: [`update`] visits each living connection once and reads
//! its [`Stats`](crate::Stats). So the feature costs nothing between two reads. An update of 10,000
//! connections takes some milliseconds.
//!
//! # Labels
//! There is never a label for one connection. The labels are:
//! - `kind`: `plain` or `session`, as the present connection is, or the last one was.
//! - `side`: `server` if this library took the upgrade request, else `client`. Streams that were adopted
//!   count as `client`.
//! - `cause`: what is waited for, as in [`StallCause`].
//! - `queue`: `inbox` (received, and not yet taken by the application) or `outbox` (not yet sent).
//! - `reason`: a fixed word.
//!
//! # Figures
//! | name | type | labels | what it is |
//! | --- | --- | --- | --- |
//! | `unstall_connections` | gauge | kind, side, state | connections that are `open`, `connecting` or `closing` |
//! | `unstall_messages_sent_total`, `unstall_sent_bytes_total` | counter | kind, side | messages, and the bytes of their payloads; of a session, the bytes of its packets |
//! | `unstall_messages_received_total`, `unstall_received_bytes_total` | counter | kind, side | the same of the other direction |
//! | `unstall_stalled_seconds_total` | counter | kind, side, cause | how long connections have waited, present waits included, in whole seconds of the sum |
//! | `unstall_stalled_connections` | gauge | kind, side, cause | how many wait now |
//! | `unstall_queue_messages`, `unstall_queue_bytes`, `unstall_queue_limit_bytes` | gauge | kind, side, queue | what waits in all queues, and their limits |
//! | `unstall_queue_high_water_bytes` | gauge | kind, side, queue | the most that ever waited in one queue of those that are alive |
//! | `unstall_oldest_message_seconds` | gauge | kind, side, queue | how long the oldest message has waited |
//! | `unstall_spilled_bytes` | gauge | kind, side | what waits in spill files |
//! | `unstall_held_bytes` | gauge | kind, side | all bytes that are held for connections |
//! | `unstall_connects_total`, `unstall_reconnects_total`, `unstall_resumes_total` | counter | kind, side | first connections, later ones, and those that resumed a session |
//! | `unstall_dropped_messages_total` | counter | kind, side, reason | messages dropped by `overflow`, because they `expired`, or because they were `discarded` without a receiver |
//! | `unstall_connections_lost_total` | counter | reason | connections that ended against the will of both sides |
//! | `unstall_connect_attempts_failed_total` | counter | | attempts of clients to connect |
//! | `unstall_sessions_lost_total`, `unstall_undelivered_messages_total` | counter | reason | sessions that could not be resumed, and the messages that came back |
//! | `unstall_gaps_total` | counter | reason | gaps that the application has received |
//! | `unstall_round_trip_seconds` | histogram | | answers to pings |
//! | `unstall_server_arrived_total`, `unstall_server_accepted_total`, `unstall_server_sessions_resumed_total`, `unstall_server_accept_errors_total`, `unstall_server_handler_panics_total` | counter | | as in [`ServerStats`](crate::ServerStats) |
//! | `unstall_server_refused_total` | counter | reason | handshakes that were refused, as in [`RefusalStats`](crate::RefusalStats) |
//! | `unstall_server_handshakes_ended_total` | counter | reason | as in [`HandshakeStats`](crate::HandshakeStats) |
//! | `unstall_server_handshaking`, `unstall_server_waiting`, `unstall_server_open`, `unstall_server_sessions` | gauge | | as in [`ServerStats`](crate::ServerStats) |
//! | `unstall_server_held_bytes`, `unstall_server_held_limit_bytes` | gauge | | bytes held for clients, and their limit |
//!
//! Figures of servers need the feature `server`.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use crate::{
    handles::sums::{self, GROUPS, Group, QueueNow, Sums},
    reports::{StallCause, counted},
};

type Labels = [(&'static str, &'static str); 2];

/// Tells the recorder what each figure is, and begins those that count seldom events at 0. Call it once,
/// after a recorder is installed.
pub fn describe() {
    describe_connections();
    describe_seldom();
    #[cfg(feature = "server")]
    servers::describe();
    counter!(counted::ATTEMPTS_FAILED).increment(0);
    for reason in ["reconnected", "session_lost", "dropped", "conflated"] {
        counter!(counted::GAPS, counted::REASON => reason).increment(0);
    }
}

fn describe_connections() {
    use Unit::{Bytes, Count, Seconds};
    let gauges: [(&'static str, Unit, &'static str); 9] = [
        ("unstall_connections", Count, "Connections by state"),
        (
            "unstall_stalled_connections",
            Count,
            "Connections that wait, by cause",
        ),
        (
            "unstall_queue_messages",
            Count,
            "Messages that wait in queues",
        ),
        ("unstall_queue_bytes", Bytes, "Bytes that wait in queues"),
        (
            "unstall_queue_limit_bytes",
            Bytes,
            "The limits of all queues",
        ),
        (
            "unstall_queue_high_water_bytes",
            Bytes,
            "The most that ever waited in one queue",
        ),
        (
            "unstall_oldest_message_seconds",
            Seconds,
            "How long the oldest message has waited",
        ),
        (
            "unstall_spilled_bytes",
            Bytes,
            "Bytes that wait in spill files",
        ),
        (
            "unstall_held_bytes",
            Bytes,
            "All bytes that are held for connections",
        ),
    ];
    for (name, unit, what) in gauges {
        describe_gauge!(name, unit, what);
    }
    let counters: [(&'static str, Unit, &'static str); 9] = [
        (
            "unstall_messages_sent_total",
            Count,
            "Messages written to sockets",
        ),
        (
            "unstall_sent_bytes_total",
            Bytes,
            "The bytes of their payloads",
        ),
        (
            "unstall_messages_received_total",
            Count,
            "Messages read from sockets",
        ),
        (
            "unstall_received_bytes_total",
            Bytes,
            "The bytes of their payloads",
        ),
        (
            "unstall_stalled_seconds_total",
            Seconds,
            "How long connections have waited, by cause",
        ),
        ("unstall_connects_total", Count, "First connections"),
        (
            "unstall_reconnects_total",
            Count,
            "Connections after a loss",
        ),
        ("unstall_resumes_total", Count, "Sessions that resumed"),
        (
            "unstall_dropped_messages_total",
            Count,
            "Messages dropped, by reason",
        ),
    ];
    for (name, unit, what) in counters {
        describe_counter!(name, unit, what);
    }
}

fn describe_seldom() {
    use Unit::{Count, Seconds};
    let counters: [(&'static str, &'static str); 5] = [
        (counted::LOST, "Connections that were lost, by reason"),
        (counted::ATTEMPTS_FAILED, "Failed attempts to connect"),
        (
            counted::SESSIONS_LOST,
            "Sessions that could not be resumed, by reason",
        ),
        (
            counted::UNDELIVERED,
            "Messages that came back from lost sessions, by reason",
        ),
        (
            counted::GAPS,
            "Gaps that applications have received, by reason",
        ),
    ];
    for (name, what) in counters {
        describe_counter!(name, Count, what);
    }
    describe_histogram!(counted::ROUND_TRIP, Seconds, "Answers to pings");
}

/// Tells the recorder the present figures. Call it before each time that they are read. It takes time in
/// proportion to the number of living connections, and waits for nothing.
pub fn update() {
    for (group, sums) in GROUPS.into_iter().zip(sums::all()) {
        let labels = labels(group);
        tell_counts(&labels, &sums);
        tell_now(&labels, &sums);
    }
    #[cfg(feature = "server")]
    servers::update();
}

fn labels(group: Group) -> Labels {
    let kind = if group.is_session { "session" } else { "plain" };
    let side = if group.is_server { "server" } else { "client" };
    [("kind", kind), ("side", side)]
}

/// The labels of a group, and one more.
fn with(
    labels: &Labels,
    name: &'static str,
    value: &'static str,
) -> [(&'static str, &'static str); 3] {
    let [kind, side] = *labels;
    [kind, side, (name, value)]
}

fn tell_counts(labels: &Labels, sums: &Sums) {
    let counts = &sums.counts;
    for (name, value) in [
        ("unstall_messages_sent_total", counts.messages_sent),
        ("unstall_sent_bytes_total", counts.bytes_sent),
        ("unstall_messages_received_total", counts.messages_received),
        ("unstall_received_bytes_total", counts.bytes_received),
        ("unstall_connects_total", counts.connects),
        ("unstall_reconnects_total", counts.reconnects),
        ("unstall_resumes_total", counts.resumes),
    ] {
        counter!(name, labels).absolute(value);
    }
    for (reason, value) in [
        ("overflow", counts.overflowed),
        ("expired", counts.expired),
        ("discarded", counts.discarded),
    ] {
        let labels = with(labels, "reason", reason);
        counter!("unstall_dropped_messages_total", &labels).absolute(value);
    }
    for (cause, waited) in StallCause::ALL.into_iter().zip(counts.stalled) {
        let labels = with(labels, "cause", cause.name());
        counter!("unstall_stalled_seconds_total", &labels).absolute(waited.as_secs());
    }
}

fn tell_now(labels: &Labels, sums: &Sums) {
    let now = &sums.now;
    for (state, value) in [
        ("open", now.open),
        ("connecting", now.connecting),
        ("closing", now.closing),
    ] {
        gauge!("unstall_connections", &with(labels, "state", state)).set(value as f64);
    }
    for (queue, value) in [("inbox", &now.inbox), ("outbox", &now.outbox)] {
        tell_queue(&with(labels, "queue", queue), value);
    }
    gauge!("unstall_spilled_bytes", labels).set(now.spilled_bytes as f64);
    gauge!("unstall_held_bytes", labels).set(now.held_bytes as f64);
    for (cause, value) in StallCause::ALL.into_iter().zip(now.stalled) {
        let labels = with(labels, "cause", cause.name());
        gauge!("unstall_stalled_connections", &labels).set(value as f64);
    }
}

fn tell_queue(labels: &[(&'static str, &'static str); 3], queue: &QueueNow) {
    for (name, value) in [
        ("unstall_queue_messages", queue.messages as f64),
        ("unstall_queue_bytes", queue.bytes as f64),
        ("unstall_queue_limit_bytes", queue.limit as f64),
        ("unstall_queue_high_water_bytes", queue.high_water as f64),
        ("unstall_oldest_message_seconds", queue.oldest.as_secs_f64()),
    ] {
        gauge!(name, labels).set(value);
    }
}

#[cfg(feature = "server")]
mod servers {
    use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

    use crate::server::roll;

    const REFUSED: &str = "unstall_server_refused_total";
    const HANDSHAKES_ENDED: &str = "unstall_server_handshakes_ended_total";

    pub(super) fn describe() {
        use Unit::{Bytes, Count};
        let counters: [(&'static str, &'static str); 7] = [
            (
                "unstall_server_arrived_total",
                "TCP connections that arrived",
            ),
            (
                "unstall_server_accepted_total",
                "Completed WebSocket handshakes",
            ),
            (REFUSED, "Refused clients, by reason"),
            (
                HANDSHAKES_ENDED,
                "Handshakes without a connection and without a refusal, by reason",
            ),
            (
                "unstall_server_sessions_resumed_total",
                "Connections that resumed a session",
            ),
            ("unstall_server_accept_errors_total", "Failures of accept"),
            (
                "unstall_server_handler_panics_total",
                "Handlers that panicked",
            ),
        ];
        for (name, what) in counters {
            describe_counter!(name, Count, what);
        }
        let gauges: [(&'static str, Unit, &'static str); 6] = [
            ("unstall_server_handshaking", Count, "Handshakes under way"),
            (
                "unstall_server_waiting",
                Count,
                "Clients that wait for their handshake to begin",
            ),
            ("unstall_server_open", Count, "Open connections"),
            (
                "unstall_server_sessions",
                Count,
                "Sessions, with or without a connection",
            ),
            (
                "unstall_server_held_bytes",
                Bytes,
                "Bytes that are held for clients",
            ),
            (
                "unstall_server_held_limit_bytes",
                Bytes,
                "The limit of bytes held for clients",
            ),
        ];
        for (name, unit, what) in gauges {
            describe_gauge!(name, unit, what);
        }
    }

    pub(super) fn update() {
        let sums = roll::all();
        let (stats, refused, handshakes) =
            (&sums.stats, &sums.stats.refused, &sums.stats.handshakes);
        for (name, value) in [
            ("unstall_server_arrived_total", stats.arrived),
            ("unstall_server_accepted_total", stats.accepted),
            (
                "unstall_server_sessions_resumed_total",
                stats.sessions_resumed,
            ),
            ("unstall_server_accept_errors_total", stats.accept_errors),
            ("unstall_server_handler_panics_total", stats.handler_panics),
        ] {
            counter!(name).absolute(value);
        }
        for (reason, value) in [
            ("connections", refused.connections),
            ("address", refused.address),
            ("principal", refused.principal),
            ("handshakes", refused.handshakes),
            ("requests", refused.requests),
            ("origins", refused.origins),
            ("unauthenticated", refused.unauthenticated),
            ("sessions", refused.sessions),
        ] {
            counter!(REFUSED, "reason" => reason).absolute(value);
        }
        for (reason, value) in [
            ("timed_out", handshakes.timed_out),
            ("failed", handshakes.failed),
            ("evicted", handshakes.evicted),
        ] {
            counter!(HANDSHAKES_ENDED, "reason" => reason).absolute(value);
        }
        for (name, value) in [
            ("unstall_server_handshaking", stats.handshaking),
            ("unstall_server_waiting", stats.waiting),
            ("unstall_server_open", stats.open),
            ("unstall_server_sessions", stats.sessions),
            ("unstall_server_held_bytes", sums.held_bytes),
            ("unstall_server_held_limit_bytes", sums.held_limit_bytes),
        ] {
            gauge!(name).set(value as f64);
        }
    }
}
