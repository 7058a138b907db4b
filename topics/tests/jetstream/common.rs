//! What the tests have in common.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;
use unstall_proto::{
    Kind,
    topics::{Filter, Offset, Publisher, Topic},
};
use unstall_topics::{
    jetstream::{Builder, JetStream, OpenError, async_nats},
    store::{Appended, Chunk, Publication, Read, Store, StoreError, Stored},
};

use crate::servers::Servers;

/// Longer than anything takes that happens at all.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Opens a log as soon as the servers can.
pub(crate) async fn open(builder: Builder) -> JetStream {
    let until = Instant::now() + SOON;
    loop {
        match builder.clone().open().await {
            Ok(store) => return store,
            Err(error @ (OpenError::Connect(_) | OpenError::JetStream(_))) => {
                assert!(Instant::now() < until, "{error}");
            }
            Err(error) => panic!("{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A server and a log in it.
pub(crate) async fn single() -> (Servers, JetStream) {
    let servers = Servers::start(1);
    let store = open(JetStream::builder(servers.urls(), "LOG")).await;
    (servers, store)
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let late = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < late, "still not: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn at(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

pub(crate) fn filter(name: &str) -> Filter {
    Filter::new(name).unwrap()
}

pub(crate) fn publication(topic: &str, payload: impl Into<String>) -> Publication {
    Publication::new(Topic::new(topic).unwrap(), Kind::Text, payload.into())
}

pub(crate) fn publisher() -> Publisher {
    let mut id = [0; 16];
    fastrand::fill(&mut id);
    Publisher { id, epoch: 1 }
}

pub(crate) fn numbered(publisher: Publisher, number: u64, topic: &str) -> Publication {
    let mut publication = publication(topic, number.to_string());
    publication.publisher = Some((publisher, number));
    publication
}

/// Appends texts under these topics, and returns their offsets.
pub(crate) async fn append(store: &dyn Store, topics: &[&str]) -> Vec<u64> {
    let batch = topics
        .iter()
        .map(|topic| publication(topic, *topic))
        .collect();
    let answers = store.append(batch).await.unwrap();
    answers.into_iter().map(offset).collect()
}

/// The offset of a message that has to be stored.
pub(crate) fn offset(answer: Appended) -> u64 {
    match answer {
        Appended::Stored { offset, .. } => offset.get(),
        other => panic!("it has to be stored: {other:?}"),
    }
}

pub(crate) fn read_of(after: u64, through: u64, name: &str) -> Read {
    Read::new(at(after), at(through), filter(name), usize::MAX)
}

pub(crate) async fn read(store: &dyn Store, after: u64, through: u64, name: &str) -> Chunk {
    store.read(read_of(after, through, name)).await.unwrap()
}

/// Everything up to an offset, chunk by chunk.
pub(crate) async fn read_all(store: &dyn Store, through: u64, name: &str) -> Vec<Stored> {
    let (mut after, mut messages) = (0, Vec::new());
    while after < through {
        let chunk = read(store, after, through, name).await;
        assert!(chunk.through.get() > after, "it moves on: {chunk:?}");
        after = chunk.through.get();
        messages.extend(chunk.messages);
    }
    messages
}

pub(crate) fn offsets(messages: &[Stored]) -> Vec<u64> {
    messages.iter().map(|stored| stored.offset.get()).collect()
}

/// Waits until this process has read the log up to an offset.
pub(crate) async fn has_read(store: &dyn Store, last: u64) {
    let mut changes = store.changes();
    let read = changes.wait_for(|bounds| bounds.last.get() >= last);
    tokio::time::timeout(SOON, read)
        .await
        .expect("it follows the log")
        .unwrap();
}

/// Waits until the store has ended for this reason.
pub(crate) async fn has_ended(store: &dyn Store, reason: &str) {
    until(reason, async || {
        let read = store.read(read_of(0, 1, ">")).await;
        matches!(read, Err(StoreError::Unavailable(why)) if why.contains(reason))
    })
    .await;
}

/// Asks JetStream something, as any client of NATS may.
pub(crate) async fn ask(url: &str, subject: &str, body: &Value) -> Value {
    let client = async_nats::connect(url).await.unwrap();
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = client
        .request(format!("$JS.API.{subject}"), body.into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer
}

/// The settings of the stream.
pub(crate) async fn config(url: &str) -> Value {
    ask(url, "STREAM.INFO.LOG", &Value::Null).await["config"].clone()
}
