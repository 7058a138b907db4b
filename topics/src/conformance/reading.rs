//! What is read is what was appended.

use std::collections::HashSet;

use bytes::Bytes;
use unstall_proto::{
    Kind,
    topics::{Offset, Refusal, Topic},
};

use super::{Stores, tools::*};
use crate::store::{Appended, Publication, Read, Seek};

/// Each message has its topic, kind, final mark and bytes, its offset and time as they were told.
///
/// # Panics
/// If it does not hold.
pub async fn messages_are_read_as_they_were_appended(stores: &dyn Stores) {
    let store = empty(stores).await;
    let topic = |name: &str| Topic::new(name).unwrap();
    let mut last = text("a.b", "the end");
    last.is_final = true;
    let long = Bytes::from((0..200_000_u32).map(|it| it as u8).collect::<Vec<_>>());
    let mut written = append(&*store, vec![text("a", ""), text("日本.é", "ü")]).await;
    let binary = Publication::new(topic("a"), Kind::Binary, long);
    let empty = Publication::new(topic("a"), Kind::Binary, Bytes::new());
    written.extend(append(&*store, vec![binary, last, empty]).await);

    assert_eq!(read_all(&*store, ">", usize::MAX).await, written);
    let offsets = offsets(&written);
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert!(offsets[0] > Offset::START, "offsets begin with 1");
    assert!(written.iter().map(|it| it.time).is_sorted());
    assert!(
        written
            .iter()
            .all(|it| it.time.millis() > 1_700_000_000_000)
    );
}

/// A log without messages has bounds, can be read, and can be searched.
///
/// # Panics
/// If it does not hold.
pub async fn a_new_log_is_empty(stores: &dyn Stores) {
    let store = empty(stores).await;
    let bounds = store.bounds().await.unwrap();
    assert_eq!(bounds.last, Offset::START);
    assert_eq!(bounds.first, offset(1), "one more than the last");
    assert_eq!(*store.changes().borrow(), bounds);
    for name in [">", "a", "a.*"] {
        let read = Read::new(Offset::START, Offset::MAX, filter(name), 1_000);
        for chunk in [
            store.read(read.clone()).await.unwrap(),
            store.read_latest(read).await.unwrap(),
        ] {
            assert!(chunk.messages.is_empty());
            assert_eq!(chunk.through, Offset::START, "what follows is not known");
            assert_eq!(chunk.first, offset(1));
        }
        let last = Seek::Last {
            filter: filter(name),
            count: 3,
        };
        assert_eq!(store.seek(last).await.unwrap(), Offset::START);
    }
    let since = store.seek(Seek::Since(millis(1))).await.unwrap();
    assert_eq!(since, Offset::START);
    assert_eq!(store.append(Vec::new()).await.unwrap(), []);
}

/// Two logs have two ids, and neither is zero.
///
/// # Panics
/// If it does not hold.
pub async fn each_log_has_an_id_of_its_own(stores: &dyn Stores) {
    let a = empty(stores).await;
    let b = empty(stores).await;
    assert_ne!(a.id(), b.id());
    assert_ne!(a.id().0, [0; 16]);
    assert_eq!(a.id(), a.id());
}

/// Every kind of filter gets its messages, in order, in chunks of any size.
///
/// # Panics
/// If it does not hold.
pub async fn a_filter_gets_what_it_matches(stores: &dyn Stores) {
    let store = empty(stores).await;
    let topics = [
        "a", "a.b", "a.b.c", "a.c", "a-b", "a!.b", "aa.b", "b", "b.b", "b.c.d", "a.b", "a",
    ];
    let mut written = Vec::new();
    for round in 0..3 {
        written.extend(append_to(&*store, &topics[round..]).await);
        written.extend(append_to(&*store, &topics).await);
    }
    for name in [
        ">", "a", "a.b", "a.*", "a.>", "*", "*.b", "*.*", "*.>", "a.*.c", "*.b.>", "a!.b", "a-b",
        "none", "none.>", "b.>", "*.*.*.*",
    ] {
        let expected = matching(&written, name);
        for max_bytes in [1, 30, usize::MAX] {
            let found = read_all(&*store, name, max_bytes).await;
            assert_eq!(found, expected, "{name} in chunks of {max_bytes} bytes");
        }
    }
    assert_eq!(
        matching(&written, "*.b")
            .iter()
            .map(|it| it.topic.as_str())
            .collect::<HashSet<_>>(),
        HashSet::from(["a.b", "a!.b", "aa.b", "b.b"]),
        "the test itself"
    );
}

/// A read gives what is behind one offset and up to another, whichever they are.
///
/// # Panics
/// If it does not hold.
pub async fn reading_keeps_to_its_bounds(stores: &dyn Stores) {
    let store = empty(stores).await;
    let written = append_to(&*store, &["a", "b", "a", "a", "b", "a"]).await;
    let places = [&[Offset::START][..], &offsets(&written)].concat();
    for name in [">", "a", "*"] {
        for (begin, &after) in places.iter().enumerate() {
            for &through in &places[begin..] {
                let expected: Vec<_> = matching(&written, name)
                    .into_iter()
                    .filter(|it| after < it.offset && it.offset <= through)
                    .collect();
                let found = read_between(&*store, name, (after, through), 1).await;
                assert_eq!(found, expected, "{name} from {after} to {through}");
            }
        }
    }
    let last = *places.last().unwrap();
    for after in [last, offset(last.get() + 7), Offset::MAX] {
        let read = Read::new(after, Offset::MAX, filter(">"), 1_000);
        let chunk = store.read(read).await.unwrap();
        assert!(chunk.messages.is_empty());
        assert_eq!(chunk.through, after, "nothing is known behind the end");
    }
    let read = Read::new(Offset::START, Offset::MAX, filter(">"), usize::MAX);
    let chunk = store.read(read).await.unwrap();
    assert_eq!(chunk.through, last, "the end that the log has now");
}

/// A chunk has at least one message if any is left, stops at its number of bytes, and says up to
/// where it is complete, also where its filter matches nothing.
///
/// # Panics
/// If it does not hold.
pub async fn chunks_end_where_they_say(stores: &dyn Stores) {
    let store = empty(stores).await;
    let batch = (0..50).map(|number| text("a", &"x".repeat(number)));
    let written = append(&*store, batch.collect()).await;
    let last = written[49].offset;
    let others = append_to(&*store, &["b"; 100]).await;
    for max_bytes in [0, 1, 100, 1_000] {
        let read = Read::new(Offset::START, last, filter("a"), max_bytes);
        let chunk = store.read(read).await.unwrap();
        let (end, before) = chunk.messages.split_last().expect("at least one message");
        assert!(
            bytes(before) < max_bytes.max(1),
            "it stops as soon as it has {max_bytes} bytes: {}",
            bytes(before)
        );
        assert!(bytes(&chunk.messages) >= max_bytes);
        assert!(chunk.through >= end.offset);
    }
    let end = others[99].offset;
    let read = Read::new(last, end, filter("a"), 1_000);
    let chunk = store.read(read).await.unwrap();
    assert!(chunk.messages.is_empty());
    assert!(chunk.through > last, "it looked at something: {chunk:?}");
}

/// A message that is too large is refused, and the rest of its batch is stored.
///
/// # Panics
/// If it does not hold.
pub async fn a_message_too_large_is_refused_alone(stores: &dyn Stores) {
    let store = stores.empty(roomy().max_message_bytes(1_000)).await;
    let limit = store.max_message_bytes();
    let largest = "x".repeat(limit);
    let larger = "x".repeat(limit + 1);
    let batch = vec![text("a", &largest), text("a", &larger), text("a", "small")];
    let answers = store.append(batch).await.unwrap();
    assert!(matches!(answers[0], Appended::Stored { .. }), "{answers:?}");
    assert_eq!(answers[1], Appended::Refused(Refusal::TooLarge));
    assert!(matches!(answers[2], Appended::Stored { .. }), "{answers:?}");
    assert_eq!(read_all(&*store, ">", usize::MAX).await.len(), 2);
}
