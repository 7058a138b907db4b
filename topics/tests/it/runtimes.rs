//! Every kind of runtime, and one that ends before its clients do.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use unstall_topics::{Node, PublishError, Start, SubscriptionError};

use crate::common::{Served, client, in_time, log, message, next, number, numbered};

async fn round_trip() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let mut feeds = [
        topics.subscribe("n", Start::Beginning).unwrap(),
        log.subscribe("n", Start::Beginning).unwrap(),
    ];
    for at in 0..500 {
        topics.publish("n", numbered(at, 100)).await.unwrap();
        for feed in &mut feeds {
            assert_eq!(number(&message(feed).await), at);
        }
    }
}

fn multi(workers: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap()
}

fn current() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn it_works_on_each_kind_of_runtime() {
    for runtime in [current(), multi(1), multi(2)] {
        runtime.block_on(round_trip());
    }
}

/// Once a client whose runtime ended left its subscriptions and publishers waiting for ever.
#[test]
fn who_waits_for_a_client_of_a_runtime_that_ended_is_told() {
    let (servers, clients, here) = (multi(1), multi(1), current());
    let (log, served) = servers.block_on(async {
        let log = log().await;
        let served = Served::node(Node::new(&log)).await;
        (log, served)
    });
    let (topics, mut feed, mut local) = clients.block_on(async {
        let topics = client(served.address);
        let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
        let mut local = log.subscribe("n", Start::Beginning).unwrap();
        next(&mut feed).await;
        next(&mut local).await;
        (topics, feed, local)
    });
    clients.shutdown_timeout(Duration::from_secs(10));
    here.block_on(async {
        for feed in [&mut feed, &mut local] {
            let error = in_time(feed.recv()).await.unwrap_err();
            assert!(
                matches!(error, SubscriptionError::ClientEnded(_)),
                "{error}"
            );
        }
        let result = in_time(topics.publish("n", "x")).await;
        assert!(matches!(result, Err(PublishError::NotSent)), "{result:?}");
        let mut late = topics.subscribe("n", Start::Now).unwrap();
        assert!(in_time(late.recv()).await.is_err());
    });
    // The log is of another runtime, and goes on.
    servers.block_on(async {
        log.publish("n", "x").await.unwrap();
        served.open(0).await;
    });
}

/// The log's own runtime ends: what is published then is not stored, and that is said.
#[test]
fn who_publishes_to_a_log_of_a_runtime_that_ended_is_told() {
    let (logs, here) = (multi(1), current());
    let log = logs.block_on(log());
    logs.block_on(async { log.publish("n", "x").await.unwrap() });
    logs.shutdown_timeout(Duration::from_secs(10));
    here.block_on(async {
        let result = in_time(log.publish("n", "x")).await;
        assert!(result.is_err(), "{result:?}");
        // What is there can still be read.
        let mut feed = log.subscribe("n", Start::Beginning).unwrap();
        message(&mut feed).await;
    });
}
