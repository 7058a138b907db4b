//! Many small worlds, each from a seed. Whatever happens in them, every message arrives once and
//! in order, or the session ends, says so, and gives back what was not delivered. When the link
//! heals and the applications run, everything arrives within a bounded time.
//!
//! `UNSTALL_SEEDS=1000000` runs so many worlds, and `UNSTALL_SEED=7` that one, with its transcript.
#![allow(unreachable_pub)]

mod application;
mod checks;
mod link;
mod plan;
#[path = "../world/random.rs"]
mod random;
#[path = "../world/seeded.rs"]
mod seeded;
mod story;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use seeded::number;
use world::{TRANSCRIPT, Tally, World};

/// How many lines of a transcript are worth reading.
const LINES: usize = 150;

/// Runs one world; a failure is told with its transcript.
fn run(seed: u64) -> Result<Tally, String> {
    let live = || catch_unwind(AssertUnwindSafe(|| World::new(seed).live()));
    if let Ok(tally) = live() {
        return Ok(tally);
    }
    // The same again, this time with somebody watching.
    TRANSCRIPT.set(Some(Vec::new()));
    let again = live();
    let lines = TRANSCRIPT.take().unwrap_or_default();
    let cause = match again {
        Ok(_) => "nothing, the second time: the world does not follow from its seed".to_owned(),
        Err(cause) => match cause.downcast::<String>() {
            Ok(text) => *text,
            Err(cause) => cause.downcast_ref::<&str>().unwrap_or(&"?").to_string(),
        },
    };
    let from = lines.len().saturating_sub(LINES);
    Err(format!(
        "seed {seed}: the last {} of {} lines\n{}\nseed {seed}: {cause}\nthe whole of it: \
         UNSTALL_SEED={seed} cargo test -p unstall-proto --test seeds -- --nocapture",
        lines.len() - from,
        lines.len(),
        lines[from..].join("\n"),
    ))
}

impl seeded::Tally for Tally {
    fn add(&mut self, other: &Tally) {
        Tally::add(self, other);
    }
}

#[test]
fn every_message_arrives_once_and_in_order_or_comes_back_in_every_world() {
    if let Some(seed) = number("UNSTALL_SEED") {
        TRANSCRIPT.set(Some(Vec::new()));
        let result = catch_unwind(AssertUnwindSafe(|| World::new(seed).live()));
        println!("{}", TRANSCRIPT.take().unwrap_or_default().join("\n"));
        println!("{:?}", result.expect("the world fails as told above"));
        return;
    }
    let seeds = number("UNSTALL_SEEDS").unwrap_or(10_000);
    let tally = seeded::run_all(seeds, run).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:#?}");
    assert_eq!(tally.worlds, seeds);
    if seeds >= 10_000 {
        check_variety(&tally);
    }
}

/// Worlds in which nothing happens prove nothing.
fn check_variety(tally: &Tally) {
    let each = [
        ("resumed", tally.resumed),
        ("replayed", tally.replayed),
        ("superseded", tally.superseded),
        ("gaps", tally.gaps),
        ("full", tally.full),
        ("blocked", tally.blocked),
        ("handshakes timed out", tally.handshakes_timed_out),
        ("rejected", tally.rejected),
        ("reopened", tally.reopened),
        ("vanished", tally.vanished),
        ("closed", tally.closed),
        ("close timed out", tally.close_timed_out),
        ("expired", tally.expired),
        ("aborted", tally.aborted),
        ("maybe delivered", tally.maybe_delivered),
        ("not sent", tally.not_sent),
    ];
    for (what, count) in each {
        assert!(count >= 3, "{what} only {count} times in {tally:#?}");
    }
}
