//! Directories that cannot be opened, and why.

use std::{fs, time::Duration};

use unstall_topics::{
    Embedded, Limits, OpenError,
    store::{Store, StoreError},
};

use crate::common::*;

#[tokio::test]
async fn a_directory_in_use_is_refused_until_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let second = Embedded::open(&directory, small()).await.unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    assert!(second.to_string().contains("is in use"), "{second}");
    store.append(vec![message(1, 10)]).await.unwrap();
    store.close().await;
    let error = store.append(vec![message(2, 10)]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store is unavailable: the log is closed"
    );
    let store = open(directory.path()).await;
    assert_eq!(read_all(&store, ">").await.len(), 1);
}

#[tokio::test]
async fn a_directory_of_a_later_version_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).await.close().await;
    let file = directory.path().join("log");
    let text = fs::read_to_string(&file).unwrap();
    let later = text.replace("unstall-topics 1\n", "unstall-topics 2\n");
    assert_ne!(later, text);
    fs::write(&file, &later).unwrap();
    let error = Embedded::open(&directory, small()).await.unwrap_err();
    let OpenError::FutureVersion {
        found, known: 1, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(found, "2");
    assert!(error.to_string().ends_with("use a newer one"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), later);
}

#[tokio::test]
async fn a_file_in_the_place_of_the_directory_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Embedded::open(file.path(), Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_copy_gets_an_id_of_its_own_and_keeps_its_messages() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let id = store.id();
    store.append(vec![message(1, 10)]).await.unwrap();
    store.close().await;
    let copy = Embedded::open_copy(&directory, small()).await.unwrap();
    let new = copy.id();
    assert_ne!(new, id);
    assert_eq!(read_all(&copy, ">").await.len(), 1);
    copy.close().await;
    assert_eq!(open(directory.path()).await.id(), new, "once");
}

/// Once a store went on in files that no longer had a name: what it confirmed was lost with the process.
/// Another process could open another log at the same place meanwhile.
#[tokio::test]
async fn a_store_whose_directory_is_removed_or_replaced_ends_and_confirms_nothing_more() {
    for replaced in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().join("log");
        let store = open(&place).await;
        store.append(vec![message(1, 10)]).await.unwrap();
        fs::rename(&place, parent.path().join("moved")).unwrap();
        let other = match replaced {
            true => Some(open(&place).await),
            false => None,
        };
        let expected = match replaced {
            true => "another directory is in the place of",
            false => "is no longer there",
        };
        for _ in 0..2 {
            let refused = store.append(vec![message(2, 10)]).await;
            let Err(StoreError::Unavailable(why)) = refused else {
                panic!("{refused:?}");
            };
            assert!(why.contains(expected), "{why}");
        }
        assert!(store.ended().unwrap().contains(expected));
        if let Some(other) = other {
            assert_ne!(other.id(), store.id());
            other.append(vec![message(1, 10)]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_idle_store_notices_that_its_directory_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let place = parent.path().join("log");
    let store = open(&place).await;
    store.append(vec![message(1, 10)]).await.unwrap();
    let mut changes = store.changes();
    changes.mark_unchanged();
    fs::remove_dir_all(&place).unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(20), changes.changed());
    waited.await.expect("it tells in time").unwrap();
    assert!(store.ended().unwrap().contains("is no longer there"));
}
