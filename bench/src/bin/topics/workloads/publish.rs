//! One publisher as fast as it goes, over WebSocket, a log in memory.

use std::time::Instant;

use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{Publication, Topics};

use crate::{
    Result,
    client::publish_packed,
    harness::{self, BYTES, Running, Table, median},
    node::{Job, Place},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many messages a round has
    #[arg(long, default_value_t = 3_000_000)]
    messages: u64,
    /// How many rounds, each with a server of its own
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let (messages, rounds) = if quick {
        (3_000, 1)
    } else {
        (args.messages, args.rounds)
    };
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let node = Running::node(&Job::new(Place::Memory).on_a_core())?;
        rates.push(harness::clients(
            Some(harness::CLIENTS),
            publish(&node, messages),
        )?);
    }
    let rate = median(rates);
    let mut table = Table::new("publish, memory, one publisher, packed");
    let figure = format!("{:.2} M/s", rate / 1e6);
    table.goal(
        format!("{BYTES} B, stored and answered"),
        figure,
        "at least 1 M/s",
        rate >= 1e6,
    );
    table.print(quick);
    Ok(())
}

async fn publish(node: &Running, messages: u64) -> Result<f64> {
    let topics = Topics::connect([node.url()]);
    let topic = Topic::new("bench.publish")?;
    topics
        .publish(topic.as_str(), "the connection is there")
        .await?;
    let begun = Instant::now();
    let payload = bytes::Bytes::from(vec![b'.'; BYTES]);
    let make = |_| Publication::new(topic.clone(), Kind::Binary, payload.clone());
    publish_packed(&topics, (0, messages), make).await?;
    Ok(messages as f64 / begun.elapsed().as_secs_f64())
}
