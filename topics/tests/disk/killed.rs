//! A process that is killed in mid-append.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use unstall_proto::topics::Publisher;
use unstall_topics::store::{Appended, Store};

use crate::common::*;

const PUBLISHER: Publisher = Publisher {
    id: [7; 16],
    epoch: 1,
};
const KILLS: usize = 20;

/// The child: appends from a number on until it is killed, and prints each number and offset that was
/// confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn child_appends() {
    let Some(directory) = childs_directory() else {
        return;
    };
    let store = open(&directory).await;
    let from: u64 = std::env::var("UNSTALL_TEST_FROM").unwrap().parse().unwrap();
    println!("log {}", store.id());
    let mut next = from;
    for round in 0_u64.. {
        let size = 1 + (round * 7) % 40;
        let numbers = next..next + size;
        let length = 20 + (round as usize * 331) % 8_000;
        let batch = numbers
            .clone()
            .map(|it| numbered(message(it, length), PUBLISHER, it));
        let answers = store.append(batch.collect()).await.unwrap();
        let told: Vec<_> = numbers
            .zip(&answers)
            .map(|(number, answer)| format!("stored {number} {}\n", offset_of(answer)))
            .collect();
        print!("{}", told.concat());
        next += size;
    }
}

/// Starts a child, kills it after a while, and returns the log's id and what it confirmed.
fn append_and_kill(directory: &Path, from: u64, time: Duration) -> (String, HashMap<u64, u64>) {
    let mut child = child("killed::child_appends", directory)
        .env("UNSTALL_TEST_FROM", from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut id = String::new();
    let mut confirmed = HashMap::new();
    let mut take = |line: &str| {
        // The test's own name may stand before the first line.
        if let Some((_, rest)) = line.split_once("log ") {
            id = rest.to_owned();
        } else if let Some(rest) = line.strip_prefix("stored ")
            && let Some((number, offset)) = rest.split_once(' ')
        {
            confirmed.insert(number.parse().unwrap(), offset.parse().unwrap());
            return true;
        }
        false
    };
    while !take(&lines.next().expect("the child appends").unwrap()) {}
    let killer = thread::spawn(move || {
        // The moment of the kill is the scenario.
        thread::sleep(time);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    for line in lines {
        let line = line.unwrap();
        // The last line may be cut short, and then its offset is.
        if line.starts_with("stored ") && !line.contains(' ') {
            continue;
        }
        take(&line);
    }
    killer.join().unwrap();
    (id, confirmed)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_confirmed_message_is_there_after_a_kill_and_every_other_at_most_once() {
    // What a process has written outlives it on any file system. This one syncs in no time.
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let mut ids = Vec::new();
    // As much as is kept, so that retention is at work from the first kill on.
    let store = open(directory.path()).await;
    let mut next = 1;
    while next <= 270 {
        let batch = (next..next + 10).map(|it| numbered(message(it, 60_000), PUBLISHER, it));
        store.append(batch.collect()).await.unwrap();
        next += 10;
    }
    store.close().await;
    let (mut confirmed_in_all, mut unconfirmed, mut first) = (0, 0, 1);
    let mut removals = 0;
    for kill in 0..KILLS {
        let time = Duration::from_millis(20 + 20 * kill as u64);
        let (id, mut confirmed) = append_and_kill(directory.path(), next, time);
        // A line that was cut short may have lost digits of its offset.
        let last_number = *confirmed.keys().max().unwrap();
        let last_told = confirmed.remove(&last_number).unwrap();
        ids.push(id);

        let store = open(directory.path()).await;
        let bounds = store.bounds().await.unwrap();
        let mut there = HashMap::new();
        for stored in read_all(&store, ">").await {
            let number = number_of(&stored);
            let before = there.insert(number, stored.offset.get());
            assert_eq!(before, None, "message {number} is there twice");
        }
        let expected = bounds.last.get() + 1 - bounds.first.get();
        assert_eq!(there.len() as u64, expected, "offsets follow each other");
        let mut found = 0;
        for topic in 0..7 {
            found += read_all(&store, &format!("t.{topic}")).await.len();
        }
        assert_eq!(found, there.len(), "the index has each message");
        for (number, offset) in &confirmed {
            match there.get(number) {
                Some(found) => assert_eq!(found, offset, "message {number}"),
                None => assert!(*offset < bounds.first.get(), "message {number} is lost"),
            }
        }
        confirmed_in_all += confirmed.len();
        removals += usize::from(bounds.first.get() > first);
        first = bounds.first.get();
        assert!(
            last_told <= bounds.last.get(),
            "message {last_number} is lost"
        );

        // What was under way is published again.
        let highest = *there.keys().max().unwrap();
        for number in last_number..=highest + 1 {
            let again = numbered(message(number, 50), PUBLISHER, number);
            let answer = store.append(vec![again]).await.unwrap()[0];
            match there.get(&number) {
                Some(found) => {
                    assert_eq!(answer, Appended::Before(Some(offset(*found))));
                    unconfirmed += 1;
                }
                None => drop(offset_of(&answer)),
            }
        }
        next = highest + 2;
        store.close().await;
    }
    assert!(
        ids.iter().all(|id| *id == ids[0] && id.len() == 32),
        "{ids:?}"
    );
    println!(
        "{KILLS} kills: {confirmed_in_all} confirmed; {unconfirmed} were stored without the answer \
         having been read; in {removals} of the runs retention removed something"
    );
    assert!(removals > 0, "retention was at work");
}
