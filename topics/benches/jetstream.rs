//! Publishes 200 bytes a message through the store, and with async-nats directly, in turns.
//!
//! `cargo bench -p unstall-topics --features jetstream --bench jetstream [-- SECONDS]`. The server is
//! that of `.ci/nats-server`, alone, and syncs as it does by default. Each way has 1,024 messages under
//! way. Directly means async-nats' own `publish` of JetStream, once without a message id and once with
//! one, as the store has it. The store gets one batch of 1,024 at a time, as a log appends, and four
//! batches of 256. Medians of five rounds.

#[path = "../tests/jetstream/servers.rs"]
#[expect(dead_code, reason = "the tests do more with servers")]
mod servers;

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, context::Context, message::PublishMessage};
use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use unstall_proto::{
    Kind,
    topics::{Publisher, Topic},
};
use unstall_topics::{
    jetstream::JetStream,
    store::{Appended, Bounds, Publication, Read, Store},
};

const UNDER_WAY: usize = 1_024;
const PAYLOAD: usize = 200;
const ROUNDS: usize = 5;

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let seconds = match env::args().any(|it| it == "--bench") {
        true => env::args().find_map(|it| it.parse().ok()).unwrap_or(3.0),
        false => 0.1,
    };
    if !servers::are_installed() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(Duration::from_secs_f64(seconds)));
}

async fn run(duration: Duration) {
    let servers = servers::Servers::start(1);
    let builder = JetStream::builder(servers.urls(), "LOG").max_bytes(1 << 30);
    let store = loop {
        match builder.clone().open().await {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let client = async_nats::connect(servers.url(0)).await.unwrap();
    let context = jetstream::new(client);
    let ways = [
        "direct",
        "direct, with ids",
        "store, 1 × 1,024",
        "store, 4 × 256",
    ];
    let mut rates = ways.map(|_| Vec::new());
    let mut numbers = Numbers::default();
    for _ in 0..ROUNDS {
        rates[0].push(direct(&context, duration, None).await);
        rates[1].push(direct(&context, duration, Some(&mut numbers)).await);
        rates[2].push(through(&store, duration, 1, &mut numbers).await);
        rates[3].push(through(&store, duration, 4, &mut numbers).await);
    }
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("publish, {PAYLOAD} B, {UNDER_WAY} under way, messages a second:");
    for (way, median) in ways.iter().zip(medians) {
        println!(
            "{way:20} {median:>9.0}   {:.2} of direct",
            median / medians[0]
        );
    }
    let bounds = store.bounds().await.unwrap();
    for name in [">", "t.7"] {
        let (looked, found, took) = read(&store, &bounds, name).await;
        println!(
            "reading {name:4} {found:>8} of {looked} messages, {:>9.0} a second",
            found as f64 / took.as_secs_f64()
        );
    }
}

#[derive(Default)]
struct Numbers(AtomicU64);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}

fn subject(number: u64) -> String {
    format!("t.{}", number % 100)
}

fn payload() -> Bytes {
    Bytes::from_static(&[b'x'; PAYLOAD])
}

async fn direct(context: &Context, duration: Duration, numbers: Option<&mut Numbers>) -> f64 {
    let began = Instant::now();
    let mut under_way = FuturesUnordered::new();
    let (mut sent, mut stored) = (0, 0);
    while began.elapsed() < duration || !under_way.is_empty() {
        while under_way.len() < UNDER_WAY && began.elapsed() < duration {
            sent += 1;
            let mut message = PublishMessage::build().payload(payload());
            if let Some(numbers) = &numbers {
                message = message.message_id(format!("{:032x}-1-{}", 7, numbers.next()));
            }
            let subject = format!("LOG.{}", subject(sent));
            let ack = context.send_publish(subject, message).await.unwrap();
            under_way.push(ack.into_future());
        }
        if let Some(ack) = under_way.next().await {
            ack.unwrap();
            stored += 1;
        }
    }
    stored as f64 / began.elapsed().as_secs_f64()
}

async fn through(
    store: &JetStream,
    duration: Duration,
    batches: usize,
    numbers: &mut Numbers,
) -> f64 {
    let publisher = Publisher {
        id: [8; 16],
        epoch: 1,
    };
    let batch = || -> Vec<Publication> {
        let message = |_| {
            let number = numbers.next();
            let topic = Topic::new(&subject(number)).unwrap();
            let mut publication = Publication::new(topic, Kind::Binary, payload());
            publication.publisher = Some((publisher, number));
            publication
        };
        (0..UNDER_WAY / batches).map(message).collect()
    };
    let began = Instant::now();
    let appends = stream::repeat_with(|| store.append(batch()))
        .take_while(|_| std::future::ready(began.elapsed() < duration))
        .buffered(batches);
    let stored = appends.fold(0, |stored, answers| {
        let answers = answers.unwrap();
        assert!(
            answers
                .iter()
                .all(|it| matches!(it, Appended::Stored { .. }))
        );
        std::future::ready(stored + answers.len())
    });
    stored.await as f64 / began.elapsed().as_secs_f64()
}

async fn read(store: &JetStream, bounds: &Bounds, name: &str) -> (u64, usize, Duration) {
    let filter = unstall_proto::topics::Filter::new(name).unwrap();
    let mut read = Read::new(bounds.first.before(), bounds.last, filter, 256 << 10);
    let (began, mut found) = (Instant::now(), 0);
    while read.after < bounds.last {
        let chunk = store.read(read.clone()).await.unwrap();
        read.after = chunk.through;
        found += chunk.messages.len();
    }
    (
        bounds.last.get() - bounds.first.before().get(),
        found,
        began.elapsed(),
    )
}
