//! The servers of this process, and the sums of what they count.

use std::sync::{Arc, LazyLock, Mutex, Weak};

use super::{HandshakeStats, RefusalStats, ServerState, ServerStats};

#[derive(Debug, Default)]
struct Roll {
    servers: Vec<Weak<ServerState>>,
    /// The counts of the servers that have ended.
    ended: ServerStats,
}

static ROLL: LazyLock<Mutex<Roll>> = LazyLock::new(Mutex::default);

/// What all servers of the process have counted.
#[derive(Debug, Default)]
pub(crate) struct ServerSums {
    /// How many servers there are, and one more if some have ended.
    #[cfg(feature = "status")]
    pub(crate) servers: usize,
    pub(crate) stats: ServerStats,
    /// Bytes that are held for clients now.
    pub(crate) held_bytes: usize,
    /// The limit of that.
    pub(crate) held_limit_bytes: usize,
}

/// Lists a server until it has ended.
pub(super) fn add(server: &Arc<ServerState>) {
    let mut roll = ROLL.lock().unwrap();
    roll.servers.retain(|it| it.strong_count() > 0);
    roll.servers.push(Arc::downgrade(server));
}

/// Keeps the counts of a server that has ended.
pub(super) fn add_ended(stats: &ServerStats) {
    let ended = &mut ROLL.lock().unwrap().ended;
    *ended = sum(ended, stats);
    (ended.handshaking, ended.waiting, ended.open, ended.sessions) = (0, 0, 0, 0);
}

/// The sums over all servers.
pub(crate) fn all() -> ServerSums {
    let (servers, ended) = {
        let roll = ROLL.lock().unwrap();
        let servers: Vec<_> = roll.servers.iter().filter_map(Weak::upgrade).collect();
        (servers, roll.ended)
    };
    let mut sums = ServerSums {
        #[cfg(feature = "status")]
        servers: servers.len() + usize::from(ended != ServerStats::default()),
        stats: ended,
        ..ServerSums::default()
    };
    for server in servers {
        sums.stats = sum(&sums.stats, &server.stats());
        let budget = server.budgets.process();
        sums.held_bytes = sums.held_bytes.saturating_add(budget.used());
        sums.held_limit_bytes = sums.held_limit_bytes.saturating_add(budget.limit());
    }
    sums
}

fn sum(a: &ServerStats, b: &ServerStats) -> ServerStats {
    let (ar, br) = (&a.refused, &b.refused);
    let (ah, bh) = (&a.handshakes, &b.handshakes);
    ServerStats {
        arrived: a.arrived.saturating_add(b.arrived),
        accepted: a.accepted.saturating_add(b.accepted),
        refused: RefusalStats {
            connections: ar.connections.saturating_add(br.connections),
            address: ar.address.saturating_add(br.address),
            principal: ar.principal.saturating_add(br.principal),
            handshakes: ar.handshakes.saturating_add(br.handshakes),
            requests: ar.requests.saturating_add(br.requests),
            origins: ar.origins.saturating_add(br.origins),
            unauthenticated: ar.unauthenticated.saturating_add(br.unauthenticated),
            sessions: ar.sessions.saturating_add(br.sessions),
        },
        handshakes: HandshakeStats {
            timed_out: ah.timed_out.saturating_add(bh.timed_out),
            failed: ah.failed.saturating_add(bh.failed),
            evicted: ah.evicted.saturating_add(bh.evicted),
        },
        sessions_resumed: a.sessions_resumed.saturating_add(b.sessions_resumed),
        accept_errors: a.accept_errors.saturating_add(b.accept_errors),
        handler_panics: a.handler_panics.saturating_add(b.handler_panics),
        handshaking: a.handshaking.saturating_add(b.handshaking),
        waiting: a.waiting.saturating_add(b.waiting),
        open: a.open.saturating_add(b.open),
        sessions: a.sessions.saturating_add(b.sessions),
    }
}
