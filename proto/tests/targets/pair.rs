//! Two sessions and a script of everything that can happen. Each message arrives once and in
//! order; when the wire heals all of them arrive, or the session has ended and what came back is
//! exactly the rest.

use std::time::Duration;

use unstall_proto::limits::{MAX_PACKET_COST, MIN_WINDOW, message_cost};
use unstall_proto::{Acknowledge, Config, EndReason, Kind, Side};

use super::script::Script;
use super::world::{Action, Limits, Pair};

const MAX_MESSAGE: u64 = 300_000;

pub fn run(input: &[u8]) {
    let mut script = Script(input);
    let mut pair = pair(&mut script);
    while !script.is_done() {
        let action = action(&mut script, &mut pair);
        if let Some(action) = action {
            step(&mut pair, action);
        }
    }
    heal(&mut pair);
}

fn pair(script: &mut Script<'_>) -> Pair {
    let flags = script.u8();
    let max_window = if flags & 1 == 0 { 1 } else { 4 } * MIN_WINDOW;
    let config = |by_hand: bool| {
        Config::new()
            .window(MIN_WINDOW)
            .max_window(max_window)
            .max_message(MAX_MESSAGE)
            .replay(0)
            .ack_records(if flags & 2 == 0 { 3 } else { 1024 })
            .session_life(Duration::from_secs(if flags & 4 == 0 { 3_600 } else { 5 }))
            .acknowledge(match by_hand {
                true => Acknowledge::ByHand,
                false => Acknowledge::WhenTaken,
            })
    };
    let limits = Limits {
        window: max_window,
        message: message_cost(MAX_MESSAGE),
        replay: message_cost(MAX_MESSAGE) + MAX_PACKET_COST,
    };
    Pair::new(config(flags & 8 != 0), config(flags & 16 != 0), limits)
}

fn step(pair: &mut Pair, action: Action) {
    pair.apply(action);
    assert_eq!(pair.broken, None);
}

/// The next action; some of them the script carries out many at a time.
fn action(script: &mut Script<'_>, pair: &mut Pair) -> Option<Action> {
    let code = script.u8();
    let side = if code & 1 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let other = if code & 1 == 0 {
        Side::Server
    } else {
        Side::Client
    };
    Some(match (code >> 1) % 24 {
        0..=2 => Action::Send(side, kind(script), script.length()),
        3 => Action::Connect,
        4 | 5 => Action::Transmit(side),
        6..=8 => Action::Deliver(connection(script, pair)?, side),
        9 => Action::Lose(connection(script, pair)?, side),
        10 => Action::Receive(side),
        11 => Action::Take(side),
        12 => Action::Acknowledge(side),
        13 => Action::Timeout(side),
        14 => {
            pass(pair, u64::from(script.u16()));
            return None;
        }
        15 => match script.u8() {
            0..=40 => Action::Close(side, Duration::from_millis(script.u16().into())),
            41..=50 => Action::Abort(side),
            51..=60 => Action::GoAway,
            _ => Action::Ping(side),
        },
        // The whole way of everything that waits, in one direction.
        16..=19 => {
            carry(pair, side, other);
            return None;
        }
        20 | 21 => {
            consume(pair, side);
            return None;
        }
        _ => {
            let index = connection(script, pair)?;
            step(pair, Action::Lose(index, side));
            Action::Lose(index, other)
        }
    })
}

fn kind(script: &mut Script<'_>) -> Kind {
    match script.flag() {
        true => Kind::Text,
        false => Kind::Binary,
    }
}

/// A connection, the last ones more often.
fn connection(script: &mut Script<'_>, pair: &Pair) -> Option<usize> {
    let back = usize::from(script.u8() % 3);
    pair.connections.len().checked_sub(1 + back)
}

fn pass(pair: &mut Pair, millis: u64) {
    pair.now = pair.now.after(Duration::from_millis(millis));
    for side in [Side::Client, Side::Server] {
        while let Some(at) = pair.end(side).and_then(|end| end.session.poll_timeout()) {
            if at > pair.now {
                break;
            }
            step(pair, Action::Timeout(side));
        }
    }
}

/// Everything that one side has to send arrives: whether there was something.
fn carry(pair: &mut Pair, from: Side, to: Side) -> bool {
    let mut moved = false;
    while let Some(index) = pair.current(from) {
        let wants = pair
            .end(from)
            .is_some_and(|end| end.session.wants_transmit());
        if !wants {
            break;
        }
        step(pair, Action::Transmit(from));
        moved = true;
        while pair.connections[index].has_packet_to(to) {
            step(pair, Action::Deliver(index, to));
        }
    }
    moved
}

/// The application takes everything.
fn consume(pair: &mut Pair, side: Side) {
    loop {
        match pair.receive(side) {
            Ok(true) => step(pair, Action::Acknowledge(side)),
            Ok(false) => break,
            Err(broken) => panic!("{broken}"),
        }
    }
    step(pair, Action::Acknowledge(side));
}

/// The wire heals and both applications run: everything comes to its end.
fn heal(pair: &mut Pair) {
    for index in 0..pair.connections.len() {
        step(pair, Action::Lose(index, Side::Client));
        step(pair, Action::Lose(index, Side::Server));
    }
    // The acknowledgement delay passes, or the life of the half that is left.
    for _ in 0..100 {
        while settle(pair) {}
        let ends = [pair.end(Side::Client), pair.end(Side::Server)];
        let next = ends
            .iter()
            .flatten()
            .filter_map(|end| end.session.poll_timeout());
        let Some(at) = next.min() else { break };
        pass(pair, at.since(pair.now).as_millis() as u64 + 1);
    }
    if let Err(broken) = pair.check_end() {
        panic!("{broken}");
    }
    check_reasons(pair);
}

/// Whether anything moved.
fn settle(pair: &mut Pair) -> bool {
    let mut moved = false;
    if pair.current(Side::Client).is_none() {
        let before = pair.connections.len();
        step(pair, Action::Connect);
        moved = pair.connections.len() > before;
    }
    for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        moved |= carry(pair, from, to);
        for index in 0..pair.connections.len() {
            while pair.connections[index].has_packet_to(to) {
                step(pair, Action::Deliver(index, to));
                moved = true;
            }
        }
        consume(pair, to);
    }
    moved
}

/// A session ends only for a reason that the script gave.
fn check_reasons(pair: &Pair) {
    for side in [Side::Client, Side::Server] {
        let reason = pair.end(side).and_then(|end| end.ended());
        assert!(
            !matches!(reason, Some(EndReason::Protocol(_))),
            "{side:?}: {reason:?}"
        );
    }
}
