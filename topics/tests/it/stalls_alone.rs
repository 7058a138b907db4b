//! A consumer that stops stalls its own subscription, and nothing else.

use std::time::{Duration, Instant};

use unstall_topics::{Limits, Log, Node, Start};

use crate::common::{Served, client, message, number, numbered, publish_numbered};

const MESSAGES: u64 = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_on_the_same_connection_and_on_others_keep_their_pace() {
    let log = Log::memory(Limits::default().max_bytes(64 << 20))
        .await
        .unwrap();
    let served = Served::node(Node::new(&log)).await;
    let (reader, other) = (client(served.address), client(served.address));
    let mut stopped = reader.subscribe("n", Start::Beginning).unwrap();
    let mut stopped_too = other.subscribe(">", Start::Beginning).unwrap();
    let mut goes_on = reader.subscribe("n", Start::Beginning).unwrap();
    let mut elsewhere = other.subscribe("n", Start::Beginning).unwrap();
    let publishing = tokio::spawn({
        let log = log.clone();
        async move { publish_numbered(&log, 0..MESSAGES, 1000, |_| "n".into()).await }
    });
    let mut longest = Duration::ZERO;
    for expected in 0..MESSAGES {
        let begun = Instant::now();
        assert_eq!(number(&message(&mut goes_on).await), expected);
        assert_eq!(number(&message(&mut elsewhere).await), expected);
        longest = longest.max(begun.elapsed());
    }
    publishing.await.unwrap();
    assert!(longest < Duration::from_secs(5), "a wait of {longest:?}");
    // The same client publishes, and those that stopped go on where they were.
    reader.publish("n", numbered(MESSAGES, 8)).await.unwrap();
    for feed in [&mut stopped, &mut stopped_too] {
        for expected in 0..=MESSAGES {
            assert_eq!(number(&message(feed).await), expected);
        }
    }
}

/// Ten messages of 1 MiB and more, so that what is stopped is stopped within a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stops_within_a_long_message_stalls_nobody() {
    let log = Log::memory(Limits::default().max_bytes(64 << 20))
        .await
        .unwrap();
    let served = Served::node(Node::new(&log)).await;
    let reader = client(served.address);
    let mut stopped = reader.subscribe("n", Start::Beginning).unwrap();
    let mut goes_on = reader.subscribe("n", Start::Beginning).unwrap();
    for at in 0..20 {
        log.publish("n", numbered(at, 1_500_000)).await.unwrap();
        assert_eq!(number(&message(&mut goes_on).await), at);
    }
    for at in 0..20 {
        assert_eq!(number(&message(&mut stopped).await), at);
    }
}
