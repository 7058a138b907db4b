//! While the application receives or sends, its own poll drives the connection. It is never the only
//! thing that does: wherever the application stops, the connection's task goes on.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::{
    io::AsyncWriteExt,
    runtime::{Builder, Runtime},
};
use unstall::{Client, Connection, ConnectionError, Message, Options, Overflow};

use crate::common::{
    client,
    frames::{BINARY, CONTINUATION, PING, PONG, RawPeer, frame, listen, read_head, switching},
    limit,
    numbered::{number, numbered, receive},
    plain, until,
};

/// Far more than a turn reads, and less than the inbox holds.
const MESSAGES: u64 = 1000;
const SIZE: usize = 1000;

fn on_threads(threads: usize) -> Runtime {
    let mut builder = match threads {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(threads.max(1))
        .enable_all()
        .build()
        .unwrap()
}

/// A connection, and its peer on the other end.
async fn connected() -> (Connection, RawPeer) {
    let (listener, address) = listen().await;
    let dialed = client(address, Options::default()).plain();
    let (connection, peer) = tokio::join!(dialed.connect(), RawPeer::accept(&listener));
    (connection.unwrap(), peer)
}

/// The peer sends all messages, and a ping that must be answered.
async fn burst(peer: &mut RawPeer) {
    for number in 0..MESSAGES {
        peer.say(frame(BINARY, numbered(number, SIZE).as_bytes()))
            .await;
    }
    peer.say(frame(PING, b"there?")).await;
    let answer = limit(peer.see()).await.unwrap();
    assert_eq!((answer.opcode, &answer.payload[..]), (PONG, &b"there?"[..]));
}

/// Waits until everything is received although nobody receives it, and then takes it.
async fn all_is_there(connection: Connection, from: u64) {
    until("everything is read", || {
        connection.stats().messages_received == MESSAGES
    })
    .await;
    let (_sender, mut receiver) = connection.split();
    receive(&mut receiver, from..MESSAGES, SIZE).await;
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs the test on a runtime of one thread, and on runtimes with one worker and with two.
fn on_every_runtime<F: Future<Output = ()> + Send + 'static>(test: impl Fn() -> F) {
    for threads in 0..3 {
        let runtime = on_threads(threads);
        runtime.block_on(async { limit(tokio::spawn(test())).await.unwrap() });
    }
}

#[test]
fn a_recv_that_is_polled_once_and_held_stops_nothing() {
    on_every_runtime(|| async {
        let (connection, mut peer) = connected().await;
        let (sender, mut receiver) = connection.split();
        {
            let mut held = pin!(receiver.recv());
            assert!(poll_once(held.as_mut()).is_pending());
            burst(&mut peer).await;
            until("everything is read", || {
                sender.stats().messages_received == MESSAGES
            })
            .await;
            assert_eq!(number(&plain(limit(held).await)), 0);
        }
        receive(&mut receiver, 1..MESSAGES, SIZE).await;
    });
}

#[test]
fn a_recv_that_is_dropped_stops_nothing() {
    on_every_runtime(|| async {
        let (mut connection, mut peer) = connected().await;
        assert!(poll_once(pin!(connection.recv())).is_pending());
        burst(&mut peer).await;
        all_is_there(connection, 0).await;
    });
}

#[test]
fn an_application_that_stops_after_one_message_stops_nothing() {
    on_every_runtime(|| async {
        let (mut connection, mut peer) = connected().await;
        let burst = tokio::spawn(async move {
            burst(&mut peer).await;
            peer
        });
        assert_eq!(number(&plain(limit(connection.recv()).await)), 0);
        let _peer = limit(burst).await.unwrap();
        all_is_there(connection, 1).await;
    });
}

/// Once the turn of a sender that found the outbox full left work undone, and nobody went on. The socket
/// had room, so nothing woke the task. The sender waited until the next ping.
#[test]
fn a_sender_that_waits_for_room_leaves_its_turn_to_the_task() {
    const LONG: usize = 1 << 20;
    on_every_runtime(|| async {
        let (near, mut far) = tokio::io::duplex(8 * LONG);
        let near = Mutex::new(Some(near));
        let dialed = Client::new("ws://a.pipe/")
            .without_reconnect()
            .plain()
            .connector(move |_| {
                let near = near.lock().unwrap().take();
                async move { Ok(near.expect("one connection")) }
            });
        let peer = async {
            let head = read_head(&mut far).await;
            far.write_all(switching(&head, "").as_bytes())
                .await
                .unwrap();
            RawPeer::server(far)
        };
        let (connection, mut peer) = tokio::join!(dialed.connect(), peer);
        let connection = connection.unwrap();
        until("it runs", || connection.stats().connections == 1).await;
        for number in 0..4 {
            limit(connection.send(numbered(number, LONG)))
                .await
                .unwrap();
        }
        limit(connection.flush()).await.unwrap();
        // A ping would stand between the messages.
        for expected in 0..4 {
            let mut payload = Vec::new();
            loop {
                let frame = limit(peer.see()).await.unwrap();
                assert!(
                    matches!(frame.opcode, BINARY | CONTINUATION),
                    "{}",
                    frame.opcode
                );
                payload.extend(frame.payload);
                if frame.fin {
                    break;
                }
            }
            assert_eq!(number(&Message::from(payload)), expected);
        }
    });
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future without any runtime.
fn run_without_runtime<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_connection_is_used_from_another_runtime_and_from_none() {
    let own = on_threads(2);
    let (mut connection, mut peer) = own.block_on(connected());
    let burst = own.spawn(async move {
        burst(&mut peer).await;
        peer
    });
    let other = on_threads(0);
    for expected in 0..MESSAGES / 2 {
        let received = other.block_on(async { connection.recv().await });
        assert_eq!(number(&plain(received)), expected);
    }
    for expected in MESSAGES / 2..MESSAGES {
        let received = run_without_runtime(connection.recv());
        assert_eq!(number(&plain(received)), expected);
    }
    let mut peer = own.block_on(burst).unwrap();
    let reading = own.spawn(async move {
        for expected in 0..MESSAGES {
            let frame = limit(peer.see()).await.unwrap();
            assert_eq!(number(&Message::from(frame.payload)), expected);
        }
        peer
    });
    // Enough that the sender writes it itself.
    for number in 0..MESSAGES {
        run_without_runtime(connection.send(numbered(number, SIZE))).unwrap();
    }
    own.block_on(reading).unwrap();
}

#[test]
fn the_end_of_its_runtime_ends_a_connection_that_another_runtime_uses() {
    let own = on_threads(2);
    let (mut connection, peer) = own.block_on(connected());
    let receiving = thread::spawn(move || {
        let ended = run_without_runtime(connection.recv());
        (connection, ended)
    });
    drop(own);
    let (connection, ended) = receiving.join().unwrap();
    assert!(matches!(ended, Err(ConnectionError::Aborted)), "{ended:?}");
    assert!(run_without_runtime(connection.send("late")).is_err());
    drop(peer);
}

/// A connection whose key function panics, after the peer has sent two messages.
async fn connected_to_a_panic() -> (Connection, RawPeer) {
    let (listener, address) = listen().await;
    let panics = |_: &Message| -> Option<Vec<u8>> { panic!("no key") };
    let options = Options::default().overflow(Overflow::Conflate(Arc::new(panics)));
    let dialed = client(address, options).plain();
    let (connection, peer) = tokio::join!(dialed.connect(), RawPeer::accept(&listener));
    let (connection, mut peer) = (connection.unwrap(), peer);
    for _ in 0..2 {
        peer.say(frame(BINARY, b"a price")).await;
    }
    (connection, peer)
}

/// The application's own poll may be what runs into a panic of its key function.
#[test]
fn a_panic_of_the_users_function_ends_the_connection_and_not_the_caller() {
    on_every_runtime(|| async {
        let (mut connection, _peer) = connected_to_a_panic().await;
        let ended = loop {
            match limit(connection.recv()).await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        assert!(matches!(ended, Err(ConnectionError::Aborted)), "{ended:?}");
    });
}

#[test]
fn a_panic_in_the_task_ends_the_connection() {
    on_every_runtime(|| async {
        let (connection, _peer) = connected_to_a_panic().await;
        let report = limit(connection.ended()).await;
        assert!(
            matches!(report.error.as_deref(), Some(ConnectionError::Aborted)),
            "{report:?}"
        );
    });
}
