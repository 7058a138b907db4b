//! A full disk: a tmpfs of a set size, or with a set number of files, in a mount namespace.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
};

use unstall_proto::topics::{Publisher, Refusal};
use unstall_topics::{
    Embedded, Limits,
    store::{Appended, Publication, Store, StoreError},
};

use crate::common::*;

const PUBLISHER: Publisher = Publisher {
    id: [5; 16],
    epoch: 1,
};

/// Runs a child with a tmpfs of its own. Returns whether such a mount is possible here.
fn on_tmpfs(test: &str, options: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let child = child(test, directory.path());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    let mount = format!(r#"mount -t tmpfs -o {options} tmpfs "$0" || exit 77; exec "$@""#);
    command
        .arg(mount)
        .arg(directory.path())
        .arg(child.get_program())
        .args(child.get_args());
    for (name, value) in child.get_envs() {
        command.env(name, value.unwrap());
    }
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => {
            println!("skipped: unshare cannot be run: {error}");
            return false;
        }
    };
    if matches!(status.code(), Some(77 | 1)) && !can_mount() {
        println!("skipped: no tmpfs can be mounted here");
        return false;
    }
    assert!(status.success(), "{status}");
    true
}

fn can_mount() -> bool {
    let mount = "mount -t tmpfs tmpfs /mnt";
    let arguments = ["--user", "--map-root-user", "--mount", "sh", "-c", mount];
    let status = Command::new("unshare").args(arguments).status();
    status.is_ok_and(|status| status.success())
}

/// A message whose publisher gives it this number too. So one that was refused is stored later only if
/// nothing of it is remembered.
fn own(number: u64, length: usize) -> Publication {
    numbered(message(number, length), PUBLISHER, number)
}

/// Appends until the store refuses, and returns the numbers that are stored and the refusal.
async fn append_until_refused(store: &dyn Store, from: u64) -> (u64, StoreError) {
    for number in from.. {
        match store.append(vec![own(number, 60_000)]).await {
            Ok(answers) => assert_eq!(offset_of(&answers[0]), offset(number)),
            Err(error) => return (number, error),
        }
    }
    unreachable!("the disk is never full");
}

async fn check_all(store: &dyn Store, stored: u64) {
    let there = read_all(store, ">").await;
    let numbers: Vec<_> = there.iter().map(number_of).collect();
    assert_eq!(numbers, (1..=stored).collect::<Vec<_>>());
    assert_eq!(store.bounds().await.unwrap().last, offset(stored));
}

fn limits() -> Limits {
    Limits::default().max_bytes(1 << 30)
}

#[test]
fn a_full_disk_is_told_reading_goes_on_and_appends_do_once_there_is_room() {
    on_tmpfs("full::child_fills_the_disk", "size=200m");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_fills_the_disk() {
    let Some(directory) = childs_directory() else {
        return;
    };
    let filler = directory.join("filler");
    File::create(&filler)
        .unwrap()
        .write_all(&vec![1; 60 << 20])
        .unwrap();
    let store = Embedded::open(directory.join("log"), limits())
        .await
        .unwrap();
    let (refused, error) = append_until_refused(&store, 1).await;
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(refused > 100, "{refused}");
    check_all(&store, refused - 1).await;
    // Somebody else takes the rest.
    fill(&directory.join("rest"));
    let error = store.append(vec![own(refused, 10)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    check_all(&store, refused - 1).await;
    // A message whose answer was lost is not told as refused.
    let batch = vec![own(1, 60_000), own(refused, 10)];
    let answers = store.append(batch).await.unwrap();
    let before = Appended::Before(Some(offset(1)));
    assert_eq!(answers, [before, Appended::Refused(Refusal::Full)]);
    check_all(&store, refused - 1).await;

    fs::remove_file(directory.join("rest")).unwrap();
    fs::remove_file(filler).unwrap();
    let next = append_when_possible(&store, refused).await;
    check_all(&store, next - 1).await;
    store.close().await;
    let store = Embedded::open(directory.join("log"), limits())
        .await
        .unwrap();
    check_all(&store, next - 1).await;
}

/// Here the space seems enough, and the database fails in the middle of its work: it cannot make
/// files.
#[test]
fn a_disk_that_takes_no_more_files_is_survived() {
    on_tmpfs("full::child_runs_out_of_files", "size=2g,nr_inodes=150");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_runs_out_of_files() {
    let Some(directory) = childs_directory() else {
        return;
    };
    let fillers = directory.join("fillers");
    fs::create_dir(&fillers).unwrap();
    for number in 0..80 {
        File::create(fillers.join(number.to_string())).unwrap();
    }
    let store = Embedded::open(directory.join("log"), small())
        .await
        .unwrap();
    let mut next = 1;
    let mut first = 1;
    for _ in 0..3 {
        let (refused, error) = append_until_refused(&store, next).await;
        // Never: not known whether it is stored.
        assert!(
            matches!(error, StoreError::Full(_) | StoreError::Unavailable(_)),
            "{error}"
        );
        let bounds = store.bounds().await.unwrap();
        assert_eq!(bounds.last, offset(refused - 1), "nothing of it is stored");
        first = bounds.first.get();
        let there = read_all(&store, ">").await;
        let numbers: Vec<_> = there.iter().map(number_of).collect();
        assert_eq!(numbers, (first..refused).collect::<Vec<_>>());
        next = refused;
        for filler in fs::read_dir(&fillers).unwrap().take(25) {
            fs::remove_file(filler.unwrap().path()).unwrap();
        }
        next = append_when_possible(&store, next).await;
    }
    println!("{next} messages, the first is {first}");
    store.close().await;
    let store = Embedded::open(directory.join("log"), small())
        .await
        .unwrap();
    let there = read_all(&store, ">").await;
    assert_eq!(number_of(there.last().unwrap()), next - 1);
}

/// Appends one message as soon as the store takes it, and returns the next number.
async fn append_when_possible(store: &dyn Store, number: u64) -> u64 {
    for _ in 0..600 {
        if let Ok(answers) = store.append(vec![own(number, 100)]).await {
            assert_eq!(offset_of(&answers[0]), offset(number));
            return number + 1;
        }
        // A client asks again after a while.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("there is room, but message {number} is still refused");
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}
