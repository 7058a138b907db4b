//! kill -9 of one of two nodes over one JetStream, until clients of both have the next message.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
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
    /// How many clients, each with the addresses of both nodes
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// How often a node is killed
    #[arg(long, default_value_t = 7)]
    kills: usize,
    /// How many seconds lie between. A client trusts a server whose connection lived for ten
    #[arg(long, default_value_t = 11.0)]
    seconds: f64,
}

pub(crate) fn run(args: &Args, programs: &Programs, quick: bool) -> Result<()> {
    if !programs.have(Contestant::Nats) {
        return Ok(());
    }
    let mut args = args.clone();
    if quick {
        (args.clients, args.kills, args.seconds) = (3, 2, 0.2);
    }
    let folder = TempDir::new()?;
    let nats = programs.jetstream(folder.path())?;
    let url = format!("nats://{}", nats.address);
    let times = harness::clients(None, measure(&args, &url))?;
    let count = times.len();
    let longest = times.iter().copied().fold(0.0, f64::max);
    let p50 = median(times);
    let mut table = Table::new("kill -9 of a node, to the next message from another one");
    let what = format!("p50 of {count}");
    table.goal(what, format!("{p50:.1} ms"), "under 100 ms", p50 < 100.0);
    table.row("the longest", format!("{longest:.1} ms"));
    table.print(quick);
    Ok(())
}

struct Scene {
    begun: Instant,
    /// From the kill to the first message that was published after it, in milliseconds.
    times: RefCell<Vec<f64>>,
}

struct Client {
    topics: Topics,
    /// When its node was killed, until it has a message that was published later.
    waits: Rc<Cell<Option<u64>>>,
    reading: tokio::task::JoinHandle<crate::Failure>,
}

async fn measure(args: &Args, nats: &str) -> Result<Vec<f64>> {
    let log = Log::with_store(open(nats).await?).await?;
    let job = Job::new(Place::JetStream(nats.to_owned()));
    let mut nodes = [Running::node(&job)?, Running::node(&job)?];
    let scene = Rc::new(Scene {
        begun: Instant::now(),
        times: RefCell::default(),
    });
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        let topics = Topics::connect(nodes.iter().map(Running::url));
        let mut feed = topics.subscribe(TOPIC, Start::Now)?;
        while !matches!(feed.recv().await?, Some(Delivery::CaughtUp(_))) {}
        let waits = Rc::new(Cell::new(None));
        let reading = scene.clone().read(feed, waits.clone());
        clients.push(Client {
            topics,
            waits,
            reading: tokio::task::spawn_local(async {
                match reading.await {
                    Ok(never) => match never {},
                    Err(error) => error,
                }
            }),
        });
    }
    let publishing = tokio::task::spawn_local(publish(log, scene.begun));
    for kill in 0..args.kills {
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        let node = &mut nodes[kill % 2];
        let address = node.address.clone();
        let killed = Some(scene.micros());
        for client in &clients {
            if client.topics.stats().node.as_ref() == Some(&address) {
                client.waits.set(killed);
            }
        }
        node.kill();
        while clients.iter().any(|it| it.waits.get().is_some()) {
            if let Some(nth) = clients.iter().position(|it| it.reading.is_finished()) {
                return Err(clients.swap_remove(nth).reading.await?);
            }
            if publishing.is_finished() {
                return Err(publishing.await?);
            }
            tokio::time::sleep(EVERY).await;
        }
        *node = Running::node(&Job {
            listen: address,
            ..job.clone()
        })?;
    }
    Ok(scene.times.take())
}

async fn publish(log: Log, begun: Instant) -> crate::Failure {
    let mut tick = tokio::time::interval(EVERY);
    let mut number = 0;
    loop {
        tick.tick().await;
        let micros = begun.elapsed().as_micros() as u64;
        let payload = harness::message(number, micros, harness::BYTES);
        if let Err(error) = log.publish(TOPIC, payload).await {
            return error.into();
        }
        number += 1;
    }
}

impl Scene {
    /// Checks that every message comes, once and in order.
    async fn read(
        self: Rc<Self>,
        mut feed: Subscription,
        waits: Rc<Cell<Option<u64>>>,
    ) -> Result<std::convert::Infallible> {
        let mut expected = 0;
        loop {
            let message = match feed.recv().await? {
                Some(Delivery::Message(message)) => message,
                Some(Delivery::CaughtUp(_)) => continue,
                other => return Err(format!("unexpected: {other:?}").into()),
            };
            let (number, published) = harness::stamp(message.as_bytes());
            if number != expected {
                return Err(format!("message {number} came in place of {expected}").into());
            }
            expected += 1;
            if let Some(killed) = waits.get()
                && published > killed
            {
                waits.set(None);
                let took = (self.micros() - killed) as f64 / 1e3;
                self.times.borrow_mut().push(took);
            }
        }
    }

    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
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
