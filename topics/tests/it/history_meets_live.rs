//! One stream, without a seam between what was there and what comes.

use std::time::Duration;

use unstall_topics::{Delivery, Limits, Log, Node, Offset, Position, Start, StoredAt, Topics};

use crate::common::{Served, client, in_time, number, publish_numbered};

const SUBSCRIBERS: usize = 100;
const MESSAGES: u64 = 60_000;
const TOPICS: u64 = 10;

/// Subscribes at some moment from some place, and reads to the end.
async fn subscriber(topics: Topics, log: Log, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // The moment is random.
    tokio::time::sleep(Duration::from_millis(rng.u64(0..1500))).await;
    let end = log.bounds().last.get();
    let place = rng.u64(0..=end);
    let position = Position {
        log: log.id(),
        offset: Offset::new(place).unwrap(),
        time: StoredAt::UNKNOWN,
    };
    let (start, mut behind) = match rng.u32(0..4) {
        0 => (Start::Beginning, Some(0)),
        1 => (Start::Now, None),
        _ => (Start::After(position), Some(place)),
    };
    let topic = rng.bool().then(|| rng.u64(0..TOPICS));
    let filter = topic.map_or_else(|| "t.*".into(), |topic| format!("t.{topic}"));
    let mine = |number: u64| topic.is_none_or(|topic| number % TOPICS == topic);
    let mut feed = topics.subscribe(&filter, start).unwrap();
    let mut marks = 0;
    let last = (0..MESSAGES).rev().find(|number| mine(*number)).unwrap();
    loop {
        match in_time(feed.recv()).await.unwrap().unwrap() {
            Delivery::Message(message) => {
                let read = number(&message);
                assert_eq!(message.offset().get(), read + 1);
                // Of `Now`, the first message tells where it began: not before it was asked for.
                let begun = *behind.get_or_insert_with(|| {
                    assert!(read >= end, "seed {seed}");
                    read
                });
                let expected = (begun..).find(|number| mine(*number)).unwrap();
                assert_eq!(read, expected, "seed {seed}, {filter} {start:?}");
                behind = Some(read + 1);
                if read == last {
                    break;
                }
            }
            Delivery::CaughtUp(position) => {
                marks += 1;
                let begun = *behind.get_or_insert(position.offset.get());
                if begun > last {
                    break;
                }
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(marks <= 1, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_that_begin_at_random_moments_from_random_places_get_each_message_once() {
    println!("seeds 0 to {SUBSCRIBERS}");
    let log = Log::memory(Limits::default().max_bytes(256 << 20))
        .await
        .unwrap();
    let served = Served::node(Node::new(&log)).await;
    let clients: Vec<_> = (0..10).map(|_| client(served.address)).collect();
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|seed| {
            let topics = clients[seed % clients.len()].clone();
            tokio::spawn(subscriber(topics, log.clone(), seed as u64))
        })
        .collect();
    for step in 0..MESSAGES / 500 {
        let numbers = step * 500..(step + 1) * 500;
        publish_numbered(&log, numbers, 200, |number| {
            format!("t.{}", number % TOPICS)
        })
        .await;
        // About two seconds of load, in which all begin.
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let mut done = 0;
    for subscriber in subscribers {
        in_time(subscriber).await.unwrap();
        done += 1;
    }
    assert_eq!(done, SUBSCRIBERS);
}
