//! How fast the store in a directory is, against the database beneath it in the same run.
//!
//! `cargo bench -p unstall-topics --bench embedded -- [append] [retention] [catch-up] [filter] [--directory DIR]`

use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tempfile::TempDir;
use unstall_proto::{
    Kind,
    topics::{Filter, Offset, Publisher, Topic},
};
use unstall_topics::{
    Embedded, Limits,
    store::{Appended, Publication, Read, Store},
};

const PAYLOAD: usize = 200;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

fn main() {
    let mut arguments: Vec<_> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let place = arguments.iter().position(|it| it == "--directory");
    let directory: PathBuf = match place {
        Some(place) => {
            let directory = arguments.remove(place + 1);
            arguments.remove(place);
            directory.into()
        }
        None => env::temp_dir(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = |name: &str| arguments.is_empty() || arguments.iter().any(|it| it == name);
    if runs("append") {
        runtime.block_on(append(&directory));
    }
    if runs("retention") {
        runtime.block_on(retention(&directory));
    }
    if runs("catch-up") {
        runtime.block_on(catch_up(&directory));
    }
    if runs("filter") {
        runtime.block_on(filter(&directory));
    }
}

/// Groups of messages, one of each publisher, each group synced. Alternating rounds, medians.
async fn append(directory: &Path) {
    println!("appends of {PAYLOAD} B, a group synced at a time; thousands of messages a second");
    println!(
        "publishers | database, log alone | database, log and index | store | store / log and index"
    );
    for publishers in [64, 1_024] {
        let (mut log, mut pair, mut store) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            log.push(bare(directory, publishers, false));
            pair.push(bare(directory, publishers, true));
            store.push(ours(directory, publishers).await);
        }
        let (log, pair, store) = (median(log), median(pair), median(store));
        let ratio = store / pair;
        println!("{publishers} | {log:.1} | {pair:.1} | {store:.1} | {ratio:.2}");
    }
    one_at_a_time(directory).await;
}

fn bare(directory: &Path, publishers: usize, with_index: bool) -> f64 {
    let directory = TempDir::new_in(directory).unwrap();
    let database = Database::builder(directory.path()).open().unwrap();
    let log = database
        .keyspace("log", KeyspaceCreateOptions::default)
        .unwrap();
    let index = database
        .keyspace("index", KeyspaceCreateOptions::default)
        .unwrap();
    let begin = Instant::now();
    let mut offset = 0_u64;
    while begin.elapsed() < ROUND {
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for publisher in 0..publishers {
            offset += 1;
            batch.insert(&log, offset.to_be_bytes().to_vec(), vec![b'x'; PAYLOAD]);
            if with_index {
                let mut key = topic(publisher).as_str().as_bytes().to_vec();
                key.push(0);
                key.extend(offset.to_be_bytes());
                batch.insert(&index, key, Vec::new());
            }
        }
        batch.commit().unwrap();
    }
    offset as f64 / begin.elapsed().as_secs_f64() / 1e3
}

async fn ours(directory: &Path, publishers: usize) -> f64 {
    let directory = TempDir::new_in(directory).unwrap();
    let store = Embedded::open(&directory, Limits::default()).await.unwrap();
    let begin = Instant::now();
    let mut stored = 0_u64;
    for number in 1.. {
        if begin.elapsed() >= ROUND {
            break;
        }
        let batch = (0..publishers).map(|it| publication(it, number));
        stored += check(&store.append(batch.collect()).await.unwrap());
    }
    let rate = stored as f64 / begin.elapsed().as_secs_f64() / 1e3;
    store.close().await;
    rate
}

/// One publisher that waits for each answer, against a write and a sync of a plain file.
async fn one_at_a_time(directory: &Path) {
    let sync = {
        use std::io::Write;
        let mut file = tempfile::tempfile_in(directory).unwrap();
        let once = |_| {
            let begin = Instant::now();
            file.write_all(&[b'x'; PAYLOAD]).unwrap();
            file.sync_data().unwrap();
            begin.elapsed()
        };
        (0..5_000).map(once).collect::<Vec<_>>()
    };
    let directory = TempDir::new_in(directory).unwrap();
    let store = Embedded::open(&directory, Limits::default()).await.unwrap();
    let mut times = Vec::new();
    for number in 1..=5_000 {
        let begin = Instant::now();
        check(&store.append(vec![publication(0, number)]).await.unwrap());
        times.push(begin.elapsed());
    }
    store.close().await;
    println!(
        "one at a time: p50 {:?}, p99 {:?}; a write and a sync of a file: p50 {:?}, p99 {:?}",
        percentile(&times, 50),
        percentile(&times, 99),
        percentile(&sync, 50),
        percentile(&sync, 99)
    );
}

/// Four times as much as is kept. What counts is the longest append.
async fn retention(directory: &Path) {
    const KEPT: u64 = 256 << 20;
    let directory = TempDir::new_in(directory).unwrap();
    let limits = Limits::default().max_bytes(KEPT);
    let store = Embedded::open(&directory, limits).await.unwrap();
    let mut times = Vec::new();
    let mut cost = 0;
    for number in 1.. {
        let batch: Vec<_> = (0..64).map(|it| publication(it, number)).collect();
        cost += batch.iter().map(Publication::cost).sum::<u64>();
        let begin = Instant::now();
        check(&store.append(batch).await.unwrap());
        times.push(begin.elapsed());
        if cost > 4 * KEPT {
            break;
        }
    }
    let bounds = store.bounds().await.unwrap();
    println!(
        "retention: {} MiB appended, 256 MiB kept, groups of 64: p50 {:?}, p99 {:?}, longest {:?}, \
         {} of {} above 50 ms; messages {} to {} are left",
        cost >> 20,
        percentile(&times, 50),
        percentile(&times, 99),
        times.iter().max().unwrap(),
        times
            .iter()
            .filter(|it| **it > Duration::from_millis(50))
            .count(),
        times.len(),
        bounds.first,
        bounds.last
    );
    store.close().await;
    println!(
        "the directory then has {} MiB",
        size(directory.path()) >> 20
    );
}

fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let size = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        data if data.is_dir() => size(&entry.path()),
        data => data.len(),
    };
    entries.map(size).sum()
}

async fn fill(store: &Embedded, topics: usize, count: usize) {
    let mut next = 0;
    while next < count {
        let batch = (next..(next + 1_000).min(count)).map(|it| {
            let topic = topic(it % topics);
            Publication::new(topic, Kind::Binary, vec![b'x'; PAYLOAD])
        });
        next += check(&store.append(batch.collect()).await.unwrap()) as usize;
    }
}

/// One subscriber reads a log from its beginning.
async fn catch_up(directory: &Path) {
    const COUNT: usize = 2_000_000;
    let directory = TempDir::new_in(directory).unwrap();
    let store = Embedded::open(&directory, Limits::default()).await.unwrap();
    fill(&store, 100, COUNT).await;
    for (what, name) in [
        ("everything", ">"),
        ("all by a wildcard", "topic.*"),
        ("1 of 100 topics", "topic.7"),
    ] {
        let mut rates = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            found = read(&store, name).await;
            rates.push(found as f64 / begin.elapsed().as_secs_f64() / 1e6);
        }
        println!(
            "catching up, {what}: {found} messages, {:.2} M/s",
            median(rates)
        );
    }
    store.close().await;
}

/// A filter of one of 10,000 topics, in logs of two lengths with as many matches.
async fn filter(directory: &Path) {
    for count in [1_000_000, 3_000_000] {
        let directory = TempDir::new_in(directory).unwrap();
        let store = Embedded::open(&directory, Limits::default()).await.unwrap();
        fill(&store, 10_000, count).await;
        let mut times = Vec::new();
        let mut found = 0;
        for round in 0..20 {
            let begin = Instant::now();
            found = read(&store, &format!("topic.{}", 17 * round)).await;
            times.push(begin.elapsed());
        }
        println!(
            "1 of 10,000 topics in {count} messages: {found} messages in {:?}, {:?} each",
            percentile(&times, 50),
            percentile(&times, 50) / found as u32
        );
        store.close().await;
    }
}

async fn read(store: &Embedded, filter: &str) -> usize {
    let last = store.bounds().await.unwrap().last;
    let filter = Filter::new(filter).unwrap();
    let (mut at, mut found) = (Offset::START, 0);
    while at < last {
        let read = Read::new(at, last, filter.clone(), 256 << 10);
        let chunk = store.read(read).await.unwrap();
        at = chunk.through;
        found += chunk.messages.len();
    }
    found
}

fn topic(number: usize) -> Topic {
    Topic::new(&format!("topic.{number}")).unwrap()
}

fn publication(publisher: usize, number: u64) -> Publication {
    let mut publication = Publication::new(topic(publisher), Kind::Binary, vec![b'x'; PAYLOAD]);
    let mut id = [1; 16];
    id[..8].copy_from_slice(&publisher.to_be_bytes());
    publication.publisher = Some((Publisher { id, epoch: 1 }, number));
    publication
}

fn check(answers: &[Appended]) -> u64 {
    assert!(
        answers
            .iter()
            .all(|it| matches!(it, Appended::Stored { .. }))
    );
    answers.len() as u64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
