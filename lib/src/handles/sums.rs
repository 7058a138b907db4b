//! The sums over all connections of the process, those that have ended included.

use std::{
    sync::{LazyLock, Mutex},
    time::Duration,
};

use super::{Shared, register};
use crate::reports::{QueueStats, StallCause, Stats};

/// What connections of one kind on one side have done, and what they hold now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) counts: Counts,
    pub(crate) now: Now,
}

/// What only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) overflowed: u64,
    pub(crate) expired: u64,
    pub(crate) discarded: u64,
    pub(crate) connects: u64,
    pub(crate) reconnects: u64,
    pub(crate) resumes: u64,
    pub(crate) stalled: [Duration; StallCause::ALL.len()],
}

/// The present state of the connections that are alive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    pub(crate) open: usize,
    pub(crate) connecting: usize,
    pub(crate) closing: usize,
    pub(crate) held_bytes: usize,
    pub(crate) inbox: QueueNow,
    pub(crate) outbox: QueueNow,
    pub(crate) spilled_bytes: u64,
    /// How many wait for each cause.
    pub(crate) stalled: [usize; StallCause::ALL.len()],
}

/// What a connection does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(not(feature = "status"), allow(unreachable_pub))]
pub enum ConnectionState {
    /// It is open.
    Open,
    /// There is no connection. A client connects, or a server waits for the client of a session.
    Connecting,
    /// It was asked to close, or has ended while the application still holds a handle of it.
    Closing,
}

impl ConnectionState {
    pub(crate) fn of(shared: &Shared, stats: &Stats) -> ConnectionState {
        let is_connecting = stats.stalled_by().any(|it| it == StallCause::Connecting);
        match (shared.is_closing(), is_connecting) {
            (true, _) => ConnectionState::Closing,
            (false, true) => ConnectionState::Connecting,
            (false, false) => ConnectionState::Open,
        }
    }
}

/// The queues of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueNow {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
    /// The most that ever waited for one of the connections.
    pub(crate) high_water: usize,
    /// How long the oldest message of all has waited.
    pub(crate) oldest: Duration,
}

/// One kind of connection on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) is_server: bool,
    pub(crate) is_session: bool,
}

pub(crate) const GROUPS: [Group; 4] = [
    Group {
        is_server: false,
        is_session: false,
    },
    Group {
        is_server: false,
        is_session: true,
    },
    Group {
        is_server: true,
        is_session: false,
    },
    Group {
        is_server: true,
        is_session: true,
    },
];

impl Group {
    fn of(shared: &Shared) -> Group {
        Group {
            is_server: shared.is_server(),
            is_session: shared.is_session(),
        }
    }

    fn place(self) -> usize {
        usize::from(self.is_server) * 2 + usize::from(self.is_session)
    }
}

/// The counts of the connections that have ended.
static ENDED: LazyLock<Mutex<[Counts; GROUPS.len()]>> = LazyLock::new(Mutex::default);

/// Keeps the counts of a connection that is dropped.
pub(super) fn add_ended(shared: &Shared) {
    let (group, stats) = (Group::of(shared), shared.stats());
    let mut ended = ENDED.lock().unwrap();
    if let Some(counts) = ended.get_mut(group.place()) {
        counts.add(&stats);
    }
}

/// The sums of each group, in the order of [`GROUPS`]. It visits each connection once.
pub(crate) fn all() -> [Sums; GROUPS.len()] {
    all_with(|_, _| {})
}

/// The same, and shows each connection to `visit`. No lock is held meanwhile.
pub(crate) fn all_with(mut visit: impl FnMut(&Shared, Stats)) -> [Sums; GROUPS.len()] {
    let mut sums = [Sums::default(); GROUPS.len()];
    // A connection that ends in between is in neither. Counters only grow, so it is there next time.
    let living = register::living();
    let ended = *ENDED.lock().unwrap();
    for (sums, counts) in sums.iter_mut().zip(ended) {
        sums.counts = counts;
    }
    for shared in living {
        if let Some(sums) = sums.get_mut(Group::of(&shared).place()) {
            let stats = shared.stats();
            sums.counts.add(&stats);
            sums.now.add(&shared, &stats);
            visit(&shared, stats);
        }
    }
    sums
}

impl Counts {
    fn add(&mut self, stats: &Stats) {
        let plus = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        plus(&mut self.messages_sent, stats.messages_sent);
        plus(&mut self.bytes_sent, stats.bytes_sent);
        plus(&mut self.messages_received, stats.messages_received);
        plus(&mut self.bytes_received, stats.bytes_received);
        plus(&mut self.overflowed, stats.overflowed);
        plus(&mut self.expired, stats.expired);
        plus(&mut self.discarded, stats.discarded);
        plus(&mut self.connects, stats.connections.min(1));
        plus(&mut self.reconnects, stats.connections.saturating_sub(1));
        plus(&mut self.resumes, stats.resumes);
        for (sum, stall) in self.stalled.iter_mut().zip(&stats.stalls) {
            *sum = sum.saturating_add(stall.total);
        }
    }
}

impl Now {
    fn add(&mut self, shared: &Shared, stats: &Stats) {
        let plus = |sum: &mut usize, more: usize| *sum = sum.saturating_add(more);
        let state = match ConnectionState::of(shared, stats) {
            ConnectionState::Open => &mut self.open,
            ConnectionState::Connecting => &mut self.connecting,
            ConnectionState::Closing => &mut self.closing,
        };
        plus(state, 1);
        plus(&mut self.held_bytes, shared.account.held());
        self.inbox.add(&stats.inbox);
        self.outbox.add(&stats.outbox);
        self.spilled_bytes = self.spilled_bytes.saturating_add(stats.spilled.1);
        for (sum, stall) in self.stalled.iter_mut().zip(&stats.stalls) {
            plus(sum, usize::from(stall.now.is_some()));
        }
    }
}

impl QueueNow {
    fn add(&mut self, queue: &QueueStats) {
        self.messages = self.messages.saturating_add(queue.messages);
        self.bytes = self.bytes.saturating_add(queue.bytes);
        self.limit = self.limit.saturating_add(queue.limit);
        self.high_water = self.high_water.max(queue.high_water);
        self.oldest = self.oldest.max(queue.oldest.unwrap_or_default());
    }
}
