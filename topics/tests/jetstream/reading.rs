//! What is read is all that is there.

use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{
    jetstream::{JetStream, async_nats},
    store::{Publication, Seek, Store, StoreError},
};

use crate::{common::*, servers::are_installed};

/// A second handle on the log has not seen its beginning, so it reads from the server.
async fn later(servers: &crate::servers::Servers) -> JetStream {
    open(JetStream::builder(servers.urls(), "LOG")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_reads_what_any_of_them_published() {
    if !are_installed() {
        return;
    }
    let (servers, a) = single().await;
    let b = later(&servers).await;
    assert_eq!(a.id(), b.id());
    append(&a, &["from.a"]).await;
    append(&b, &["from.b"]).await;
    for store in [&a, &b] {
        has_read(store, 2).await;
        let chunk = read(store, 0, 2, ">").await;
        let topics: Vec<_> = chunk.messages.iter().map(|it| it.topic.as_str()).collect();
        assert_eq!(topics, ["from.a", "from.b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_at_their_limits_and_of_any_script_are_carried() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let names = [
        "a".repeat(255),
        vec!["a"; 32].join("."),
        "preise.é.日本.🦀".into(),
        "$JS.API.x".into(),
        "_INBOX.a-b_c/d:e!\"#%&'()+,;<=?@[]^`{|}~".into(),
    ];
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    append(&store, &topics).await;
    let later = later(&servers).await;
    for (at, topic) in topics.iter().enumerate() {
        let found = read_all(&later, 5, topic).await;
        assert_eq!(offsets(&found), [at as u64 + 1], "{topic}");
        assert_eq!(found[0].topic.as_str(), *topic);
    }
    let all: Vec<_> = read_all(&later, 5, ">").await;
    assert_eq!(all.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_matches_little_is_read_to_the_end_in_few_steps() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let topics: Vec<String> = (0..50_000).map(|it| format!("t.{}", it % 10_000)).collect();
    for some in topics.chunks(10_000) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        append(&store, &some).await;
    }
    let later = later(&servers).await;
    let (mut after, mut found, mut steps) = (0, Vec::new(), 0);
    while after < 50_000 {
        let chunk = read(&later, after, 50_000, "t.77").await;
        after = chunk.through.get();
        found.extend(offsets(&chunk.messages));
        steps += 1;
    }
    assert_eq!(found, [78, 10_078, 20_078, 30_078, 40_078]);
    assert!(steps <= 3, "{steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_beyond_the_end_stays_where_it_is() {
    if !are_installed() {
        return;
    }
    let (_servers, store) = single().await;
    append(&store, &["a", "b"]).await;
    for (after, name) in [(2, ">"), (7, ">"), (7, "a"), (1_000_000, "a.*")] {
        let chunk = read(&store, after, after + 100, name).await;
        assert_eq!(
            (chunk.messages.len(), chunk.through),
            (0, at(after)),
            "{name}"
        );
        let chunk = store
            .read_latest(read_of(after, after + 100, name))
            .await
            .unwrap();
        assert_eq!(
            (chunk.messages.len(), chunk.through),
            (0, at(after)),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_shows_in_the_first_offset_of_a_chunk() {
    if !are_installed() {
        return;
    }
    let servers = crate::servers::Servers::start(1);
    let builder = JetStream::builder(servers.urls(), "LOG").max_bytes(1 << 20);
    let store = open(builder).await;
    let payload = "x".repeat(10_000);
    let batch: Vec<_> = (0..500)
        .map(|it| publication(&format!("t.{}", it % 7), payload.clone()))
        .collect();
    store.append(batch).await.unwrap();
    let bounds = store.bounds().await.unwrap();
    assert!(bounds.first > at(300), "{bounds:?}");
    let later = later(&servers).await;
    for name in [">", "t.*", "t.3", "none"] {
        let chunk = read(&later, 0, 500, name).await;
        assert_eq!(chunk.first, bounds.first, "{name}");
    }
    let all = read_all(&later, 500, ">").await;
    let expected: Vec<u64> = (bounds.first.get()..=500).collect();
    assert_eq!(offsets(&all), expected);
    // The change is told to who only follows.
    let mut changes = store.changes();
    let told = changes.wait_for(|told| told.first == bounds.first);
    tokio::time::timeout(SOON, told)
        .await
        .expect("it is told")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_is_no_topic_is_told_in_its_place_and_read_past() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    append(&store, &["a"]).await;
    let client = async_nats::connect(servers.url(0)).await.unwrap();
    client.request("LOG.a*b", "odd".into()).await.unwrap();
    client.request("LOG.plain", "plain".into()).await.unwrap();
    has_read(&store, 3).await;
    let later = later(&servers).await;
    for store in [&store, &later] {
        assert_eq!(offsets(&read(store, 0, 3, ">").await.messages), [1]);
        let damaged = store.read(read_of(1, 3, ">")).await.unwrap_err();
        let StoreError::Damaged {
            after,
            through,
            why,
        } = damaged
        else {
            panic!("{damaged}");
        };
        assert_eq!((after, through), (at(1), at(2)));
        assert!(why.contains("not a topic"), "{why}");
        let rest = read(store, 2, 3, ">").await;
        assert_eq!(rest.messages[0].kind, Kind::Binary);
        assert_eq!(rest.messages[0].payload, "plain");
        assert_eq!(offsets(&read_all(store, 3, "plain").await), [3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_has_the_state_at_its_end_though_topics_change_meanwhile() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let names: Vec<String> = (0..2_000).map(|it| format!("t.{it}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    append(&store, &names).await;
    append(&store, &names[..1_000]).await;
    // Every tenth topic changes behind the end of the snapshot.
    let changed: Vec<&str> = names.iter().copied().step_by(10).collect();
    append(&store, &changed).await;
    let later = later(&servers).await;
    let mut read = read_of(0, 3_000, "t.*");
    read.max_bytes = 1_000;
    let mut found = Vec::new();
    while read.after < read.through {
        let chunk = later.read_latest(read.clone()).await.unwrap();
        assert!(chunk.through > read.after);
        read.after = chunk.through;
        found.extend(offsets(&chunk.messages));
    }
    // The first thousand have their second message, the others their first.
    let expected: Vec<u64> = (1_001..=3_000).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_messages_of_a_rare_topic_are_found_wherever_they_are() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    // Rare at the beginning, then a burst, then nothing.
    let topics: Vec<&str> = (0..60_000)
        .map(|it| match it {
            20_000..30_000 => "burst",
            it if it % 1_000 == 5 => "rare",
            _ => "other",
        })
        .collect();
    for some in topics.chunks(10_000) {
        append(&store, some).await;
    }
    let later = later(&servers).await;
    for (name, count) in [
        ("burst", 3),
        ("burst", 9_999),
        ("rare", 2),
        ("rare", 45),
        ("none", 1),
    ] {
        let filter = filter(name);
        let sought = later.seek(Seek::Last { filter, count }).await.unwrap();
        let matching = |after: usize| {
            topics[after..]
                .iter()
                .filter(|topic| **topic == name)
                .count()
        };
        let there = matching(0);
        let wanted = there.min(count as usize);
        assert_eq!(matching(sought.get() as usize), wanted, "{name} {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_and_long_payloads_come_back_as_they_are() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let topic = || Topic::new("a").unwrap();
    let long: Vec<u8> = (0..store.max_message_bytes()).map(|it| it as u8).collect();
    let batch = vec![
        Publication::new(topic(), Kind::Binary, Vec::new()),
        Publication::new(topic(), Kind::Binary, long.clone()),
    ];
    let answers = store.append(batch).await.unwrap();
    assert_eq!(offset(answers[1]), 2);
    let later = later(&servers).await;
    let found = read_all(&later, 2, "a").await;
    assert!(found[0].payload.is_empty());
    assert_eq!(found[1].payload, long);
}
