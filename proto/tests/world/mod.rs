//! A simulated world: a client and a server on a virtual clock, and a wire with delay that can be
//! cut. Everything follows from the seed.
#![allow(dead_code, unreachable_pub)]

mod random;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use unstall_proto::{
    Config, Epoch, Event, Generation, HandleError, Hello, Incoming, Kind, Position, Rejection,
    Session, SessionId, Side, Time,
};

pub use random::Random;

/// One endpoint with its application.
pub struct End {
    pub session: Session,
    pub received: Vec<(Kind, Vec<u8>)>,
    /// Where each received message ends.
    pub ends: Vec<Position>,
    pub events: Vec<Event>,
    pub last: Option<Incoming>,
    /// The application takes messages.
    pub takes: bool,
}

impl End {
    fn new(session: Session) -> End {
        End {
            session,
            received: Vec::new(),
            ends: Vec::new(),
            events: Vec::new(),
            last: None,
            takes: true,
        }
    }

    fn run_application(&mut self, now: Time) {
        while self.takes {
            match self.session.recv() {
                Some(Incoming::Messages(batch)) => {
                    let end = batch.end();
                    for message in batch {
                        self.ends.push(message.end);
                        self.received.push((message.kind, message.payload.to_vec()));
                    }
                    assert!(self.session.taken(now, end));
                }
                Some(end) => self.last = Some(end),
                None => break,
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    pub fn ended(&self) -> Option<&unstall_proto::EndReason> {
        self.events.iter().find_map(|event| match event {
            Event::Ended(reason) => Some(reason),
            _ => None,
        })
    }
}

/// The messages, all of them text.
pub fn texts(received: &[(Kind, Vec<u8>)]) -> Vec<&str> {
    received
        .iter()
        .map(|(_, bytes)| std::str::from_utf8(bytes).unwrap())
        .collect()
}

/// A connection: packets on their way in both directions.
pub struct Wire {
    client: Generation,
    server: Option<Generation>,
    to_server: VecDeque<(Time, Bytes)>,
    to_client: VecDeque<(Time, Bytes)>,
    /// Carries packets; a wire that does not is half-open.
    pub open: bool,
}

pub struct World {
    pub now: Time,
    pub random: Random,
    pub client: End,
    pub server: Option<End>,
    pub wires: Vec<Wire>,
    pub delay: Duration,
    pub config: Config,
    pub epoch: Epoch,
    /// How many sessions the server has opened.
    pub sessions: usize,
    pub rejections: Vec<Rejection>,
    pub errors: Vec<HandleError>,
}

impl World {
    pub fn new(seed: u64, client: Config, server: Config) -> World {
        let mut random = Random(seed);
        let session = Session::client(client, SessionId(random.bytes()), random.token());
        World {
            now: Time::ORIGIN,
            client: End::new(session),
            server: None,
            wires: Vec::new(),
            delay: Duration::from_millis(5),
            config: server,
            epoch: Epoch(NonZeroU64::new(random.next() | 1).unwrap()),
            random,
            sessions: 0,
            rejections: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// A world whose session is open.
    pub fn opened(client: Config, server: Config) -> World {
        let mut world = World::new(1, client, server);
        world.connect();
        world.run_for(100);
        assert!(world.client.events.contains(&Event::Opened));
        assert!(world.server().events.contains(&Event::Opened));
        world
    }

    pub fn server(&mut self) -> &mut End {
        self.server.as_mut().expect("the server has the session")
    }

    pub fn end(&mut self, side: Side) -> Option<&mut End> {
        match side {
            Side::Client => Some(&mut self.client),
            Side::Server => self.server.as_mut(),
        }
    }

    /// The client connects.
    pub fn connect(&mut self) {
        if let Some(client) = self.client.session.attach(self.now) {
            self.wires.push(Wire {
                client,
                server: None,
                to_server: VecDeque::new(),
                to_client: VecDeque::new(),
                open: true,
            });
        }
    }

    pub fn is_connected(&self) -> bool {
        self.wires
            .iter()
            .any(|w| w.open && self.client.session.is_current(w.client))
    }

    /// All connections are lost at once; what is on its way is lost. Each side notices or not.
    pub fn cut(&mut self, client_notices: bool, server_notices: bool) {
        for wire in &mut self.wires {
            wire.open = false;
            wire.to_server.clear();
            wire.to_client.clear();
            if client_notices {
                self.client.session.detach(self.now, wire.client);
            }
        }
        if let (true, Some(server)) = (server_notices, &mut self.server) {
            let generation = server.session.generation();
            server.session.detach(self.now, generation);
        }
    }

    /// One step: transmit, deliver what is due, run the applications.
    pub fn step(&mut self) {
        let now = self.now;
        self.client.session.handle_timeout(now);
        if let Some(server) = &mut self.server {
            server.session.handle_timeout(now);
        }
        self.client.run_application(now);
        if let Some(server) = &mut self.server {
            server.run_application(now);
        }
        for index in 0..self.wires.len() {
            self.transmit(index);
            self.deliver_to_server(index);
            self.deliver_to_client(index);
        }
        self.client.run_application(now);
        if let Some(server) = &mut self.server {
            server.run_application(now);
        }
        for index in 0..self.wires.len() {
            self.transmit(index);
        }
        let client = &self.client.session;
        self.wires
            .retain(|wire| wire.open || client.is_current(wire.client));
    }

    fn transmit(&mut self, index: usize) {
        let arrival = self.now.after(self.delay);
        let wire = &mut self.wires[index];
        while let Some(packet) = self.client.session.poll_transmit(self.now, wire.client) {
            wire.to_server.push_back((arrival, packet));
        }
        if let (Some(generation), Some(server)) = (wire.server, &mut self.server) {
            while let Some(packet) = server.session.poll_transmit(self.now, generation) {
                wire.to_client.push_back((arrival, packet));
            }
        }
        if !wire.open {
            wire.to_server.clear();
            wire.to_client.clear();
        }
    }

    fn deliver_to_server(&mut self, index: usize) {
        while let Some((at, packet)) = self.wires[index].to_server.pop_front() {
            if at > self.now {
                self.wires[index].to_server.push_front((at, packet));
                return;
            }
            match self.wires[index].server {
                None => self.greet(index, packet),
                Some(generation) => {
                    let now = self.now;
                    let server = self.server.as_mut().expect("the session was greeted");
                    if let Err(error) = server.session.handle_packet(now, generation, packet) {
                        server.session.detach(now, generation);
                        self.errors.push(error);
                        self.wires[index].to_server.clear();
                    }
                }
            }
        }
    }

    /// The server looks the session up, as a server does.
    fn greet(&mut self, index: usize, packet: Bytes) {
        let hello = Hello::from_packet(packet).expect("the client says HELLO first");
        let token = self.random.token();
        let held = self
            .server
            .as_mut()
            .filter(|end| end.session.id() == hello.id);
        let result = match held {
            Some(end) if !end.session.is_over() => end.session.resume(&hello, token),
            _ => match Session::server(self.config.clone(), &hello, self.epoch, token) {
                Ok((session, generation)) => {
                    self.server = Some(End::new(session));
                    self.sessions += 1;
                    Ok(generation)
                }
                Err(rejection) => Err(rejection),
            },
        };
        match result {
            Ok(generation) => self.wires[index].server = Some(generation),
            Err(rejection) => {
                self.rejections.push(rejection);
                let arrival = self.now.after(self.delay);
                self.wires[index]
                    .to_client
                    .push_back((arrival, rejection.to_packet()));
            }
        }
    }

    fn deliver_to_client(&mut self, index: usize) {
        while let Some((at, packet)) = self.wires[index].to_client.pop_front() {
            if at > self.now {
                self.wires[index].to_client.push_front((at, packet));
                return;
            }
            let generation = self.wires[index].client;
            if let Err(error) = self
                .client
                .session
                .handle_packet(self.now, generation, packet)
            {
                self.client.session.detach(self.now, generation);
                self.errors.push(error);
                self.wires[index].to_client.clear();
            }
        }
    }

    /// When the next thing happens by itself.
    pub fn next_time(&self) -> Option<Time> {
        let packets = self.wires.iter().flat_map(|wire| {
            let server = wire.to_server.front().map(|(at, _)| *at);
            server
                .into_iter()
                .chain(wire.to_client.front().map(|(at, _)| *at))
        });
        let server = self
            .server
            .as_ref()
            .and_then(|end| end.session.poll_timeout());
        packets
            .chain(self.client.session.poll_timeout())
            .chain(server)
            .min()
    }

    /// Runs until nothing happens by itself any more, or `until` has come.
    pub fn run(&mut self, until: Time) {
        self.step();
        while let Some(at) = self.next_time().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Runs for that many milliseconds.
    pub fn run_for(&mut self, millis: u64) {
        self.run(self.now.after(Duration::from_millis(millis)));
    }
}
