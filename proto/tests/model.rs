//! Everything that can happen to two small sessions, in every order: the promises of SPEC.md,
//! checked exhaustively by a model checker over the real sessions.
//!
//! A state is both sessions with their applications, and what is on its way on each connection.
//! Each single thing that can happen is a step: an application sends or takes, a connection takes
//! or delivers one packet, one side sees a connection lost, the client connects (also while its
//! older connection still carries packets), a timer fires. Time stands still, and the earliest
//! timer of a side may fire at any moment. Only the last connection is never lost, so each run
//! comes to an end.
#![allow(unreachable_pub)]

#[path = "targets/world.rs"]
#[allow(dead_code)]
mod world;

use std::hash::{Hash, Hasher};
use std::time::Duration;

use stateright::{Checker, Model, Property};
use unstall_proto::limits::{MIN_MAX_MESSAGE, MIN_WINDOW, message_cost};
use unstall_proto::{Config, Kind, Side};
use world::{Action, Limits, Pair};

/// Of each message. A window that is [filled](FILLING) takes one of them.
const LENGTH: usize = 5;
const REPLAY: u64 = 300_000;
const SIDES: [Side; 2] = [Side::Client, Side::Server];
/// The delay of acknowledgements; every later timer gives up something.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// How far a model goes.
#[derive(Clone, Copy)]
struct Bounds {
    /// How many messages the client sends, and the server.
    messages: [usize; 2],
    /// How many connections the client makes; all but the last may be lost.
    connections: usize,
    /// Which sides may close.
    closes: [bool; 2],
    /// Sessions may expire, and closes may time out.
    expires: bool,
    /// The window is filled but for one message, and the messages are sent at once.
    filled: bool,
    /// A connection takes each packet, an application takes what it has received, and a client sees
    /// an old connection lost, each at a moment of its own; otherwise at once.
    each_packet: bool,
}

#[derive(Clone, Debug)]
struct State(Pair);

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.fingerprint(state);
    }
}

/// Equal as far as the fingerprint tells.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let fingerprint = |state: &State| {
            let mut hasher = std::hash::DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        fingerprint(self) == fingerprint(other)
    }
}

fn config() -> Config {
    Config::new()
        .window(MIN_WINDOW)
        .max_window(MIN_WINDOW)
        .max_message(MIN_MAX_MESSAGE)
        .replay(REPLAY)
        .ack_delay(ACK_DELAY)
}

/// Every packet that is wanted goes on its way.
fn transmit_all(pair: &mut Pair) {
    for side in SIDES {
        while pair.wants_transmit(side) {
            pair.apply(Action::Transmit(side));
        }
    }
}

/// Messages that both applications have not taken use up the window but for 100 bytes: one small
/// message. So credit admits one message, also after a resume, until the application takes.
const FILLING: [usize; 4] = [65_536, 65_536, 65_536, 65_180];

/// The first connection, with [`FILLING`] received and not taken on both sides.
fn fill(pair: &mut Pair) {
    pair.apply(Action::Connect);
    for _ in 0..8 {
        for side in SIDES {
            let sent = pair.end(side).map(|end| end.sent());
            if let Some(length) = sent.and_then(|sent| FILLING.get(sent)) {
                pair.apply(Action::Send(side, Kind::Binary, *length));
            }
        }
        transmit_all(pair);
        for side in SIDES {
            while pair.connections[0].has_packet_to(side) {
                pair.apply(Action::Deliver(0, side));
            }
        }
    }
    for side in SIDES {
        let end = pair.end(side).expect("the session is open");
        assert_eq!(end.sent(), FILLING.len());
        assert_eq!(end.session.stats().credit, 100);
    }
}

impl Bounds {
    /// How many messages that side sends in all.
    fn total(&self, side: Side) -> usize {
        let filling = if self.filled { FILLING.len() } else { 0 };
        filling + self.messages[side as usize]
    }

    fn may(&self, state: &Pair, side: Side) -> [bool; 2] {
        let end = state.end(side);
        let open = end.is_some_and(|end| end.is_open());
        let sends = open
            && end.is_some_and(|end| {
                end.sent() < self.total(side) && end.session.room() >= message_cost(LENGTH as u64)
            });
        [sends, open && self.closes[side as usize]]
    }

    fn of_application(&self, state: &Pair, side: Side, actions: &mut Vec<Action>) {
        let [sends, closes] = self.may(state, side);
        if sends {
            actions.push(Action::Send(side, Kind::Binary, LENGTH));
        }
        if closes {
            actions.push(Action::Close(side, Duration::from_secs(30)));
        }
        let Some(end) = state.end(side) else { return };
        if end.may_receive() {
            actions.push(match self.each_packet {
                true => Action::Receive(side),
                false => Action::Take(side),
            });
        }
        if self.each_packet && end.has_held() {
            actions.push(Action::Take(side));
        }
    }

    fn of_connections(&self, state: &Pair, actions: &mut Vec<Action>) {
        let last = state.connections.len() == self.connections;
        if !last && state.client.session.wants_connection() {
            actions.push(Action::Connect);
        }
        for (index, connection) in state.connections.iter().enumerate() {
            for side in SIDES {
                if connection.has_packet_to(side) {
                    actions.push(Action::Deliver(index, side));
                }
            }
            for side in self.losers(state, index) {
                actions.push(Action::Lose(index, side));
            }
        }
    }

    /// Who may see the connection lost. Not where the next packet tells the same.
    fn losers(&self, state: &Pair, index: usize) -> Vec<Side> {
        let connection = &state.connections[index];
        let fenced = |side| state.current(side).is_some_and(|current| current > index);
        let newest = index + 1 == self.connections;
        let mut losers = SIDES.to_vec();
        losers.retain(|side| {
            let other = if *side == Side::Client {
                Side::Server
            } else {
                Side::Client
            };
            let breaks = !newest || !connection.is_open(other);
            let told = fenced(*side) && connection.has_packet_to(*side);
            connection.is_open(*side) && breaks && !told
        });
        losers
    }

    fn of_timers(&self, state: &Pair, side: Side, actions: &mut Vec<Action>) {
        let next = state.end(side).and_then(|end| end.session.poll_timeout());
        let Some(at) = next else { return };
        let last = state.connections.len() == self.connections;
        let fires = match at.since(state.now) {
            delay if delay <= ACK_DELAY => true,
            // The handshake's: it gives up the connection.
            delay if delay <= Duration::from_secs(10) => !last,
            _ => self.expires,
        };
        if fires {
            actions.push(Action::Timeout(side));
        }
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let limits = Limits {
            window: MIN_WINDOW,
            message: message_cost(MIN_MAX_MESSAGE),
            replay: REPLAY,
        };
        let mut pair = Pair::new(config(), config(), limits);
        if self.filled {
            fill(&mut pair);
            for side in SIDES {
                for _ in 0..self.messages[side as usize] {
                    pair.apply(Action::Send(side, Kind::Binary, LENGTH));
                    transmit_all(&mut pair);
                }
            }
        }
        vec![State(pair)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let state = &state.0;
        for side in SIDES {
            self.of_application(state, side, actions);
            self.of_timers(state, side, actions);
            if state.wants_transmit(side) {
                actions.push(Action::Transmit(side));
            }
        }
        self.of_connections(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let nothing = match action {
            Action::Receive(side) => !next.0.receive_all(side),
            Action::Take(side) if !self.each_packet => !next.0.receive_all(side),
            _ => false,
        };
        if nothing {
            return None;
        }
        next.0.apply(action);
        if !self.each_packet && matches!(action, Action::Connect) {
            for index in 0..next.0.connections.len() - 1 {
                next.0.apply(Action::Lose(index, Side::Client));
            }
        }
        if !self.each_packet {
            transmit_all(&mut next.0);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all = |bounds: &Bounds, state: &State| {
            let [client, server] = SIDES.map(|side| state.0.end(side));
            client.is_some_and(|end| {
                end.received() == bounds.total(Side::Server) && end.is_delivered()
            }) && server.is_some_and(|end| {
                end.received() == bounds.total(Side::Client) && end.is_delivered()
            }) && state.0.connections.len() == bounds.connections
        };
        let mut properties = vec![
            Property::always("once, in order, within the limits, fenced", |_, state| {
                let State(pair) = state;
                pair.broken.is_none()
            }),
            Property::always(
                "when nothing can happen, all is delivered or accounted for",
                |bounds: &Bounds, state| {
                    let mut actions = Vec::new();
                    bounds.actions(state, &mut actions);
                    actions.retain(|action| match action {
                        Action::Take(_) | Action::Receive(_) => {
                            bounds.next_state(state, *action).is_some()
                        }
                        _ => true,
                    });
                    !actions.is_empty() || state.0.check_end().is_ok()
                },
            ),
            Property::sometimes("all is delivered over the last connection", all),
            Property::sometimes(
                "an older connection races with the newer one",
                |_, state: &State| state.0.has_straggler(),
            ),
        ];
        if self.closes.contains(&true) {
            properties.push(Property::sometimes(
                "both close cleanly",
                |_, state: &State| {
                    SIDES.iter().all(|side| {
                        let end = state.0.end(*side);
                        end.is_some_and(|end| end.is_closed() && end.session.is_over())
                    })
                },
            ));
        }
        properties
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
            let State(last) = path.last_state();
            let broken = last.broken.clone().or(last.check_end().err());
            let steps = path.clone().into_actions();
            panic!("{name}: not so: {property}: {broken:?} after {steps:#?}");
        }
    }
    checker.assert_properties();
    assert!(states >= floor, "{name}: only {states} states");
}

const SMALL: Bounds = Bounds {
    messages: [1, 1],
    connections: 2,
    filled: false,
    closes: [false, false],
    expires: false,
    each_packet: false,
};

#[test]
fn two_messages_each_way_at_any_moment_of_two_connections() {
    let bounds = Bounds {
        messages: [2, 2],
        ..SMALL
    };
    explore("two messages each way", bounds, 29_000);
}

#[test]
fn two_messages_each_way_with_credit_for_one_and_two_cuts() {
    let bounds = Bounds {
        messages: [2, 2],
        connections: 3,
        filled: true,
        ..SMALL
    };
    explore("credit for one message", bounds, 800_000);
}

#[test]
fn two_cuts_of_the_resume_exchange_and_generations_that_race() {
    let bounds = Bounds {
        connections: 3,
        ..SMALL
    };
    explore("two cuts", bounds, 20_000);
}

#[test]
fn every_packet_and_every_taking_at_its_own_moment() {
    let bounds = Bounds {
        each_packet: true,
        ..SMALL
    };
    explore("each packet by itself", bounds, 8_500);
}

#[test]
fn either_side_closes_at_any_moment() {
    let bounds = Bounds {
        closes: [true, true],
        ..SMALL
    };
    explore("closes", bounds, 21_000);
}

#[test]
fn sessions_expire_and_closes_time_out_at_any_moment() {
    let bounds = Bounds {
        messages: [1, 0],
        closes: [true, false],
        expires: true,
        ..SMALL
    };
    explore("expiry", bounds, 15_000);
}
