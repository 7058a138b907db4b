//! The longest wait for an answer while a log on a disk removes old messages.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{Publication, Topics};

use crate::{
    Result,
    harness::{self, BYTES, Running, Table, percentile},
    node::{Job, Place},
};

/// How many messages are published together.
const GROUP: u64 = 64;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How much the log keeps, in MiB
    #[arg(long, default_value_t = 256)]
    kept: u64,
    /// How much is published, in MiB
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// The bytes of a message
    #[arg(long, default_value_t = BYTES)]
    bytes: usize,
    /// Where the log is
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let (kept, mebibytes) = if quick {
        (16, 1)
    } else {
        (args.kept, args.mebibytes)
    };
    let folder = TempDir::new_in(&args.directory)?;
    let mut job = Job::new(Place::Directory(folder.path().to_owned()));
    job.max_bytes = Some(kept << 20);
    let node = Running::node(&job)?;
    let (times, cost) = harness::clients(None, async {
        let topics = Topics::connect([node.url()]);
        let names: Vec<Topic> = (0..GROUP)
            .map(|it| Topic::new(&format!("topic.{it}")))
            .collect::<Result<_, _>>()?;
        topics.publish("topic.0", "the connection is there").await?;
        let group = || {
            let message =
                |it: &Topic| Publication::new(it.clone(), Kind::Binary, vec![b'.'; args.bytes]);
            names.iter().map(message).collect::<Vec<_>>()
        };
        let cost: u64 = group().iter().map(Publication::cost).sum();
        let mut times = Vec::new();
        for _ in 0..(mebibytes << 20) / cost {
            let begun = Instant::now();
            for result in topics.publish_many(group()).await {
                result?;
            }
            times.push(begun.elapsed());
        }
        Ok((times, cost))
    })?;
    let synced = harness::syncs(&args.directory, cost as usize, times.len() as u64)?;
    let seconds: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|part| percentile(&times, part) / 1e3);
    let mut table = Table::new(&format!(
        "publish {mebibytes} MiB, {kept} MiB kept, groups of {GROUP}, {} B each",
        args.bytes
    ));
    let rate = mebibytes as f64 / seconds;
    table.row("published", format!("{rate:.0} MiB/s"));
    table.row(
        "p50 and p99 of a group",
        format!("{p50:.2} ms, {p99:.2} ms"),
    );
    let sync = percentile(&synced, 1.0) / 1e3;
    table.row(
        "the longest write and sync of as much to a plain file, afterwards",
        format!("{sync:.1} ms"),
    );
    let figure = format!("{longest:.1} ms");
    table.goal(
        "the longest group",
        figure,
        "at most 50 ms",
        longest <= 50.0,
    );
    table.print(quick);
    Ok(())
}
