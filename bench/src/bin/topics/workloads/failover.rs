//! kill -9 of one of two nodes over one JetStream, until a client of both has the next message.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;
use unstall_topics::{Delivery, Log, Start, Subscription, Topics, jetstream::JetStream};

use crate::{
    Result,
    foreign::{Contestant, Programs},
    harness::{self, Running, Table, median},
    node::{Job, Place},
};

const TOPIC: &str = "bench.failover";

/// How often something is published.
const EVERY: Duration = Duration::from_millis(2);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How often the client's node is killed
    #[arg(long, default_value_t = 41)]
    kills: usize,
}

pub(crate) fn run(args: &Args, programs: &Programs, quick: bool) -> Result<()> {
    if !programs.have(Contestant::Nats) {
        return Ok(());
    }
    let kills = if quick { 3 } else { args.kills };
    let folder = TempDir::new()?;
    let nats = programs.jetstream(folder.path())?;
    let url = format!("nats://{}", nats.address);
    let times = harness::clients(None, measure(&url, kills))?;
    let longest = times.iter().copied().fold(0.0, f64::max);
    let p50 = median(times);
    let mut table = Table::new("kill -9 of a node, to the next message from another one");
    table.goal(
        format!("p50 of {kills}"),
        format!("{p50:.1} ms"),
        "under 100 ms",
        p50 < 100.0,
    );
    table.row("the longest", format!("{longest:.1} ms"));
    table.print(quick);
    Ok(())
}

async fn measure(nats: &str, kills: usize) -> Result<Vec<f64>> {
    let log = Log::with_store(open(nats).await?).await?;
    let job = Job::new(Place::JetStream(nats.to_owned()));
    let mut nodes = vec![Running::node(&job)?, Running::node(&job)?];
    let topics = Topics::connect(nodes.iter().map(Running::url));
    let mut feed = topics.subscribe(TOPIC, Start::Now)?;
    while !matches!(feed.recv().await?, Some(Delivery::CaughtUp(_))) {}

    let begun = Instant::now();
    let publishing = tokio::task::spawn_local(async move {
        let mut tick = tokio::time::interval(EVERY);
        for number in 0.. {
            tick.tick().await;
            let micros = begun.elapsed().as_micros() as u64;
            let published = log
                .publish(TOPIC, harness::message(number, micros, 64))
                .await;
            if let Err(error) = published {
                return error;
            }
        }
        unreachable!("it publishes without end")
    });
    let (mut times, mut expected) = (Vec::new(), 0);
    for _ in 0..kills {
        // It has settled at a node when some messages came.
        for _ in 0..50 {
            next(&mut feed, &mut expected).await?;
        }
        let address = topics.stats().node.ok_or("there is no connection")?;
        let nth = nodes.iter().position(|it| it.address == address);
        let nth = nth.ok_or("the client is at an unknown node")?;
        let killed = begun.elapsed().as_micros() as u64;
        let at = Instant::now();
        nodes[nth].kill();
        while next(&mut feed, &mut expected).await? <= killed {}
        times.push(at.elapsed().as_secs_f64() * 1e3);
        nodes[nth] = Running::node(&Job {
            listen: address,
            ..job.clone()
        })?;
    }
    if publishing.is_finished() {
        return Err(publishing.await?.into());
    }
    publishing.abort();
    Ok(times)
}

/// The next message, which has to be the one that is expected. Returns when it was published.
async fn next(feed: &mut Subscription, expected: &mut u64) -> Result<u64> {
    loop {
        match timeout(Duration::from_secs(20), feed.recv()).await?? {
            Some(Delivery::Message(message)) => {
                let (number, micros) = harness::stamp(message.as_bytes());
                if number != *expected {
                    return Err(format!("message {number} came in place of {expected}").into());
                }
                *expected += 1;
                return Ok(micros);
            }
            Some(Delivery::CaughtUp(_)) => {}
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
}

/// Opens the stream as soon as the server can.
pub(crate) async fn open(nats: &str) -> Result<JetStream> {
    let begun = Instant::now();
    loop {
        match JetStream::builder([nats], "LOG")
            .max_bytes(1 << 30)
            .open()
            .await
        {
            Ok(store) => return Ok(store),
            Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
