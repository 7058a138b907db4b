//! The line: clients that wait for their handshake to begin.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map},
    time::Duration,
};

use tokio::time::Instant;

use super::{door::Arrival, holder::Network};
use crate::{defaults::SERVER_HANDSHAKE_PATIENCE, time::later};

/// A queue for each address; the addresses take turns. When the line is full, the newest client of
/// the address with the most clients has to leave.
#[derive(Debug)]
pub(super) struct Line {
    most: usize,
    queues: HashMap<Network, Waiting>,
    lengths: BTreeSet<(usize, Network)>,
    /// The addresses whose clients may begin, in the order of their turns.
    turns: BTreeMap<u64, Network>,
    next_turn: u64,
    len: usize,
    /// When a client last began.
    moved: Instant,
}

#[derive(Debug)]
struct Waiting {
    clients: VecDeque<Arrival>,
    /// `None` while its address has reached its limit of handshakes.
    turn: Option<u64>,
    /// When a client of this address last began.
    moved: Instant,
}

impl Line {
    /// A line of at most `most` clients.
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

    /// Adds a client. If the line is full, returns the client that has to leave.
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
            place.insert(Waiting {
                clients: VecDeque::with_capacity(1),
                turn: None,
                moved: arrival.since,
            });
            self.resume(network);
        }
        self.change(&network, |clients| clients.push_back(arrival));
        leaves
    }

    /// The address whose turn it is.
    pub(super) fn next_turn(&self) -> Option<Network> {
        self.turns.first_key_value().map(|(_, network)| *network)
    }

    /// Takes out the first client of this address. The address's next turn comes after all others.
    pub(super) fn take(&mut self, network: &Network, now: Instant) -> Option<Arrival> {
        self.moved = now;
        self.queues.get_mut(network)?.moved = now;
        self.suspend(*network);
        let client = self.change(network, VecDeque::pop_front)?;
        self.resume(*network);
        client
    }

    /// Takes out the newest client of the address that has most in line.
    pub(super) fn pop_of_longest(&mut self) -> Option<Arrival> {
        let (_, network) = *self.lengths.last()?;
        self.change(&network, VecDeque::pop_back)?
    }

    /// Changes the queue of an address, and removes it once it is empty.
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

    /// Keeps the clients of this address from beginning, until [`resume`](Line::resume).
    pub(super) fn suspend(&mut self, network: Network) {
        let queue = self.queues.get_mut(&network);
        if let Some(turn) = queue.and_then(|queue| queue.turn.take()) {
            self.turns.remove(&turn);
        }
    }

    /// Lets the clients of this address begin again.
    pub(super) fn resume(&mut self, network: Network) {
        if let Some(queue) = self.queues.get_mut(&network)
            && queue.turn.is_none()
        {
            queue.turn = Some(self.next_turn);
            self.turns.insert(self.next_turn, network);
            self.next_turn += 1;
        }
    }

    /// The addresses that are suspended.
    pub(super) fn suspended(&self) -> Vec<Network> {
        let suspended = self.queues.iter().filter(|(_, it)| it.turn.is_none());
        suspended.map(|(network, _)| *network).collect()
    }

    /// Takes out the clients that have waited too long. No client could begin for a second, or they
    /// have waited for `longest`.
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

impl Waiting {
    /// Whether its first client has waited too long. `moved` is when a client of any address last
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
