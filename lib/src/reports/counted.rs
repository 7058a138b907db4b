//! What happens seldom is told to the `metrics` facade when it happens. Everything else is summed up
//! when somebody asks, in [`metrics`](crate::metrics).

use std::time::Duration;

use metrics::{counter, histogram};

use super::{ConnectionError, Event};

pub(crate) const ATTEMPTS_FAILED: &str = "unstall_connect_attempts_failed_total";
pub(crate) const SESSIONS_LOST: &str = "unstall_sessions_lost_total";
pub(crate) const UNDELIVERED: &str = "unstall_undelivered_messages_total";
pub(crate) const LOST: &str = "unstall_connections_lost_total";
pub(crate) const GAPS: &str = "unstall_gaps_total";
pub(crate) const ROUND_TRIP: &str = "unstall_round_trip_seconds";
pub(crate) const REASON: &str = "reason";

/// Counts an event, if it is one that stands in no other count.
pub(super) fn event(event: &Event) {
    match event {
        Event::AttemptFailed { .. } => counter!(ATTEMPTS_FAILED).increment(1),
        Event::Disconnected { why, .. } => counter!(LOST, REASON => reason(why)).increment(1),
        Event::SessionLost { why, undelivered } => {
            counter!(SESSIONS_LOST, REASON => reason(why)).increment(1);
            counter!(UNDELIVERED, REASON => reason(why)).increment(*undelivered);
        }
        _ => {}
    }
}

/// The application has received a gap.
pub(crate) fn gap(reason: &'static str) {
    counter!(GAPS, REASON => reason).increment(1);
}

/// The answer to a ping has come.
pub(crate) fn round_trip(time: Duration) {
    histogram!(ROUND_TRIP).record(time);
}

/// A fixed word for each reason, without any figure or text of the peer.
fn reason(why: &ConnectionError) -> &'static str {
    match why {
        ConnectionError::ClosedByPeer(_) => "closed_by_peer",
        ConnectionError::ClosedHere => "closed_here",
        ConnectionError::PeerSilent(_) => "peer_silent",
        ConnectionError::WriteStalled(_) => "write_stalled",
        ConnectionError::NotReceived(_) => "not_received",
        ConnectionError::EndOfStream => "end_of_stream",
        ConnectionError::Io(_) => "io",
        ConnectionError::Protocol(_) => "protocol",
        ConnectionError::InvalidText => "invalid_text",
        ConnectionError::MessageTooLarge { .. } => "message_too_large",
        ConnectionError::InboxFull => "inbox_full",
        ConnectionError::Evicted { .. } => "evicted",
        ConnectionError::Setup(_) => "setup",
        ConnectionError::Reconnect(_) => "reconnect",
        ConnectionError::GoingAway => "going_away",
        ConnectionError::SessionRefused { .. } => "session_refused",
        ConnectionError::HelloUnanswered(_) => "hello_unanswered",
        ConnectionError::SessionLost(_) => "session_lost",
        ConnectionError::Undelivered { .. } => "undelivered",
        ConnectionError::Aborted => "aborted",
    }
}
