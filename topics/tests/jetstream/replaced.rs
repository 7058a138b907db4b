//! The stream changes under a log that is open: it is deleted and made anew, or loses its end.

use serde_json::Value;
use unstall_topics::{
    Delivery, Gap, GapReason, Log, Message, Offset, Start, Subscription, SubscriptionError,
    jetstream::{JetStream, async_nats},
};

use crate::{
    common::*,
    losses::{keep, put_back},
    servers::{Servers, are_installed},
};

async fn log(servers: &Servers) -> Log {
    let store = open(JetStream::builder(servers.urls(), "LOG")).await;
    Log::with_store(store).await.unwrap()
}

async fn next(feed: &mut Subscription) -> Result<Option<Delivery>, SubscriptionError> {
    let next = tokio::time::timeout(SOON, feed.recv());
    next.await.expect("something comes in time")
}

/// The next messages. A gap fails the test.
async fn messages(feed: &mut Subscription, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        match next(feed).await.unwrap() {
            Some(Delivery::Message(message)) => messages.push(message),
            Some(Delivery::CaughtUp(_)) => {}
            other => panic!("a message, not {other:?}"),
        }
    }
    messages
}

async fn gap(feed: &mut Subscription) -> Gap {
    loop {
        match next(feed).await.unwrap() {
            Some(Delivery::Gap(gap)) => return gap,
            Some(Delivery::CaughtUp(_)) => {}
            other => panic!("a gap, not {other:?}"),
        }
    }
}

async fn publish(log: &Log, topic: &str, count: usize) {
    let batch = (0..count).map(|_| publication(topic, topic)).collect();
    for result in log.publish_many(batch).await {
        result.unwrap();
    }
}

/// Deletes the stream, makes it anew with the same settings, and publishes to it, all in a moment.
async fn replace(servers: &Servers, subject: &str, count: usize) {
    let url = servers.url(0);
    let config = config(&url).await;
    let client = async_nats::connect(&url).await.unwrap();
    ask(&url, "STREAM.DELETE.LOG", &Value::Null).await;
    ask(&url, "STREAM.CREATE.LOG", &config).await;
    for _ in 0..count {
        let stored = client.request(subject.to_owned(), "new".into()).await;
        stored.unwrap();
    }
}

/// Once the log went on with the messages of the new stream, as if they were its own, until it looked at
/// the stream again. So a subscriber missed its first messages, and nothing told it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_stream_that_was_made_anew_is_delivered_as_of_the_old_one() {
    if !are_installed() {
        return;
    }
    for before in [0, 5] {
        let servers = Servers::start(1);
        let log = log(&servers).await;
        publish(&log, "a", before).await;
        let mut feed = log.subscribe(">", Start::Beginning).unwrap();
        messages(&mut feed, before).await;
        replace(&servers, "LOG.a", 20).await;
        let end = loop {
            match next(&mut feed).await {
                Ok(Some(Delivery::CaughtUp(_))) => {}
                other => break other,
            }
        };
        let Err(SubscriptionError::ClientEnded(why)) = end else {
            panic!("{before} before: {end:?}");
        };
        assert!(why.contains("made anew"), "{why}");
        // Where it stood leads to a gap, and then to everything that the new stream has.
        let position = feed.position().unwrap();
        let again = self::log(&servers).await;
        let mut feed = again.subscribe(">", Start::After(position)).unwrap();
        let gap = gap(&mut feed).await;
        assert_eq!(
            (gap.reason, gap.after),
            (GapReason::AnotherLog, at(before as u64))
        );
        messages(&mut feed, 20).await;
    }
}

/// Once subscribers stayed at their old offsets, and did not get what was stored there anew. Nothing
/// told them.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_is_told_when_the_stream_loses_its_end() {
    if !are_installed() {
        return;
    }
    let servers = Servers::start(1);
    let log = log(&servers).await;
    publish(&log, "a", 100).await;
    let mut feed = log.subscribe(">", Start::Beginning).unwrap();
    messages(&mut feed, 100).await;
    let kept = keep(&servers);
    publish(&log, "a", 50).await;
    messages(&mut feed, 50).await;
    put_back(&servers, &kept);
    servers.restart(0);
    publish(&log, "b", 10).await;
    let gap = gap(&mut feed).await;
    assert_eq!((gap.reason, gap.after), (GapReason::Diverged, at(150)));
    assert!((100..=110).contains(&gap.through.get()), "{gap:?}");
    let left = messages(&mut feed, 110 - gap.through.get() as usize).await;
    assert!(left.iter().all(|message| message.topic().as_str() == "b"));
    publish(&log, "c", 100).await;
    let offsets: Vec<_> = messages(&mut feed, 100)
        .await
        .iter()
        .map(|it| it.offset().get())
        .collect();
    assert_eq!(offsets, (111..=210).collect::<Vec<u64>>());
}

/// Once a subscriber named its position and not the end of its snapshot. The stream lost only what was
/// behind that position, and a topic of which the latest message was lost was left out: no message, no gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_begins_anew_when_the_stream_loses_its_end_behind_the_position() {
    if !are_installed() {
        return;
    }
    let servers = Servers::start(1);
    let log = log(&servers).await;
    // The window of a subscription has room for one of these, until the application takes it.
    let long = "x".repeat(800_000);
    log.publish("a", long.clone()).await.unwrap();
    log.publish("b", long.clone()).await.unwrap();
    let kept = keep(&servers);
    log.publish("a", long).await.unwrap();
    until("the last message", async || log.bounds().last == at(3)).await;
    let mut feed = log.subscribe(">", Start::Latest(None)).unwrap();
    let arrived = |feed: &Subscription| feed.stats().arrived.map(|place| place.offset);
    until("the first of two messages", async || {
        arrived(&feed) == Some(at(2))
    })
    .await;
    put_back(&servers, &kept);
    servers.restart(0);
    publish(&log, "c", 1).await;
    until("the gap", async || arrived(&feed) == Some(Offset::START)).await;
    assert_eq!(messages(&mut feed, 1).await[0].offset(), at(2));
    let gap = gap(&mut feed).await;
    assert_eq!((gap.reason, gap.after), (GapReason::Diverged, at(2)));
    let again = messages(&mut feed, 3).await;
    let topics: Vec<_> = again.iter().map(|it| it.topic().as_str()).collect();
    assert_eq!(topics, ["a", "b", "c"]);
}
