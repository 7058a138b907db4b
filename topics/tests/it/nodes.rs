//! Nodes are alike: when one goes, another takes over, and nothing is lost.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use unstall::Reconnect;
use unstall_proto::topics::TopicPacket;
use unstall_topics::{Limits, Log, Node, Start, Topics};

use crate::common::{
    Served,
    cutter::Cutter,
    fake, in_time, log, message, next, number, numbered,
    raw::{Raw, hello},
    soon, until, url,
};

fn of(nodes: &[&Served]) -> Topics {
    let urls = nodes.iter().map(|node| url(node.address));
    Topics::builder(urls).reconnect(soon()).start()
}

/// Publishes numbers from 0 until it is stopped, one after the other. How many.
fn publishing(topics: Topics, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut at = 0;
        while !stop.load(Relaxed) {
            in_time(topics.publish("n", numbered(at, 100)))
                .await
                .unwrap();
            at += 1;
        }
        at
    })
}

async fn expect(feed: &mut unstall_topics::Subscription, numbers: std::ops::Range<u64>) {
    for expected in numbers {
        assert_eq!(number(&message(feed).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_node_goes_away_another_one_takes_over() {
    let log = log().await;
    let stays = Served::node(Node::new(&log).name("stays")).await;
    for round in 0..6 {
        let goes = Served::node(Node::new(&log).name("goes")).await;
        let (reader, publisher) = (of(&[&goes, &stays]), of(&[&goes, &stays]));
        let mut feed = reader.subscribe("n", Start::Now).unwrap();
        assert!(next(&mut feed).await.is_some(), "the mark");
        let stop = Arc::<AtomicBool>::default();
        let publishing = publishing(publisher, stop.clone());
        expect(&mut feed, 0..20 + round).await;
        goes.stop().await;
        expect(&mut feed, 20 + round..200).await;
        stop.store(true, Relaxed);
        let count = in_time(publishing).await.unwrap();
        expect(&mut feed, 200..count).await;
    }
}

/// Once a node that was full and asked for a minute kept a client for a minute from the node beside
/// it.
#[tokio::test]
async fn a_client_that_a_node_rejects_goes_to_the_next_one_at_once() {
    for reason in [2, 3] {
        let log = log().await;
        let (full, came) = fake::answering(fake::reject(reason, 60_000, "full of others")).await;
        let stays = Served::node(Node::new(&log)).await;
        log.publish("n", numbered(0, 8)).await.unwrap();
        // Each begins with a random node.
        let begun = Instant::now();
        while came.load(Relaxed) < 3 {
            let topics = of(&[&full, &stays]);
            let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
            expect(&mut feed, 0..1).await;
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "it takes its time"
            );
        }
    }
}

#[tokio::test]
async fn a_node_that_asked_to_be_left_alone_is_left_alone() {
    let (full, came) = fake::answering(fake::reject(2, 1_500, "full")).await;
    let begun = Instant::now();
    let topics = of(&[&full]);
    let _feed = topics.subscribe("n", Start::Now).unwrap();
    until("a second attempt", || came.load(Relaxed) == 2).await;
    assert!(begun.elapsed() >= Duration::from_millis(1_500));
}

/// The client leaves within the time that it is given, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_moves_clients_to_another_node() {
    let log = log().await;
    let goes = Node::new(&log).name("goes");
    let leaving = Served::node(goes.clone()).await;
    let stays = Served::node(Node::new(&log).name("stays")).await;
    let clients: Vec<_> = (0..8).map(|_| of(&[&leaving, &stays])).collect();
    let mut feeds: Vec<_> = clients
        .iter()
        .map(|it| it.subscribe("n", Start::Beginning).unwrap())
        .collect();
    let stop = Arc::<AtomicBool>::default();
    let publishing = publishing(of(&[&leaving, &stays]), stop.clone());
    for feed in &mut feeds {
        expect(feed, 0..50).await;
    }
    assert!(leaving.server.stats().open > 0);
    goes.go_away(Duration::from_millis(300), "a deployment");
    // It still serves whoever comes, and asks them to go as well: it is the server that is stopped.
    until("all have gone", || {
        leaving.server.stats().open == 0 || stays.server.stats().open == 9
    })
    .await;
    leaving.stop().await;
    stop.store(true, Relaxed);
    let count = in_time(publishing).await.unwrap();
    for feed in &mut feeds {
        expect(feed, 50..count).await;
    }
}

/// Once every connection that was lost counted as one that had never received anything. So the first
/// attempt after it waited too, and each time the wait was twice as long, up to half a minute.
#[tokio::test]
async fn after_a_connection_that_lived_the_next_one_is_made_without_a_wait() {
    let log: Log = log().await;
    let node = Served::node(Node::new(&log)).await;
    let cutter = Cutter::to(node.address, 0).await;
    let day = Duration::from_secs(86_400);
    let patient = Reconnect::default()
        .first(day)
        .max(day)
        .proof(Duration::from_millis(1));
    let topics = Topics::builder([url(cutter.address)])
        .reconnect(patient)
        .start();
    let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
    for at in 0..3 {
        log.publish("n", numbered(at, 8)).await.unwrap();
        expect(&mut feed, at..at + 1).await;
        // Shorter lives do not prove that a server is well (`unstall::defaults::RECONNECT_AT_ONCE`).
        tokio::time::sleep(unstall::defaults::RECONNECT_AT_ONCE * 2).await;
        cutter.cut();
        let connections = at as usize + 2;
        until("the next connection", || cutter.arrived() == connections).await;
    }
}

/// What a second log in the same process would do: nodes share one log, whatever their number.
#[tokio::test]
async fn a_message_published_at_one_node_is_delivered_at_the_other() {
    let log: Log = log().await;
    let (one, two) = (
        Served::node(Node::new(&log)).await,
        Served::node(Node::new(&log)).await,
    );
    let (publisher, reader) = (of(&[&one]), of(&[&two]));
    let mut feed = reader.subscribe("n", Start::Beginning).unwrap();
    for at in 0..200 {
        publisher.publish("n", numbered(at, 50)).await.unwrap();
        expect(&mut feed, at..at + 1).await;
    }
}

/// Once a node told its clients the whole time for which it remembers numbers. A message that was sent
/// again at its very end, by a clock that was a little late, was stored twice.
#[tokio::test]
async fn clients_are_told_less_than_the_time_for_which_numbers_are_remembered() {
    let limits = Limits::default().once(Duration::from_secs(64));
    let node = Node::new(&Log::memory(limits).await.unwrap());
    let served = Served::node(node).await;
    let mut raw = Raw::connect(served.address).await;
    raw.say(hello(7, "")).await;
    let Some(TopicPacket::Welcome(welcome)) = raw.packet().await else {
        panic!("it is welcome");
    };
    assert_eq!(welcome.once_millis, 63_000);
}
