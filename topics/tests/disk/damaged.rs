//! Files that are damaged, missing or older than they should be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use unstall_proto::topics::Offset;
use unstall_topics::{Embedded, OpenError, store::Store};

use crate::common::*;

const COUNT: u64 = 3_000;

/// A log of some generations with [`COUNT`] messages, whose oldest are in tables.
async fn make(directory: &Path) {
    let store = open(directory).await;
    append(&store, 1..=COUNT).await;
    store.close().await;
}

async fn append(store: &dyn Store, numbers: impl Iterator<Item = u64>) {
    let numbers: Vec<_> = numbers.collect();
    for batch in numbers.chunks(50) {
        let batch = batch.iter().map(|it| message(*it, 1_000));
        for answer in store.append(batch.collect()).await.unwrap() {
            offset_of(&answer);
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// Every file of a log is damaged in several places, one after another. Each time, either the log
/// cannot be opened, or each message is read as it was written, or told as damaged, or the log has a
/// new id.
#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_file_never_passes_in_silence() {
    let original = tempfile::tempdir().unwrap();
    make(original.path()).await;
    let id = open_id(original.path()).await;
    let (mut refused, mut told, mut renewed, mut harmless) = (0, 0, 0, 0);
    for file in files(original.path()) {
        let name = file.strip_prefix(original.path()).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        for part in 0..4 {
            let directory = tempfile::tempdir().unwrap();
            copy(original.path(), directory.path());
            let damaged = directory.path().join(name);
            let mut bytes = fs::read(&damaged).unwrap();
            let place = (length * part / 4) as usize;
            let Some(byte) = bytes.get_mut(place) else {
                continue;
            };
            *byte ^= 0x40;
            fs::write(&damaged, bytes).unwrap();

            let what = format!("{} at {place} of {length}", name.display());
            let store = match Embedded::open(&directory, small()).await {
                Ok(store) => store,
                Err(error) => {
                    println!("{what}: {error}");
                    refused += 1;
                    continue;
                }
            };
            for filter in [">", "t.3", "t.*"] {
                let (found, damage) = read_around_damage(&store, filter).await;
                let mut expected: Vec<u64> = match filter {
                    "t.3" => (1..=COUNT).filter(|it| it % 7 == 3).collect(),
                    _ => (1..=COUNT).collect(),
                };
                let last = store.bounds().await.unwrap().last;
                let is_told = |number: u64| {
                    let place = offset(number);
                    let within =
                        |(after, through): &(Offset, Offset)| *after < place && place <= *through;
                    damage.iter().any(within) || (store.id() != id && place <= last)
                };
                for stored in &found {
                    assert_eq!(number_of(stored), stored.offset.get(), "{what}");
                }
                let numbers: Vec<_> = found.iter().map(|it| it.offset.get()).collect();
                expected.retain(|it| !numbers.contains(it));
                for missing in expected {
                    assert!(
                        is_told(missing),
                        "{what}: {missing} is missing in silence ({filter})"
                    );
                }
                if filter == ">" {
                    told += usize::from(!damage.is_empty());
                    renewed += usize::from(store.id() != id);
                    harmless += usize::from(damage.is_empty() && store.id() == id);
                }
            }
            store.close().await;
        }
    }
    println!(
        "{refused} refused, {told} told while reading, {renewed} new ids, {harmless} harmless"
    );
    assert!(refused > 0 && told > 0 && renewed > 0);
}

async fn open_id(directory: &Path) -> unstall_proto::topics::LogId {
    let store = open(directory).await;
    let id = store.id();
    store.close().await;
    id
}

#[tokio::test]
async fn a_log_that_lost_its_end_gets_a_new_id_and_no_offset_twice() {
    let directory = tempfile::tempdir().unwrap();
    let earlier = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let id = open_id(directory.path()).await;
    copy(&directory.path().join("messages"), earlier.path());
    let store = open(directory.path()).await;
    append(&store, COUNT + 1..=COUNT + 100).await;
    store.close().await;

    // The disk has forgotten what it had synced.
    fs::remove_dir_all(directory.path().join("messages")).unwrap();
    copy(earlier.path(), &directory.path().join("messages"));
    let store = open(directory.path()).await;
    assert_ne!(store.id(), id);
    let there = read_all(&store, ">").await;
    assert_eq!(there.len() as u64, COUNT);
    let answers = store.append(vec![message(1, 10)]).await.unwrap();
    assert_eq!(offset_of(&answers[0]), offset(COUNT + 101));
    let there = read_all(&store, ">").await;
    assert_eq!(there.len() as u64, COUNT + 1);
    let new = store.id();
    store.close().await;
    assert_eq!(open_id(directory.path()).await, new, "once");
}

#[tokio::test]
async fn a_log_whose_files_are_gone_is_not_taken_for_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let id = open_id(directory.path()).await;
    fs::rename(directory.path().join("log"), directory.path().join("moved")).unwrap();
    let error = Embedded::open(&directory, small()).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("`log` is missing"), "{error}");

    fs::rename(directory.path().join("moved"), directory.path().join("log")).unwrap();
    assert_eq!(open_id(directory.path()).await, id);
    fs::remove_dir_all(directory.path().join("messages")).unwrap();
    let store = open(directory.path()).await;
    assert_ne!(store.id(), id);
    let bounds = store.bounds().await.unwrap();
    assert_eq!(
        (bounds.first, bounds.last),
        (offset(COUNT + 1), offset(COUNT))
    );
}

#[tokio::test]
async fn a_log_without_one_of_its_indexes_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path()).await;
    let keyspaces = directory.path().join("messages/keyspaces");
    let mut folders: Vec<_> = fs::read_dir(keyspaces)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    folders.sort();
    // 0 is the database's own, 1 the first log, 2 its index.
    fs::remove_dir_all(&folders[2]).unwrap();
    let error = Embedded::open(&directory, small()).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("is not whole"), "{error}");
}
