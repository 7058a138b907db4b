//! Each message is stored once.

use unstall_proto::topics::{Publisher, Refusal};

use super::{Stores, tools::*};
use crate::store::Appended;

/// A message that is published again is not stored again, and its offset is told if it is known.
///
/// # Panics
/// If it does not hold.
pub async fn a_message_is_stored_once(stores: &dyn Stores) {
    let store = empty(stores).await;
    let publisher = publisher(1);
    let batch: Vec<_> = (1..=3).map(|it| numbered(publisher, it, "x")).collect();
    let written = append(&*store, batch.clone()).await;
    let again = store.append(batch).await.unwrap();
    for (answer, stored) in again.into_iter().zip(&written) {
        assert_eq!(answer, Appended::Before(Some(stored.offset)));
    }
    let mixed = vec![numbered(publisher, 3, "x"), numbered(publisher, 4, "y")];
    let answers = store.append(mixed).await.unwrap();
    assert_eq!(answers[0], Appended::Before(Some(written[2].offset)));
    assert!(matches!(answers[1], Appended::Stored { .. }));
    assert_eq!(read_all(&*store, ">", usize::MAX).await.len(), 4);
}

/// A message that is in a batch twice is stored once.
///
/// # Panics
/// If it does not hold.
pub async fn a_duplicate_within_a_batch_is_stored_once(stores: &dyn Stores) {
    let store = empty(stores).await;
    let publisher = publisher(1);
    let batch = [1, 2, 2, 1, 3].map(|it| numbered(publisher, it, "x"));
    let answers = store.append(batch.to_vec()).await.unwrap();
    let stored = read_all(&*store, ">", usize::MAX).await;
    assert_eq!(stored.len(), 3, "{answers:?}");
    for (place, first) in [(2, 1), (3, 0)] {
        let Appended::Before(offset) = answers[place] else {
            panic!("message {place} was stored again: {answers:?}");
        };
        assert!(offset.is_none() || offset == Some(stored[first].offset));
    }
    assert!(matches!(answers[4], Appended::Stored { .. }));
}

/// A message without a publisher is stored each time.
///
/// # Panics
/// If it does not hold.
pub async fn without_a_publisher_a_message_is_stored_each_time(stores: &dyn Stores) {
    let store = empty(stores).await;
    append(&*store, vec![text("a", "x"), text("a", "x")]).await;
    append(&*store, vec![text("a", "x")]).await;
    assert_eq!(read_all(&*store, ">", usize::MAX).await.len(), 3);
}

/// Publishers have numbers of their own.
///
/// # Panics
/// If it does not hold.
pub async fn publishers_do_not_disturb_each_other(stores: &dyn Stores) {
    let store = empty(stores).await;
    let (a, b) = (publisher(1), publisher(7));
    let batch = vec![numbered(a, 5, "a"), numbered(b, 1, "b")];
    append(&*store, batch).await;
    append(&*store, vec![numbered(b, 2, "b"), numbered(a, 6, "a")]).await;
    let again = vec![numbered(a, 5, "a"), numbered(b, 2, "b")];
    for answer in store.append(again).await.unwrap() {
        assert!(matches!(answer, Appended::Before(_)), "{answer:?}");
    }
}

/// A process that publishes under an older epoch is told, and stores nothing.
///
/// # Panics
/// If it does not hold.
pub async fn an_older_epoch_is_fenced(stores: &dyn Stores) {
    if !stores.remembers_numbers() {
        return;
    }
    let store = empty(stores).await;
    let old = publisher(5);
    let new = Publisher { epoch: 6, ..old };
    append(&*store, vec![numbered(old, 1, "old")]).await;
    let batch = vec![
        numbered(new, 1, "new"),
        numbered(old, 2, "fenced within the batch"),
        numbered(old, 1, "fenced, though it was stored"),
    ];
    let answers = store.append(batch).await.unwrap();
    assert!(matches!(answers[0], Appended::Stored { .. }));
    assert_eq!(answers[1..], [Appended::Refused(Refusal::Fenced); 2]);
    let answers = store.append(vec![numbered(old, 9, "later")]).await.unwrap();
    assert_eq!(answers, [Appended::Refused(Refusal::Fenced)]);
    assert_eq!(read_all(&*store, ">", usize::MAX).await.len(), 2);
}

/// The numbers of a publisher start anew with a higher epoch.
///
/// # Panics
/// If it does not hold.
pub async fn a_newer_epoch_begins_anew(stores: &dyn Stores) {
    if !stores.remembers_numbers() {
        return;
    }
    let store = empty(stores).await;
    let old = publisher(5);
    let new = Publisher { epoch: 9, ..old };
    append(
        &*store,
        (1..=3).map(|it| numbered(old, it, "old")).collect(),
    )
    .await;
    let written = append(&*store, vec![numbered(new, 2, "new")]).await;
    let answers = store.append(vec![numbered(new, 2, "new")]).await.unwrap();
    assert_eq!(answers, [Appended::Before(Some(written[0].offset))]);
    append(&*store, vec![numbered(new, 3, "new")]).await;
}

/// Numbers may be skipped. A skipped number counts as stored from then on.
///
/// # Panics
/// If it does not hold.
pub async fn a_number_that_was_skipped_is_not_stored_later(stores: &dyn Stores) {
    if !stores.remembers_numbers() {
        return;
    }
    let store = empty(stores).await;
    let publisher = publisher(1);
    append(&*store, vec![numbered(publisher, 10, "x")]).await;
    append(&*store, vec![numbered(publisher, 20, "x")]).await;
    let skipped = [9, 11, 19].map(|it| numbered(publisher, it, "x"));
    let answers = store.append(skipped.to_vec()).await.unwrap();
    assert_eq!(answers, [Appended::Before(None); 3]);
    assert_eq!(read_all(&*store, ">", usize::MAX).await.len(), 2);
}
