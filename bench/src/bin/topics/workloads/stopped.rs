//! One subscriber of many stops for good while 1 GiB is published. What do the others notice?

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{Delivery, Publication, Start, Subscription, Topics};

use crate::{
    Result,
    client::{Light, publish_packed},
    harness::{self, Latencies, Running, Table, median},
    node::{Job, Place},
};

/// The others share so many topics. With a single one, 1,000 subscribers would get 1 TiB.
const TOPICS: u64 = 100;

/// The bytes of a message.
const BYTES: usize = 4_000;

/// What is published before the others have to have had the slice before the last one: nobody but the one
/// that stops may fall behind the 64 MiB that a log in memory keeps.
const SLICE: u64 = 2_000;

/// Messages that are published each millisecond while latency is measured.
const PACE: u64 = 5;

/// What memory may grow by between a quarter of the messages and all of them, in KiB.
const FLAT: f64 = 8.0 * 1024.0;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many subscribers, with the one that stops
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// How much is published, in MiB
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// How often it is published with the one that stops, and without
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Keep everything in a directory, so that the one that stopped can go on. Else the log is in memory,
    /// and keeps 64 MiB
    #[arg(long)]
    directory: bool,
}

struct Report {
    /// Deliveries a second while 1 GiB is published as fast as it goes.
    rate: f64,
    /// Latency at a set pace, in microseconds.
    p50: f64,
    p99: f64,
    /// Of the server, in KiB.
    growth: f64,
    peak: f64,
    /// Messages and missing offsets of the one that stopped.
    later: Option<(u64, u64)>,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let mut args = args.clone();
    if quick {
        (args.subscribers, args.mebibytes, args.rounds) = (20, 1, 1);
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        // The second run of a round has a warmer machine.
        for stops in [round % 2 == 0, round % 2 != 0] {
            let report = once(&args, stops, quick)?;
            let runs = if stops { &mut with } else { &mut without };
            runs.push(report);
        }
    }
    table(&args, &without, &with).print(quick);
    Ok(())
}

fn table(args: &Args, without: &[Report], with: &[Report]) -> Table {
    let compared = |of: fn(&Report) -> f64| {
        let ratios = with
            .iter()
            .zip(without)
            .map(|(a, b)| of(a) / of(b))
            .collect();
        let middle = |runs: &[Report]| median(runs.iter().map(of).collect());
        (middle(with), middle(without), median(ratios))
    };
    let store = if args.directory {
        "a directory"
    } else {
        "memory, 64 MiB kept"
    };
    let mut table = Table::new(&format!(
        "one of {} stopped, {} MiB published, {store}",
        args.subscribers, args.mebibytes
    ));
    let (a, b, ratio) = compared(|it| it.rate);
    let figure = format!("{:.2} M/s of {:.2}: {ratio:.2}", a / 1e6, b / 1e6);
    table.goal(
        "the others' rate, of without it",
        figure,
        "at least 0.95",
        ratio >= 0.95,
    );
    let (a, b, ratio) = compared(|it| it.p50);
    table.row(
        "the others' latency p50",
        format!("{a:.0} µs of {b:.0}: {ratio:.2}"),
    );
    let (a, b, ratio) = compared(|it| it.p99);
    let figure = format!("{a:.0} µs of {b:.0}: {ratio:.2}");
    table.goal(
        "the others' latency p99",
        figure,
        "at most 1.1",
        ratio <= 1.1,
    );
    let (a, b, _) = compared(|it| it.growth);
    let figure = format!("{:.1} MiB; without it {:.1}", a / 1024.0, b / 1024.0);
    let goal = "at most 8 MiB";
    table.goal("memory grows after a quarter by", figure, goal, a <= FLAT);
    let (a, b, _) = compared(|it| it.peak);
    table.row(
        "memory's peak",
        format!("{:.0} MiB; without it {:.0}", a / 1024.0, b / 1024.0),
    );
    if let Some((messages, missing)) = with.last().and_then(|it| it.later) {
        let (total, expected) = (messages + missing, count(args.mebibytes) + paced(false));
        let figure = format!("{messages} messages, and gaps of {missing}");
        let goal = "together all of them";
        table.goal("then it goes on, and gets", figure, goal, total == expected);
    }
    table
}

/// How many messages are published as fast as it goes.
fn count(mebibytes: u64) -> u64 {
    (mebibytes << 20) / BYTES as u64 / TOPICS * TOPICS
}

/// How many are published at a pace.
fn paced(quick: bool) -> u64 {
    if quick { TOPICS } else { 2_000 * PACE }
}

fn once(args: &Args, stops: bool, quick: bool) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let mut job = Job::new(Place::Memory).on_a_core();
    if args.directory {
        job.store = Place::Directory(folder.path().to_owned());
        job.max_bytes = Some(4 << 30);
    }
    let node = Running::node(&job)?;
    let scene = Rc::new(Scene {
        begun: Instant::now(),
        end: count(args.mebibytes) + paced(quick),
        delivered: Cell::new(0),
        news: Notify::new(),
        failed: Cell::default(),
        latencies: Latencies::new()?,
    });
    harness::clients(Some(harness::CLIENTS), scene.measure(args, &node, stops))
}

struct Scene {
    begun: Instant,
    /// How many messages are published.
    end: u64,
    delivered: Cell<u64>,
    news: Notify,
    /// Why a subscriber ended early.
    failed: Cell<Option<crate::Failure>>,
    latencies: Latencies,
}

impl Scene {
    async fn measure(self: Rc<Self>, args: &Args, node: &Running, stops: bool) -> Result<Report> {
        let others = args.subscribers as u64 - 1;
        let mut tasks = Vec::new();
        for nth in 0..others {
            let light = Light::now(&node.address, &topic(nth)).await?;
            let scene = self.clone();
            tasks.push(tokio::task::spawn_local(async move {
                if let Err(error) = scene.clone().subscribe(light, nth % TOPICS).await {
                    scene.failed.set(Some(error));
                    scene.news.notify_one();
                }
            }));
        }
        let idle = match stops {
            true => Some(stopped(node).await?),
            false => None,
        };
        let topics = Topics::connect([node.url()]);
        let names: Vec<Topic> = (0..TOPICS)
            .map(|it| Topic::new(&topic(it)))
            .collect::<Result<_, _>>()?;
        let make = |number: u64| {
            let payload = harness::message(number, self.micros(), BYTES);
            Publication::new(
                names[(number % TOPICS) as usize].clone(),
                Kind::Binary,
                payload,
            )
        };
        // As fast as it goes.
        let (fast, begun) = (count(args.mebibytes), Instant::now());
        let quarter = fast / 4;
        let (mut at, mut early) = (0, None);
        while at < fast {
            let end = fast.min(at + SLICE);
            publish_packed(&topics, (at, end), make).await?;
            self.is_delivered(at.saturating_sub(SLICE), others).await?;
            at = end;
            if at >= quarter && early.is_none() {
                early = Some(node.memory("VmRSS")?);
            }
        }
        self.is_delivered(fast, others).await?;
        let rate = self.delivered.get() as f64 / begun.elapsed().as_secs_f64();
        let early = early.unwrap_or_default();
        let growth = node.memory("VmRSS")? - early;
        // And at a pace.
        self.latencies.take();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for number in (fast..self.end).step_by(PACE as usize) {
            tick.tick().await;
            let batch = (number..number + PACE).map(make).collect();
            for result in topics.publish_many(batch).await {
                result?;
            }
        }
        for task in tasks {
            task.await?;
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let peak = node.memory("VmHWM")?;
        let later = match idle {
            Some(subscription) => Some(goes_on(subscription, self.end).await?),
            None => None,
        };
        let [p50, p99] = self.latencies.take();
        Ok(Report {
            rate,
            p50,
            p99,
            growth,
            peak,
            later,
        })
    }

    /// Waits until the first messages have reached all others.
    async fn is_delivered(&self, messages: u64, others: u64) -> Result<()> {
        let of = |nth| messages / TOPICS + u64::from(nth % TOPICS < messages % TOPICS);
        let all: u64 = (0..others).map(of).sum();
        while self.delivered.get() < all {
            self.news.notified().await;
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Checks that every message of a topic comes, once and in order.
    async fn subscribe(self: Rc<Self>, mut light: Light, mut expected: u64) -> Result<()> {
        while expected < self.end {
            let (mut wrong, mut count) = (None, 0);
            light
                .next(|payload| {
                    let (number, sent) = harness::stamp(payload);
                    if number != expected {
                        wrong.get_or_insert((number, expected));
                    }
                    expected += TOPICS;
                    count += 1;
                    let late = self.micros().saturating_sub(sent);
                    self.latencies.record(late);
                })
                .await?;
            if let Some((number, expected)) = wrong {
                return Err(format!("message {number} came in place of {expected}").into());
            }
            self.delivered.set(self.delivered.get() + count);
            self.news.notify_one();
        }
        Ok(())
    }

    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }
}

fn topic(nth: u64) -> String {
    format!("bench.stopped.{}", nth % TOPICS)
}

/// A subscriber of everything that receives no more once it is there.
async fn stopped(node: &Running) -> Result<Subscription> {
    let topics = Topics::connect([node.url()]);
    let mut subscription = topics.subscribe("bench.stopped.>", Start::Now)?;
    while !matches!(subscription.recv().await?, Some(Delivery::CaughtUp(_))) {}
    Ok(subscription)
}

/// It receives again: how many messages, and how many are missing.
async fn goes_on(mut subscription: Subscription, end: u64) -> Result<(u64, u64)> {
    let (mut messages, mut missing) = (0, 0);
    while messages + missing < end {
        match subscription.recv().await? {
            Some(Delivery::Message(_)) => messages += 1,
            Some(Delivery::Gap(gap)) => missing += gap.through.get() - gap.after.get(),
            Some(_) => {}
            None => return Err("the subscription ended".into()),
        }
    }
    Ok((messages, missing))
}
