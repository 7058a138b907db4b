//! Messages are removed from the front only.

use unstall_proto::topics::Offset;

use super::{Stores, tools::*};
use crate::store::{Read, Seek, Store, StoreError};

/// Whether the store removes what an application says. Some refuse it.
async fn removes(store: &dyn Store, through: Offset) -> bool {
    match store.remove_through(through).await {
        Ok(()) => true,
        Err(StoreError::Unsupported(_)) => false,
        Err(error) => panic!("messages through {through} are to be removed, but: {error}"),
    }
}

/// What is removed is not there for any filter, and the rest is.
///
/// # Panics
/// If it does not hold.
pub async fn removal_takes_from_the_front(stores: &dyn Stores) {
    let store = empty(stores).await;
    let written = append_to(&*store, &["a", "b", "a", "c", "b", "a"]).await;
    let changes = store.changes();
    for removed in [0, 1, 3, 4] {
        let through = match removed {
            0 => Offset::START,
            removed => written[removed - 1].offset,
        };
        if !removes(&*store, through).await {
            return;
        }
        let left = &written[removed..];
        for name in [">", "a", "*", "b", "c"] {
            let found = read_all(&*store, name, 1).await;
            assert_eq!(found, matching(left, name), "{name} after {through}");
        }
        let bounds = store.bounds().await.unwrap();
        assert_eq!(bounds.first, left[0].offset);
        assert_eq!(bounds.last, written[5].offset);
        assert_eq!(*changes.borrow(), bounds);
        let latest = latest_between(&*store, ">", (Offset::START, bounds.last), 1).await;
        assert_eq!(latest.len(), if removed == 4 { 2 } else { 3 });
        let all = Seek::Last {
            filter: filter(">"),
            count: u32::MAX,
        };
        let all = store.seek(all).await.unwrap();
        assert!(all < left[0].offset && (removed == 0 || all >= through));
    }
    // What is gone already, or never was, changes nothing.
    assert!(removes(&*store, written[1].offset).await);
    assert_eq!(read_all(&*store, ">", 1).await, written[4..]);
}

/// A chunk says which message was the first after the reading, so that a reader who was overtaken
/// by retention finds out.
///
/// # Panics
/// If it does not hold.
pub async fn a_chunk_tells_what_was_removed_before_it(stores: &dyn Stores) {
    let store = empty(stores).await;
    let written = append_to(&*store, &["a", "b", "a", "b"]).await;
    if !removes(&*store, written[1].offset).await {
        return;
    }
    for name in [">", "b", "none"] {
        let read = Read::new(Offset::START, written[3].offset, filter(name), usize::MAX);
        for chunk in [
            store.read(read.clone()).await.unwrap(),
            store.read_latest(read).await.unwrap(),
        ] {
            assert_eq!(chunk.first, written[2].offset, "{name}");
        }
    }
}

/// When everything was removed the log is empty, and goes on with offsets that were never used.
///
/// # Panics
/// If it does not hold.
pub async fn offsets_go_on_after_everything_was_removed(stores: &dyn Stores) {
    let store = empty(stores).await;
    let written = append_to(&*store, &["a", "b", "a"]).await;
    let last = written[2].offset;
    // A removal never reaches what comes later.
    if !removes(&*store, Offset::MAX).await {
        return;
    }
    let bounds = store.bounds().await.unwrap();
    assert_eq!(bounds.last, last, "the last message that was ever there");
    assert_eq!(bounds.first, offset(last.get() + 1), "one more");
    assert_eq!(bounds.last_time, written[2].time);
    let read = Read::new(Offset::START, Offset::MAX, filter("a"), usize::MAX);
    let chunk = store.read(read).await.unwrap();
    assert!(chunk.messages.is_empty());
    assert_eq!((chunk.through, chunk.first), (last, bounds.first));

    let more = append_to(&*store, &["a", "c"]).await;
    assert!(more[0].offset > last);
    assert_eq!(read_all(&*store, ">", 1).await, more);
    assert_eq!(store.bounds().await.unwrap().first, more[0].offset);
}

/// A log of bounded size removes its oldest messages, whole and from the front.
///
/// # Panics
/// If it does not hold.
pub async fn retention_by_bytes_takes_from_the_front(stores: &dyn Stores) {
    const LIMIT: u64 = 16 << 20;
    let store = stores.empty(roomy().max_bytes(LIMIT)).await;
    let payload = "x".repeat(60_000);
    let mut written = Vec::new();
    let mut cost = 0;
    // Some stores remove in steps, and later.
    while cost < 3 * LIMIT {
        let batch: Vec<_> = (0..8)
            .map(|it| text(&format!("t.{it}"), &payload))
            .collect();
        cost += batch.iter().map(|it| it.cost()).sum::<u64>();
        written.extend(append(&*store, batch).await);
    }
    let bounds = store.bounds().await.unwrap();
    assert!(bounds.first > written[0].offset, "something was removed");
    assert_eq!(bounds.last, written.last().unwrap().offset);
    written.retain(|it| it.offset >= bounds.first);
    let left: u64 = written.iter().map(|it| it.cost()).sum();
    assert!(left >= LIMIT / 2, "not more than needed: {left} are left");
    assert!(left <= LIMIT * 9 / 8, "{left} are left");
    for name in ["t.3", ">", "t.*"] {
        let found = read_all(&*store, name, usize::MAX).await;
        let expected = matching(&written, name);
        assert_eq!(offsets(&found), offsets(&expected), "{name}");
    }
}
