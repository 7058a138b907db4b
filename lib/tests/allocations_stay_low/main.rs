//! How many allocations a message costs, on both sides together. On the hot paths it is a fraction of
//! one, because many messages share a packet. The limits are what was measured, with some slack. Lower
//! them when you lower the cost.

#[path = "../it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;
mod hot_paths;

use std::future::Future;

use common::limit;
use hot_paths::{each, many, opened, recv, recv_batch};
use tokio::runtime;
use unstall::{Receiver, Sender};

const PLAIN: bool = false;
const SESSION: bool = true;
const SHORT: usize = 64;
const LONG: usize = 4 << 10;
/// Bytes of payload that each path moves.
const BYTES: usize = 4 << 20;

/// Allocations for a hundred messages. Everything runs on this thread, whose allocations are counted. The
/// first messages, which make buffers grow, are not counted.
fn for_a_hundred<S, R>(
    session: bool,
    size: usize,
    send: impl Fn(Sender, usize, u64) -> S,
    receive: impl Fn(Receiver, usize, u64) -> R,
) -> u64
where
    S: Future<Output = Sender>,
    R: Future<Output = Receiver>,
{
    let count = (BYTES / size) as u64;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let (client, server) = runtime.block_on(opened(session));
    let (sender, _receives_nothing) = server.split();
    let (_sends_nothing, receiver) = client.split();
    let transfer = |sender, receiver| async {
        tokio::join!(send(sender, size, count), receive(receiver, size, count))
    };
    let (sender, receiver) = runtime.block_on(limit(transfer(sender, receiver)));
    let counted = allocation_counter::measure(|| {
        let _ = runtime.block_on(limit(transfer(sender, receiver)));
    });
    let allocations = counted.count_total * 100 / count;
    println!("{allocations} allocations for 100 messages of {size} bytes");
    allocations
}

#[test]
fn short_plain_messages_allocate_little() {
    let allocations = for_a_hundred(PLAIN, SHORT, each, recv);
    assert!(allocations <= 8, "{allocations}");
}

#[test]
fn long_plain_messages_allocate_little() {
    let allocations = for_a_hundred(PLAIN, LONG, each, recv);
    assert!(allocations <= 140, "{allocations}");
}

#[test]
fn short_messages_of_a_session_allocate_little() {
    let allocations = for_a_hundred(SESSION, SHORT, many, recv);
    assert!(allocations <= 4, "{allocations}");
}

#[test]
fn short_messages_of_a_session_in_batches_allocate_little() {
    let allocations = for_a_hundred(SESSION, SHORT, many, recv_batch);
    assert!(allocations <= 4, "{allocations}");
}

#[test]
fn long_messages_of_a_session_allocate_little() {
    let allocations = for_a_hundred(SESSION, LONG, many, recv);
    assert!(allocations <= 180, "{allocations}");
}
