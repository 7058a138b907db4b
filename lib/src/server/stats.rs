//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A server's counters since its start, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// TCP connections that arrived, whatever became of them.
    pub arrived: u64,
    /// WebSocket handshakes that were completed with 101.
    pub accepted: u64,
    /// Clients that were refused, each with a reason.
    pub refused: RefusalStats,
    /// Handshakes that came to nothing.
    pub handshakes: HandshakeStats,
    /// Connections that went on with a session that existed.
    pub sessions_resumed: u64,
    /// Times that `accept` failed, for example because there were no file descriptors left.
    pub accept_errors: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Handshakes under way now.
    pub handshaking: usize,
    /// Clients that wait now until their handshake may begin.
    pub waiting: usize,
    /// Connections open now: those of sessions, and plain ones, which count until their handler
    /// has ended too.
    pub open: usize,
    /// Sessions now, with or without a connection.
    pub sessions: usize,
}

/// Clients that a server refused, by the reason that they were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusalStats {
    /// [`max_connections`](crate::ServerLimits::max_connections) were open.
    pub connections: u64,
    /// Their address had as many connections, or handshakes, as it may.
    pub address: u64,
    /// Their principal had as many connections as it may.
    pub principal: u64,
    /// [`max_handshakes`](crate::ServerLimits::max_handshakes) were under way and none ended, or
    /// too many clients waited already.
    pub handshakes: u64,
    /// Their request is no WebSocket handshake, or breaks its rules.
    pub requests: u64,
    /// Their `Origin` is not allowed.
    pub origins: u64,
    /// The authentication hook refused them.
    pub unauthenticated: u64,
    /// Their session was refused: the server has too many, or it expired, or it is not theirs.
    pub sessions: u64,
}

impl RefusalStats {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.connections
            + self.address
            + self.principal
            + self.handshakes
            + self.requests
            + self.origins
            + self.unauthenticated
            + self.sessions
    }
}

/// Handshakes that came to nothing without a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeStats {
    /// Not completed within [`handshake_timeout`](crate::ServerLimits::handshake_timeout).
    pub timed_out: u64,
    /// Broken: by the client, by TLS, by a head over the limits, by a hook that panicked.
    pub failed: u64,
    /// Closed to make room for other clients, because their own was silent for a second.
    pub evicted: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) arrived: Counter,
    pub(super) accepted: Counter,
    pub(super) refused: Refused,
    pub(super) handshakes_timed_out: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) sessions_resumed: Counter,
    pub(super) accept_errors: Counter,
    pub(super) handler_panics: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) connections: Counter,
    pub(super) address: Counter,
    pub(super) principal: Counter,
    pub(super) handshakes: Counter,
    pub(super) requests: Counter,
    pub(super) origins: Counter,
    pub(super) unauthenticated: Counter,
    pub(super) sessions: Counter,
}

impl Counters {
    /// The counters. The caller fills in what others count.
    pub(super) fn snapshot(&self) -> ServerStats {
        let refused = &self.refused;
        ServerStats {
            arrived: self.arrived.get(),
            accepted: self.accepted.get(),
            refused: RefusalStats {
                connections: refused.connections.get(),
                address: refused.address.get(),
                principal: refused.principal.get(),
                handshakes: refused.handshakes.get(),
                requests: refused.requests.get(),
                origins: refused.origins.get(),
                unauthenticated: refused.unauthenticated.get(),
                sessions: refused.sessions.get(),
            },
            handshakes: HandshakeStats {
                timed_out: self.handshakes_timed_out.get(),
                failed: self.handshakes_failed.get(),
                evicted: 0,
            },
            sessions_resumed: self.sessions_resumed.get(),
            accept_errors: self.accept_errors.get(),
            handler_panics: self.handler_panics.get(),
            ..ServerStats::default()
        }
    }
}
