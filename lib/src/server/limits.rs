//! The limits of a server.

use std::time::Duration;

use super::holder::{Holder, Network, share_of};
use crate::defaults;

/// The limits of a server. Start from `ServerLimits::default()` and change what you need.
///
/// By default one address, or one [`Principal`](crate::Principal), may use at most three quarters
/// of each limit. The last quarter is left for everybody else. IPv6 addresses count by their /64.
/// Behind a proxy every connection has the proxy's address, until the server is told to [trust the
/// proxy](crate::ServerBuilder::trusted_proxies).
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
    /// The most open connections. Default 10,000; at least 1.
    ///
    /// Above the limit, plain connections are refused with 503, and new sessions with REJECT
    /// `full`. A client that resumes its session is always accepted;
    /// [`SessionLimits`](crate::SessionLimits) bounds the number of sessions. So there are at most
    /// this many connections, plus one for each session.
    ///
    /// A plain connection keeps its place until both the socket and its handler have ended. A
    /// session takes a place only while it has a connection.
    pub fn max_connections(mut self, connections: usize) -> ServerLimits {
        self.max_connections = connections.max(1);
        self
    }

    /// The most open connections of one address. Above the limit, connections are refused with 429,
    /// and new sessions with REJECT `full`. Default three quarters of
    /// [`max_connections`](ServerLimits::max_connections); at least 1.
    pub fn connections_per_address(mut self, connections: usize) -> ServerLimits {
        self.connections_per_address = Some(connections.max(1));
        self
    }

    /// The most open connections of one [`Principal`](crate::Principal). Above the limit,
    /// connections are refused with 429, and new sessions with REJECT `full`. Default three
    /// quarters of [`max_connections`](ServerLimits::max_connections); at least 1.
    pub fn connections_per_principal(mut self, connections: usize) -> ServerLimits {
        self.connections_per_principal = Some(connections.max(1));
        self
    }

    /// The most handshakes at once. A handshake lasts from the TCP connection to the 101 answer, or
    /// to HELLO of a session. Default 1,024; at least 1.
    ///
    /// Above the limit, clients wait in line; the addresses take turns. To make room, the server
    /// closes a handshake that began more than a second ago and waits for its client. It is the
    /// oldest one of the address with the most handshakes. A client gets 503 when no client could
    /// begin for a second, or when it has waited for
    /// [`handshake_timeout`](ServerLimits::handshake_timeout).
    pub fn max_handshakes(mut self, handshakes: usize) -> ServerLimits {
        self.max_handshakes = handshakes.max(1);
        self
    }

    /// The most handshakes of one address at once. Above the limit, clients of this address wait in
    /// line, as with [`max_handshakes`](ServerLimits::max_handshakes). Default three quarters of
    /// it; at least 1.
    pub fn handshakes_per_address(mut self, handshakes: usize) -> ServerLimits {
        self.handshakes_per_address = Some(handshakes.max(1));
        self
    }

    /// How long a handshake may take before the connection is closed. It covers the PROXY header,
    /// TLS, the request's head, the authentication hook and HELLO of a session. Default 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> ServerLimits {
        self.handshake_timeout = timeout;
        self
    }

    /// The most bytes of the request's head. A longer one, or one of more than 100 header lines, is
    /// refused with 431. Default 16 KiB.
    pub fn header_bytes(mut self, bytes: usize) -> ServerLimits {
        self.header_bytes = bytes;
        self
    }

    /// The most bytes held for all connections of the server together; see
    /// [`Budget`](crate::Budget). Default 768 MiB. A budget in the server's
    /// [`Options`](crate::Options) replaces this one; other servers and clients can share it.
    pub fn process_bytes(mut self, bytes: usize) -> ServerLimits {
        self.process_bytes = bytes;
        self
    }

    /// The most bytes held for all connections of one address. Default three quarters of
    /// [`process_bytes`](ServerLimits::process_bytes).
    pub fn bytes_per_address(mut self, bytes: usize) -> ServerLimits {
        self.bytes_per_address = Some(bytes);
        self
    }

    /// The most bytes held for all connections of one [`Principal`](crate::Principal). Default
    /// three quarters of [`process_bytes`](ServerLimits::process_bytes).
    pub fn bytes_per_principal(mut self, bytes: usize) -> ServerLimits {
        self.bytes_per_principal = Some(bytes);
        self
    }

    /// The wait that a client is asked for when a limit is reached, in `Retry-After` or REJECT.
    /// Default 5 s; between 1 s and a day.
    pub fn retry_after(mut self, retry_after: Duration) -> ServerLimits {
        let (least, most) = (Duration::from_secs(1), defaults::RETRY_AFTER_MAX);
        self.retry_after = retry_after.clamp(least, most);
        self
    }

    /// The limits of open connections.
    pub(super) fn connections(&self) -> Limit {
        let (address, principal) = (self.connections_per_address, self.connections_per_principal);
        Limit::new(self.max_connections, address, principal)
    }

    /// The limits of held bytes; `process` is the limit of the whole process.
    pub(super) fn bytes(&self, process: usize) -> Limit {
        Limit::new(process, self.bytes_per_address, self.bytes_per_principal)
    }

    /// The limits of handshakes. Principals are not known during a handshake.
    pub(super) fn handshakes(&self) -> Limit {
        Limit::new(self.max_handshakes, self.handshakes_per_address, None)
    }
}

/// A limit for everybody together, for one address, and for one principal.
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
            Holder::Address(network) => self.of_network(network),
            Holder::Principal(_) => self.per_principal,
        }
    }

    pub(super) fn of_network(&self, network: &Network) -> usize {
        match network {
            Network::Unknown => usize::MAX,
            _ => self.per_address,
        }
    }
}
