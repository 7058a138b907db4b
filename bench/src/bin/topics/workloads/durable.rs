//! Many publishers that each wait for their answer, over WebSocket, a log on a disk: beside the same store
//! without any connection.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tempfile::TempDir;
use unstall_proto::{
    Kind, Time,
    topics::{AccessToken, Client, ClientConfig, ClientEvent, Publisher, Topic},
};
use unstall_topics::{
    Embedded, Limits, Publication, Topics,
    store::{Appended, Store},
};

use crate::{
    Result,
    harness::{self, BYTES, Running, Table, median, percentile},
    node::{Job, Place},
    socket::{self, Frame},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How many publishers
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    publishers: Vec<u64>,
    /// Over how many connections the publishers share in another run
    #[arg(long, default_value_t = 8)]
    connections: u64,
    /// How many seconds a run takes
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each way runs, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the log is
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, quick: bool) -> Result<()> {
    let mut args = args.clone();
    if quick {
        (args.publishers, args.seconds, args.rounds) = (vec![8], 0.1, 1);
    }
    let mut table = Table::new("publish, safe on disk, messages a second");
    for &publishers in &args.publishers {
        let (mut bare, mut own, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            bare.push(harness::clients(None, without_a_wire(&args, publishers))?);
            own.push(over_the_wire(&args, publishers, publishers)?);
            shared.push(over_the_wire(&args, publishers, args.connections)?);
        }
        let ratio = |runs: &[f64]| median(runs.iter().zip(&bare).map(|(a, b)| a / b).collect());
        let (of_own, of_shared) = (ratio(&own), ratio(&shared));
        let thousands = |runs| format!("{:.1} k", median(runs) / 1e3);
        let goal = "at least 0.9 of the bare store";
        let what = format!("{publishers} publishers, a connection each");
        table.goal(
            what,
            format!("{}: {of_own:.2}", thousands(own)),
            goal,
            of_own >= 0.9,
        );
        let what = format!(
            "{publishers} publishers over {} connections",
            args.connections
        );
        table.goal(
            what,
            format!("{}: {of_shared:.2}", thousands(shared)),
            goal,
            of_shared >= 0.9,
        );
        table.row(
            format!("the bare store, groups of {publishers}"),
            thousands(bare),
        );
    }
    one_at_a_time(&args, quick, &mut table)?;
    table.print(quick);
    Ok(())
}

/// Groups of messages, one of each publisher, appended to the store itself.
async fn without_a_wire(args: &Args, publishers: u64) -> Result<f64> {
    let folder = TempDir::new_in(&args.directory)?;
    let store = Embedded::open(&folder, Limits::default()).await?;
    let topics: Vec<Topic> = (0..publishers).map(topic).collect::<Result<_, _>>()?;
    let (begun, mut stored) = (Instant::now(), 0_u64);
    for number in 1.. {
        if begun.elapsed().as_secs_f64() >= args.seconds {
            break;
        }
        let batch = topics.iter().enumerate().map(|(nth, topic)| {
            let mut it = Publication::new(topic.clone(), Kind::Binary, vec![b'.'; BYTES]);
            it.publisher = Some((publisher(nth as u64), number));
            it
        });
        let answers = store.append(batch.collect()).await?;
        if !answers
            .iter()
            .all(|it| matches!(it, Appended::Stored { .. }))
        {
            return Err("the store refused a message".into());
        }
        stored += publishers;
    }
    let rate = stored as f64 / begun.elapsed().as_secs_f64();
    store.close().await;
    Ok(rate)
}

/// The publishers share connections. Each publishes its next message when it has its answer.
fn over_the_wire(args: &Args, publishers: u64, connections: u64) -> Result<f64> {
    let folder = TempDir::new_in(&args.directory)?;
    let node = Running::node(&Job::new(Place::Directory(folder.path().to_owned())))?;
    harness::clients(None, async {
        let mut opened = Vec::new();
        let mut next = 0;
        for nth in 0..connections {
            let end = publishers * (nth + 1) / connections;
            opened.push(Connection::open(&node.address, nth, next..end).await?);
            next = end;
        }
        // They begin together.
        let begun = Instant::now();
        let until = begun + Duration::from_secs_f64(args.seconds);
        let publish = |it: Connection| tokio::task::spawn_local(it.publish(until));
        let running: Vec<_> = opened.into_iter().map(publish).collect();
        let mut stored = 0;
        for task in running {
            stored += task.await??;
        }
        Ok(stored as f64 / begun.elapsed().as_secs_f64())
    })
}

/// A connection of one or more publishers, without the library's tasks: the load must not be what is
/// measured.
struct Connection {
    reader: socket::Reader,
    writer: socket::Writer,
    client: Client,
    topics: Vec<Topic>,
}

impl Connection {
    async fn open(address: &str, nth: u64, publishers: std::ops::Range<u64>) -> Result<Connection> {
        let (reader, writer) = socket::connect(address, Some(unstall_topics::SUBPROTOCOL)).await?;
        let mut client = Client::new(ClientConfig::new().publisher(publisher(nth)));
        client.attach(Time::ORIGIN, AccessToken::NONE);
        let topics = publishers.map(topic).collect::<Result<_, _>>()?;
        Ok(Connection {
            reader,
            writer,
            client,
            topics,
        })
    }

    /// Returns how many messages were stored.
    async fn publish(mut self, until: Instant) -> Result<u64> {
        let payload = Bytes::from(vec![b'.'; BYTES]);
        // Whose turn it is: answers come in the order of the messages.
        let mut next = 0;
        let mut free = self.topics.len();
        let mut stored = 0;
        loop {
            while free > 0 && Instant::now() < until {
                let topic = self.topics[next].clone();
                self.client
                    .publish(topic, Kind::Binary, false, payload.clone())?;
                next = (next + 1) % self.topics.len();
                free -= 1;
            }
            while let Some(packet) = self.client.poll_transmit(Time::ORIGIN) {
                self.writer.push(&packet.into_bytes());
            }
            if self.writer.waiting() > 0 {
                self.writer.flush().await?;
            }
            if free == self.topics.len() {
                return Ok(stored);
            }
            let Frame::Message(packet) = self.reader.next().await? else {
                continue;
            };
            self.client.handle_packet(Time::ORIGIN, packet.freeze())?;
            while let Some(event) = self.client.poll_event() {
                match event {
                    ClientEvent::Published { count, .. } => {
                        stored += count;
                        free += count as usize;
                    }
                    ClientEvent::Refused { reason, .. } => {
                        return Err(format!("refused: {reason:?}").into());
                    }
                    _ => {}
                }
            }
        }
    }
}

fn topic(nth: u64) -> Result<Topic, unstall_topics::NameError> {
    Topic::new(&format!("topic.{nth}"))
}

fn publisher(nth: u64) -> Publisher {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&nth.to_be_bytes());
    Publisher { id, epoch: 1 }
}

/// One publisher of the library that waits for each answer, beside a write and a sync of a plain file.
fn one_at_a_time(args: &Args, quick: bool, table: &mut Table) -> Result<()> {
    let count = if quick { 20 } else { 3_000 };
    let synced = harness::syncs(&args.directory, BYTES, count)?;
    let folder = TempDir::new_in(&args.directory)?;
    let node = Running::node(&Job::new(Place::Directory(folder.path().to_owned())))?;
    let times = harness::clients(None, async {
        let topics = Topics::connect([node.url()]);
        topics.publish("topic.0", "the connection is there").await?;
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            topics.publish("topic.0", vec![b'.'; BYTES]).await?;
            times.push(begun.elapsed());
        }
        Ok(times)
    })?;
    let [p50, p99] = [0.5, 0.99].map(|part| percentile(&times, part));
    let [sync50, sync99] = [0.5, 0.99].map(|part| percentile(&synced, part));
    let sync = "a write and a sync of a plain file";
    table.row(
        format!("{sync}, p50 and p99"),
        format!("{sync50:.0} µs, {sync99:.0} µs"),
    );
    table.row(
        "one publisher, p50",
        format!("{p50:.0} µs: {:.2}", p50 / sync50),
    );
    let figure = format!("{p99:.0} µs: {:.2}", p99 / sync99);
    table.goal(
        "one publisher, p99",
        figure,
        "at most 2 syncs",
        p99 <= 2.0 * sync99,
    );
    Ok(())
}
