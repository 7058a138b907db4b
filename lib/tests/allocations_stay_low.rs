//! What a message costs in allocations, on both sides together: on the hot paths it is a fraction of
//! one, because messages travel in blocks that many of them share. The limits are what was measured
//! with slack; whoever lowers the cost lowers them.

mod common;

use std::future::Future;

use common::{limit, plain, sessions};
use tokio::runtime;
use unstall::{Client, Connection, IncomingRef, Receiver, Sender, Server, ServerBuilder};

const AMPLE: u64 = 60;
const SHORT: usize = 64;
const LONG: usize = 4 << 10;
/// Bytes of payload that each path moves.
const BYTES: usize = 4 << 20;

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Session,
}

async fn opened(kind: Kind) -> (Connection, Connection) {
    let (builder, client): (ServerBuilder, fn(Client) -> Client) = match kind {
        Kind::Plain => (Server::builder().plain(), Client::plain),
        Kind::Session => (Server::builder(), Client::require_session),
    };
    let server = sessions::bind(builder).await;
    let dialed = Client::new(format!("ws://{}/", server.local_addr()));
    sessions::pair(&server, client(dialed.without_reconnect())).await
}

/// Allocations for a hundred messages. Everything runs on this thread, which is the one that is
/// counted; what the first messages make grow is not.
fn for_a_hundred<S, R>(
    kind: Kind,
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
    let (client, server) = runtime.block_on(opened(kind));
    let (sender, _receives_nothing) = server.split();
    let (_sends_nothing, receiver) = client.split();
    let transfer = |sender, receiver| async {
        tokio::join!(send(sender, size, count), receive(receiver, size, count))
    };
    let (sender, receiver) = runtime.block_on(limit(AMPLE, transfer(sender, receiver)));
    let counted = allocation_counter::measure(|| {
        runtime.block_on(limit(AMPLE, transfer(sender, receiver)));
    });
    let allocations = counted.count_total * 100 / count;
    println!("{allocations} allocations for 100 messages of {size} bytes");
    allocations
}

async fn each(sender: Sender, size: usize, count: u64) -> Sender {
    let payload = vec![7; size];
    for _ in 0..count {
        sender.send(&payload[..]).await.unwrap();
    }
    sender
}

async fn many(sender: Sender, size: usize, count: u64) -> Sender {
    let payload = vec![7; size];
    let messages = (0..count).map(|_| &payload[..]);
    sender.send_many(messages).await.unwrap();
    sender
}

async fn recv(mut receiver: Receiver, size: usize, count: u64) -> Receiver {
    for _ in 0..count {
        let message = plain(receiver.recv().await);
        assert_eq!(message.as_bytes().len(), size);
    }
    receiver
}

async fn recv_batch(mut receiver: Receiver, size: usize, count: u64) -> Receiver {
    let mut received = 0;
    while received < count {
        let mut batch = receiver.recv_batch().await.unwrap().unwrap();
        while let Some(incoming) = batch.next() {
            let IncomingRef::Message(message) = incoming else {
                panic!("a gap");
            };
            assert_eq!(message.as_bytes().len(), size);
            received += 1;
        }
    }
    receiver
}

#[test]
fn short_plain_messages_allocate_little() {
    let allocations = for_a_hundred(Kind::Plain, SHORT, each, recv);
    assert!(allocations <= 10, "{allocations}");
}

#[test]
fn long_plain_messages_allocate_little() {
    let allocations = for_a_hundred(Kind::Plain, LONG, each, recv);
    assert!(allocations <= 160, "{allocations}");
}

#[test]
fn short_messages_of_a_session_allocate_little() {
    let allocations = for_a_hundred(Kind::Session, SHORT, many, recv);
    assert!(allocations <= 4, "{allocations}");
}

#[test]
fn short_messages_of_a_session_in_batches_allocate_little() {
    let allocations = for_a_hundred(Kind::Session, SHORT, many, recv_batch);
    assert!(allocations <= 4, "{allocations}");
}

#[test]
fn long_messages_of_a_session_allocate_little() {
    let allocations = for_a_hundred(Kind::Session, LONG, many, recv);
    assert!(allocations <= 200, "{allocations}");
}
