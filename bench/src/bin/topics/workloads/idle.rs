//! What a subscriber that only waits costs the server, and what of it is the connection.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use unstall_topics::Topics;

use crate::{
    Result,
    client::Light,
    harness::{self, BYTES, Running, Table},
    limits,
    node::{Job, Place},
    socket::{self, Reader, Writer},
};

/// How many connect at a time.
const AT_ONCE: usize = 64;

/// How many messages all get before they wait again.
const MESSAGES: usize = 10;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many subscribers
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let wanted = if quick { 50 } else { args.subscribers };
    let count = wanted.min(limits::connections() as usize);
    let core = Some(harness::CLIENTS);
    let job = Job::new(Place::Memory).on_a_core();
    let node = Running::node(&job)?;
    let connection = harness::clients(core, connections(&node, count))?;
    let node = Running::node(&job)?;
    let (fresh, after) = harness::clients(core, subscribers(&node, count))?;

    let mut table = Table::new(&format!("{count} idle, KiB each on the server"));
    table.row(
        "a connection without a subscriber",
        format!("{connection:.2}"),
    );
    let figure = |kib: f64| format!("{kib:.2}; beyond the connection {:.2}", kib - connection);
    let goal = "at most 10; beyond the connection at most 1";
    let reached = |kib: f64| count >= 10_000 && kib <= 10.0 && kib - connection <= 1.0;
    table.goal(
        "a subscriber, connection included",
        figure(fresh),
        goal,
        reached(fresh),
    );
    table.row(
        format!("the same, after {MESSAGES} messages"),
        figure(after),
    );
    table.print(quick);
    Ok(())
}

/// The memory of a connection that agreed to nothing.
async fn connections(node: &Running, count: usize) -> Result<f64> {
    let before = node.memory("VmRSS")?;
    let connect = |_| socket::connect(&node.address, None);
    let all: Vec<(Reader, Writer)> = stream::iter(0..count)
        .map(connect)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    settle().await;
    let each = (node.memory("VmRSS")? - before) / count as f64;
    drop(all);
    Ok(each)
}

/// The memory of a subscriber: when it is there, and after some messages.
async fn subscribers(node: &Running, count: usize) -> Result<(f64, f64)> {
    let before = node.memory("VmRSS")?;
    let connect = |_| Light::now(&node.address, "bench.idle");
    let mut all: Vec<Light> = stream::iter(0..count)
        .map(connect)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    settle().await;
    let fresh = (node.memory("VmRSS")? - before) / count as f64;
    let topics = Topics::connect([node.url()]);
    for _ in 0..MESSAGES {
        topics.publish("bench.idle", vec![b'.'; BYTES]).await?;
        for light in &mut all {
            let mut messages = 0;
            while messages == 0 {
                light.next(|_| messages += 1).await?;
            }
        }
    }
    settle().await;
    let after = (node.memory("VmRSS")? - before) / count as f64;
    Ok((fresh, after))
}

/// What is left of connecting and sending gets time to go.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}
