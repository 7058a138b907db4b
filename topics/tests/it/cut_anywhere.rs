//! Connections that break at any byte lose nothing, double nothing and change no order.

use std::{sync::Arc, time::Duration};

use unstall_topics::{Delivery, Log, Node, PublishError, Start, Topics};

use crate::common::{
    Served, cutter::Cutter, in_time, log, message, number, numbered, publication, soon, url,
};

const PUBLISHERS: u64 = 3;
const MESSAGES: u64 = 1500;

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

/// What a subscription delivers, as numbers with their topics and offsets.
async fn read(topics: Topics, filter: &str, count: u64, seed: u64) -> Vec<(String, u64, u64)> {
    let mut feed = topics.subscribe(filter, Start::Beginning).unwrap();
    let (mut read, mut marks) = (Vec::new(), 0);
    while (read.len() as u64) < count {
        match in_time(feed.recv()).await.unwrap().unwrap() {
            Delivery::Message(message) => {
                let topic = message.topic().as_str().to_owned();
                read.push((topic, number(&message), message.offset().get()));
            }
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

/// Everything that the log has, read without a connection.
async fn in_log(log: &Log) -> Vec<(String, u64, u64)> {
    let last = log.bounds().last.get();
    let mut feed = log.subscribe(">", Start::Beginning).unwrap();
    let mut stored = Vec::new();
    while stored.len() < last as usize {
        let message = message(&mut feed).await;
        let topic = message.topic().as_str().to_owned();
        stored.push((topic, number(&message), message.offset().get()));
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
