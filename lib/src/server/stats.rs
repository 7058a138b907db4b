//! The counters of a server.

use std::sync::atomic::{AtomicU64, Ordering};

/// A server's counters since its start, and its present state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// TCP connections that arrived.
    pub arrived: u64,
    /// WebSocket handshakes that were completed with 101.
    pub accepted: u64,
    /// Clients that were refused, by reason.
    pub refused: RefusalStats,
    /// Handshakes that ended without a connection and without a refusal.
    pub handshakes: HandshakeStats,
    /// Connections that resumed a session.
    pub sessions_resumed: u64,
    /// Times that `accept` failed, for example because there were no file descriptors left.
    pub accept_errors: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Handshakes under way now.
    pub handshaking: usize,
    /// Clients that wait in line now for their handshake to begin.
    pub waiting: usize,
    /// Connections open now. A plain one counts until its handler has ended too.
    pub open: usize,
    /// Sessions now, with or without a connection.
    pub sessions: usize,
}

/// Clients that a server refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusalStats {
    /// [`max_connections`](crate::ServerLimits::max_connections) was reached.
    pub connections: u64,
    /// The limit of connections or handshakes of their address was reached.
    pub address: u64,
    /// The limit of connections of their principal was reached.
    pub principal: u64,
    /// [`max_handshakes`](crate::ServerLimits::max_handshakes) was reached and no handshake ended,
    /// or too many clients waited in line.
    pub handshakes: u64,
    /// Their request was not a valid WebSocket handshake.
    pub requests: u64,
    /// Their `Origin` was not allowed.
    pub origins: u64,
    /// The authentication hook refused them.
    pub unauthenticated: u64,
    /// Their session was refused, for example because it had expired, or because there were too
    /// many.
    pub sessions: u64,
}

impl RefusalStats {
    /// The sum of all refusals.
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

/// Handshakes that ended without a connection and without a refusal. A client that was refused, and then
/// kept the server waiting before it took the answer, counts here as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandshakeStats {
    /// Not completed within [`handshake_timeout`](crate::ServerLimits::handshake_timeout).
    pub timed_out: u64,
    /// Failed: the client disconnected or broke the protocol, TLS failed, the request's head was
    /// too long, or the hook panicked.
    pub failed: u64,
    /// Closed to make room for other clients, because their own client kept the server waiting.
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
    /// The counters. The caller fills in the fields that are counted elsewhere.
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
