//! One subscriber reads a log on a disk from its beginning. What do the others notice, who follow its end?

use std::{
    cell::Cell,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{Delivery, Publication, Start, Topics};

use crate::{
    Result,
    client::{Light, publish_packed},
    harness::{self, BYTES, Latencies, Running, Table, median},
    node::{Job, Place},
};

/// Messages a second that the others follow.
const RATE: u64 = 200;

/// The topic that the others follow.
const LIVE: &str = "live";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many messages the log has
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// How many others follow the end
    #[arg(long, default_value_t = 100)]
    others: usize,
    /// How often the log is read
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where the log is
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let mut args = args.clone();
    if quick {
        (args.messages, args.others, args.rounds) = (2_000, 5, 1);
    }
    let folder = TempDir::new_in(&args.directory)?;
    let mut job = Job::new(Place::Directory(folder.path().to_owned()));
    job.max_bytes = Some(4 << 30);
    let node = Running::node(&job)?;
    harness::clients(None, fill(&node, args.messages))?;
    // Everything is read once, so that it is warm.
    read(&node.url(), args.messages)?;
    let report = harness::clients(None, measure(&args, &node))?;

    let mut table = Table::new(&format!(
        "catching up, {} messages of {BYTES} B on a disk",
        args.messages
    ));
    let (least, most) = report
        .rates
        .iter()
        .fold((f64::MAX, 0.0), |(a, b): (f64, f64), it| {
            (a.min(*it), b.max(*it))
        });
    let rate = median(report.rates);
    let figure = format!(
        "{:.2} M/s ({:.2} to {:.2})",
        rate / 1e6,
        least / 1e6,
        most / 1e6
    );
    table.goal(
        "one subscriber, warm",
        figure,
        "at least 1 M/s",
        rate >= 1e6,
    );
    let [[a50, a99], [b50, b99]] = [report.alone, report.meanwhile];
    let others = args.others;
    table.row(
        format!("latency p50 of {others} others"),
        format!("{b50:.0} µs; before {a50:.0}"),
    );
    let figure = format!("{b99:.0} µs; before {a99:.0}: {:.2}", b99 / a99);
    let what = format!("latency p99 of {others} others");
    table.goal(what, figure, "less than twice", b99 < 2.0 * a99);
    table.print(quick);
    Ok(())
}

struct Report {
    /// Messages a second.
    rates: Vec<f64>,
    /// p50 and p99 of the others in microseconds, before and while somebody catches up.
    alone: [f64; 2],
    meanwhile: [f64; 2],
}

async fn fill(node: &Running, messages: u64) -> Result<()> {
    let topics = Topics::connect([node.url()]);
    let names: Vec<Topic> = (0..100)
        .map(|it| Topic::new(&format!("topic.{it}")))
        .collect::<Result<_, _>>()?;
    let make = |number: u64| {
        let topic = names[(number % 100) as usize].clone();
        Publication::new(topic, Kind::Binary, vec![b'.'; BYTES])
    };
    publish_packed(&topics, (0, messages), make).await
}

/// Reads the log from its beginning, through the library, on a thread of its own. Returns messages a
/// second.
fn read(url: &str, messages: u64) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let topics = Topics::connect([url]);
        let begun = Instant::now();
        let mut subscription = topics.subscribe("topic.*", Start::Beginning)?;
        let mut count = 0;
        while count < messages {
            match subscription.recv().await? {
                Some(Delivery::Message(_)) => count += 1,
                Some(Delivery::CaughtUp(_)) => {}
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    })
}

async fn measure(args: &Args, node: &Running) -> Result<Report> {
    let begun = Instant::now();
    let latencies = Rc::new(Latencies::new()?);
    let mut others = Vec::new();
    for _ in 0..args.others {
        let mut light = Light::now(&node.address, LIVE).await?;
        let latencies = latencies.clone();
        others.push(tokio::task::spawn_local(async move {
            loop {
                let seen = light.next(|payload| {
                    let late = begun.elapsed().as_micros() as u64 - harness::stamp(payload).1;
                    latencies.record(late);
                });
                if let Err(error) = seen.await {
                    return error;
                }
            }
        }));
    }
    let ends = Rc::new(Cell::new(false));
    let publishing = tokio::task::spawn_local(publish(node.url(), begun, ends.clone()));
    // The first messages find cold caches.
    tokio::time::sleep(Duration::from_millis(500)).await;
    latencies.take();
    let window = if args.rounds == 1 { 200 } else { 4_000 };
    tokio::time::sleep(Duration::from_millis(window)).await;
    let alone = latencies.take();
    let (url, messages, rounds) = (node.url(), args.messages, args.rounds);
    let reading = tokio::task::spawn_blocking(move || {
        // It must not take the processor from the others' clients: only the server may be noticed.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(19);
        (0..rounds)
            .map(|_| read(&url, messages))
            .collect::<Result<Vec<f64>>>()
    });
    let rates = reading.await??;
    let meanwhile = latencies.take();
    ends.set(true);
    publishing.await??;
    for other in others {
        // They have no end of their own.
        if other.is_finished() {
            return Err(other.await?);
        }
        other.abort();
    }
    Ok(Report {
        rates,
        alone,
        meanwhile,
    })
}

/// Publishes what the others follow.
async fn publish(url: String, begun: Instant, ends: Rc<Cell<bool>>) -> Result<()> {
    let topics = Topics::connect([url]);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
    for number in 0.. {
        tick.tick().await;
        if ends.get() {
            break;
        }
        let payload = harness::message(number, begun.elapsed().as_micros() as u64, BYTES);
        topics.publish(LIVE, payload).await?;
    }
    Ok(())
}
