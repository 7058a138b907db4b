//! What logs, clients and subscriptions say of themselves.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use unstall_topics::{Limits, Log, Node, NodeSubscription, Start, SubscriptionStage, defaults};

use crate::common::{
    Served, bent::Bent, client, log, message, next, number, numbered, publication,
    publish_numbered, until,
};

#[tokio::test]
async fn a_subscription_says_how_far_it_is_and_how_far_behind() {
    let log = log().await;
    publish_numbered(&log, 0..5_000, 1000, |_| "n".into()).await;
    let served = Served::node(Node::new(&log)).await;
    let topics = client(served.address);
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    let before = feed.stats();
    assert_eq!((before.position, before.messages), (None, 0));
    for _ in 0..10 {
        message(&mut feed).await;
    }
    // The window is full of what the application has not taken.
    until("a full window", || feed.stats().credit_bytes < 100_000).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let stats = feed.stats();
    assert_eq!(stats.messages, 10);
    assert_eq!(stats.position, feed.position());
    assert!(stats.arrived.unwrap().offset.get() > 500, "{stats:?}");
    assert!(stats.waiting_bytes > 500_000, "{stats:?}");
    assert_eq!(stats.end.unwrap().get(), 5_000);
    assert_eq!(stats.lag, Some(4_990));
    assert!(
        stats.lag_time.unwrap() >= Duration::from_millis(20),
        "{stats:?}"
    );
    while number(&message(&mut feed).await) < 4_999 {}
    next(&mut feed).await;
    let stats = feed.stats();
    assert_eq!((stats.lag, stats.lag_time), (Some(0), Some(Duration::ZERO)));
    assert_eq!((stats.messages, stats.waiting_bytes), (5_000, 0));
    let logged = log.stats();
    assert_eq!(
        (logged.first.get(), logged.last.get(), logged.stored),
        (1, 5_000, 5_000)
    );
    assert!(
        logged.cached_bytes > 5_000_000 && logged.cache_hits > 50,
        "{logged:?}"
    );
    assert!(logged.commits >= 5 && logged.refused == 0, "{logged:?}");
    assert_eq!((logged.store_reads, logged.waiting_bytes), (0, 0));
}

#[tokio::test]
async fn a_client_says_what_has_no_answer() {
    let (store, bends) = Bent::new(Limits::default());
    let log = Log::with_store(store).await.unwrap();
    let served = Served::node(Node::new(&log).name("node\x1b[2J a")).await;
    let topics = client(served.address);
    let _feed = topics.subscribe("n", Start::Now).unwrap();
    until("a connection", || topics.stats().log.is_some()).await;
    let stats = topics.stats();
    assert_eq!((stats.log, stats.connections), (Some(log.id()), 1));
    assert_eq!(stats.node.as_deref(), Some(r"node\u{1b}[2J a"));
    assert_eq!((stats.subscriptions, stats.unanswered), (1, 0));
    bends.append_late.store(400, Relaxed);
    let publishing = tokio::spawn({
        let topics = topics.clone();
        async move {
            let batch = (0..100).map(|at| publication("n", numbered(at, 1000)));
            topics.publish_many(batch.collect()).await
        }
    });
    until("messages on their way", || topics.stats().unanswered == 100).await;
    assert_eq!(topics.stats().unanswered_bytes, 100 * (1000 + 1 + 64));
    until("they wait for the store", || {
        log.stats().waiting_bytes > 100_000
    })
    .await;
    publishing.await.unwrap();
    let stats = topics.stats();
    assert_eq!((stats.unanswered, stats.unanswered_bytes), (0, 0));
    assert_eq!((stats.stored, stats.refused), (100, 0));
}

/// Who lags further behind than what is in memory reads from the store.
#[tokio::test]
async fn reads_of_the_store_are_counted() {
    let log = log().await;
    publish_numbered(&log, 0..400, 100_000, |_| "n".into()).await;
    let mut feed = log.subscribe("n", Start::Beginning).unwrap();
    for at in 0..400 {
        assert_eq!(number(&message(&mut feed).await), at);
    }
    let stats = log.stats();
    assert!(stats.store_reads > 10 && stats.cache_hits > 10, "{stats:?}");
    assert!(
        stats.cached_bytes <= unstall_topics::defaults::TAIL_BYTES,
        "{stats:?}"
    );
}

#[tokio::test]
async fn a_node_says_who_lags_and_waits_for_its_reader() {
    let log = log().await;
    let node = Node::new(&log);
    assert_eq!(node.subscriptions(10).await.total, 0);
    let served = Served::node(node.clone()).await;
    let (stopped, reads) = (client(served.address), client(served.address));
    let _never_read = stopped.subscribe("n", Start::Beginning).unwrap();
    let mut feed = reads.subscribe(">", Start::Beginning).unwrap();
    publish_numbered(&log, 0..5_000, 1000, |_| "n".into()).await;
    while number(&message(&mut feed).await) < 4_999 {}

    let mut told = node.subscriptions(10).await;
    for _ in 0..1_000 {
        let is_still = |it: &NodeSubscription| it.waits_for_credit || it.lag == 0;
        if told.total == 2 && told.list.len() == 2 && told.list.iter().all(is_still) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        told = node.subscriptions(10).await;
    }
    let [first, second] = &told.list[..] else {
        panic!("{told:?}");
    };
    assert_eq!((first.filter.as_str(), first.waits_for_credit), ("n", true));
    assert!(
        first.lag > 2_000 && first.offset.get() + first.lag == 5_000,
        "{first:?}"
    );
    assert_eq!(
        (second.filter.as_str(), second.waits_for_credit),
        (">", false)
    );
    assert_eq!((second.lag, second.stage), (0, SubscriptionStage::Live));
    assert!(first.connection.is_some() && first.connection != second.connection);
    let few = node.subscriptions(1).await;
    assert_eq!((few.total, few.list.len()), (2, 1));
    assert!(few.list[0].waits_for_credit);
}

/// A client with a thousand subscriptions fills neither the answer nor memory.
#[tokio::test]
async fn of_one_connection_a_node_tells_a_few() {
    let log = log().await;
    let node = Node::new(&log);
    let served = Served::node(node.clone()).await;
    let topics = client(served.address);
    let subscribe = |nth| topics.subscribe(format!("t{nth}"), Start::Now).unwrap();
    let _feeds: Vec<_> = (0..100).map(subscribe).collect();
    for _ in 0..1_000 {
        if node.subscriptions(50).await.total == 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = node.subscriptions(50).await;
    assert_eq!(told.total, 100);
    assert_eq!(told.list.len(), defaults::SUBSCRIPTIONS_TOLD);
}
