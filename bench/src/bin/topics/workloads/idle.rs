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
    socket::{self, Frame, Reader, Writer},
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
    let (silent, connection) = harness::clients(core, connections(&node, count))?;
    let node = Running::node(&job)?;
    let (fresh, after) = harness::clients(core, subscribers(&node, count))?;

    let mut table = Table::new(&format!("{count} idle, KiB each on the server"));
    table.row(
        "a connection that never had a message",
        format!("{silent:.2}"),
    );
    table.row(
        "a connection without a subscriber, after a message each way",
        format!("{connection:.2}"),
    );
    let goals = ["at most 10", "beyond the connection at most 1"];
    let reached = count >= 10_000;
    for (what, kib) in [
        ("a subscriber, connection included", fresh),
        ("the same, after 10 messages", after),
    ] {
        table.goal(what, format!("{kib:.2}"), goals[0], reached && kib <= 10.0);
        let beyond = kib - connection;
        let figure = format!("{beyond:.2}");
        table.goal(
            "of it beyond the connection",
            figure,
            goals[1],
            reached && beyond <= 1.0,
        );
    }
    table.print(quick);
    Ok(())
}

/// The memory of a connection that agreed to nothing: before a message, and after one each way.
async fn connections(node: &Running, count: usize) -> Result<(f64, f64)> {
    let before = node.memory("VmRSS")?;
    let each = || Result::<f64>::Ok((node.memory("VmRSS")? - before) / count as f64);
    let connect = |_| socket::connect(&node.address, None);
    let mut all: Vec<(Reader, Writer)> = stream::iter(0..count)
        .map(connect)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    settle().await;
    let silent = each()?;
    for (reader, writer) in &mut all {
        writer.push(&[b'.'; BYTES]);
        writer.flush().await?;
        while !matches!(reader.next().await?, Frame::Message(_)) {}
    }
    settle().await;
    Ok((silent, each()?))
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
