//! Appending and reading at the same time.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use unstall_proto::topics::Offset;

use super::{Stores, tools::*};
use crate::store::{Read, Store, Stored};

/// Longer than a change of the bounds takes to be told on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// As soon as a message is told as stored, it can be read, and the bounds include it.
///
/// # Panics
/// If it does not hold.
pub async fn what_is_told_can_be_read(stores: &dyn Stores) {
    let store = empty(stores).await;
    let mut changes = store.changes();
    for _ in 0..50 {
        let written = append_to(&*store, &["a", "b"]).await;
        let (before, last) = (written[0].offset.before(), written[1].offset);
        let found = read_between(&*store, ">", (before, last), usize::MAX).await;
        assert_eq!(found, written);
        let bounds = store.bounds().await.unwrap();
        assert_eq!((bounds.last, bounds.last_time), (last, written[1].time));
        let told = changes.wait_for(|bounds| bounds.last == last);
        let told = *timeout(SOON, told)
            .await
            .expect("a change is told")
            .unwrap();
        assert_eq!(told.last_time, written[1].time);
    }
}

/// Readers that follow the log while it grows get each message once and in order, and nothing
/// that is not told.
///
/// # Panics
/// If it does not hold.
pub async fn readers_get_each_message_once_while_it_is_appended(stores: &dyn Stores) {
    const BATCHES: usize = 100;
    let store = empty(stores).await;
    let mut readers = JoinSet::new();
    for name in [">", "t.0", "t.*", "t.1", "*.2", "none"].repeat(3) {
        readers.spawn(follow(store.clone(), name));
    }
    let mut written = Vec::new();
    for batch in 0..BATCHES {
        let size = 1 + batch % 30;
        let topics: Vec<_> = (0..size).map(|it| format!("t.{}", it % 5)).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        written.extend(append_to(&*store, &topics).await);
    }
    written.extend(append_to(&*store, &["end"]).await);
    let mut count = 0;
    while let Some(reader) = readers.join_next().await {
        let (name, found) = reader.unwrap();
        assert_eq!(found, matching(&written, name), "{name}");
        count += 1;
    }
    assert_eq!(count, 18);
}

/// Reads what a filter matches, until the log's last message has the topic `end`.
async fn follow(store: Arc<dyn Store>, name: &'static str) -> (&'static str, Vec<Stored>) {
    let mut changes = store.changes();
    let mut found = Vec::new();
    let mut at = Offset::START;
    loop {
        let last = changes.borrow_and_update().last;
        while at < last {
            let chunk = store
                .read(Read::new(at, last, filter(name), 500))
                .await
                .unwrap();
            check(&chunk, at, last);
            at = chunk.through;
            found.extend(chunk.messages);
        }
        if at > Offset::START {
            let end = read_between(&*store, "end", (at.before(), at), 1).await;
            if !end.is_empty() {
                return (name, found);
            }
        }
        let changed = timeout(SOON, changes.changed()).await;
        changed.expect("a change is told").unwrap();
    }
}
