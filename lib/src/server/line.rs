//! Clients that wait until their handshake may begin.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map},
    time::Duration,
};

use tokio::time::Instant;

use super::{door::Arrival, holder::Network};
use crate::{defaults::SERVER_HANDSHAKE_PATIENCE, time::later};

/// A queue for each address; the addresses take turns. Bounded: of the address that has most in
/// line, the last to come goes first.
#[derive(Debug)]
pub(super) struct Line {
    most: usize,
    queues: HashMap<Network, Queue>,
    lengths: BTreeSet<(usize, Network)>,
    /// The addresses whose clients may begin, each once, in their order.
    turns: BTreeMap<u64, Network>,
    next_turn: u64,
    len: usize,
    /// When a client last began.
    moved: Instant,
}

#[derive(Debug)]
struct Queue {
    clients: VecDeque<Arrival>,
    /// `None` while its address has as many handshakes under way as it may.
    turn: Option<u64>,
    /// When one of them last began.
    moved: Instant,
}

impl Line {
    /// Of at most so many clients.
    pub(super) fn new(most: usize) -> Line {
        Line {
            most,
            queues: HashMap::new(),
            lengths: BTreeSet::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            len: 0,
            moved: Instant::now(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a client. Returns the one who has to leave instead, if the line is full.
    pub(super) fn push(&mut self, arrival: Arrival) -> Option<Arrival> {
        let network = arrival.network();
        let mut leaves = None;
        if self.len >= self.most {
            let own = self.queues.get(&network).map_or(0, |it| it.clients.len());
            match self.lengths.last() {
                Some((longest, _)) if *longest > own => leaves = self.pop_of_longest(),
                _ => return Some(arrival),
            }
        }
        if let hash_map::Entry::Vacant(place) = self.queues.entry(network) {
            place.insert(Queue {
                clients: VecDeque::with_capacity(1),
                turn: None,
                moved: arrival.since,
            });
            self.resume(network);
        }
        self.change(&network, |clients| clients.push_back(arrival));
        leaves
    }

    /// Whose turn it is.
    pub(super) fn next_turn(&self) -> Option<Network> {
        self.turns.first_key_value().map(|(_, network)| *network)
    }

    /// The first client of this address, which takes its next turn after all others.
    pub(super) fn take(&mut self, network: &Network, now: Instant) -> Option<Arrival> {
        self.moved = now;
        self.queues.get_mut(network)?.moved = now;
        self.suspend(*network);
        let client = self.change(network, VecDeque::pop_front)?;
        self.resume(*network);
        client
    }

    /// The last client of the address that has most in line.
    pub(super) fn pop_of_longest(&mut self) -> Option<Arrival> {
        let (_, network) = *self.lengths.last()?;
        self.change(&network, VecDeque::pop_back)?
    }

    /// Changes a queue; one that is empty goes.
    fn change<T>(
        &mut self,
        network: &Network,
        change: impl FnOnce(&mut VecDeque<Arrival>) -> T,
    ) -> Option<T> {
        let queue = self.queues.get_mut(network)?;
        let before = queue.clients.len();
        let result = change(&mut queue.clients);
        let after = queue.clients.len();
        let turn = queue.turn;
        self.lengths.remove(&(before, *network));
        self.len = self.len - before + after;
        if after > 0 {
            self.lengths.insert((after, *network));
        } else {
            self.queues.remove(network);
            turn.map(|turn| self.turns.remove(&turn));
        }
        Some(result)
    }

    /// The clients of this address may not begin for now.
    pub(super) fn suspend(&mut self, network: Network) {
        let queue = self.queues.get_mut(&network);
        if let Some(turn) = queue.and_then(|queue| queue.turn.take()) {
            self.turns.remove(&turn);
        }
    }

    /// They may begin again.
    pub(super) fn resume(&mut self, network: Network) {
        if let Some(queue) = self.queues.get_mut(&network)
            && queue.turn.is_none()
        {
            queue.turn = Some(self.next_turn);
            self.turns.insert(self.next_turn, network);
            self.next_turn += 1;
        }
    }

    /// Addresses whose clients may not begin for now.
    pub(super) fn suspended(&self) -> Vec<Network> {
        let suspended = self.queues.iter().filter(|(_, it)| it.turn.is_none());
        suspended.map(|(network, _)| *network).collect()
    }

    /// Takes out those for whom no place came free for a second, and those that have waited for
    /// `longest`.
    pub(super) fn overdue(&mut self, now: Instant, longest: Duration) -> Vec<Arrival> {
        let mut overdue = Vec::new();
        let moved = self.moved;
        let networks: Vec<_> = self.queues.keys().copied().collect();
        for network in networks {
            while let Some(queue) = self.queues.get(&network)
                && queue.is_overdue(moved, now, longest)
            {
                overdue.extend(self.change(&network, VecDeque::pop_front).flatten());
            }
        }
        overdue
    }
}

impl Queue {
    /// Whether its first client has waited long enough. `moved`: when a client of any address last
    /// began.
    fn is_overdue(&self, moved: Instant, now: Instant, longest: Duration) -> bool {
        let Some(first) = self.clients.front() else {
            return false;
        };
        let moved = match self.turn {
            Some(_) => moved,
            None => self.moved,
        };
        let patience = later(first.since.max(moved), SERVER_HANDSHAKE_PATIENCE);
        patience <= now || later(first.since, longest) <= now
    }
}
