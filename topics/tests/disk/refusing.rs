//! A disk that refuses: files that may not grow, and a disk that may only be read.

use std::{path::Path, process::Command};

use unstall_topics::{
    Embedded, Limits,
    store::{Store, StoreError},
};

use crate::common::*;

/// Runs a child behind a line of shell, whose `$0` is the child's directory and `$@` its command.
fn behind(shell: &str, test: &str, directory: &Path) -> Option<i32> {
    let child = child(test, directory);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", shell])
        .arg(directory)
        .arg(child.get_program())
        .args(child.get_args());
    for (name, value) in child.get_envs() {
        command.env(name, value.unwrap());
    }
    command.status().ok()?.code()
}

async fn check_all(store: &dyn Store, stored: u64) {
    let there = read_all(store, ">").await;
    let numbers: Vec<_> = there.iter().map(number_of).collect();
    assert_eq!(numbers, (1..=stored).collect::<Vec<_>>());
    assert_eq!(store.bounds().await.unwrap().last, offset(stored));
}

/// No file may grow beyond 64 MiB. The journal of the database wants to.
#[tokio::test]
async fn a_disk_that_refuses_a_write_is_told_and_nothing_confirmed_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    // A shell that ignores the signal hands that on, so that the write fails and kills nobody.
    let shell = r#"trap "" XFSZ; ulimit -f 131072 || exit 77; exec "$@""#;
    match behind(shell, "refusing::child_may_not_write", directory.path()) {
        Some(0) => {}
        None | Some(77) => return println!("skipped: no limit can be set here"),
        Some(code) => panic!("exit code {code}"),
    }
    // With a disk that takes everything, all is there, and appending goes on.
    let limits = Limits::default().max_bytes(1 << 30);
    let store = Embedded::open(directory.path().join("log"), limits)
        .await
        .unwrap();
    let stored = store.bounds().await.unwrap().last.get();
    assert!(stored > 20, "{stored}");
    check_all(&store, stored).await;
    let answers = store.append(vec![message(stored + 1, 100)]).await.unwrap();
    assert_eq!(offset_of(&answers[0]), offset(stored + 1));
    check_all(&store, stored + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_may_not_write() {
    let Some(directory) = childs_directory() else {
        return;
    };
    let limits = Limits::default().max_bytes(1 << 30);
    let store = Embedded::open(directory.join("log"), limits).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match store.append(vec![message(stored + 1, 60_000)]).await {
            Ok(answers) => assert_eq!(offset_of(&answers[0]), offset(stored + 1)),
            Err(error) => break error,
        }
        stored += 1;
        assert!(stored < 10_000, "the disk refuses nothing");
    };
    println!("after {stored} messages: {error}");
    assert!(
        matches!(error, StoreError::Unavailable(_) | StoreError::Full(_)),
        "{error}"
    );
    let told = error.to_string();
    assert!(
        told.contains("the disk refused: File too large"),
        "it names the cause: {told}"
    );
    check_all(&store, stored).await;
    // It stays so, without a message confirmed or a reader harmed.
    let refused = store.append(vec![message(stored + 1, 60_000)]).await;
    assert!(refused.is_err(), "{refused:?}");
    check_all(&store, stored).await;
}

#[tokio::test]
async fn a_disk_that_may_only_be_read_is_told_at_opening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("log")).await;
    store.append(vec![message(1, 100)]).await.unwrap();
    store.close().await;
    let shell = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 77; exec "$@""#;
    let test = "refusing::child_may_only_read";
    match behind(shell, test, directory.path()) {
        Some(0) => {}
        None | Some(77) => return println!("skipped: nothing can be mounted here"),
        Some(code) => panic!("exit code {code}"),
    }
    // Nothing is changed by the try.
    check_all(&open(&directory.path().join("log")).await, 1).await;
}

#[tokio::test]
async fn child_may_only_read() {
    let Some(directory) = childs_directory() else {
        return;
    };
    let error = Embedded::open(directory.join("log"), small())
        .await
        .unwrap_err();
    let told = error.to_string();
    println!("{told}");
    assert!(told.contains("log"), "it names the place: {told}");
    assert!(
        told.to_lowercase().contains("read-only"),
        "it names the cause: {told}"
    );
}
