//! Places in a log are found.

use std::time::Duration;

use unstall_proto::topics::{Offset, StoredAt};

use super::{Stores, tools::*};
use crate::store::{Seek, Store, Stored};

const TOPICS: [&str; 10] = ["a", "b.x", "b.y", "a", "c", "b.x", "a", "b.x", "c", "c"];

/// The last messages of a filter begin behind the place that is found.
///
/// # Panics
/// If it does not hold.
pub async fn the_last_messages_are_found(stores: &dyn Stores) {
    let store = empty(stores).await;
    let mut written = append_to(&*store, &TOPICS).await;
    written.extend(append_to(&*store, &TOPICS).await);
    let end = written.last().unwrap().offset;
    for name in [">", "a", "b.*", "b.>", "*", "none"] {
        let all = matching(&written, name);
        for count in [1, 2, 3, 5, 8, 19, 20, 21, u32::MAX] {
            let filter = filter(name);
            let sought = store.seek(Seek::Last { filter, count }).await.unwrap();
            let found = read_between(&*store, name, (sought, end), usize::MAX).await;
            let missing = all.len().saturating_sub(count as usize);
            assert_eq!(found, all[missing..], "the last {count} of {name}");
        }
    }
}

/// The messages of a time or later begin behind the place that is found.
///
/// # Panics
/// If it does not hold.
pub async fn a_time_is_found(stores: &dyn Stores) {
    let store = empty(stores).await;
    let mut written = Vec::new();
    for _ in 0..5 {
        written.extend(append_to(&*store, &TOPICS).await);
        // Different times are part of the scenario.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let times: Vec<u64> = written.iter().map(|it| it.time.millis()).collect();
    assert!(times[0] < times[49], "{times:?}");
    for time in times[0] - 1..=times[49] + 1 {
        let since = |written: &[Stored]| {
            let later = written.iter().filter(|it| it.time.millis() >= time);
            later.cloned().collect::<Vec<_>>()
        };
        let sought = store.seek(Seek::Since(millis(time))).await.unwrap();
        let end = written[49].offset;
        let found = read_between(&*store, ">", (sought, end), usize::MAX).await;
        assert_eq!(found, since(&written), "since {time}");
    }
    let never = store.seek(Seek::Since(StoredAt::MAX)).await.unwrap();
    assert_eq!(never, written[49].offset, "the end");
    let always = store.seek(Seek::Since(StoredAt::UNKNOWN)).await.unwrap();
    assert!(always < written[0].offset, "before the first");
}

/// The snapshot of a filter has the latest message of each topic, in the order of offsets.
///
/// # Panics
/// If it does not hold.
pub async fn the_latest_of_each_topic_are_read(stores: &dyn Stores) {
    let store = empty(stores).await;
    let mut written = append_to(&*store, &TOPICS).await;
    written.extend(append_to(&*store, &TOPICS[..3]).await);
    check_latest(&*store, &written).await;
    // More topics than would be followed one by one.
    let many: Vec<_> = (0..3_000).map(|it| text(&format!("m.{it}"), "x")).collect();
    written.extend(append(&*store, many).await);
    written.extend(append_to(&*store, &["m.7", "m.2999", "m.0"]).await);
    let end = written.last().unwrap().offset;
    let found = latest_between(&*store, "m.*", (Offset::START, end), 10_000).await;
    assert_eq!(found, latest(&written, "m.*", Offset::START, end));
}

/// Of topics whose latest message is behind the bounds, an older one within them is read.
///
/// # Panics
/// If it does not hold.
pub async fn the_latest_within_bounds_are_read_in_chunks(stores: &dyn Stores) {
    let store = empty(stores).await;
    let written = append_to(&*store, &TOPICS).await;
    check_latest(&*store, &written).await;
}

/// Long messages are read whole in chunks of any size: with a filter, and the latest of each topic.
///
/// # Panics
/// If it does not hold.
pub async fn long_messages_are_read_in_chunks(stores: &dyn Stores) {
    let store = empty(stores).await;
    let mut written = Vec::new();
    for number in 0..24 {
        // Of very different lengths, and together more than is read at once.
        let payload = "x".repeat([300_000, 1, 90_000][number % 3]);
        written.extend(append(&*store, vec![text(&format!("l.{number}"), &payload)]).await);
    }
    let all = (Offset::START, written[23].offset);
    for name in [">", "l.*"] {
        for max_bytes in [1, 100_000, 1_000_000, usize::MAX] {
            let found = read_between(&*store, name, all, max_bytes).await;
            assert_eq!(offsets(&found), offsets(&written), "{max_bytes} of {name}");
            let found = latest_between(&*store, name, all, max_bytes).await;
            assert_eq!(
                offsets(&found),
                offsets(&written),
                "{max_bytes}, latest of {name}"
            );
        }
    }
}

/// Compares snapshots of all filters, bounds and sizes of chunks.
async fn check_latest(store: &dyn Store, written: &[Stored]) {
    let places = [&[Offset::START][..], &offsets(written)].concat();
    for name in [">", "a", "b.*", "none", "*.x"] {
        for (begin, &after) in places.iter().enumerate() {
            for &through in &places[begin..] {
                for max_bytes in [1, usize::MAX] {
                    let found = latest_between(store, name, (after, through), max_bytes).await;
                    let expected = latest(written, name, after, through);
                    assert_eq!(found, expected, "{name} from {after} to {through}");
                }
            }
        }
    }
}

/// What the snapshot has to have.
pub(super) fn latest(
    written: &[Stored],
    name: &str,
    after: Offset,
    through: Offset,
) -> Vec<Stored> {
    let within: Vec<_> = matching(written, name)
        .into_iter()
        .filter(|it| it.offset <= through)
        .collect();
    let is_latest = |it: &&Stored| {
        let same = within.iter().rev().find(|other| other.topic == it.topic);
        same.is_some_and(|latest| latest.offset == it.offset) && it.offset > after
    };
    within.iter().filter(is_latest).cloned().collect()
}
