//! The limits of a server.

use std::time::Duration;

use super::holder::{Holder, Network, share_of};
use crate::defaults;

/// The limits of a server. Start from `ServerLimits::default()` and set what differs.
///
/// Nobody alone gets a whole limit: unless set, a single address and a single
/// [`Principal`](crate::Principal) have at most three quarters of it, so that the last quarter is
/// left for everybody else. IPv6 addresses count by their /64. Behind a proxy every connection has
/// the proxy's address, until the server is told to
/// [trust the proxy](crate::ServerBuilder::trusted_proxies).
#[derive(Debug, Clone)]
#[must_use = "setters return the changed limits"]
pub struct ServerLimits {
    max_connections: usize,
    connections_per_address: Option<usize>,
    connections_per_principal: Option<usize>,
    max_handshakes: usize,
    handshakes_per_address: Option<usize>,
    pub(super) handshake_timeout: Duration,
    pub(super) header_bytes: usize,
    pub(super) process_bytes: usize,
    bytes_per_address: Option<usize>,
    bytes_per_principal: Option<usize>,
    pub(super) retry_after: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            max_connections: defaults::SERVER_CONNECTIONS,
            connections_per_address: None,
            connections_per_principal: None,
            max_handshakes: defaults::SERVER_HANDSHAKES,
            handshakes_per_address: None,
            handshake_timeout: defaults::SERVER_HANDSHAKE_TIMEOUT,
            header_bytes: defaults::SERVER_HEADER_BYTES,
            process_bytes: defaults::SERVER_PROCESS_BYTES,
            bytes_per_address: None,
            bytes_per_principal: None,
            retry_after: defaults::SERVER_RETRY_AFTER,
        }
    }
}

impl ServerLimits {
    /// Open connections. Default 10,000; at least 1.
    ///
    /// Further plain connections are refused with 503, and further new sessions with REJECT
    /// `full`. A client that resumes its session is always let in: the number of sessions is
    /// limited by [`SessionLimits`](crate::SessionLimits). So there are at most this many
    /// connections and one for each session.
    ///
    /// A plain connection keeps its place until both the socket and its handler have ended. A
    /// session takes a place only while it has a connection.
    pub fn max_connections(mut self, connections: usize) -> ServerLimits {
        self.max_connections = connections.max(1);
        self
    }

    /// Open connections of one address. More are refused with 429, or REJECT `full`. Default three
    /// quarters of [`max_connections`](ServerLimits::max_connections); at least 1.
    pub fn connections_per_address(mut self, connections: usize) -> ServerLimits {
        self.connections_per_address = Some(connections.max(1));
        self
    }

    /// Open connections of one [`Principal`](crate::Principal). More are refused with 429, or
    /// REJECT `full`. Default three quarters of
    /// [`max_connections`](ServerLimits::max_connections); at least 1.
    pub fn connections_per_principal(mut self, connections: usize) -> ServerLimits {
        self.connections_per_principal = Some(connections.max(1));
        self
    }

    /// Handshakes at once, from the TCP connection to the first WebSocket frame, or to HELLO of a
    /// session. Default 1,024; at least 1.
    ///
    /// Further clients wait for a place, in turns of one address after the other. When none comes
    /// free, the oldest handshake that has waited for its client for a second is closed: one of the
    /// address that has most of them under way. Clients that still find no place within a second
    /// get 503.
    pub fn max_handshakes(mut self, handshakes: usize) -> ServerLimits {
        self.max_handshakes = handshakes.max(1);
        self
    }

    /// Handshakes at once of one address. Further clients of this address wait for a place as they
    /// do at [`max_handshakes`](ServerLimits::max_handshakes). Default three quarters of it; at
    /// least 1.
    pub fn handshakes_per_address(mut self, handshakes: usize) -> ServerLimits {
        self.handshakes_per_address = Some(handshakes.max(1));
        self
    }

    /// The longest that a handshake may take: the PROXY header, TLS, the request's head, the
    /// authentication hook and HELLO of a session together. Then the connection is closed. Default
    /// 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> ServerLimits {
        self.handshake_timeout = timeout;
        self
    }

    /// Bytes of the request's head; a longer one is refused with 431. At most 100 header lines.
    /// Default 16 KiB.
    pub fn header_bytes(mut self, bytes: usize) -> ServerLimits {
        self.header_bytes = bytes;
        self
    }

    /// Bytes that may be held for all the server's connections together; see
    /// [`Budget`](crate::Budget). Default 768 MiB. If the options have a budget of their own, which
    /// is shared with other servers and clients of the process, that one counts instead.
    pub fn process_bytes(mut self, bytes: usize) -> ServerLimits {
        self.process_bytes = bytes;
        self
    }

    /// Of these, the bytes that may be held for all connections of one address. Default three
    /// quarters of them.
    pub fn bytes_per_address(mut self, bytes: usize) -> ServerLimits {
        self.bytes_per_address = Some(bytes);
        self
    }

    /// Of these, the bytes that may be held for all connections of one
    /// [`Principal`](crate::Principal). Default three quarters of them.
    pub fn bytes_per_principal(mut self, bytes: usize) -> ServerLimits {
        self.bytes_per_principal = Some(bytes);
        self
    }

    /// What a refusal over a limit says in `Retry-After`, in whole seconds. Default 5 s; 1 s to a
    /// day.
    pub fn retry_after(mut self, retry_after: Duration) -> ServerLimits {
        let (least, most) = (Duration::from_secs(1), defaults::RETRY_AFTER_MAX);
        self.retry_after = retry_after.clamp(least, most);
        self
    }

    /// For connections.
    pub(super) fn connections(&self) -> Limit {
        let (address, principal) = (self.connections_per_address, self.connections_per_principal);
        Limit::new(self.max_connections, address, principal)
    }

    /// For bytes, of which `process` are all.
    pub(super) fn bytes(&self, process: usize) -> Limit {
        Limit::new(process, self.bytes_per_address, self.bytes_per_principal)
    }

    /// For handshakes under way. Nobody is known as a principal yet.
    pub(super) fn handshakes(&self) -> Limit {
        Limit::new(self.max_handshakes, self.handshakes_per_address, None)
    }
}

/// A limit for all, and the part of it that one address or one principal may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) all: usize,
    pub(super) per_address: usize,
    pub(super) per_principal: usize,
}

impl Limit {
    pub(super) fn new(
        all: usize,
        per_address: Option<usize>,
        per_principal: Option<usize>,
    ) -> Limit {
        Limit {
            all,
            per_address: per_address.unwrap_or(share_of(all)),
            per_principal: per_principal.unwrap_or(share_of(all)),
        }
    }

    pub(super) fn of(&self, holder: &Holder) -> usize {
        match holder {
            Holder::Address(Network::Unknown) => usize::MAX,
            Holder::Address(_) => self.per_address,
            Holder::Principal(_) => self.per_principal,
        }
    }
}
