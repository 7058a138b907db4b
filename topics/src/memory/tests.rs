//! What only this store promises. The rest is in `conformance`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use unstall_proto::{
    Kind,
    topics::{Refusal, StoredAt, Topic},
};

use super::*;

mod conformance {
    use super::*;
    use crate::conformance::Stores;

    struct InMemory;

    impl Stores for InMemory {
        fn empty(&self, limits: Limits) -> BoxFuture<'_, Arc<dyn Store>> {
            async move { Arc::new(Memory::new(limits)) as Arc<dyn Store> }.boxed()
        }
    }

    crate::conformance_tests!(InMemory);
}

fn publication(topic: &str, bytes: usize) -> Publication {
    Publication::new(Topic::new(topic).unwrap(), Kind::Binary, vec![b'x'; bytes])
}

fn by_hand(limits: Limits) -> (Memory, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(1_000));
    let memory = Memory::with_clock(limits, Clock::by_hand(time.clone()));
    (memory, time)
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

async fn all(memory: &Memory, filter: &str) -> Chunk {
    let filter = Filter::new(filter).unwrap();
    let read = Read::new(Offset::START, Offset::MAX, filter, usize::MAX);
    memory.read(read).await.unwrap()
}

#[tokio::test]
async fn messages_too_old_are_removed_without_an_append() {
    let (memory, time) = by_hand(Limits::default().max_age(Duration::from_millis(100)));
    let changes = memory.changes();
    memory.append(vec![publication("a", 1)]).await.unwrap();
    time.store(1_050, Relaxed);
    memory.append(vec![publication("a", 1)]).await.unwrap();
    time.store(1_100, Relaxed);
    assert_eq!(memory.bounds().await.unwrap().first, offset(1));
    time.store(1_101, Relaxed);
    assert_eq!(all(&memory, ">").await.messages.len(), 1);
    assert_eq!(changes.borrow().first, offset(2));
    time.store(1_151, Relaxed);
    let bounds = memory.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (offset(3), offset(2)));
    assert_eq!(bounds.last_time, StoredAt::new(1_050).unwrap());
}

#[tokio::test]
async fn what_messages_cost_stays_within_the_limit() {
    let one = publication("a", 10).cost();
    let (memory, _) = by_hand(Limits::default().max_bytes(10 * one));
    memory.append(vec![publication("a", 10); 25]).await.unwrap();
    assert_eq!(all(&memory, "a").await.messages.len(), 10);
    let refused = memory.append(vec![publication("a", 10_000)]).await.unwrap();
    assert_eq!(refused, [Appended::Refused(Refusal::TooLarge)]);
    assert_eq!(memory.bounds().await.unwrap().last, offset(25));
}

#[tokio::test]
async fn times_do_not_go_back_when_the_clock_does() {
    let (memory, time) = by_hand(Limits::default());
    memory.append(vec![publication("a", 1)]).await.unwrap();
    time.store(10, Relaxed);
    memory.append(vec![publication("a", 1)]).await.unwrap();
    let times: Vec<_> = all(&memory, ">")
        .await
        .messages
        .iter()
        .map(|it| it.time.millis())
        .collect();
    assert_eq!(times, [1_000, 1_000]);
}

#[tokio::test]
async fn what_points_to_messages_is_removed_with_them() {
    let (memory, _) = by_hand(Limits::default());
    for round in 0..3 {
        let topics = (0..1_000).map(|topic| publication(&format!("t.{round}.{topic}"), 1));
        memory.append(topics.collect()).await.unwrap();
        let last = memory.bounds().await.unwrap().last;
        memory.remove_through(last).await.unwrap();
    }
    let state = memory.read_state();
    assert_eq!(
        state.sizes(),
        (0, 0, 1_000),
        "messages, names, numbers of topics"
    );
}

#[tokio::test]
async fn a_kept_payload_does_not_keep_its_packet() {
    let (memory, _) = by_hand(Limits::default());
    let packet = bytes::Bytes::from(vec![b'x'; 65_536]);
    let topic = Topic::new("a").unwrap();
    let part = Publication::new(topic, Kind::Binary, packet.slice(10..20));
    memory.append(vec![part]).await.unwrap();
    assert!(packet.is_unique());
}
