//! Everything that can happen to one client, its connections and a small log, in every order: that a
//! message is stored once over any cuts, and that history and live meet without a seam. The real
//! values are checked exhaustively by a model checker.
//!
//! Each single thing that can happen is a step: a message is published, a connection is made or is
//! lost on one side, a packet arrives, the store does its next task, the store's answer reaches the
//! server. What a side has to send goes on its way at once. Only the last connection is never lost,
//! so each run comes to an end.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use stateright::{Checker, Model, Property};
use unstall_proto::topics::{
    AccessToken, Block, Client, ClientConfig, ClientEvent, Delivery, Durability, Filter, LogBounds,
    LogId, LogInfo, Offset, Opening, Outcome, PublishRequest, Publisher, ReadRequest, Refusal,
    Server, ServerConfig, ServerEvent, Start, StoredAt, StoredMessage, SubscribeOptions,
    SubscriptionId, SubscriptionKey, Topic,
};
use unstall_proto::{Kind, Time};

const LOG: LogId = LogId([7; 16]);
const PUBLISHER: Publisher = Publisher {
    id: [1; 16],
    epoch: 1,
};

/// How far a model goes.
#[derive(Clone, Copy)]
struct Bounds {
    /// How many messages the client publishes.
    messages: u64,
    /// How many messages somebody else publishes.
    others: u64,
    /// How many messages the log has when it begins.
    history: u64,
    connections: usize,
    /// How many messages the store refuses.
    refusals: usize,
    /// How often retention removes a message.
    removals: usize,
    subscribes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Publish,
    Append,
    Remove,
    Connect,
    LoseOnClient(usize),
    LoseOnServer(usize),
    ToServer(usize),
    ToClient(usize),
    Store(usize),
    Refuse(usize),
    Read(usize),
    Answer(usize),
    News(usize),
}

/// What the store answers, on its way to the server.
#[derive(Clone, Debug)]
enum Reply {
    Stored(u64, Outcome),
    Read(SubscriptionKey, Arc<Block>, Offset, Offset),
}

#[derive(Clone, Debug)]
struct Link {
    client_open: bool,
    server: Option<Server>,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    publishes: VecDeque<PublishRequest>,
    reads: VecDeque<ReadRequest>,
    replies: VecDeque<Reply>,
    news: bool,
    /// Nothing that was handed over before the refusal was told is stored.
    halted: bool,
}

#[derive(Clone, Debug)]
struct World {
    client: Client,
    subscription: Option<SubscriptionId>,
    published: u64,
    others: u64,
    refusals: usize,
    removals: usize,
    links: Vec<Link>,
    /// The messages in order, by their number; 0 is somebody else's. The offset is the place from 1.
    log: Vec<u64>,
    first: u64,
    highest: u64,
    /// Everything up to here was delivered or is in a gap.
    cursor: u64,
    begun: bool,
    caught_up: bool,
    /// Of the client's messages, by number from 1.
    fates: Vec<Option<Fate>>,
    broken: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    NotStored,
    Unknown,
}

/// All of a world's state shows in its debug form.
#[derive(Clone, Debug)]
struct State(World);

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{:?}", self.0).hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let hash = |state: &State| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn time(number: u64) -> StoredAt {
    StoredAt::new(1_000 + number).unwrap()
}

impl World {
    fn new(bounds: &Bounds) -> World {
        let mut client = Client::new(ClientConfig::new().publisher(PUBLISHER));
        let subscription = bounds.subscribes.then(|| {
            let options = SubscribeOptions::new();
            client.subscribe(Filter::all(), Start::Beginning, options)
        });
        World {
            client,
            subscription,
            published: 0,
            others: 0,
            refusals: 0,
            removals: 0,
            links: Vec::new(),
            log: vec![0; bounds.history as usize],
            first: 1,
            highest: 0,
            cursor: 0,
            begun: false,
            caught_up: false,
            fates: Vec::new(),
            broken: None,
        }
    }

    fn bounds(&self) -> LogBounds {
        let last = self.log.len() as u64;
        LogBounds {
            log: LOG,
            first: offset(self.first),
            last: offset(last),
            last_time: if last > 0 {
                time(last)
            } else {
                StoredAt::UNKNOWN
            },
        }
    }

    fn breaks(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert(what.into());
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Publish => {
                self.published += 1;
                let topic = Topic::new("a").unwrap();
                let number = self
                    .client
                    .publish(topic, Kind::Binary, false, Bytes::new());
                assert_eq!(number, Ok(self.published));
                self.fates.push(None);
            }
            Action::Append => {
                self.others += 1;
                self.append(0);
            }
            Action::Remove => {
                self.removals += 1;
                self.first += 1;
            }
            Action::Connect => {
                self.client.attach(Time::ORIGIN, AccessToken::NONE);
                self.links.push(Link {
                    client_open: true,
                    server: Some(Server::new(Arc::new(ServerConfig::new()))),
                    up: VecDeque::new(),
                    down: VecDeque::new(),
                    publishes: VecDeque::new(),
                    reads: VecDeque::new(),
                    replies: VecDeque::new(),
                    news: false,
                    halted: false,
                });
            }
            Action::LoseOnClient(link) => {
                self.links[link].client_open = false;
                self.links[link].down.clear();
                self.client.detach(Time::ORIGIN);
            }
            Action::LoseOnServer(link) => self.lose_server(link),
            Action::ToServer(link) => self.server_receives(link),
            Action::ToClient(link) => {
                let packet = self.links[link].down.pop_front().unwrap();
                if let Err(error) = self.client.handle_packet(Time::ORIGIN, packet) {
                    self.breaks(error.to_string());
                }
            }
            Action::Store(link) => self.store(link, false),
            Action::Refuse(link) => self.store(link, true),
            Action::Read(link) => self.read(link),
            Action::Answer(link) => self.answer(link),
            Action::News(link) => {
                let bounds = self.bounds();
                self.links[link].news = false;
                if let Some(server) = &mut self.links[link].server {
                    server.set_end(bounds.last, bounds.last_time);
                }
            }
        }
        self.settle();
    }

    fn lose_server(&mut self, link: usize) {
        let link = &mut self.links[link];
        link.server = None;
        link.up.clear();
        link.reads.clear();
        link.replies.clear();
        link.news = false;
    }

    fn server_receives(&mut self, link: usize) {
        let packet = self.links[link].up.pop_front().unwrap();
        let server = self.links[link].server.as_mut().unwrap();
        if let Err(error) = server.handle_packet(packet) {
            self.breaks(error.to_string());
        }
    }

    fn append(&mut self, number: u64) {
        self.log.push(number);
        for link in &mut self.links {
            link.news = link.server.is_some();
        }
    }

    /// The store's rule of once.
    fn store(&mut self, link: usize, refuse: bool) {
        let request = self.links[link].publishes.pop_front().unwrap();
        let number = request.number;
        let halted = self.links[link].halted;
        let outcome = if refuse || halted {
            self.refusals += usize::from(refuse);
            self.links[link].halted = true;
            Outcome::refused(Refusal::Full)
        } else if number <= self.highest {
            let stored = self.log.iter().position(|it| *it == number);
            Outcome::Stored(stored.map(|index| offset(index as u64 + 1)))
        } else {
            self.highest = number;
            self.append(number);
            Outcome::Stored(Some(self.bounds().last))
        };
        if self.links[link].server.is_some() {
            let reply = Reply::Stored(number, outcome);
            self.links[link].replies.push_back(reply);
        }
    }

    fn read(&mut self, link: usize) {
        let request = self.links[link].reads.pop_front().unwrap();
        let messages =
            (self.first.max(request.after.get() + 1)..=request.through.get()).map(|number| {
                StoredMessage {
                    offset: offset(number),
                    time: time(number),
                    topic: "a",
                    kind: Kind::Binary,
                    is_final: false,
                    payload: b"",
                }
            });
        let block = Arc::new(Block::new(messages));
        let reply = Reply::Read(request.key, block, request.through, offset(self.first));
        self.links[link].replies.push_back(reply);
    }

    fn answer(&mut self, link: usize) {
        let link = &mut self.links[link];
        let (Some(reply), Some(server)) = (link.replies.pop_front(), &mut link.server) else {
            return;
        };
        match reply {
            Reply::Stored(number, outcome) => {
                server.published(number, outcome);
                let refused =
                    |reply: &Reply| matches!(reply, Reply::Stored(_, Outcome::Refused { .. }));
                // What was handed over until now is refused before anything new is stored.
                link.halted =
                    !link.publishes.is_empty() && link.halted || link.replies.iter().any(refused);
            }
            Reply::Read(key, block, through, first) => server.read(key, block, through, first),
        }
    }

    /// Events, deliveries and packets go where they have to.
    fn settle(&mut self) {
        let bounds = self.bounds();
        for link in &mut self.links {
            let Some(server) = &mut link.server else {
                continue;
            };
            while let Some(event) = server.poll_event() {
                match event {
                    ServerEvent::Hello(_) => {
                        let info = LogInfo::new(LOG, bounds.first, bounds.last, Durability::Memory);
                        server.welcome(&info);
                    }
                    ServerEvent::Subscribe(request) => {
                        let opening = match request.start {
                            Start::After(position) => {
                                let there = position.offset >= bounds.first;
                                let at = position.offset.get();
                                let found = if there { time(at) } else { StoredAt::UNKNOWN };
                                Opening::after(&bounds, position, found)
                            }
                            _ => Opening::beginning(&bounds),
                        };
                        server.subscribed(request.key, opening);
                    }
                    ServerEvent::Publish(requests) => link.publishes.extend(requests),
                    _ => {}
                }
            }
            while server.wants_transmit() {
                let packet = server.poll_transmit(StoredAt::UNKNOWN);
                link.down.extend(packet.map(|packet| packet.into_bytes()));
            }
            while let Some(read) = server.poll_read() {
                link.reads.push_back(read);
            }
            if !link.client_open {
                link.down.clear();
            }
        }
        self.settle_client();
    }

    fn settle_client(&mut self) {
        if let Some(link) = self.links.last_mut().filter(|link| link.client_open) {
            while self.client.wants_transmit() {
                let packet = self.client.poll_transmit(Time::ORIGIN);
                link.up.extend(packet.map(|packet| packet.into_bytes()));
            }
            if link.server.is_none() {
                link.up.clear();
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.learn(event);
        }
        let Some(id) = self.subscription else { return };
        // A node has said where the beginning of the log is.
        let position = self.client.position(id).filter(|_| !self.begun);
        if let Some(position) = position {
            self.begun = true;
            self.cursor = position.offset.get();
        }
        while let Some(delivery) = self.client.poll_delivery(id) {
            self.deliver(delivery);
        }
    }

    fn learn(&mut self, event: ClientEvent) {
        let told = match event {
            ClientEvent::Published { first, count, .. } => (first, count, Fate::Stored),
            ClientEvent::Refused {
                number,
                may_be_stored,
                ..
            } => {
                let fate = if may_be_stored {
                    Fate::Unknown
                } else {
                    Fate::NotStored
                };
                (number, 1, fate)
            }
            _ => return,
        };
        for number in told.0..told.0 + told.1 {
            let fate = &mut self.fates[number as usize - 1];
            if fate.replace(told.2).is_some() {
                self.breaks(format!("{number} has two fates"));
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Messages(batch) => {
                for message in batch {
                    let at = message.offset.get();
                    if at != self.cursor + 1 {
                        self.breaks(format!("{at} behind {}", self.cursor));
                    }
                    self.cursor = at;
                }
            }
            Delivery::Gap { gap, .. } => {
                if gap.after.get() != self.cursor || gap.through.get() >= self.first {
                    self.breaks(format!("{gap:?} at {}", self.cursor));
                }
                self.cursor = gap.through.get();
            }
            Delivery::CaughtUp { position } => {
                self.caught_up = true;
                if position.offset.get() != self.cursor {
                    self.breaks(format!("caught up with {position} at {}", self.cursor));
                }
            }
            other => self.breaks(format!("{other:?}")),
        }
    }

    /// Once, and every fate is true.
    fn check(&mut self) {
        for number in 1..=self.published {
            let stored = self.log.iter().filter(|it| **it == number).count();
            let fate = self.fates[number as usize - 1];
            let lie = match fate {
                Some(Fate::Stored) => stored == 0,
                Some(Fate::NotStored) => stored > 0,
                Some(Fate::Unknown) | None => false,
            };
            if stored > 1 || lie {
                self.breaks(format!(
                    "{number} is stored {stored} times and told {fate:?}"
                ));
            }
        }
    }

    fn is_complete(&self) -> bool {
        let told = self.fates.iter().all(Option::is_some);
        let delivered = self.cursor == self.log.len() as u64 && self.caught_up;
        told && (self.subscription.is_none() || delivered)
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State(World::new(self))]
    }

    fn actions(&self, State(world): &State, actions: &mut Vec<Action>) {
        if world.published < self.messages {
            actions.push(Action::Publish);
        }
        if world.others < self.others {
            actions.push(Action::Append);
        }
        if world.removals < self.removals && world.first <= world.log.len() as u64 {
            actions.push(Action::Remove);
        }
        let attached = world.links.last().is_some_and(|link| link.client_open);
        if !attached && world.links.len() < self.connections {
            actions.push(Action::Connect);
        }
        for (index, link) in world.links.iter().enumerate() {
            let last = index + 1 == self.connections;
            if link.client_open && !last {
                actions.push(Action::LoseOnClient(index));
            }
            if link.server.is_some() && !link.client_open {
                actions.push(Action::LoseOnServer(index));
            }
            if link.server.is_some() && !link.up.is_empty() {
                actions.push(Action::ToServer(index));
            }
            if link.client_open && !link.down.is_empty() {
                actions.push(Action::ToClient(index));
            }
            if !link.publishes.is_empty() {
                actions.push(Action::Store(index));
                if world.refusals < self.refusals {
                    actions.push(Action::Refuse(index));
                }
            }
            if !link.reads.is_empty() {
                actions.push(Action::Read(index));
            }
            if !link.replies.is_empty() {
                actions.push(Action::Answer(index));
            }
            if link.news {
                actions.push(Action::News(index));
            }
        }
    }

    fn next_state(&self, State(world): &State, action: Action) -> Option<State> {
        let mut next = world.clone();
        next.apply(action);
        next.check();
        Some(State(next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("once, in order, and told as it is", |_, State(world)| {
                world.broken.is_none()
            }),
            Property::always(
                "when nothing can happen, all is told and delivered",
                |bounds: &Bounds, state: &State| {
                    let mut actions = Vec::new();
                    bounds.actions(state, &mut actions);
                    !actions.is_empty() || state.0.is_complete()
                },
            ),
            Property::sometimes("all over the last connection", |bounds, State(world)| {
                world.is_complete()
                    && world.published == bounds.messages
                    && world.links.len() == bounds.connections
            }),
        ]
    }
}

/// Visits every state, and says how many there are. `UNSTALL_MODEL=large` adds a connection.
fn explore(name: &str, mut bounds: Bounds, floor: usize) {
    if std::env::var("UNSTALL_MODEL").is_ok_and(|size| size == "large") {
        bounds.connections += 1;
    }
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{name}: {states} unique states");
    for (property, path) in checker.discoveries() {
        let expected = &checker.model().property(property).expectation;
        if !matches!(expected, stateright::Expectation::Sometimes) {
            let broken = path.last_state().0.broken.clone();
            let steps = path.clone().into_actions();
            panic!("{name}: not so: {property}: {broken:?} after {steps:#?}");
        }
    }
    checker.assert_properties();
    assert!(states >= floor, "{name}: only {states} states");
}

const NOTHING: Bounds = Bounds {
    messages: 0,
    others: 0,
    history: 0,
    connections: 2,
    refusals: 0,
    removals: 0,
    subscribes: false,
};

#[test]
fn two_messages_are_stored_once_over_a_cut() {
    let bounds = Bounds {
        messages: 2,
        ..NOTHING
    };
    explore("once over a cut", bounds, 3_700);
}

#[test]
fn a_message_is_stored_once_over_two_cuts() {
    let bounds = Bounds {
        messages: 1,
        connections: 3,
        ..NOTHING
    };
    explore("once over two cuts", bounds, 6_000);
}

#[test]
fn a_refusal_whose_answer_is_lost_is_no_lie() {
    let bounds = Bounds {
        messages: 2,
        refusals: 1,
        ..NOTHING
    };
    explore("refusals", bounds, 9_000);
}

#[test]
fn history_and_live_meet_without_a_seam_in_every_order() {
    let bounds = Bounds {
        history: 2,
        others: 2,
        subscribes: true,
        ..NOTHING
    };
    explore("history and live", bounds, 23_000);
}

#[test]
fn retention_at_any_moment_is_a_gap() {
    let bounds = Bounds {
        history: 2,
        others: 1,
        removals: 2,
        subscribes: true,
        ..NOTHING
    };
    explore("retention", bounds, 95_000);
}
