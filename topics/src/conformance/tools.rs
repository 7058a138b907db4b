//! What the tests have in common.

use std::sync::Arc;

use unstall_proto::{
    Kind,
    topics::{Filter, Offset, Publisher, StoredAt, Topic},
};

use super::Stores;
use crate::{
    limits::Limits,
    store::{Appended, Chunk, Publication, Read, Store, Stored},
};

/// More than a test of this module appends.
pub(super) fn roomy() -> Limits {
    Limits::default()
}

pub(super) async fn empty(stores: &dyn Stores) -> Arc<dyn Store> {
    stores.empty(roomy()).await
}

pub(super) fn filter(name: &str) -> Filter {
    Filter::new(name).unwrap()
}

pub(super) fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

/// A text under a topic.
pub(super) fn text(topic: &str, payload: &str) -> Publication {
    let topic = Topic::new(topic).unwrap();
    Publication::new(topic, Kind::Text, payload.to_owned())
}

/// A text of a publisher, with its number.
pub(super) fn numbered(publisher: Publisher, number: u64, payload: &str) -> Publication {
    let mut publication = text("t", payload);
    publication.publisher = Some((publisher, number));
    publication
}

/// A publisher that no other test has.
pub(super) fn publisher(epoch: u64) -> Publisher {
    let mut id = [0; 16];
    fastrand::fill(&mut id);
    Publisher { id, epoch }
}

/// Appends a batch of which every message has to be stored, and returns what is then in the log.
pub(super) async fn append(store: &dyn Store, batch: Vec<Publication>) -> Vec<Stored> {
    let answers = store.append(batch.clone()).await.unwrap();
    assert_eq!(answers.len(), batch.len(), "an answer for each message");
    let both = batch.into_iter().zip(answers);
    let mut written: Vec<_> = both
        .map(|(publication, answer)| stored(publication, answer))
        .collect();
    learn_times(store, &mut written).await;
    written
}

/// Reads the times of messages whose answer did not have them.
pub(super) async fn learn_times(store: &dyn Store, written: &mut [Stored]) {
    for stored in written {
        if stored.time == StoredAt::UNKNOWN {
            let place = (stored.offset.before(), stored.offset);
            let found = read_between(store, ">", place, 1).await;
            // Retention may have removed it.
            stored.time = found.first().map_or(StoredAt::UNKNOWN, |found| found.time);
        }
    }
}

/// The message that a publication became.
pub(super) fn stored(publication: Publication, answer: Appended) -> Stored {
    let Appended::Stored { offset, time } = answer else {
        panic!("{publication:?} has to be stored, but: {answer:?}");
    };
    Stored::new(
        offset,
        time,
        publication.topic,
        publication.kind,
        publication.is_final,
        publication.payload,
    )
}

/// Appends a text under each of these topics, `a.b`, in one batch.
pub(super) async fn append_to(store: &dyn Store, topics: &[&str]) -> Vec<Stored> {
    let texts = topics.iter().enumerate();
    let batch = texts.map(|(number, topic)| text(topic, &format!("{number} {topic}")));
    append(store, batch.collect()).await
}

/// Everything that a filter matches, read in chunks of this many bytes.
pub(super) async fn read_all(store: &dyn Store, name: &str, max_bytes: usize) -> Vec<Stored> {
    let last = store.bounds().await.unwrap().last;
    read_between(store, name, (Offset::START, last), max_bytes).await
}

/// What a filter matches behind an offset and up to another.
pub(super) async fn read_between(
    store: &dyn Store,
    name: &str,
    (after, through): (Offset, Offset),
    max_bytes: usize,
) -> Vec<Stored> {
    let mut found = Vec::new();
    let mut at = after;
    while at < through {
        let read = Read::new(at, through, filter(name), max_bytes);
        let chunk = store.read(read).await.unwrap();
        check(&chunk, at, through);
        at = moved_on(&chunk, at);
        found.extend(chunk.messages);
    }
    found
}

/// The latest of each topic, read in chunks of this many bytes.
pub(super) async fn latest_between(
    store: &dyn Store,
    name: &str,
    (after, through): (Offset, Offset),
    max_bytes: usize,
) -> Vec<Stored> {
    let mut found = Vec::new();
    let mut at = after;
    while at < through {
        let read = Read::new(at, through, filter(name), max_bytes);
        let chunk = store.read_latest(read).await.unwrap();
        check(&chunk, at, through);
        at = moved_on(&chunk, at);
        found.extend(chunk.messages);
    }
    found
}

fn moved_on(chunk: &Chunk, at: Offset) -> Offset {
    assert!(chunk.through > at, "each read moves on: {chunk:?}");
    chunk.through
}

/// What holds for each chunk.
pub(super) fn check(chunk: &Chunk, after: Offset, through: Offset) {
    let offsets = chunk.messages.iter().map(|message| message.offset);
    assert!(offsets.clone().is_sorted_by(|a, b| a < b), "offsets grow");
    assert!(offsets.clone().all(|it| after < it && it <= through));
    let last = offsets.last().unwrap_or(after);
    assert!(
        last <= chunk.through && chunk.through <= through.max(after),
        "a chunk is complete up to its last message, and not beyond what was asked for"
    );
}

/// What a chunk has, in the bytes that count.
pub(super) fn bytes(messages: &[Stored]) -> usize {
    let bytes = |it: &Stored| it.payload.len() + it.topic.as_str().len();
    messages.iter().map(bytes).sum()
}

pub(super) fn offsets(messages: &[Stored]) -> Vec<Offset> {
    messages.iter().map(|message| message.offset).collect()
}

/// The messages that a filter matches.
pub(super) fn matching(messages: &[Stored], name: &str) -> Vec<Stored> {
    let filter = filter(name);
    let matches = |it: &&Stored| filter.matches(it.topic.as_str());
    messages.iter().filter(matches).cloned().collect()
}

pub(super) fn millis(number: u64) -> StoredAt {
    StoredAt::new(number).unwrap()
}
