//! What logs, clients and subscriptions say of themselves.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use unstall_topics::{Limits, Log, Node, Start, SubscriptionStage};

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
async fn a_log_says_which_subscriptions_lag_and_how_far() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let (topics, others) = (client(served.address), client(served.address));
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    let mut quiet = others.subscribe("other.>", Start::Beginning).unwrap();
    let here = log.subscribe("n", Start::Beginning).unwrap();
    next(&mut feed).await;
    next(&mut quiet).await;
    until("all are live", || {
        let all = log.subscriptions();
        all.len() == 3 && all.iter().all(|it| it.stage == SubscriptionStage::Live)
    })
    .await;
    assert_eq!((log.lag().subscriptions, log.lag().lagging), (3, 0));

    publish_numbered(&log, 0..5_000, 1000, |_| "n".into()).await;
    let behind = || log.subscriptions().into_iter().filter(|it| it.lag > 0);
    // Neither application takes anything, so both windows are full.
    until("two wait", || {
        behind().filter(|it| it.waits_for_credit).count() == 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    for lagging in behind() {
        assert_eq!(lagging.filter.as_str(), "n");
        assert_eq!(lagging.lag, 5_000 - lagging.offset.get());
        assert!(lagging.lag_bytes >= lagging.lag * 1000, "{lagging:?}");
        assert!(lagging.lag_bytes <= 5_000_000, "{lagging:?}");
        assert!(lagging.lag_time >= Duration::from_millis(20), "{lagging:?}");
    }
    let mut connections: Vec<_> = behind().map(|it| it.connection.is_some()).collect();
    connections.sort_unstable();
    assert_eq!(connections, [false, true]);
    let lag = log.lag();
    assert_eq!((lag.subscriptions, lag.lagging, lag.waiting), (3, 2, 2));
    assert!(
        lag.max_offsets > 1_000 && lag.offsets > lag.max_offsets,
        "{lag:?}"
    );
    assert!(
        lag.max_bytes < lag.bytes && lag.max_time < lag.time,
        "{lag:?}"
    );

    drop(here);
    while number(&message(&mut feed).await) < 4_999 {}
    until("nobody lags", || log.lag().lagging == 0).await;
    assert_eq!(log.lag().max_time, Duration::ZERO);
    until("one has ended", || log.lag().subscriptions == 2).await;
}
