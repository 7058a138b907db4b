//! Publishing through JetStream, and with its own client library directly. A killed leader is measured by
//! `cargo test -p unstall-topics --features conformance,jetstream --test jetstream -- --nocapture cluster`.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, context::Context, message::PublishMessage};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tempfile::TempDir;
use unstall_topics::{Log, PublishError, Topics};

use super::failover::open;
use crate::{
    Result,
    foreign::{Contestant, Programs},
    harness::{self, BYTES, Running, Table, median},
    node::{Job, Place},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many messages are under way
    #[arg(long, default_value_t = 1_024)]
    under_way: usize,
    /// How many seconds a run takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each way runs, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

const WAYS: [&str; 4] = [
    "async-nats directly",
    "async-nats directly, with message ids",
    "through a log in this process",
    "through a node, over WebSocket",
];

pub(crate) fn run(args: &Args, programs: &Programs, quick: bool) -> Result<()> {
    if !programs.have(Contestant::Nats) {
        return Ok(());
    }
    let mut args = args.clone();
    if quick {
        (args.under_way, args.seconds, args.rounds) = (16, 0.1, 1);
    }
    let folder = TempDir::new()?;
    let nats = programs.jetstream(folder.path())?;
    let url = format!("nats://{}", nats.address);
    let rates = harness::clients(None, measure(&args, &url))?;
    let ratio =
        |way: usize, to: usize| median(rates.iter().map(|round| round[way] / round[to]).collect());
    let mut table = Table::new(&format!(
        "publish through JetStream, {} under way",
        args.under_way
    ));
    for (way, name) in WAYS.into_iter().enumerate() {
        let rate = median(rates.iter().map(|round| round[way]).collect());
        let (direct, with_ids) = (ratio(way, 0), ratio(way, 1));
        let figure = format!("{:.1} k/s: {direct:.2}; with ids {with_ids:.2}", rate / 1e3);
        match way {
            0 | 1 => table.row(name, figure),
            _ => table.goal(name, figure, "at least 0.9 of directly", direct >= 0.9),
        }
    }
    table.print(quick);
    Ok(())
}

/// Messages a second of each way, in each round.
async fn measure(args: &Args, nats: &str) -> Result<Vec<[f64; 4]>> {
    let log = Log::with_store(open(nats).await?).await?;
    let node = Running::node(&Job::new(Place::JetStream(nats.to_owned())))?;
    let topics = Topics::connect([node.url()]);
    topics.publish("t.0", "the connection is there").await?;
    let context = jetstream::new(async_nats::connect(nats).await?);
    let numbers = Cell::new(0);
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        rounds.push([
            directly(args, &context, None).await?,
            directly(args, &context, Some(&numbers)).await?,
            keep_under_way(args, |topic, payload| log.publish(topic, payload)).await?,
            keep_under_way(args, |topic, payload| topics.publish(topic, payload)).await?,
        ]);
    }
    Ok(rounds)
}

fn topic(number: u64) -> String {
    format!("t.{}", number % 100)
}

fn payload() -> Bytes {
    Bytes::from_static(&[b'.'; BYTES])
}

async fn directly(args: &Args, context: &Context, numbers: Option<&Cell<u64>>) -> Result<f64> {
    let begun = Instant::now();
    let until = Duration::from_secs_f64(args.seconds);
    let mut under_way = FuturesUnordered::new();
    let (mut sent, mut stored) = (0, 0_u64);
    loop {
        while under_way.len() < args.under_way && begun.elapsed() < until {
            sent += 1;
            let mut message = PublishMessage::build().payload(payload());
            if let Some(numbers) = numbers {
                numbers.set(numbers.get() + 1);
                message = message.message_id(format!("{:032x}-1-{}", 7, numbers.get()));
            }
            let ack = context
                .send_publish(format!("LOG.{}", topic(sent)), message)
                .await?;
            under_way.push(ack.into_future());
        }
        match under_way.next().await {
            Some(ack) => ack?,
            None => return Ok(stored as f64 / begun.elapsed().as_secs_f64()),
        };
        stored += 1;
    }
}

/// Each message is published on its own, as an application does that has many requests at a time.
async fn keep_under_way<F>(args: &Args, publish: impl Fn(String, Bytes) -> F) -> Result<f64>
where
    F: Future<Output = Result<unstall_topics::Offset, PublishError>>,
{
    let begun = Instant::now();
    let until = Duration::from_secs_f64(args.seconds);
    let mut under_way = FuturesUnordered::new();
    let (mut sent, mut stored) = (0, 0_u64);
    loop {
        while under_way.len() < args.under_way && begun.elapsed() < until {
            sent += 1;
            under_way.push(publish(topic(sent), payload()));
        }
        match under_way.next().await {
            Some(offset) => offset?,
            None => return Ok(stored as f64 / begun.elapsed().as_secs_f64()),
        };
        stored += 1;
    }
}
