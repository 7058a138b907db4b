//! Admission to handshakes: which clients may begin, which wait in line, and which handshakes are
//! closed to make room.
//!
//! Handshakes are bounded in number, in total and per address. Clients above a limit wait in line.
//! Only a handshake that began more than a second ago, and that waits for its client, is closed for
//! another client. It is the oldest one of the address with the most handshakes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::{
    crowd::Crowd, holder::Network, limits::Limit, line::Line, places::Over, proxies::PeerAddr,
    stats::Counter,
};
use crate::{defaults::SERVER_HANDSHAKE_PATIENCE, time::later, ws::transport::Transport};

/// A connection that arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) stream: Transport,
    pub(super) peer: PeerAddr,
    pub(super) since: Instant,
}

impl Arrival {
    pub(super) fn network(&self) -> Network {
        self.peer.network()
    }
}

#[derive(Debug)]
pub(super) struct Door {
    limit: Limit,
    state: Mutex<Handshakes>,
    /// A slot came free while a client waits in line.
    freed: Notify,
    evicted: Counter,
}

#[derive(Debug)]
struct Handshakes {
    next: u64,
    under_way: HashMap<u64, UnderWay>,
    /// Handshakes by address; a lower number is older. Those that wait for their client may be
    /// closed.
    crowd: Crowd<Network, u64>,
    line: Line,
}

#[derive(Debug)]
struct UnderWay {
    network: Network,
    began: Instant,
    waits_for_client: bool,
    task: Option<AbortHandle>,
}

impl Door {
    /// `limit` bounds the handshakes, and `line` the clients that wait in line.
    pub(super) fn new(limit: Limit, line: usize) -> Arc<Door> {
        Arc::new(Door {
            limit,
            state: Mutex::new(Handshakes {
                next: 0,
                under_way: HashMap::new(),
                crowd: Crowd::default(),
                line: Line::new(line),
            }),
            freed: Notify::new(),
            evicted: Counter::default(),
        })
    }

    /// Puts a client into the line. If the line is full, returns the client that has to leave.
    pub(super) fn arrived(&self, arrival: Arrival) -> Option<Arrival> {
        self.state.lock().unwrap().line.push(arrival)
    }

    /// The next client that may begin, with its slot. The caller starts a task for it and calls
    /// [`started`](Door::started).
    pub(super) fn next(self: &Arc<Self>, now: Instant) -> Option<(Arrival, Slot)> {
        let (next, evicted) = self.state.lock().unwrap().next(&self.limit, now);
        self.close(evicted);
        let (arrival, id) = next?;
        let door = self.clone();
        Some((arrival, Slot { door, id }))
    }

    /// A slot for one more handshake over a connection that is open already, if there is one.
    #[cfg(any(feature = "axum", feature = "http2"))]
    pub(super) fn enter(self: &Arc<Self>, network: Network, now: Instant) -> Option<Slot> {
        let state = &mut *self.state.lock().unwrap();
        let full = state.crowd.members(&network) >= self.limit.of_network(&network)
            || state.under_way.len() >= self.limit.all;
        (!full).then(|| Slot {
            door: self.clone(),
            id: state.begin(network, now),
        })
    }

    /// Records the task that runs this handshake.
    pub(super) fn started(&self, id: u64, task: AbortHandle) {
        if let Some(handshake) = self.state.lock().unwrap().under_way.get_mut(&id) {
            handshake.task = Some(task);
        }
    }

    /// Lets clients of an address at its limit try again, if one of its handshakes can be closed by
    /// now. Called at intervals while clients wait.
    pub(super) fn look_again(&self, now: Instant) {
        let state = &mut *self.state.lock().unwrap();
        for network in state.line.suspended() {
            if state.due(state.crowd.oldest_of(&network), now).is_some() {
                state.line.resume(network);
            }
        }
    }

    /// Removes the clients that have waited too long; see [`Line::overdue`].
    pub(super) fn overdue(&self, now: Instant, longest: Duration) -> Vec<Arrival> {
        self.state.lock().unwrap().line.overdue(now, longest)
    }

    /// Frees a file descriptor when the process has none left. Closes a handshake that waits for
    /// its client; if there is none, returns a client of the line, for the caller to close. Both
    /// are of the address that has most.
    pub(super) fn relieve(&self, now: Instant) -> Option<Arrival> {
        let mut state = self.state.lock().unwrap();
        let first = state.crowd.first().map(|(_, id)| id);
        match state.due(first, now) {
            Some(id) => {
                let evicted = state.remove(id);
                drop(state);
                self.close(evicted);
                None
            }
            None => state.line.pop_of_longest(),
        }
    }

    fn close(&self, handshake: Option<UnderWay>) {
        if let Some(handshake) = handshake {
            self.evicted.add();
            handshake.task.iter().for_each(AbortHandle::abort);
        }
    }

    /// Resolves when a slot came free while a client waited. Cancel safe.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// How many handshakes were closed for another client.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.get()
    }

    /// Handshakes under way.
    pub(super) fn handshaking(&self) -> usize {
        self.state.lock().unwrap().under_way.len()
    }

    /// Clients that wait in line.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().unwrap().line.len()
    }
}

impl Handshakes {
    /// The next client that may begin, with the number of its handshake, and the handshake to close
    /// for it.
    fn next(&mut self, limit: &Limit, now: Instant) -> (Option<(Arrival, u64)>, Option<UnderWay>) {
        while let Some(network) = self.line.next_turn() {
            let mut goes = None;
            if self.crowd.members(&network) >= limit.of_network(&network) {
                goes = self.due(self.crowd.oldest_of(&network), now);
                if goes.is_none() {
                    // It waits until a handshake of its own address ends or can be closed.
                    self.line.suspend(network);
                    continue;
                }
            } else if self.under_way.len() >= limit.all {
                goes = self.due(self.who_goes_for(&network), now);
                if goes.is_none() {
                    break;
                }
            }
            let evicted = goes.and_then(|id| self.remove(id));
            let arrival = self.line.take(&network, now);
            let next = arrival.map(|arrival| (arrival, self.begin(network, now)));
            return (next, evicted);
        }
        (None, None)
    }

    fn begin(&mut self, network: Network, now: Instant) -> u64 {
        let id = self.next;
        self.next += 1;
        let handshake = UnderWay {
            network,
            began: now,
            waits_for_client: true,
            task: None,
        };
        self.under_way.insert(id, handshake);
        self.crowd.join(&network);
        self.crowd.release(&network, id);
        id
    }

    /// The handshake to close for a client of this address: the oldest one of the address that has
    /// most. If no other address has more, it is one of its own.
    fn who_goes_for(&self, network: &Network) -> Option<u64> {
        match self.crowd.first() {
            Some((members, id)) if members > self.crowd.members(network) => Some(id),
            _ => self.crowd.oldest_of(network),
        }
    }

    /// This handshake, if it began long enough ago to be closed.
    fn due(&self, id: Option<u64>, now: Instant) -> Option<u64> {
        id.filter(|id| {
            let handshake = self.under_way.get(id);
            handshake.is_some_and(|it| later(it.began, SERVER_HANDSHAKE_PATIENCE) <= now)
        })
    }

    fn remove(&mut self, id: u64) -> Option<UnderWay> {
        let handshake = self.under_way.remove(&id)?;
        self.crowd.hold(&handshake.network, id);
        self.crowd.leave(&handshake.network);
        self.line.resume(handshake.network);
        Some(handshake)
    }
}

/// A slot among the handshakes. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Slot {
    door: Arc<Door>,
    pub(super) id: u64,
}

impl Slot {
    /// Sets whether the handshake waits for its client. While it waits for the server, it is not
    /// closed for another client.
    pub(super) fn waits_for_client(&self, waits: bool) {
        let state = &mut *self.door.state.lock().unwrap();
        let Some(handshake) = state.under_way.get_mut(&self.id) else {
            return;
        };
        handshake.waits_for_client = waits;
        match waits {
            true => state.crowd.release(&handshake.network, self.id),
            false => state.crowd.hold(&handshake.network, self.id),
        }
    }

    /// Counts the handshake for the client's real address, which a proxy reported.
    pub(super) fn moved_to(&self, network: Network) -> Result<(), Over> {
        let state = &mut *self.door.state.lock().unwrap();
        let Some(handshake) = state.under_way.get_mut(&self.id) else {
            return Ok(());
        };
        if handshake.network == network {
            return Ok(());
        }
        let before = std::mem::replace(&mut handshake.network, network);
        let full = state.crowd.members(&network) >= self.door.limit.of_network(&network);
        state.crowd.hold(&before, self.id);
        state.crowd.leave(&before);
        state.crowd.join(&network);
        if handshake.waits_for_client {
            state.crowd.release(&network, self.id);
        }
        state.line.resume(before);
        self.door.freed.notify_one();
        match full {
            true => Err(Over::Address),
            false => Ok(()),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.door.state.lock().unwrap();
        if state.remove(self.id).is_some() && state.line.len() > 0 {
            self.door.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
