//! Who may begin a handshake, who waits for one, and which handshakes have to go.
//!
//! Handshakes are bounded in number, altogether and per address. Clients above a limit wait in
//! line. A handshake is only closed for another client when its own client has been silent for a
//! second; then the address that has most handshakes under way loses its oldest one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpStream, sync::Notify, task::AbortHandle, time::Instant};

use super::{
    crowd::Crowd, holder::Network, limits::Limit, line::Line, places::Over, stats::Counter,
};
use crate::{defaults::SERVER_HANDSHAKE_PATIENCE, time::later};

/// A TCP connection that arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) since: Instant,
}

impl Arrival {
    pub(super) fn network(&self) -> Network {
        Network::of(Some(self.peer))
    }
}

#[derive(Debug)]
pub(super) struct Door {
    limit: Limit,
    state: Mutex<State>,
    /// A place came free while somebody waits.
    freed: Notify,
    evicted: Counter,
}

#[derive(Debug)]
struct State {
    next: u64,
    under_way: HashMap<u64, UnderWay>,
    /// Handshakes by address, the lower number is the older. Those that wait for their client may
    /// go.
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
    /// For so many handshakes, and so many clients in line.
    pub(super) fn new(limit: Limit, line: usize) -> Arc<Door> {
        Arc::new(Door {
            limit,
            state: Mutex::new(State {
                next: 0,
                under_way: HashMap::new(),
                crowd: Crowd::default(),
                line: Line::new(line),
            }),
            freed: Notify::new(),
            evicted: Counter::default(),
        })
    }

    /// A client arrived and waits. Returns one that finds no place in the line any more.
    pub(super) fn arrived(&self, arrival: Arrival) -> Option<Arrival> {
        self.state.lock().unwrap().line.push(arrival)
    }

    /// The next client that may begin, and its place among the handshakes. The caller starts a task
    /// for it and tells [`started`](Door::started).
    pub(super) fn next(self: &Arc<Self>, now: Instant) -> Option<(Arrival, Entry)> {
        let (next, evicted) = self.state.lock().unwrap().next(&self.limit, now);
        self.close(evicted);
        let (arrival, id) = next?;
        let door = self.clone();
        Some((arrival, Entry { door, id }))
    }

    /// The handshake of this entry runs in this task.
    pub(super) fn started(&self, id: u64, task: AbortHandle) {
        if let Some(handshake) = self.state.lock().unwrap().under_way.get_mut(&id) {
            handshake.task = Some(task);
        }
    }

    /// Looks again at clients whose own address has as many handshakes under way as it may: by now
    /// one of them may have stalled for long enough. Called now and then while somebody waits.
    pub(super) fn look_again(&self, now: Instant) {
        let state = &mut *self.state.lock().unwrap();
        for network in state.line.suspended() {
            if state.due(state.crowd.oldest_of(&network), now).is_some() {
                state.line.resume(network);
            }
        }
    }

    /// Those who have waited too long, in vain or for longer than `longest`.
    pub(super) fn overdue(&self, now: Instant, longest: Duration) -> Vec<Arrival> {
        self.state.lock().unwrap().line.overdue(now, longest)
    }

    /// The process has no file descriptors left: closes one socket, of the address that has most.
    /// It belongs to a silent handshake, or to a client that waits, who is returned.
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

    /// Resolves when a place came free while somebody waited. Cancel safe.
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

    /// Clients that wait.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().unwrap().line.len()
    }
}

impl State {
    /// The next client that may begin, with the number of its handshake, and the handshake that has
    /// to go for it.
    fn next(&mut self, limit: &Limit, now: Instant) -> (Option<(Arrival, u64)>, Option<UnderWay>) {
        while let Some(network) = self.line.next_turn() {
            let mut goes = None;
            if self.crowd.members(&network) >= limit.per_address {
                goes = self.due(self.crowd.oldest_of(&network), now);
                if goes.is_none() {
                    // Until one of its own ends, or has stalled for long enough.
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

    /// Which handshake would have to go for a client of this address: the oldest of the address that
    /// has most of them, or of its own if no other has more.
    fn who_goes_for(&self, network: &Network) -> Option<u64> {
        match self.crowd.first() {
            Some((members, id)) if members > self.crowd.members(network) => Some(id),
            _ => self.crowd.oldest_of(network),
        }
    }

    /// This handshake, if it has had its time.
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

/// A place among the handshakes; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    door: Arc<Door>,
    pub(super) id: u64,
}

impl Entry {
    /// Whether the client is the one who has to act now. While the server has to, the handshake is
    /// not closed for another client.
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

    /// A proxy told the client's real address, for which it counts from now on.
    pub(super) fn moved_to(&self, network: Network) -> Result<(), Over> {
        let state = &mut *self.door.state.lock().unwrap();
        let Some(handshake) = state.under_way.get_mut(&self.id) else {
            return Ok(());
        };
        if handshake.network == network {
            return Ok(());
        }
        let before = std::mem::replace(&mut handshake.network, network);
        let full = state.crowd.members(&network) >= self.door.limit.per_address;
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

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.door.state.lock().unwrap();
        if state.remove(self.id).is_some() && state.line.len() > 0 {
            self.door.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
