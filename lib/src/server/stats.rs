//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A server's counters since its start, and what is open now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections that the kernel handed over, whatever became of them.
    pub arrived: u64,
    /// Handshakes that were completed with 101.
    pub accepted: u64,
    /// Refused because [`max_connections`](crate::ServerLimits::max_connections) were open.
    pub refused_connections: u64,
    /// Refused because [`max_handshakes`](crate::ServerLimits::max_handshakes) were under way and
    /// none ended.
    pub refused_handshakes: u64,
    /// Requests that are no WebSocket handshake, or break its rules.
    pub refused_requests: u64,
    /// Refused for their `Origin`.
    pub refused_origins: u64,
    /// Refused by the authentication hook.
    pub refused_unauthenticated: u64,
    /// Cut at the handshake's deadline.
    pub handshakes_timed_out: u64,
    /// Broken off: by the client, by TLS, by a head over the limits, by a hook that panicked.
    pub handshakes_failed: u64,
    /// Connections that went on with a session that existed.
    pub sessions_resumed: u64,
    /// Connections whose session was refused, each with a reason to its client.
    pub sessions_refused: u64,
    /// Times that `accept` failed, such as for want of file descriptors.
    pub accept_errors: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Handshakes under way now.
    pub handshaking: usize,
    /// Connections open now, handlers that outlive their socket included.
    pub open: usize,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) arrived: Counter,
    pub(super) accepted: Counter,
    pub(super) refused_connections: Counter,
    pub(super) refused_handshakes: Counter,
    pub(super) refused_requests: Counter,
    pub(super) refused_origins: Counter,
    pub(super) refused_unauthenticated: Counter,
    pub(super) handshakes_timed_out: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) sessions_resumed: Counter,
    pub(super) sessions_refused: Counter,
    pub(super) accept_errors: Counter,
    pub(super) handler_panics: Counter,
}

impl Counters {
    pub(super) fn snapshot(&self, open: usize, handshaking: usize) -> ServerStats {
        ServerStats {
            arrived: self.arrived.get(),
            accepted: self.accepted.get(),
            refused_connections: self.refused_connections.get(),
            refused_handshakes: self.refused_handshakes.get(),
            refused_requests: self.refused_requests.get(),
            refused_origins: self.refused_origins.get(),
            refused_unauthenticated: self.refused_unauthenticated.get(),
            handshakes_timed_out: self.handshakes_timed_out.get(),
            handshakes_failed: self.handshakes_failed.get(),
            sessions_resumed: self.sessions_resumed.get(),
            sessions_refused: self.sessions_refused.get(),
            accept_errors: self.accept_errors.get(),
            handler_panics: self.handler_panics.get(),
            handshaking,
            open,
        }
    }
}
