//! Futures and handles that are dropped lose nothing, and leave nothing behind.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, Waker},
    time::Duration,
};

use unstall_topics::{Delivery, Limits, Log, Node, Start, Topics};

use crate::common::{
    Served, bent::Bent, client, cutter::Cutter, in_time, log, message, next, number, numbered,
    publication, publish_numbered, soon, until, url,
};

/// Polls a future once, and drops it.
fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn recv_that_is_dropped_at_every_poll_loses_nothing() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let cutter = Cutter::to(served.address, 3).await;
    cutter.cut_after(20_000..100_000);
    let topics = Topics::builder([url(cutter.address)])
        .reconnect(soon())
        .start();
    let mut feeds = [
        topics.subscribe("n", Start::Beginning).unwrap(),
        log.subscribe("n", Start::Beginning).unwrap(),
    ];
    let publishing = tokio::spawn({
        let log = log.clone();
        async move {
            for at in 0..5_000 {
                log.publish("n", numbered(at, 100)).await.unwrap();
            }
        }
    });
    let mut read = [0, 0];
    let reading = async {
        while read.iter().any(|read| *read < 5_000) {
            for (feed, read) in feeds.iter_mut().zip(&mut read) {
                // A future that is polled once and dropped, again and again.
                match once(feed.recv()) {
                    Some(Ok(Some(Delivery::Message(message)))) => {
                        assert_eq!(number(&message), *read);
                        *read += 1;
                    }
                    Some(Ok(Some(Delivery::CaughtUp(_)))) | None => {}
                    Some(other) => panic!("{other:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
    };
    in_time(reading).await;
    publishing.await.unwrap();
}

/// Dropped before it is polled, while it waits for room, and while it waits for its answer.
#[tokio::test]
async fn publish_that_is_dropped_stores_at_most_once_and_stops_nobody() {
    let (store, bends) = Bent::new(Limits::default());
    let log = Log::with_store(store).await.unwrap();
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    bends.append_late.store(5, Relaxed);
    let mut rng = fastrand::Rng::with_seed(11);
    for at in 0..400 {
        let long = if at % 10 == 0 { 3 << 20 } else { 1000 };
        let publishing = topics.publish("dropped", numbered(at, long));
        match rng.u32(0..4) {
            0 => drop(publishing),
            1 => drop(once(publishing)),
            _ => {
                let wait = Duration::from_micros(rng.u64(0..3_000));
                let _ = tokio::time::timeout(wait, publishing).await;
            }
        }
    }
    bends.append_late.store(0, Relaxed);
    in_time(topics.publish("kept", numbered(1, 8)))
        .await
        .unwrap();
    let mut feed = log.subscribe(">", Start::Beginning).unwrap();
    let mut last = None;
    loop {
        let message = message(&mut feed).await;
        if message.topic().as_str() == "kept" {
            break;
        }
        let read = number(&message);
        assert!(
            last.is_none_or(|last| last < read),
            "each at most once, in order"
        );
        last = Some(read);
    }
    assert!(last.is_some());
}

#[tokio::test]
async fn a_batch_whose_future_is_dropped_lets_the_next_one_through() {
    let (store, bends) = Bent::new(Limits::default());
    let log = Log::with_store(store).await.unwrap();
    bends.append_late.store(20, Relaxed);
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    for round in 0..10 {
        let batch = (0..200).map(|at| publication("n", numbered(at, 100_000)));
        // It needs five times the room that there is, and is dropped while it waits for it.
        let waiting = topics.publish_many(batch.collect());
        let _ = tokio::time::timeout(Duration::from_millis(30), waiting).await;
        let answer = in_time(topics.publish("after", numbered(round, 8))).await;
        answer.unwrap();
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test]
async fn handles_that_are_dropped_end_their_tasks_and_connections() {
    let before = tasks();
    {
        let log = log().await;
        let served = Served::node(Node::new(&log)).await;
        publish_numbered(&log, 0..1000, 1000, |_| "n".into()).await;
        let with_server = tasks();
        for _ in 0..5 {
            let clients: Vec<_> = (0..10).map(|_| client(served.address)).collect();
            let mut feeds: Vec<_> = clients
                .iter()
                .flat_map(|it| {
                    [
                        it.subscribe("n", Start::Beginning),
                        it.subscribe(">", Start::Now),
                    ]
                })
                .chain((0..10).map(|_| log.subscribe("n", Start::Beginning)))
                .map(Result::unwrap)
                .collect();
            for feed in &mut feeds {
                assert!(next(feed).await.is_some());
            }
            served.open(10).await;
            // A subscription keeps its client, and a client keeps no subscription.
            drop(clients);
            for feed in &mut feeds[..20] {
                assert!(in_time(feed.recv()).now_or_never_is_no_error());
            }
            drop(feeds);
            served.open(0).await;
            until("no task is left", || tasks() <= with_server).await;
        }
        served.stop().await;
    }
    until("the log's tasks end too", || tasks() <= before).await;
}

trait NoError {
    fn now_or_never_is_no_error(self) -> bool;
}

impl<T, E, F: Future<Output = Result<T, E>>> NoError for F {
    fn now_or_never_is_no_error(self) -> bool {
        !matches!(once(self), Some(Err(_)))
    }
}

/// Once a client whose node did not read any more stayed for as long as the connection lived.
#[tokio::test]
async fn a_client_that_is_dropped_while_its_node_is_frozen_ends_too() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let cutter = Cutter::to(served.address, 0).await;
    let before = tasks();
    let topics = Topics::builder([url(cutter.address)])
        .publish_window(64 << 20)
        .start();
    topics.publish("n", "x").await.unwrap();
    cutter.freeze(true);
    let batch = (0..600).map(|at| publication("n", numbered(at, 100_000)));
    let waiting = topics.publish_many(batch.collect());
    assert!(
        tokio::time::timeout(Duration::from_millis(300), waiting)
            .await
            .is_err()
    );
    drop(topics);
    // What is left are the two connections of the proxy and the node's own.
    until("the client's task", || tasks() <= before + 3).await;
}
