//! A cluster of three, whose leader is killed or stopped while a publisher publishes and readers read.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{task::JoinHandle, time::sleep};
use unstall_proto::topics::{Durability, Offset, Refusal};
use unstall_topics::{
    jetstream::{JetStream, async_nats},
    store::{Appended, Publication, Store, Stored},
};

use crate::{
    common::*,
    servers::{Servers, are_installed},
};

const BATCH: u64 = 32;
/// Batches that are under way.
const PIPELINE: usize = 4;
/// An election takes 4 to 9 seconds. Other tests may keep the machine busy meanwhile.
const LATEST: Duration = Duration::from_secs(45);

/// Publishes numbers from 1 on until told to stop, each message until it is stored. Counts the
/// answers.
async fn publish(store: Arc<JetStream>, stored: Arc<AtomicU64>, end: Arc<AtomicU64>) {
    let publisher = publisher();
    let message = |number: u64| numbered(publisher, number, &format!("t.{}", number % 10));
    let mut under_way = VecDeque::new();
    let mut next = 1;
    loop {
        while under_way.len() < PIPELINE && next <= end.load(Relaxed) {
            let batch: Vec<Publication> = (next..next + BATCH).map(message).collect();
            next += BATCH;
            under_way.push_back((batch.clone(), store.append(batch)));
        }
        let Some((mut batch, mut answer)) = under_way.pop_front() else {
            return;
        };
        loop {
            let answers = answer.await.unwrap();
            let again = |answer: &Appended| {
                matches!(
                    answer,
                    Appended::Refused(Refusal::Unknown | Refusal::Unavailable)
                )
            };
            let refused = answers
                .iter()
                .filter(|answer| matches!(answer, Appended::Refused(_)));
            assert!(refused.clone().all(again), "{answers:?}");
            stored.fetch_add(answers.len() as u64 - refused.count() as u64, Relaxed);
            let both = batch.into_iter().zip(&answers);
            batch = both.filter(|(_, it)| again(it)).map(|(it, _)| it).collect();
            if batch.is_empty() {
                break;
            }
            answer = store.append(batch.clone());
        }
        // A rate that all processes keep up with while others use the machine.
        sleep(Duration::from_millis(5)).await;
    }
}

/// Follows the log until it has this many messages of a filter, and counts them.
async fn follow(
    store: Arc<JetStream>,
    name: &'static str,
    seen: Arc<AtomicU64>,
    end: Arc<AtomicU64>,
    part: u64,
) -> Vec<Stored> {
    let mut changes = store.changes();
    let (mut at, mut found) = (Offset::START, Vec::new());
    while found.len() as u64 * part < end.load(Relaxed) {
        let last = changes.borrow_and_update().last;
        while at < last {
            let chunk = read(&*store, at.get(), last.get(), name).await;
            if name == ">" {
                assert_eq!(chunk.first, Offset::new(1).unwrap(), "nothing was removed");
            }
            at = chunk.through;
            found.extend(chunk.messages);
            seen.store(found.len() as u64, Relaxed);
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
    }
    found
}

struct Scene {
    servers: Servers,
    stored: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
    end: Arc<AtomicU64>,
    publisher: JoinHandle<()>,
    readers: Vec<(u64, JoinHandle<Vec<Stored>>)>,
    watcher: Arc<JetStream>,
}

impl Scene {
    async fn begin() -> Scene {
        let servers = Servers::start(3);
        let log = || open(JetStream::builder(servers.urls(), "LOG").replicas(3));
        let (a, b) = (Arc::new(log().await), Arc::new(log().await));
        assert_eq!(a.durability(), Durability::Quorum);
        assert_eq!(a.id(), b.id());
        let [stored, seen, filtered] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let end = Arc::new(AtomicU64::new(u64::MAX / 4));
        let reader = |name, seen: &Arc<AtomicU64>, part| {
            let reader = follow(b.clone(), name, seen.clone(), end.clone(), part);
            (part, tokio::spawn(reader))
        };
        let readers = vec![reader(">", &seen, 1), reader("t.3", &filtered, 10)];
        let publisher = tokio::spawn(publish(a, stored.clone(), end.clone()));
        Scene {
            servers,
            stored,
            seen,
            end,
            publisher,
            readers,
            watcher: b,
        }
    }

    /// Waits until this many more messages are stored and read, and says how long the first took.
    async fn goes_on(&self, what: &str, since: Instant) -> (Duration, Duration) {
        let (stored, seen) = (self.stored.load(Relaxed), self.seen.load(Relaxed));
        let more =
            |count: &AtomicU64, before| count.load(Relaxed) > before + PIPELINE as u64 * BATCH;
        let (mut published, mut read) = (None, None);
        while published.is_none() || read.is_none() {
            if more(&self.stored, stored) {
                published.get_or_insert_with(|| since.elapsed());
            }
            if more(&self.seen, seen) {
                read.get_or_insert_with(|| since.elapsed());
            }
            assert!(since.elapsed() < LATEST, "{what}: {published:?} {read:?}");
            sleep(Duration::from_millis(5)).await;
        }
        (published.unwrap(), read.unwrap())
    }

    /// How long it takes until another server says that it leads the stream.
    async fn elects(&self, without: usize, since: Instant) -> Duration {
        let others = (0..3)
            .filter(|&at| at != without)
            .map(|at| self.servers.url(at));
        let mut clients = Vec::new();
        for url in others {
            let options = async_nats::ConnectOptions::new();
            let options = options.request_timeout(Some(Duration::from_millis(100)));
            clients.push(options.connect(url).await.unwrap());
        }
        until("another server leads", async || {
            for client in &clients {
                let answer = client.request("$JS.API.STREAM.INFO.LOG", "".into()).await;
                let info = answer.map(|it| serde_json::from_slice::<Value>(&it.payload).unwrap());
                let leader = info.map(|info| info["cluster"]["leader"].as_str().map(str::to_owned));
                if leader.is_ok_and(|leader| leader.is_some_and(|it| it != format!("n{without}"))) {
                    return true;
                }
            }
            false
        })
        .await;
        since.elapsed()
    }

    /// Which server leads the stream.
    async fn leader(&self) -> usize {
        let mut leader = None;
        until("the stream has a leader", async || {
            for url in self.servers.urls() {
                let Ok(client) = async_nats::connect(url).await else {
                    continue;
                };
                let answer = client.request("$JS.API.STREAM.INFO.LOG", "".into()).await;
                let info = answer
                    .ok()
                    .and_then(|it| serde_json::from_slice::<Value>(&it.payload).ok());
                let name = info
                    .as_ref()
                    .and_then(|info| info["cluster"]["leader"].as_str());
                if let Some(at) = name.and_then(|name| name.strip_prefix('n')?.parse().ok()) {
                    leader = Some(at);
                    return true;
                }
            }
            false
        })
        .await;
        leader.unwrap()
    }

    /// Waits until all servers have the whole stream, so that the next one may fail.
    async fn is_healed(&self) {
        until("all servers have the stream", async || {
            for url in self.servers.urls() {
                let Ok(client) = async_nats::connect(url).await else {
                    continue;
                };
                let answer = client.request("$JS.API.STREAM.INFO.LOG", "".into()).await;
                let Some(info) = answer
                    .ok()
                    .and_then(|it| serde_json::from_slice::<Value>(&it.payload).ok())
                else {
                    continue;
                };
                let replicas = info["cluster"]["replicas"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let current =
                    |replica: &Value| replica["current"] == true && replica["offline"] != true;
                if replicas.len() == 2 && replicas.iter().all(current) {
                    return true;
                }
            }
            false
        })
        .await;
    }

    /// Ends the publisher at the number it has come to, and checks every message.
    async fn finish(self) {
        let far = self.stored.load(Relaxed) + 10 * BATCH * PIPELINE as u64;
        // Whole batches, in which each topic has its tenth.
        let end = far - far % (10 * BATCH);
        self.end.store(end, Relaxed);
        tokio::time::timeout(SOON, self.publisher)
            .await
            .expect("it ends")
            .unwrap();
        // What was under way beyond the end is stored too.
        let bounds = self.watcher.bounds().await.unwrap();
        let last = self.stored.load(Relaxed);
        assert_eq!(bounds.last.get(), last, "nothing lost and nothing twice");
        has_read(&*self.watcher, last).await;
        for (part, reader) in self.readers {
            let found = tokio::time::timeout(SOON, reader)
                .await
                .expect("it ends")
                .unwrap();
            let numbers: Vec<u64> = found
                .iter()
                .map(|stored| {
                    std::str::from_utf8(&stored.payload)
                        .unwrap()
                        .parse()
                        .unwrap()
                })
                .collect();
            let first = if part == 1 { 1 } else { 3 };
            let expected: Vec<u64> = (first..)
                .step_by(part as usize)
                .take(numbers.len())
                .collect();
            let odd = numbers.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(
                odd,
                None,
                "in order; around it: {:?}",
                odd.map(|at| { &numbers[at.saturating_sub(5)..(at + 5).min(numbers.len())] })
            );
            assert!(numbers.len() as u64 * part >= end);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_costs_an_election_and_no_message() {
    if !are_installed() {
        return;
    }
    let scene = Scene::begin().await;
    scene.goes_on("at first", Instant::now()).await;
    for round in 1..=3 {
        scene.is_healed().await;
        let leader = scene.leader().await;
        scene.servers.kill(leader);
        let now = Instant::now();
        let (elected, (published, read)) = tokio::join!(
            scene.elects(leader, now),
            scene.goes_on("after SIGKILL", now)
        );
        println!(
            "SIGKILL {round}: elected {elected:.1?}, published {published:.1?}, read {read:.1?}"
        );
        scene.servers.restart(leader);
    }
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_and_comes_back_costs_an_election_and_no_message() {
    if !are_installed() {
        return;
    }
    let scene = Scene::begin().await;
    scene.goes_on("at first", Instant::now()).await;
    for round in 1..=3 {
        scene.is_healed().await;
        let leader = scene.leader().await;
        scene.servers.stop(leader);
        let now = Instant::now();
        let (elected, (published, read)) = tokio::join!(
            scene.elects(leader, now),
            scene.goes_on("after SIGSTOP", now)
        );
        println!(
            "SIGSTOP {round}: elected {elected:.1?}, published {published:.1?}, read {read:.1?}"
        );
        scene.servers.go_on(leader);
        scene.goes_on("after SIGCONT", Instant::now()).await;
    }
    scene.finish().await;
}
