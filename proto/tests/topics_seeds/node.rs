//! A connection of a client to a node, with the node's side of it: it asks the store, and answers
//! when it comes to it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use unstall_proto::topics::{
    Block, Offset, Opening, Outcome, PublishRequest, Publisher, ReadRequest, Refusal, RejectReason,
    Server, ServerConfig, ServerEvent, ServerReject, Start, StoredAt, SubscribeRequest,
    SubscriptionEnd, SubscriptionKey,
};

use crate::ledger::{Ledger, offset};
use crate::random::Random;

/// What a node has still to do for a connection.
pub enum Task {
    Hello,
    Subscribe(SubscribeRequest),
    Read(ReadRequest),
    /// The store has read, and the node has not heard yet.
    Answer(SubscriptionKey, Arc<Block>, Offset, Offset),
    /// The store has answered, and the node has not heard yet.
    Published(u64, Outcome),
}

/// A connection.
pub struct Link {
    pub client: usize,
    pub node: usize,
    pub client_open: bool,
    /// The node's side, while it is open.
    pub server: Option<Server>,
    pub up: VecDeque<Bytes>,
    pub down: VecDeque<Bytes>,
    pub publisher: Option<Publisher>,
    tasks: Vec<Task>,
    /// What is to be stored, in order. A node goes on with it when the connection is lost.
    pub publishes: VecDeque<(u32, PublishRequest)>,
    /// How often the server was told of a refusal.
    refusals: u32,
    /// How often a message was refused.
    halted: u32,
    /// The end of the log that the node has not told yet.
    pub news: bool,
}

/// How a store and a node fail.
#[derive(Clone, Copy)]
pub struct Faults {
    /// Out of a hundred.
    pub refused: u64,
    pub removed: u64,
    pub damaged: u64,
    pub ended: u64,
    pub rejected: u64,
}

pub const NO_FAULTS: Faults = Faults {
    refused: 0,
    removed: 0,
    damaged: 0,
    ended: 0,
    rejected: 0,
};

/// Where a subscription began, as the node said it.
pub struct Begun {
    pub number: u32,
    pub opening: Opening,
    pub start: Start,
}

impl Link {
    pub fn new(client: usize, node: usize, config: Arc<ServerConfig>) -> Link {
        Link {
            client,
            node,
            client_open: true,
            server: Some(Server::new(config)),
            up: VecDeque::new(),
            down: VecDeque::new(),
            publisher: None,
            tasks: Vec::new(),
            publishes: VecDeque::new(),
            refusals: 0,
            halted: 0,
            news: false,
        }
    }

    /// Nothing can happen here any more.
    pub fn is_done(&self) -> bool {
        !self.client_open && self.server.is_none() && self.publishes.is_empty()
    }

    pub fn close_server(&mut self) {
        self.server = None;
        self.tasks.clear();
        self.up.clear();
    }

    /// The node's process ends.
    pub fn kill(&mut self) {
        self.close_server();
        self.publishes.clear();
    }

    pub fn has_task(&self) -> bool {
        !self.tasks.is_empty() || !self.publishes.is_empty()
    }

    /// The node takes a packet from the wire, and looks what there is to do.
    pub fn receive(&mut self) -> bool {
        let Some(server) = self.server.as_mut().filter(|server| server.wants_input()) else {
            return false;
        };
        let Some(packet) = self.up.pop_front() else {
            return false;
        };
        server
            .handle_packet(packet)
            .expect("the client keeps to the protocol");
        self.poll();
        true
    }

    /// What the server wants.
    pub fn poll(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        while let Some(event) = server.poll_event() {
            match event {
                ServerEvent::Hello(hello) => {
                    self.publisher = hello.publisher;
                    self.tasks.push(Task::Hello);
                }
                ServerEvent::Subscribe(request) => self.tasks.push(Task::Subscribe(request)),
                ServerEvent::Publish(requests) => {
                    let refusals = self.refusals;
                    let all = requests.into_iter().map(|request| (refusals, request));
                    self.publishes.extend(all);
                }
                ServerEvent::Token(_) | ServerEvent::Ended { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        while let Some(read) = server.poll_read() {
            self.tasks.push(Task::Read(read));
        }
    }

    /// Puts a packet on the wire, if it has room.
    pub fn transmit(&mut self, now: StoredAt, room: usize) -> bool {
        let Some(server) = &mut self.server else {
            return false;
        };
        if self.down.len() >= room || !server.wants_transmit() {
            return false;
        }
        let packet = server.poll_transmit(now);
        let sent = packet.is_some();
        self.down.extend(packet.map(|packet| packet.into_bytes()));
        self.poll();
        sent
    }

    /// The node does one of its tasks.
    pub fn work(
        &mut self,
        ledger: &mut Ledger,
        random: &mut Random,
        faults: Faults,
    ) -> Option<Begun> {
        let all = self.tasks.len() + usize::from(!self.publishes.is_empty());
        let chosen = random.below(all.max(1) as u64) as usize;
        if chosen >= self.tasks.len() {
            self.store(ledger, random, faults);
            return None;
        }
        let task = self.tasks.swap_remove(chosen);
        let server = self.server.as_mut()?;
        let mut begun = None;
        match task {
            Task::Hello if random.chance(faults.rejected) => {
                let wait = std::time::Duration::from_secs(1);
                server.reject(ServerReject::new(RejectReason::Full, wait, "too many"));
            }
            Task::Hello => server.welcome(&ledger.info()),
            Task::Subscribe(_) if random.chance(faults.ended) => server.expire(),
            Task::Subscribe(request) if random.chance(faults.ended) => {
                server.end(request.key, SubscriptionEnd::Unavailable, "later");
            }
            Task::Subscribe(request) => begun = Some(subscribe(server, &request, ledger)),
            Task::Read(request) => self.read(request, ledger, random, faults),
            Task::Answer(key, block, through, first) => server.read(key, block, through, first),
            Task::Published(number, outcome) => {
                let refused = matches!(outcome, Outcome::Refused { .. });
                server.published(number, outcome);
                self.refusals += u32::from(refused);
            }
        }
        self.poll();
        begun
    }

    fn read(
        &mut self,
        request: ReadRequest,
        ledger: &mut Ledger,
        random: &mut Random,
        faults: Faults,
    ) {
        let Some(server) = &mut self.server else {
            return;
        };
        if random.chance(faults.damaged) {
            let through = request.after.get() + 1 + random.below(3);
            let through = offset(through.min(request.through.get()));
            return server.read_damaged(request.key, through, false);
        }
        if random.chance(faults.ended) {
            return server.read_failed(request.key, "no answer");
        }
        let tail = random.chance(50).then(|| ledger.tail(&request, random));
        if let Some((block, through)) = tail.flatten() {
            self.tasks
                .push(Task::Answer(request.key, block, through, Offset::START));
            return;
        }
        let (block, through) = ledger.read(&request, random);
        if random.chance(faults.removed) {
            ledger.remove(random.below(10) as usize);
        }
        // After the reading was done.
        let first = ledger.log().first;
        self.tasks
            .push(Task::Answer(request.key, block, through, first));
    }

    /// The next messages are stored.
    fn store(&mut self, ledger: &mut Ledger, random: &mut Random, faults: Faults) {
        for _ in 0..1 + random.below(5) {
            let Some((refusals, request)) = self.publishes.pop_front() else {
                return;
            };
            // Only what was handed over after the server knew of the last refusal is stored.
            let halted = self.halted > refusals;
            let refused = halted || random.chance(faults.refused);
            self.halted += u32::from(refused);
            let outcome = match () {
                () if halted => Outcome::refused(Refusal::Unavailable),
                () if refused && random.chance(50) => Outcome::refused(Refusal::Full),
                () if refused => {
                    if random.chance(50) {
                        ledger.append(self.publisher, &request, random);
                    }
                    Outcome::refused(Refusal::Unknown)
                }
                () => ledger.append(self.publisher, &request, random),
            };
            if self.server.is_some() {
                self.tasks.push(Task::Published(request.number, outcome));
            }
        }
    }
}

/// The node finds out where a subscription begins.
fn subscribe(server: &mut Server, request: &SubscribeRequest, ledger: &Ledger) -> Begun {
    let bounds = ledger.bounds();
    let matching = || {
        let left = ledger.left().iter();
        left.filter(|entry| request.filter.matches(&entry.topic))
    };
    let opening = match request.start {
        Start::Beginning => Opening::beginning(&bounds),
        Start::Now => Opening::now(&bounds),
        Start::After(position) => Opening::after(&bounds, position, ledger.found(position.offset)),
        Start::Last(count) => {
            let nth = matching()
                .rev()
                .nth(count as usize - 1)
                .or(matching().next());
            Opening::sought(
                &bounds,
                nth.map_or(bounds.last, |entry| entry.offset.before()),
            )
        }
        Start::Since(time) => {
            let first = ledger.left().iter().find(|entry| entry.time >= time);
            Opening::sought(
                &bounds,
                first.map_or(bounds.last, |entry| entry.offset.before()),
            )
        }
        Start::Latest(snapshot) => {
            let found = snapshot.map_or(StoredAt::UNKNOWN, |it| ledger.found(it.end.offset));
            Opening::latest(&bounds, snapshot, found)
        }
        other => panic!("{other:?}"),
    };
    server.subscribed(request.key, opening);
    Begun {
        number: request.key.number(),
        opening,
        start: request.start,
    }
}
