//! Memory stays as it is, however much is published and whatever clients do. The allocator counts, so
//! each test runs alone.

#[path = "it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use unstall::Options;
use unstall_topics::{Delivery, Limits, Log, Node, Start};

use common::{
    Served, client, in_time, number, numbered, publication, publish_numbered,
    raw::{
        Raw, further, hello, last, ping, publish, record, subscribe, subscribe_from, token,
        unsubscribe,
    },
};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
const MIN_CREDIT: u64 = 262_144;

fn run(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// The growth of memory since this was made: the highest.
struct Growth(usize);

impl Growth {
    fn start() -> Growth {
        ALLOCATED.reset_peak_usage();
        Growth(ALLOCATED.current_usage())
    }

    fn peak(&self) -> usize {
        ALLOCATED.peak_usage().saturating_sub(self.0)
    }
}

async fn small_log() -> Log {
    Log::memory(Limits::default().max_bytes(8 << 20))
        .await
        .unwrap()
}

/// How much is published: 256 MiB, and 1 GiB if `UNSTALL_TOPICS_MIB` says so.
fn published() -> u64 {
    let named = std::env::var("UNSTALL_TOPICS_MIB").ok();
    named.map_or(256, |named| named.parse().unwrap()) << 20
}

#[test]
fn a_stopped_consumer_costs_its_window_however_much_is_published() {
    run(async {
        let log = small_log().await;
        let served = Served::node(Node::new(&log)).await;
        let topics = client(served.address);
        let mut stopped = topics.subscribe("n", Start::Beginning).unwrap();
        let mut reading = topics.subscribe("n", Start::Beginning).unwrap();
        let other = client(served.address);
        let mut elsewhere = other.subscribe(">", Start::Beginning).unwrap();
        let count = published() / 1000;
        // The log, the end of it in memory, and all windows are full.
        let full = 40_000;
        let mut growth = None;
        let (mut read, mut gaps) = ([0; 2], 0);
        let mut at = 0;
        while at < count {
            let batch = (at..at + 200).map(|at| publication("n", numbered(at, 1000)));
            for result in log.publish_many(batch.collect()).await {
                result.unwrap();
            }
            at += 200;
            for (feed, read) in [&mut reading, &mut elsewhere].into_iter().zip(&mut read) {
                while *read < at {
                    match in_time(feed.recv()).await.unwrap().unwrap() {
                        Delivery::Message(message) => {
                            assert_eq!(number(&message), *read);
                            *read += 1;
                        }
                        Delivery::CaughtUp(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            if at == full {
                growth = Some(Growth::start());
            }
        }
        let peak = growth.unwrap().peak();
        assert!(peak <= 4 * MIB, "it grew by {peak}");
        // It goes on with what it has, its gap, and what the log has.
        let mut stood = 0;
        while stood < at {
            match in_time(stopped.recv()).await.unwrap().unwrap() {
                Delivery::Message(message) => {
                    assert_eq!(number(&message), stood);
                    stood += 1;
                }
                Delivery::Gap(gap) => {
                    gaps += 1;
                    assert_eq!(gap.after.get(), stood);
                    stood = gap.through.get();
                }
                Delivery::CaughtUp(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(gaps, 1);
    });
}

/// Sends the same until the node takes nothing for a second, or all is sent.
async fn flood(raw: &Raw, packets: impl Iterator<Item = Bytes>) {
    for packet in packets {
        let sending = raw.connection.send(packet);
        if !matches!(
            tokio::time::timeout(Duration::from_secs(1), sending).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}

/// What floods cost the node and the clients here together. The client's own buffers are in it.
#[test]
fn floods_of_whoever_never_reads_cost_little() {
    type Flood = fn(u32) -> Vec<Bytes>;
    let floods: [(&str, Flood, usize); 7] = [
        ("PING", |_| vec![ping(1)], 16),
        ("TOKEN", |nth| vec![token(nth.to_string().as_bytes())], 16),
        (
            "SUBSCRIBE",
            |nth| vec![subscribe(nth, MIN_CREDIT, b"n.*")],
            16,
        ),
        (
            "SUBSCRIBE with long filters",
            |nth| vec![subscribe(nth, MIN_CREDIT, &[b'a'; 60_000])],
            24,
        ),
        (
            "SUBSCRIBE and UNSUBSCRIBE",
            |nth| {
                let start = last(1_000_000);
                vec![
                    subscribe_from(nth, MIN_CREDIT, &start, b"n.*"),
                    unsubscribe(nth),
                ]
            },
            16,
        ),
        (
            "PUBLISH to no topic",
            |nth| {
                vec![publish(
                    u64::from(nth) + 1,
                    &[&record(b"*", false, false, b"")],
                )]
            },
            16,
        ),
        (
            "PUBLISH of a message that never ends",
            |nth| {
                let piece = [7; 65_536];
                let record = match nth {
                    0 => record(b"n", false, true, &piece),
                    _ => further(false, true, &piece),
                };
                vec![publish(1, &[&record])]
            },
            // The largest message of the log is 16 MiB, and it is put together from its pieces.
            48,
        ),
    ];
    for (name, packets, mib) in floods {
        run(async {
            let log = small_log().await;
            publish_numbered(&log, 0..2000, 100, |at| format!("n.{}", at % 5)).await;
            let served = Served::node(Node::new(&log)).await;
            let honest = client(served.address);
            honest.publish("h", "x").await.unwrap();
            let options = Options::default().inbox_bytes(1);
            let raw = Raw::with(served.address, options).await;
            raw.say(hello(7, "")).await;
            let growth = Growth::start();
            flood(&raw, (0..300_000).flat_map(packets)).await;
            let peak = growth.peak();
            println!("{name}: {} KiB", peak >> 10);
            assert!(peak <= mib * MIB, "{name}: {peak}");
            in_time(honest.publish("h", "y")).await.unwrap();
        });
    }
}

/// A thousand subscriptions, without the connection.
#[test]
fn an_idle_subscription_costs_a_kibibyte_at_most() {
    const COUNT: u32 = 1000;
    run(async {
        let log = small_log().await;
        let served = Served::node(Node::new(&log)).await;
        let mut raw = Raw::welcome(served.address).await;
        raw.alive().await;
        let growth = Growth::start();
        for nth in 0..COUNT {
            let filter = format!("prices.{nth}");
            raw.say(subscribe(nth, MIN_CREDIT, filter.as_bytes())).await;
        }
        raw.alive().await;
        let now = ALLOCATED.current_usage().saturating_sub(growth.0);
        let each = now / COUNT as usize;
        println!("{each} bytes each");
        assert!(each <= 1024, "{each}");
    });
}

/// Each message has a topic of its own, of the longest name, and no payload. The names are then nearly
/// all that there is.
#[test]
fn endless_names_cost_what_the_log_may_hold() {
    const FULL: u64 = 60_000;
    const COUNT: u64 = 240_000;
    run(async {
        let log = small_log().await;
        let served = Served::node(Node::new(&log)).await;
        let topics = client(served.address);
        // One that reads on, one that asks for the last message of each topic and stops, and one of few
        // matches.
        let mut reading = topics.subscribe(">", Start::Beginning).unwrap();
        let mut latest = topics.subscribe(">", Start::Latest(None)).unwrap();
        let mut few = topics.subscribe("*.7", Start::Now).unwrap();
        in_time(few.recv()).await.unwrap().unwrap();
        let mut growth = None;
        let mut read = 0;
        for first in (0..COUNT).step_by(400) {
            let batch = (first..first + 400).map(|at| {
                let name = format!("{at:0>200}.{}", at % 1000);
                publication(&name, Vec::new())
            });
            for result in log.publish_many(batch.collect()).await {
                result.unwrap();
            }
            while read < first + 400 {
                match in_time(reading.recv()).await.unwrap().unwrap() {
                    Delivery::Message(_) => read += 1,
                    Delivery::CaughtUp(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            if first + 400 == FULL {
                growth = Some(Growth::start());
            }
        }
        let peak = growth.unwrap().peak();
        println!("{} KiB", peak >> 10);
        assert!(peak <= 4 * MIB, "it grew by {peak}");
        let mut found = 0;
        while found < COUNT / 1000 {
            match in_time(few.recv()).await.unwrap().unwrap() {
                Delivery::Message(message) => {
                    assert!(message.topic().as_str().ends_with(".7"));
                    found += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        // The one that stopped goes on up to the last.
        let end = format!("{:0>200}.{}", COUNT - 1, (COUNT - 1) % 1000);
        loop {
            match in_time(latest.recv()).await.unwrap().unwrap() {
                Delivery::Message(message) if message.topic().as_str() == end => break,
                _ => {}
            }
        }
    });
}
