//! Many small worlds of topics, each from a seed. Whatever happens in them, every subscription gets
//! each message behind its start once and in the log's order, or a gap in its place; and every
//! message is stored once, or its publisher is told. When all is well again, every subscription
//! reaches the end of the log.
//!
//! `UNSTALL_SEEDS=1000000` runs so many worlds, and `UNSTALL_SEED=7` that one, with its transcript.
#![allow(unreachable_pub)]

/// A line of the transcript.
macro_rules! log {
    ($world:expr, $($text:tt)*) => {
        if $world.record { $world.line(format!($($text)*)); }
    };
}

mod ledger;
mod node;
#[path = "../world/random.rs"]
mod random;
mod reader;
#[path = "../world/seeded.rs"]
mod seeded;
mod story;
mod world;
mod writer;

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
        "seed {seed}: the last lines\n{}\nseed {seed}: {cause}\nthe whole of it: \
         UNSTALL_SEED={seed} cargo test -p unstall-proto --test topics_seeds -- --nocapture",
        lines[from..].join("\n"),
    ))
}

#[test]
fn every_message_is_stored_once_and_every_subscription_is_whole_or_says_where_not() {
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
        ("received", tally.received),
        ("stored before", tally.stored_before),
        ("not stored", tally.not_stored),
        ("unknown", tally.unknown),
        ("restarts", tally.restarts),
        ("removals", tally.removals),
        ("replaced", tally.replaced),
        ("ends lost", tally.ends_lost),
        ("rejected", tally.rejected),
        ("resubscribed", tally.resubscribed),
        ("finals", tally.finals),
        ("expired", tally.expired),
        ("long messages", tally.long),
        ("moved ahead", tally.moved_ahead),
        ("too large", tally.too_large),
        ("another log", tally.another_log),
        ("diverged", tally.diverged),
        ("removed", tally.removed),
        ("given up", tally.given_up),
        ("tokens", tally.tokens),
    ];
    for (what, count) in each {
        assert!(count >= 3, "{what} only {count} times in {tally:#?}");
    }
}
