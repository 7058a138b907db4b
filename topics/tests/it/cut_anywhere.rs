//! Connections that break at any byte lose nothing, double nothing and change no order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use unstall_topics::{Delivery, Log, Message, Node, PublishError, Start, Topics};

use crate::common::{
    Served, cutter::Cutter, in_time, log, message, number, numbered, publication, publish_numbered,
    soon, url,
};

const PUBLISHERS: u64 = 3;
const MESSAGES: u64 = 1500;
/// Of a snapshot.
const TOPICS: u64 = 3000;

fn through(cutter: &Cutter) -> Topics {
    Topics::builder([url(cutter.address)])
        .reconnect(soon())
        .start()
}

/// Publishes all its messages, in batches of random sizes. How many had their offset told.
async fn publish(topics: Topics, who: u64, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed + who);
    let (mut at, mut told) = (0, 0);
    while at < MESSAGES {
        let count = rng.u64(1..40).min(MESSAGES - at);
        let batch = (at..at + count).map(|number| {
            let bytes = match rng.u32(0..100) {
                0 => rng.usize(60_000..200_000),
                1..10 => rng.usize(1000..10_000),
                _ => rng.usize(8..200),
            };
            publication(&format!("p.{who}"), numbered(number, bytes))
        });
        for result in in_time(topics.publish_many(batch.collect())).await {
            match result {
                Ok(_) => told += 1,
                Err(PublishError::StoredBefore) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        at += count;
    }
    told
}

/// The topic of a message, its number and its offset.
fn parts(message: &Message) -> (String, u64, u64) {
    let topic = message.topic().as_str().to_owned();
    (topic, number(message), message.offset().get())
}

/// What a subscription delivers.
async fn read(topics: Topics, filter: &str, count: u64, seed: u64) -> Vec<(String, u64, u64)> {
    let mut feed = topics.subscribe(filter, Start::Beginning).unwrap();
    let (mut read, mut marks) = (Vec::new(), 0);
    while (read.len() as u64) < count {
        match in_time(feed.recv()).await.unwrap().unwrap() {
            Delivery::Message(message) => read.push(parts(&message)),
            Delivery::CaughtUp(_) => marks += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        if read.len().is_multiple_of(97) {
            tokio::task::yield_now().await;
        }
    }
    assert!(marks <= 1, "seed {seed}: the mark comes once");
    read
}

async fn world(seed: u64) {
    println!("seed {seed}");
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let cutter = Arc::new(Cutter::to(served.address, seed).await);
    cutter.cut_after(300..60_000);
    let readers: Vec<_> = [
        (">", MESSAGES * PUBLISHERS),
        ("p.1", MESSAGES),
        ("*.2", MESSAGES),
    ]
    .map(|(filter, count)| tokio::spawn(read(through(&cutter), filter, count, seed)))
    .into();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|who| tokio::spawn(publish(through(&cutter), who, seed)))
        .collect();
    // A long message takes many attempts while connections are cut. In the end they are not.
    tokio::time::sleep(Duration::from_secs(4)).await;
    cutter.cut_after(None);
    for publisher in publishers {
        assert!(in_time(publisher).await.unwrap() > 0);
    }
    let stored = in_log(&log).await;
    for who in 0..PUBLISHERS {
        let topic = format!("p.{who}");
        let of = stored.iter().filter(|it| it.0 == topic);
        let numbers: Vec<_> = of.map(|it| it.1).collect();
        assert!(
            numbers.iter().copied().eq(0..MESSAGES),
            "seed {seed}: each of {topic} is stored once, in order"
        );
    }
    let expected = [
        stored.clone(),
        stored.iter().filter(|it| it.0 == "p.1").cloned().collect(),
        stored.iter().filter(|it| it.0 == "p.2").cloned().collect(),
    ];
    for (reader, expected) in readers.into_iter().zip(expected) {
        assert!(in_time(reader).await.unwrap() == expected, "seed {seed}");
    }
    let cuts = cutter.cuts();
    println!("{cuts} cuts");
    assert!(cuts >= 20, "seed {seed}: only {cuts} cuts");
}

/// A snapshot is read while its topics go on, and its connection is cut again and again.
async fn snapshot(seed: u64) {
    println!("seed {seed}");
    let log = log().await;
    // Neighbours have topics that lie far apart.
    let topic = |number| format!("s.{}", number * 7919 % TOPICS);
    publish_numbered(&log, 0..TOPICS, 1_500, topic).await;
    let served = Served::node(Node::new(&log)).await;
    let cutter = Cutter::to(served.address, seed).await;
    cutter.cut_after(50_000..300_000);
    let mut feed = through(&cutter)
        .subscribe("s.*", Start::Latest(None))
        .unwrap();

    // What came last of each topic, and the place behind everything.
    let mut known = HashMap::new();
    let (mut place, mut received) = (0, 0);
    let mut published = TOPICS;
    let mut publish_some = async || {
        publish_numbered(&log, published..published + 20, 1_500, topic).await;
        published += 20;
    };
    let end = loop {
        match in_time(feed.recv()).await.unwrap().unwrap() {
            Delivery::Message(message) => {
                let offset = message.offset().get();
                assert!(offset > place, "seed {seed}: in the log's order");
                place = offset;
                known.insert(message.topic().as_str().to_owned(), offset);
                received += 1;
                if received % 50 == 0 {
                    publish_some().await;
                }
            }
            Delivery::CaughtUp(position) => break position.offset.get(),
            other => panic!("seed {seed}: {other:?}"),
        }
    };
    let mut latest = HashMap::new();
    for (topic, _, offset) in in_log(&log).await {
        if offset <= end {
            latest.insert(topic, offset);
        }
    }
    assert!(
        known == latest,
        "seed {seed}: the latest of each topic up to the mark"
    );
    let cuts = cutter.cuts();
    println!("{cuts} cuts");
    assert!(cuts >= 10, "seed {seed}: only {cuts} cuts");

    publish_some().await;
    let behind: Vec<_> = in_log(&log)
        .await
        .into_iter()
        .filter(|(.., offset)| *offset > end)
        .collect();
    let mut read = Vec::new();
    while read.len() < behind.len() {
        read.push(parts(&message(&mut feed).await));
    }
    assert!(
        read == behind,
        "seed {seed}: then everything behind the mark"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_byte_a_connection_breaks_at_a_snapshot_has_the_latest_of_each_topic() {
    for seed in 0..3 {
        snapshot(seed).await;
    }
}

/// Everything that the log has, read without a connection.
async fn in_log(log: &Log) -> Vec<(String, u64, u64)> {
    let last = log.bounds().last.get();
    let mut feed = log.subscribe(">", Start::Beginning).unwrap();
    let mut stored = Vec::new();
    while stored.len() < last as usize {
        stored.push(parts(&message(&mut feed).await));
    }
    stored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_byte_a_connection_breaks_at_each_message_comes_once_and_in_order() {
    for seed in 0..3 {
        world(seed).await;
    }
}

/// A message that takes longer than any connection lives is delivered as soon as one lives longer.
#[tokio::test]
async fn a_long_message_comes_whole_when_a_connection_lives_long_enough() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let cutter = Cutter::to(served.address, 1).await;
    cutter.cut_after(1_000_000..1_500_000);
    let topics = through(&cutter);
    let mut feed = topics.subscribe(">", Start::Beginning).unwrap();
    let publishing = tokio::spawn({
        let topics = through(&cutter);
        async move { topics.publish("long", numbered(1, 2_000_000)).await }
    });
    crate::common::until("some cuts", || cutter.cuts() >= 4).await;
    cutter.cut_after(None);
    in_time(publishing).await.unwrap().unwrap();
    assert_eq!(message(&mut feed).await.as_bytes().len(), 2_000_000);
    assert_eq!(log.bounds().last.get(), 1);
}
