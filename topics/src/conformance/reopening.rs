//! Logs that outlive their store are the same afterwards.

use unstall_proto::topics::{Offset, Publisher, Refusal};

use super::{Stores, tools::*};
use crate::store::{Appended, StoreError};

/// A log has its id, bounds and messages after it was closed and opened.
///
/// # Panics
/// If it does not hold.
pub async fn a_log_is_the_same_after_it_was_closed(stores: &dyn Stores) {
    let store = empty(stores).await;
    let (id, new) = (store.id(), store.bounds().await.unwrap());
    let Some(store) = stores.reopen(store, roomy()).await else {
        return;
    };
    assert_eq!(store.id(), id);
    assert_eq!(store.bounds().await.unwrap(), new);

    let mut written = append_to(&*store, &["a", "b", "a"]).await;
    let bounds = store.bounds().await.unwrap();
    let store = stores.reopen(store, roomy()).await.unwrap();
    assert_eq!(store.id(), id);
    assert_eq!(store.bounds().await.unwrap(), bounds);
    assert_eq!(*store.changes().borrow(), bounds);
    assert_eq!(read_all(&*store, ">", 1).await, written);
    assert_eq!(read_all(&*store, "a", 1).await, matching(&written, "a"));

    written.extend(append_to(&*store, &["b"]).await);
    let store = stores.reopen(store, roomy()).await.unwrap();
    assert_eq!(read_all(&*store, ">", 1).await, written);
    let end = written[3].offset;
    let latest = latest_between(&*store, "*", (Offset::START, end), 1).await;
    assert_eq!(latest, written[2..]);
}

/// A message that is published again after a restart is not stored again.
///
/// # Panics
/// If it does not hold.
pub async fn publishers_are_remembered_after_a_restart(stores: &dyn Stores) {
    let store = empty(stores).await;
    let (a, b) = (publisher(3), publisher(1));
    let batch = vec![
        numbered(a, 1, "x"),
        numbered(b, 1, "x"),
        numbered(a, 2, "x"),
    ];
    let written = append(&*store, batch.clone()).await;
    // What is remembered outlives the messages.
    match store.remove_through(Offset::MAX).await {
        Ok(()) | Err(StoreError::Unsupported(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let Some(store) = stores.reopen(store, roomy()).await else {
        return;
    };
    let again = store.append(batch).await.unwrap();
    for (answer, stored) in again.into_iter().zip(&written) {
        assert_eq!(answer, Appended::Before(Some(stored.offset)));
    }
    if stores.remembers_numbers() {
        let old = Publisher { epoch: 2, ..a };
        let answers = store.append(vec![numbered(old, 9, "x")]).await.unwrap();
        assert_eq!(answers, [Appended::Refused(Refusal::Fenced)]);
    }
    append(&*store, vec![numbered(a, 3, "x"), numbered(b, 2, "x")]).await;
}

/// An offset is not used again, even if nothing is left of the messages.
///
/// # Panics
/// If it does not hold.
pub async fn offsets_go_on_after_a_removal_and_a_restart(stores: &dyn Stores) {
    let store = empty(stores).await;
    let written = append_to(&*store, &["a", "b", "a"]).await;
    for through in [written[0].offset, Offset::MAX] {
        match store.remove_through(through).await {
            Ok(()) => {}
            Err(StoreError::Unsupported(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
    let bounds = store.bounds().await.unwrap();
    let Some(store) = stores.reopen(store, roomy()).await else {
        return;
    };
    assert_eq!(store.bounds().await.unwrap(), bounds);
    assert!(read_all(&*store, ">", 1).await.is_empty());
    let more = append_to(&*store, &["a"]).await;
    assert!(more[0].offset > written[2].offset);
    let store = stores.reopen(store, roomy()).await.unwrap();
    assert_eq!(read_all(&*store, ">", 1).await, more);
}
