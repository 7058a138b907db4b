//! A publisher that gives up says of each message what is known of it.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use unstall::Reconnect;
use unstall_topics::{
    Delivery, Limits, Log, Node, PublishError, Refusal, Start, SubscriptionError, Topics,
    store::StoreError,
};

use crate::common::{
    Served, bent::Bent, cutter::Cutter, in_time, message, number, numbered, publication, until, url,
};

/// Gives up when it cannot connect at once.
fn impatient() -> Reconnect {
    Reconnect::default().first(Duration::ZERO).attempts(1)
}

/// Some messages are answered, some are stored and their answers lost, some are never sent. Each says
/// which.
#[tokio::test]
async fn each_message_without_an_answer_is_stored_not_stored_or_unknown_and_that_is_true() {
    let (store, bends) = Bent::new(Limits::default());
    let log = Log::with_store(store).await.unwrap();
    let served = Served::node(Node::new(&log)).await;
    let cutter = Cutter::to(served.address, 0).await;
    let topics = Topics::builder([url(cutter.address)])
        .reconnect(impatient())
        .publish_window(64 << 20)
        .start();
    let batch = |numbers: std::ops::Range<u64>| {
        numbers
            .map(|at| publication("n", numbered(at, 1000)))
            .collect()
    };
    let told = in_time(topics.publish_many(batch(0..10))).await;
    assert!(told.iter().all(Result::is_ok));
    // The store is late, so what is on its way has no answer when the connection breaks. The node
    // takes 1 MiB of it, and the rest is not sent.
    bends.append_late.store(300, Relaxed);
    let publishing = tokio::spawn({
        let topics = topics.clone();
        let batch = batch(10..3_000);
        async move { topics.publish_many(batch).await }
    });
    let before = bends.appends.load(Relaxed);
    until("an append", || bends.appends.load(Relaxed) > before).await;
    cutter.lead_to("127.0.0.1:1".parse().unwrap());
    cutter.cut();
    let results = in_time(publishing).await.unwrap();
    assert_eq!(results.len(), 2_990);
    let (mut unknown, mut not_sent) = (0, 0);
    // What the node took is stored in the end.
    drop(served);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut feed = log.subscribe("n", Start::Beginning).unwrap();
    let mut stored = Vec::new();
    loop {
        match in_time(feed.recv()).await.unwrap().unwrap() {
            Delivery::Message(message) => stored.push(number(&message)),
            Delivery::CaughtUp(_) => break,
            other => panic!("{other:?}"),
        }
    }
    for (result, at) in results.iter().zip(10..) {
        match result {
            Err(PublishError::Unknown) => unknown += 1,
            Err(PublishError::NotSent) => {
                not_sent += 1;
                assert!(!stored.contains(&at), "{at} was sent");
            }
            Ok(offset) => assert_eq!(stored[offset.get() as usize - 1], at),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        unknown > 100 && not_sent > 100,
        "{unknown} unknown, {not_sent} not sent"
    );
    let mut once = stored.clone();
    once.dedup();
    assert_eq!(once, stored, "each at most once");
}

#[tokio::test]
async fn a_client_that_never_connects_stores_nothing_and_says_so() {
    let topics = Topics::builder(["ws://127.0.0.1:1/topics"])
        .reconnect(
            Reconnect::default()
                .first(Duration::from_millis(1))
                .attempts(3),
        )
        .start();
    let mut feed = topics.subscribe("n", Start::Now).unwrap();
    // Also one that is longer than any node has promised to take.
    for bytes in [10, 8 << 20] {
        let result = in_time(topics.publish("n", numbered(0, bytes))).await;
        assert!(matches!(result, Err(PublishError::NotSent)), "{result:?}");
    }
    let error = in_time(feed.recv()).await.unwrap_err();
    assert!(
        matches!(error, SubscriptionError::ClientEnded(_)),
        "{error}"
    );
}

/// Once a message of more than 64 KiB was too large, unless a node had already said what it takes.
#[tokio::test]
async fn a_long_message_waits_for_the_first_connection_as_a_short_one_does() {
    let log = Log::memory(Limits::default()).await.unwrap();
    let served = Served::node(Node::new(&log)).await;
    let topics = crate::common::client(served.address);
    in_time(topics.publish("n", numbered(5, 8 << 20)))
        .await
        .unwrap();
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    assert_eq!(message(&mut feed).await.as_bytes().len(), 8 << 20);
    // The log takes 16 MiB.
    let result = in_time(topics.publish("n", numbered(5, 17 << 20))).await;
    assert!(
        matches!(result, Err(PublishError::Refused(Refusal::TooLarge))),
        "{result:?}"
    );
    in_time(topics.publish("n", numbered(6, 8))).await.unwrap();
    assert_eq!(number(&message(&mut feed).await), 6);
}

#[tokio::test]
async fn what_the_store_says_is_what_the_publisher_learns() {
    let (store, bends) = Bent::new(Limits::default());
    let log = Log::with_store(store).await.unwrap();
    let served = Served::node(Node::new(&log)).await;
    let topics = crate::common::client(served.address);
    let errors = [
        (StoreError::Full("a full disk".into()), Refusal::Full),
        (StoreError::Unavailable("gone".into()), Refusal::Unavailable),
        (StoreError::Unknown("late".into()), Refusal::Unknown),
    ];
    for (error, expected) in errors {
        *bends.refuse.lock().unwrap() = Some(error);
        for result in [
            in_time(topics.publish("n", "x")).await,
            in_time(log.publish("n", "x")).await,
        ] {
            let Err(error @ PublishError::Refused(refusal)) = result else {
                panic!("{result:?}");
            };
            assert_eq!(refusal, expected);
            assert_eq!(error.may_be_stored(), refusal == Refusal::Unknown);
        }
    }
    *bends.refuse.lock().unwrap() = None;
    assert_eq!(in_time(topics.publish("n", "x")).await.unwrap().get(), 1);
}

/// `close` is the way to end a client that others still hold.
#[tokio::test]
async fn closing_a_client_answers_whoever_waits() {
    let (store, bends) = Bent::new(Limits::default());
    bends.append_late.store(1_000, Relaxed);
    let log = Log::with_store(store).await.unwrap();
    let served = Served::node(Node::new(&log)).await;
    let topics = crate::common::client(served.address);
    let mut feed = topics.subscribe("n", Start::Now).unwrap();
    let mut events = topics.events();
    let publishing = tokio::spawn({
        let topics = topics.clone();
        async move { topics.publish("n", "x").await }
    });
    until("an append", || bends.appends.load(Relaxed) > 0).await;
    topics.close();
    let result = in_time(publishing).await.unwrap();
    assert!(matches!(result, Err(PublishError::Unknown)), "{result:?}");
    let error = loop {
        match in_time(feed.recv()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, SubscriptionError::ClientEnded(_)),
        "{error}"
    );
    served.open(0).await;
    in_time(async { while events.next().await.is_some() {} }).await;
    assert!(in_time(topics.events().next()).await.is_none());
}
