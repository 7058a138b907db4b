//! Draws scripts of sessions by seed, in the form of `vectors/sessions.json` (vectors/README.md), and prints
//! each with what came of it here: one JSON object a line. Another implementation goes through the same
//! scripts and compares every packet and event.
//!
//! `session_scripts FIRST_SEED COUNT`

#[path = "../tests/vectors/runner.rs"]
mod runner;

use std::io::Write;

use runner::{Runner, hex};
use serde_json::{Map, Value, json};

/// SplitMix64: the same numbers for a seed, for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0, below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

fn options(random: &mut Random) -> Value {
    let mut options = Map::new();
    let mut set = |random: &mut Random, name: &str, values: &[u64]| {
        if random.one_in(2) {
            options.insert(name.to_owned(), json!(random.of(values)));
        }
    };
    set(random, "window", &[262_144, 262_145, 300_000, 1 << 20]);
    set(random, "largest_window", &[262_144, 600_000, 8 << 20]);
    set(random, "largest_message", &[100, 65_536, 70_000, 150_000]);
    set(random, "replay", &[0, 250_000, 300_000]);
    set(random, "expiry", &[100, 5_000, 600_000]);
    if random.one_in(3) {
        options.insert("acknowledge_by_hand".to_owned(), json!(true));
    }
    Value::Object(options)
}

/// A message. Its length is such that it does not matter in which blocks of memory packets are made: short, or
/// nearly filling the records it needs.
fn message(random: &mut Random, step: &mut Map<String, Value>) {
    let length = match random.below(40) {
        0 => 61_600 + random.below(3_937),
        1 => 65_537 + random.below(50),
        2 => 131_073 + random.below(50),
        _ => random.below(40),
    };
    if length > 64 {
        let byte = random.below(256);
        step.insert(
            "repeat".to_owned(),
            json!({ "byte": byte, "length": length }),
        );
    } else if random.one_in(2) {
        let alphabet: Vec<char> = "abcde fghij äß漢🌱\u{feff}\0".chars().collect();
        let text: String = (0..length / 4).map(|_| *random.of(&alphabet)).collect();
        step.insert("text".to_owned(), json!(text));
    } else {
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        step.insert("hex".to_owned(), json!(hex(&bytes)));
    }
}

/// A number that a hostile peer might name.
fn odd_number(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 53,
        3 => random.next(),
        4 => random.below(600_000),
        _ => random.below(8),
    }
}

/// A packet made by hand: mostly well-formed, with fields at random.
fn odd_packet(random: &mut Random) -> Vec<u8> {
    let kinds = [
        0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x18, 0x19, 0x1a, 0x1b, 0x7f, 0x80,
    ];
    let kind = *random.of(&kinds);
    let mut packet = vec![kind];
    let number = |packet: &mut Vec<u8>, random: &mut Random| {
        packet.extend(odd_number(random).to_be_bytes());
    };
    match kind {
        0x02 => {
            packet.extend([0xee; 16]);
            for value in [7, 1 + random.below(3), 0, 0, 1 << 20, 1 << 16, 1_000] {
                let odd = random.one_in(12);
                let value = if odd { odd_number(random) } else { value };
                packet.extend(value.to_be_bytes());
            }
        }
        0x03 => {
            packet.push(1 + random.below(6) as u8);
            packet.extend(random.below(2_000).to_be_bytes());
        }
        0x10 => {
            number(&mut packet, random);
            for _ in 0..=random.below(3) {
                let length = random.below(12) as u8;
                packet.push(length << 2 | random.below(4) as u8);
                packet.extend((0..length).map(|_| random.next() as u8 & 0xbf));
            }
        }
        0x11..=0x15 => number(&mut packet, random),
        0x18 => {
            number(&mut packet, random);
            packet.extend(random.below(20_000).to_be_bytes());
            packet.extend([0x03, 0xe8, b'b']);
        }
        0x1a => packet.extend([0, 12, b'x']),
        0x1b => {
            packet.extend(random.below(10_000_000).to_be_bytes());
            packet.extend("weg".bytes());
        }
        _ => {}
    }
    if random.one_in(10) {
        packet.pop();
    }
    packet
}

/// The next step, drawn so that the runner can take it.
fn step(random: &mut Random, runner: &Runner) -> Value {
    let side = if runner.has_server() && random.one_in(2) {
        "server"
    } else {
        "client"
    };
    let mut step = Map::new();
    let mut put = |name: &str, value: Value| step.insert(name.to_owned(), value);
    match random.below(100) {
        0..30 => {
            put("do", json!("send"));
            put("side", json!(side));
            message(random, &mut step);
        }
        // What is sent to a server that has no session goes nowhere.
        30..58 if runner.has_server() || runner.is_greeting() => {
            put("do", json!("carry"));
            put("from", json!(side));
        }
        58..72 => {
            put("do", json!("take"));
            put("side", json!(side));
        }
        72..78 => {
            put("do", json!("wait"));
            let millis = *random.of(&[1, 10, 19, 20, 21, 50, 200, 10_000, 130_000]);
            put("millis", json!(millis));
        }
        78..84 if runner.client_wants_connection() => {
            put("do", json!("connect"));
        }
        84..87 => {
            put("do", json!("cut"));
            put("side", json!(side));
        }
        87..90 => {
            put("do", json!("lose"));
            put("from", json!(side));
        }
        90..93 => {
            put("do", json!("acknowledge"));
            put("side", json!(side));
        }
        93 | 94 if !runner.is_greeting() => {
            put("do", json!("inject"));
            put("to", json!(side));
            if random.one_in(12) {
                put("text", json!("a text"));
            } else if random.one_in(12) {
                // Empty messages, which cost much more than they are long.
                let first = 1 + random.below(3) as u8;
                put("hex", json!(hex(&[0x10, 0, 0, 0, 0, 0, 0, 0, first])));
                let length = 100 + random.below(60_000);
                put(
                    "repeat",
                    json!({ "byte": random.below(2), "length": length }),
                );
            } else {
                put("hex", json!(hex(&odd_packet(random))));
            }
        }
        95 => {
            put("do", json!("close"));
            put("side", json!(side));
            put("code", json!(random.of(&[1000, 1001, 4000])));
            put("reason", json!("bye"));
            put("within", json!(random.of(&[0, 100, 60_000, 10_000_000])));
        }
        96 if random.one_in(4) => {
            put("do", json!("abort"));
            put("side", json!(side));
            put("reason", json!("enough"));
        }
        97 if runner.has_server() && random.one_in(2) => {
            put("do", json!("go_away"));
            put("within", json!(random.below(9_000_000)));
            put("reason", json!("deploy"));
        }
        98 if random.one_in(6) => {
            put("do", json!("restart"));
            put("epoch", json!(8 + random.below(1_000)));
        }
        _ => {
            put("do", json!("ping"));
            put("side", json!(side));
        }
    }
    Value::Object(step)
}

fn script(seed: u64) -> Value {
    let mut random = Random(seed);
    let mut script = json!({
        "name": format!("seed {seed}"), "client": options(&mut random), "server": options(&mut random),
    });
    let mut runner = Runner::new(&script);
    let mut steps = Vec::new();
    let mut take = |runner: &mut Runner, step: Value| {
        let results = runner.step(&step);
        let mut step = step;
        step.as_object_mut().expect("a step").extend(results);
        steps.push(step);
    };
    if !random.one_in(8) {
        take(&mut runner, json!({ "do": "connect" }));
        take(&mut runner, json!({ "do": "carry", "from": "client" }));
        take(&mut runner, json!({ "do": "carry", "from": "server" }));
    }
    for _ in 0..10 + random.below(60) {
        let next = step(&mut random, &runner);
        take(&mut runner, next);
    }
    for side in ["client", "server"] {
        if side == "client" || runner.has_server() {
            take(&mut runner, json!({ "do": "take", "side": side }));
            take(&mut runner, json!({ "do": "undelivered", "side": side }));
        }
    }
    script["steps"] = Value::Array(steps);
    script
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name: &str| -> u64 {
        let given = arguments.next().and_then(|given| given.parse().ok());
        given.unwrap_or_else(|| {
            panic!("usage: session_scripts FIRST_SEED COUNT ({name} is missing)")
        })
    };
    let (first, count) = (number("FIRST_SEED"), number("COUNT"));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for seed in first..first + count {
        writeln!(out, "{}", script(seed)).expect("the scripts can be written");
    }
    out.flush().expect("the scripts can be written");
}
