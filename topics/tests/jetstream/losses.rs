//! Servers that restart, and streams that lose their end.

use std::{fs, path::Path};

use tempfile::TempDir;
use unstall_proto::topics::StoredAt;
use unstall_topics::store::{Appended, Store};

use crate::{
    common::*,
    servers::{Servers, are_installed},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_has_the_same_log() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let publisher = publisher();
    let batch: Vec<_> = (1..=100).map(|it| numbered(publisher, it, "a")).collect();
    store.append(batch).await.unwrap();
    servers.kill(0);
    servers.restart(0);
    let again = store
        .append(vec![numbered(publisher, 100, "a")])
        .await
        .unwrap();
    // If it was sent before the loss of the connection was known, it was sent twice. Then it cannot be
    // told from a message that the store had sent itself.
    let (Appended::Before(Some(offset)) | Appended::Stored { offset, .. }) = again[0] else {
        panic!("{again:?}");
    };
    assert_eq!(offset, at(100));
    append(&store, &["b"]).await;
    has_read(&store, 101).await;
    assert_eq!(
        offsets(&read_all(&store, 101, ">").await),
        (1..=101).collect::<Vec<u64>>()
    );
}

/// A machine without power loses what was not synced. Here the server gets an older copy of its folder
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_end_shows_as_bounds_that_go_back_to_what_is_left() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    append(&store, &["a"; 100]).await;
    has_read(&store, 100).await;
    let kept = keep(&servers);
    append(&store, &["a"; 50]).await;
    has_read(&store, 150).await;
    put_back(&servers, &kept);
    servers.restart(0);

    let mut changes = store.changes();
    let back = changes.wait_for(|bounds| bounds.last == at(100));
    let back = *tokio::time::timeout(SOON, back)
        .await
        .expect("it goes back")
        .unwrap();
    assert_ne!(back.last_time, StoredAt::UNKNOWN);
    assert_eq!(store.bounds().await.unwrap(), back);
    append(&store, &["b"; 3]).await;
    has_read(&store, 103).await;
    let left = read_all(&store, 103, ">").await;
    assert_eq!(offsets(&left), (1..=103).collect::<Vec<u64>>());
    assert!(
        left[100..]
            .iter()
            .all(|stored| stored.topic.as_str() == "b")
    );
}

/// Others may have published before this process is connected again, so that the stream is not
/// shorter than before, but another.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_end_that_was_written_over_shows_too() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    append(&store, &["a"; 100]).await;
    let kept = keep(&servers);
    append(&store, &["a"; 50]).await;
    has_read(&store, 150).await;
    let mut changes = store.changes();
    changes.mark_unchanged();
    // The publisher is this store itself: it sends again what it has to while the reader waits.
    put_back(&servers, &kept);
    let over = store.append((0..80).map(|_| publication("b", "x")).collect());
    servers.restart(0);
    let answers = over.await.unwrap();
    assert_eq!(offset(answers[79]), 180);
    until("the tail has what the stream has", async || {
        let found = store.read(read_of(100, 180, ">")).await;
        found.is_ok_and(|chunk| {
            chunk
                .messages
                .iter()
                .all(|stored| stored.topic.as_str() == "b")
        })
    })
    .await;
    has_read(&store, 180).await;
}

/// A copy of the first server's folder, as it is now. The server is killed for it and started again.
pub(crate) fn keep(servers: &Servers) -> TempDir {
    servers.kill(0);
    let kept = tempfile::tempdir().unwrap();
    copy(&servers.store(0), kept.path());
    servers.restart(0);
    kept
}

/// Kills the first server, and gives it back an older copy of its folder.
pub(crate) fn put_back(servers: &Servers, kept: &TempDir) {
    servers.kill(0);
    fs::remove_dir_all(servers.store(0)).unwrap();
    copy(kept.path(), &servers.store(0));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
