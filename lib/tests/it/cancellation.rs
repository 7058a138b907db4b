//! Every public future can be dropped at each of its await points. The connection goes on, and no
//! message is lost, duplicated or reordered.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use crate::common::{limit, numbered::numbered, pair, plain, until};
use futures_util::{Sink, SinkExt, StreamExt};
use tokio::net::TcpListener;
use unstall::{
    Client, CloseCode, Connection, Event, Message, Options, Sender, TrySendError,
    tokio_tungstenite::accept_async,
};

/// Polls `future` up to `polls` times, each time after a wake-up. Then drops it.
async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // That was the last poll. A wake-up now finds the future dropped.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Futures are dropped after 0, 1, 2, 3 polls, again and again.
const MOST_POLLS: usize = 4;

fn number(index: u64) -> Message {
    numbered(index, 16 + (index as usize * 37) % 3000)
}

/// Small queues, so that every future has to wait sometimes.
fn options() -> Options {
    Options::default()
        .outbox_bytes(8 << 10)
        .inbox_bytes(8 << 10)
}

/// Receives `count` numbered messages in order, and checks that no more come.
async fn receive(mut connection: Connection, count: u64) -> Connection {
    for index in 0..count {
        assert_eq!(plain(limit(connection.recv()).await), number(index));
    }
    connection
}

async fn ends_cleanly(mut receiving: Connection, sender: &Sender) {
    let report = limit(sender.close(CloseCode::NORMAL, "")).await;
    assert!(report.clean && report.unsent.is_empty(), "{report:?}");
    assert!(
        matches!(limit(receiving.recv()).await, Ok(None)),
        "nothing more"
    );
}

const COUNT: u64 = 2_000;

/// Sends the numbers in order with `attempt`, which drops its future after the given number of polls
/// and returns whether the message was accepted.
async fn send_all<A>(attempt: A)
where
    A: AsyncFn(&Sender, Message, usize) -> bool,
{
    let (client, server) = pair(options()).await;
    let (sender, _receiver) = client.split();
    let reads = tokio::spawn(receive(server, COUNT));
    let mut dropped = 0;
    for index in 0..COUNT {
        let mut polls = index as usize % MOST_POLLS;
        while !attempt(&sender, number(index), polls).await {
            dropped += 1;
            polls += 1;
            tokio::task::yield_now().await;
        }
    }
    assert!(dropped > 20, "{dropped} futures were dropped");
    let server = limit(reads).await.unwrap();
    ends_cleanly(server, &sender).await;
}

#[tokio::test]
async fn send_dropped_at_any_poll_has_not_sent() {
    send_all(async |sender, message, polls| {
        drop_after(polls, sender.send(message))
            .await
            .is_some_and(|sent| sent.is_ok())
    })
    .await;
}

#[tokio::test]
async fn send_within_dropped_at_any_poll_has_not_sent() {
    send_all(async |sender, message, polls| {
        let minute = Duration::from_secs(60);
        let sent = drop_after(polls, sender.send_within(message, minute)).await;
        sent.is_some_and(|sent| sent.is_ok())
    })
    .await;
}

#[tokio::test]
async fn flush_dropped_at_any_poll_changes_nothing() {
    send_all(async |sender, message, polls| {
        let sent = match sender.try_send(message) {
            Ok(()) => true,
            Err(error) => {
                assert!(matches!(error, TrySendError::Full(_)), "{error}");
                false
            }
        };
        if let Some(flushed) = drop_after(polls, sender.flush()).await {
            flushed.unwrap();
            assert_eq!(sender.stats().outbox.messages, 0, "flushed means written");
        }
        sent
    })
    .await;
}

#[tokio::test]
async fn waiting_for_the_end_dropped_at_any_poll_ends_nothing() {
    send_all(async |sender, message, polls| {
        // Only the end of the connection wakes it.
        assert!(drop_after(polls.min(1), sender.ended()).await.is_none());
        drop_after(polls, sender.send(message))
            .await
            .is_some_and(|sent| sent.is_ok())
    })
    .await;
}

async fn receive_all<A>(attempt: A)
where
    A: AsyncFn(&mut Connection, usize) -> Option<Message>,
{
    let (mut client, server) = pair(options()).await;
    let (sender, receiver) = server.split();
    let writes = tokio::spawn(async move {
        for index in 0..COUNT {
            sender.send(number(index)).await.unwrap();
        }
        limit(sender.close(CloseCode::NORMAL, "")).await
    });
    let (mut next, mut dropped) = (0, 0);
    while next < COUNT {
        match attempt(&mut client, (next + dropped) as usize % MOST_POLLS).await {
            Some(message) => {
                assert_eq!(message, number(next));
                next += 1;
            }
            None => {
                dropped += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(dropped > COUNT / 8, "{dropped} futures were dropped");
    assert!(
        matches!(limit(client.recv()).await, Ok(None)),
        "nothing more"
    );
    assert!(writes.await.unwrap().clean);
    drop(receiver);
}

#[tokio::test]
async fn recv_dropped_at_any_poll_has_taken_nothing() {
    receive_all(async |connection, polls| drop_after(polls, connection.recv()).await.map(plain))
        .await;
}

#[tokio::test]
async fn next_of_the_stream_dropped_at_any_poll_has_taken_nothing() {
    receive_all(async |connection, polls| {
        let next = drop_after(polls, connection.next()).await?;
        Some(plain(next.transpose()))
    })
    .await;
}

/// Once a flush of the sink resolved although a message was put into the sink after it had begun, and
/// that message was not written.
#[tokio::test]
async fn sink_dropped_at_any_poll_keeps_what_it_took() {
    let (client, server) = pair(options()).await;
    let (sender, _receiver) = client.split();
    let reads = tokio::spawn(receive(server, COUNT));
    let mut sink = sender.sink();
    for index in 0..COUNT {
        let mut polls = index as usize % MOST_POLLS;
        loop {
            let waits = poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx));
            if let Some(ready) = drop_after(polls, waits).await {
                ready.unwrap();
                break;
            }
            polls += 1;
            tokio::task::yield_now().await;
        }
        Pin::new(&mut sink).start_send(number(index)).unwrap();
        if let Some(flushed) = drop_after(polls % MOST_POLLS, sink.flush()).await {
            flushed.unwrap();
            assert_eq!(sender.stats().outbox.messages, 0, "flushed means written");
        }
    }
    limit(sink.flush()).await.unwrap();
    let mut server = limit(reads).await.unwrap();
    for polls in 0..MOST_POLLS {
        drop_after(polls, sink.close()).await;
    }
    limit(sink.close()).await.unwrap();
    limit(sink.close()).await.unwrap();
    assert!(matches!(limit(server.recv()).await, Ok(None)));
}

#[tokio::test]
async fn close_dropped_at_any_poll_goes_on_and_reports_once() {
    for polls in 0..6 {
        let (client, server) = pair(options()).await;
        let (sender, _receiver) = client.split();
        for index in 0..5 {
            sender.send(number(index)).await.unwrap();
        }
        let early = drop_after(polls, sender.close(CloseCode::NORMAL, "")).await;
        if polls > 0 {
            assert!(sender.try_send("later").is_err(), "it is closing");
        }
        let server = receive(server, 5).await;
        let report = match early {
            Some(report) => report,
            None => limit(sender.close(CloseCode::NORMAL, "")).await,
        };
        assert!(report.clean && report.unsent.is_empty(), "{report:?}");
        ends_cleanly_by_peer(server).await;
    }
}

async fn ends_cleanly_by_peer(mut server: Connection) {
    assert!(matches!(limit(server.recv()).await, Ok(None)));
}

#[tokio::test]
async fn events_dropped_at_any_poll_are_not_missed() {
    let (client, _server) = pair(options()).await;
    let (sender, _receiver) = client.split();
    let mut events = sender.events();
    let sends = tokio::spawn(async move {
        for _ in 0..50 {
            sender.send_within("late", Duration::ZERO).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = sender.close(CloseCode::NORMAL, "").await;
        sender.stats().expired
    });
    let (mut expired, mut rounds) = (0, 0);
    loop {
        rounds += 1;
        match drop_after(rounds % MOST_POLLS, events.recv()).await {
            Some(Some(Event::Expired { messages })) => expired += messages,
            Some(Some(Event::Missed(missed))) => panic!("{missed}"),
            Some(Some(_)) => {}
            Some(None) => break,
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(expired, limit(sends).await.unwrap());
    assert_eq!(expired, 50);
}

/// Upgrades every client, and counts those that connected and those that left.
async fn upgrade_everyone(listener: TcpListener, came: Arc<AtomicUsize>, went: Arc<AtomicUsize>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        came.fetch_add(1, Ordering::Relaxed);
        let went = went.clone();
        tokio::spawn(async move {
            if let Ok(mut ws) = accept_async(tcp).await {
                while let Some(Ok(_)) = ws.next().await {}
            }
            went.fetch_add(1, Ordering::Relaxed);
        });
    }
}

#[tokio::test]
async fn connect_dropped_at_any_poll_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let (came, went) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    tokio::spawn(upgrade_everyone(listener, came.clone(), went.clone()));
    let mut polls = 0;
    let connection = loop {
        let connect = Client::new(&url).without_reconnect().connect();
        match limit(drop_after(polls, connect)).await {
            Some(connected) => break connected.unwrap(),
            None => polls += 1,
        }
    };
    assert!(polls >= 2, "it waits at least for TCP and for the answer");
    until("all others are gone", || {
        came.load(Ordering::Relaxed) == went.load(Ordering::Relaxed) + 1
    })
    .await;
    let report = limit(connection.close(CloseCode::NORMAL, "")).await;
    assert!(report.clean, "{report:?}");
}
