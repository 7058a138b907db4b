//! Each connection of this process as it is now, and what happened to it: for a page or a health
//! endpoint that shows them.
//!
//! Everything here is read from what connections keep anyway. Between two looks it costs nothing, apart
//! from the last events of the last [`ENDED_KEPT`](crate::defaults::ENDED_KEPT) connections that ended. It
//! shows no payload, header, token or URL.
//!
//! ```
//! let look = unstall::status::look();
//! for connection in &look.connections {
//!     let id = connection.stats.id;
//!     for cause in connection.stats.stalled_by() {
//!         println!("connection {id} waits: {cause}");
//!     }
//! }
//! println!("{} are open", look.totals.open);
//! ```

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use crate::handles::sums::ConnectionState;
pub use crate::reports::recoveries::Recovery;
use crate::{
    handles::{
        Shared, past, register,
        sums::{self, GROUPS, Group, Sums},
    },
    reports::{Event, StallCause, Stats, recoveries},
};

/// A connection as it is now. A session is one, however many connections it has had.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Its counters, queues and waits. [`Stats::id`] stays the same over reconnects.
    pub stats: Stats,
    /// The peer's address, as in [`Connection::peer_addr`](crate::Connection::peer_addr).
    pub peer: Option<SocketAddr>,
    /// The name of the [`Principal`](crate::Principal) that the authentication hook gave.
    pub principal: Option<Arc<str>>,
    /// Whether the present connection, or the last one, carries a session.
    pub is_session: bool,
    /// Whether this process took the upgrade request. Streams that were adopted count as clients.
    pub is_server: bool,
    /// How long ago it was made.
    pub age: Duration,
    /// What it does.
    pub state: ConnectionState,
    /// All bytes that are held for it.
    pub held_bytes: usize,
}

/// The sums over all connections of the process.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections that are open now.
    pub open: usize,
    /// Connections that are lost or not yet made.
    pub connecting: usize,
    /// Connections that were asked to close.
    pub closing: usize,
    /// How many of all these are sessions.
    pub sessions: usize,
    /// How many of all these are on the server's side.
    pub server: usize,
    /// Messages written to sockets, ended connections included. This holds for all counters here.
    pub messages_sent: u64,
    /// Their bytes, as in [`Stats::bytes_sent`].
    pub bytes_sent: u64,
    /// Messages read from sockets.
    pub messages_received: u64,
    /// Their bytes, as in [`Stats::bytes_received`].
    pub bytes_received: u64,
    /// Messages that wait in all inboxes now, and their bytes.
    pub inbox: (usize, usize),
    /// Messages that wait in all outboxes now, and their bytes.
    pub outbox: (usize, usize),
    /// All bytes that are held for connections now.
    pub held_bytes: usize,
    /// Bytes that wait in spill files now.
    pub spilled_bytes: u64,
    /// First connections.
    pub connects: u64,
    /// Connections after a loss.
    pub reconnects: u64,
    /// Sessions that resumed.
    pub resumes: u64,
    /// Messages that an overflow policy dropped, that expired, or that nobody received.
    pub dropped: u64,
    /// How many connections wait for each cause now, and the time of all waits, in the order of
    /// [`StallCause::ALL`]. Ended connections and present waits are included in the time.
    pub stalled: [(usize, Duration); StallCause::ALL.len()],
}

/// What [`look`] saw.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Look {
    /// The sums.
    pub totals: Totals,
    /// The connections that are alive, in no order.
    pub connections: Vec<ConnectionStatus>,
}

/// The sums, and each connection that is alive. It visits each once and waits for nothing: 10,000
/// connections take some milliseconds.
pub fn look() -> Look {
    let mut connections = Vec::new();
    let sums = sums::all_with(|shared, stats| connections.push(status(shared, stats)));
    Look {
        totals: total(&sums),
        connections,
    }
}

/// The sums alone. It visits each connection once, too, and keeps less.
pub fn totals() -> Totals {
    total(&sums::all())
}

/// One connection by its number ([`Stats::id`]), if it is alive.
pub fn connection(id: u64) -> Option<ConnectionStatus> {
    register::find(id).map(|shared| status(&shared, shared.stats()))
}

/// The events of a connection that are kept, and when they happened, the oldest first: at most
/// [`EVENT_BACKLOG`](crate::defaults::EVENT_BACKLOG). Of a connection that has ended they are the last
/// [`ENDED_KEPT_EVENTS`](crate::defaults::ENDED_KEPT_EVENTS), as long as no more than
/// [`ENDED_KEPT`](crate::defaults::ENDED_KEPT) ended after it. `None` if nothing is known of it.
pub fn events(id: u64) -> Option<Vec<(SystemTime, Event)>> {
    match register::find(id) {
        Some(shared) => Some(shared.events.kept(usize::MAX)),
        None => past::events(id),
    }
}

/// The recoveries behind this [number](Recovery::number), the oldest first. The last
/// [`RECOVERIES_KEPT`](crate::defaults::RECOVERIES_KEPT) of the process are kept. Give 0 for all.
pub fn recoveries(behind: u64) -> Vec<Recovery> {
    recoveries::behind(behind)
}

/// What all servers of the process have counted, and hold now. `None` if there was never one.
#[cfg(feature = "server")]
pub fn servers() -> Option<ServersStatus> {
    let sums = crate::server::roll::all();
    (sums.servers > 0).then_some(ServersStatus {
        stats: sums.stats,
        held_bytes: sums.held_bytes,
        held_limit_bytes: sums.held_limit_bytes,
    })
}

/// All servers of the process.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServersStatus {
    /// Their counters, and how they are now.
    pub stats: crate::ServerStats,
    /// Bytes that are held for clients now.
    pub held_bytes: usize,
    /// The limit of that.
    pub held_limit_bytes: usize,
}

fn status(shared: &Shared, stats: Stats) -> ConnectionStatus {
    let identity = shared.identity();
    ConnectionStatus {
        peer: identity.peer_addr(),
        principal: principal(&identity),
        is_session: shared.is_session(),
        is_server: shared.is_server(),
        age: shared.since.elapsed(),
        state: ConnectionState::of(shared, &stats),
        held_bytes: shared.account.held(),
        stats,
    }
}

#[cfg(feature = "server")]
fn principal(identity: &crate::handles::Identity) -> Option<Arc<str>> {
    let request = identity.request.as_ref()?;
    let principal = request.extensions().get::<crate::Principal>()?;
    Some(principal.name())
}

#[cfg(not(feature = "server"))]
fn principal(_: &crate::handles::Identity) -> Option<Arc<str>> {
    None
}

fn total(sums: &[Sums; GROUPS.len()]) -> Totals {
    let mut totals = Totals::default();
    for (group, sums) in GROUPS.into_iter().zip(sums) {
        totals.add(group, sums);
    }
    totals
}

impl Totals {
    fn add(&mut self, group: Group, sums: &Sums) {
        let plus = |sum: &mut usize, more: usize| *sum = sum.saturating_add(more);
        let (now, counts) = (&sums.now, &sums.counts);
        let alive = now.open.saturating_add(now.connecting);
        let alive = alive.saturating_add(now.closing);
        for (sum, more) in [
            (&mut self.open, now.open),
            (&mut self.connecting, now.connecting),
            (&mut self.closing, now.closing),
            (&mut self.sessions, if group.is_session { alive } else { 0 }),
            (&mut self.server, if group.is_server { alive } else { 0 }),
            (&mut self.inbox.0, now.inbox.messages),
            (&mut self.inbox.1, now.inbox.bytes),
            (&mut self.outbox.0, now.outbox.messages),
            (&mut self.outbox.1, now.outbox.bytes),
            (&mut self.held_bytes, now.held_bytes),
        ] {
            plus(sum, more);
        }
        let dropped = [counts.overflowed, counts.expired, counts.discarded];
        for (sum, more) in [
            (&mut self.messages_sent, counts.messages_sent),
            (&mut self.bytes_sent, counts.bytes_sent),
            (&mut self.messages_received, counts.messages_received),
            (&mut self.bytes_received, counts.bytes_received),
            (&mut self.spilled_bytes, now.spilled_bytes),
            (&mut self.connects, counts.connects),
            (&mut self.reconnects, counts.reconnects),
            (&mut self.resumes, counts.resumes),
            (
                &mut self.dropped,
                dropped.into_iter().fold(0, u64::saturating_add),
            ),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (nth, (waiting, time)) in self.stalled.iter_mut().enumerate() {
            plus(waiting, now.stalled.get(nth).copied().unwrap_or_default());
            let more = counts.stalled.get(nth).copied().unwrap_or_default();
            *time = time.saturating_add(more);
        }
    }
}
