//! Filters that match few of many messages: what reading costs grows with what they match.

use std::{path::PathBuf, time::Instant};

use tempfile::TempDir;
use unstall_proto::{
    Kind,
    topics::{Start, Topic},
};
use unstall_topics::{Publication, Topics};

use crate::{
    Result,
    client::{Light, publish_packed},
    harness::{self, BYTES, Running, Table, median},
    node::{Job, Place},
};

const TOPICS: u64 = 10_000;

/// How many messages of each topic the log has.
const EACH: u64 = 50;

/// One in so many messages is of the topic that has more.
const OFTEN: u64 = 1_000;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many times as long the longer log is
    #[arg(long, default_value_t = 4)]
    times: u64,
    /// How many topics are read, one after the other
    #[arg(long, default_value_t = 100)]
    reads: u64,
    /// Where the logs are
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let (each, reads) = if quick { (1, 5) } else { (EACH, args.reads) };
    let short = each * TOPICS;
    let mut table = Table::new(&format!("a filter of one of {TOPICS} topics, on a disk"));
    let mut took = Vec::new();
    for total in [short, short * args.times] {
        let folder = TempDir::new_in(&args.directory)?;
        let mut job = Job::new(Place::Directory(folder.path().to_owned()));
        job.max_bytes = Some(8 << 30);
        let node = Running::node(&job)?;
        let (few, many) = harness::clients(None, async {
            fill(&node, short, total).await?;
            let few = read(&node, reads, each, |nth| format!("topic.{}", nth * 97 + 1)).await?;
            let many = read(&node, reads, total / OFTEN, |_| "often".into()).await?;
            Ok((few, many))
        })?;
        table.row(
            format!("{each} matches in {total} messages"),
            format!("{few:.0} µs, {:.1} each", few / each as f64),
        );
        let matches = total / OFTEN;
        table.row(
            format!("{matches} matches in {total} messages"),
            format!("{many:.0} µs, {:.1} each", many / matches as f64),
        );
        took.push((few, many / matches as f64));
    }
    let ratio = took[1].0 / took[0].0;
    let what = format!("as many matches in a log {} times as long", args.times);
    table.goal(
        what,
        format!("{ratio:.2} of the time"),
        "at most 1.25",
        ratio <= 1.25,
    );
    table.print(quick);
    Ok(())
}

/// The first messages go to all topics in turns, and what follows to as many others. One in a
/// thousand is of a topic of its own.
async fn fill(node: &Running, short: u64, total: u64) -> Result<()> {
    let topics = Topics::connect([node.url()]);
    let names = |prefix: &str| -> Result<Vec<Topic>, _> {
        (0..TOPICS)
            .map(|it| Topic::new(&format!("{prefix}.{it}")))
            .collect()
    };
    let (first, others) = (names("topic")?, names("other")?);
    let often = Topic::new("often")?;
    let make = |number: u64| {
        let name = match number {
            _ if number.is_multiple_of(OFTEN) => &often,
            _ if number < short => &first[(number % TOPICS) as usize],
            _ => &others[(number % TOPICS) as usize],
        };
        Publication::new(name.clone(), Kind::Binary, vec![b'.'; BYTES])
    };
    publish_packed(&topics, (0, total), make).await
}

/// Subscribes from the beginning, until everything has come. Returns the median time in microseconds.
async fn read(
    node: &Running,
    reads: u64,
    matches: u64,
    filter: impl Fn(u64) -> String,
) -> Result<f64> {
    let mut times = Vec::new();
    for nth in 0..reads {
        let filter = filter(nth);
        let begun = Instant::now();
        let mut light = Light::topics(&node.address, &filter, Start::Beginning).await?;
        let mut found = 0;
        while !light.next(|_| found += 1).await? {}
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        if found != matches {
            return Err(format!("{filter} has {found} messages in place of {matches}").into());
        }
    }
    Ok(median(times))
}
