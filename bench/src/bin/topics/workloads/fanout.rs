//! One publisher and many subscribers of one topic, over WebSocket, beside nats-server and npm's `ws`.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{Publication, Topics};

use crate::{
    Result,
    client::Light,
    foreign::{Contestant, Programs},
    harness::{self, BYTES, Latencies, Running, Table, median},
    node::{Job, Place},
    socket::{self, Reader, Writer},
    speak::FANOUT,
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The servers, in the order in which they run in each round
    #[arg(long, value_delimiter = ',', default_value = "unstall,nats,ws")]
    only: Vec<Contestant>,
    /// How many subscribers
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// How many messages a subscriber gets. Default 3,000, and a tenth for `ws`, which is slower; at
    /// a rate those of five seconds
    #[arg(long)]
    messages: Option<u64>,
    /// Messages a second, one at a time; 0: as fast as it goes
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
    /// How often each server runs
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// One server with its clients.
struct Case {
    contestant: Contestant,
    address: String,
    subscribers: usize,
    messages: u64,
    rate: u64,
    begun: Instant,
    latencies: Latencies,
}

#[derive(Debug)]
struct Report {
    deliveries_per_second: f64,
    /// In microseconds.
    p50: f64,
    p99: f64,
}

pub(crate) fn run(args: &Args, programs: &Programs, quick: bool) -> Result<()> {
    let mut args = args.clone();
    args.only.retain(|it| programs.have(*it));
    if quick {
        (args.subscribers, args.rounds) = (20, 1);
        args.messages = Some(20);
    }
    let mut reports: Vec<Vec<Report>> = args.only.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (contestant, reports) in args.only.iter().zip(&mut reports) {
            let report = once(&args, programs, *contestant)?;
            eprintln!("{contestant:?} {report:?}");
            reports.push(report);
        }
    }
    table(&args, &reports).print(quick);
    Ok(())
}

fn table(args: &Args, reports: &[Vec<Report>]) -> Table {
    let middle = |nth: usize, of: fn(&Report) -> f64| median(reports[nth].iter().map(of).collect());
    let of_unstall = |of| {
        let unstall = args.only.iter().position(|it| *it == Contestant::Unstall);
        unstall.map_or(f64::NAN, |nth| middle(nth, of))
    };
    let subscribers = args.subscribers;
    if args.rate > 0 {
        let mut table = Table::new(&format!("fan-out to {subscribers}, {} a second", args.rate));
        for (nth, contestant) in args.only.iter().enumerate() {
            for (name, of) in [
                ("p50", (|it| it.p50) as fn(&Report) -> f64),
                ("p99", |it| it.p99),
            ] {
                let (what, figure) = (format!("{contestant:?}, latency {name}"), middle(nth, of));
                let ratio = of_unstall(of) / figure;
                let figure = format!("{figure:.0} µs; unstall has {ratio:.2} of it");
                match contestant {
                    Contestant::Ws => table.goal(what, figure, "unstall at most 1", ratio <= 1.0),
                    _ => table.row(what, figure),
                }
            }
        }
        return table;
    }
    let mut table = Table::new(&format!("fan-out to {subscribers}, deliveries a second"));
    for (nth, contestant) in args.only.iter().enumerate() {
        let rate = middle(nth, |it| it.deliveries_per_second);
        let ratio = of_unstall(|it| it.deliveries_per_second) / rate;
        let (what, figure) = (format!("{contestant:?}"), format!("{:.3} M", rate / 1e6));
        let times = format!("{figure}; unstall has {ratio:.2} times as many");
        match contestant {
            Contestant::Unstall => table.row(what, figure),
            Contestant::Nats => table.goal(what, times, "at least 1.2", ratio >= 1.2),
            Contestant::Ws => table.goal(what, times, "at least 14", ratio >= 14.0),
        }
    }
    table
}

fn once(args: &Args, programs: &Programs, contestant: Contestant) -> Result<Report> {
    let server = match contestant {
        Contestant::Unstall => Running::node(&Job::new(Place::Memory).on_a_core())?,
        Contestant::Nats => programs.nats()?,
        Contestant::Ws => programs.ws()?,
    };
    let messages = match args.rate {
        0 if contestant == Contestant::Ws => args.messages.unwrap_or(3_000).div_ceil(10),
        0 => args.messages.unwrap_or(3_000),
        rate => args.messages.unwrap_or(5 * rate),
    };
    let case = Case {
        contestant,
        address: server.address.clone(),
        subscribers: args.subscribers,
        messages,
        rate: args.rate,
        begun: Instant::now(),
        latencies: Latencies::new()?,
    };
    harness::clients(Some(harness::CLIENTS), measure(Rc::new(case)))
}

async fn measure(case: Rc<Case>) -> Result<Report> {
    let there = Arc::new(Semaphore::new(0));
    let mut subscribers = Vec::new();
    for _ in 0..case.subscribers {
        let (case, there) = (case.clone(), there.clone());
        subscribers.push(tokio::task::spawn_local(async move {
            let done = subscribe(&case, &there).await;
            if done.is_err() {
                there.close();
            }
            done
        }));
        // The queue of the kernel for new connections is short.
        tokio::task::yield_now().await;
    }
    let all = there.acquire_many(case.subscribers as u32).await;
    let start = Instant::now();
    // It stays until all is delivered: closing a socket with unread bytes takes back what was sent.
    let _publisher = match all {
        Ok(_) => Some(publish(&case).await?),
        Err(_) => None,
    };
    for subscriber in subscribers {
        subscriber.await??;
    }
    let deliveries = case.messages as f64 * case.subscribers as f64;
    let deliveries_per_second = deliveries / start.elapsed().as_secs_f64();
    let [p50, p99] = case.latencies.take();
    Ok(Report {
        deliveries_per_second,
        p50,
        p99,
    })
}

/// Counts messages until all are there, each once and in order.
async fn subscribe(case: &Case, there: &Semaphore) -> Result<()> {
    let mut light = Light::of(case.contestant, &case.address).await?;
    if case.contestant == Contestant::Ws {
        there.add_permits(1);
    }
    let mut expected = 0;
    while expected < case.messages {
        let mut out_of_order = None;
        let is_there = light
            .next(|payload| {
                let (number, sent) = harness::stamp(payload);
                if number != expected {
                    out_of_order.get_or_insert((number, expected));
                }
                expected += 1;
                if case.rate > 0 {
                    let now = case.begun.elapsed().as_micros() as u64;
                    case.latencies.record(now.saturating_sub(sent));
                }
            })
            .await?;
        if let Some((number, expected)) = out_of_order {
            return Err(format!("message {number} came in place of {expected}").into());
        }
        if is_there {
            there.add_permits(1);
        }
    }
    Ok(())
}

fn message(number: u64, begun: Instant) -> Vec<u8> {
    harness::message(number, begun.elapsed().as_micros() as u64, BYTES)
}

async fn publish(case: &Case) -> Result<Publisher> {
    let mut publisher = Publisher::connect(case).await?;
    if case.rate == 0 {
        let mut number = 0;
        while number < case.messages {
            let end = case.messages.min(number + 64);
            let batch = (number..end).map(|it| message(it, case.begun)).collect();
            number = end;
            publisher.publish(batch).await?;
        }
        return Ok(publisher);
    }
    let start = Instant::now();
    for number in 0..case.messages {
        let due = start + Duration::from_secs_f64(number as f64 / case.rate as f64);
        tokio::time::sleep_until(due.into()).await;
        publisher.publish(vec![message(number, case.begun)]).await?;
    }
    Ok(publisher)
}

enum Publisher {
    Unstall(Topics, Topic),
    Raw {
        writer: Writer,
        contestant: Contestant,
        /// Dropping it would close half of the connection.
        _reader: Reader,
    },
}

impl Publisher {
    async fn connect(case: &Case) -> Result<Publisher> {
        if case.contestant == Contestant::Unstall {
            let topics = Topics::connect([format!("ws://{}/topics", case.address)]);
            // It connects in the background, and the first message must not have to wait for that.
            topics
                .publish("bench.there", "the connection is there")
                .await?;
            return Ok(Publisher::Unstall(topics, Topic::new(FANOUT)?));
        }
        let (_reader, mut writer) = socket::connect(&case.address, None).await?;
        if case.contestant == Contestant::Nats {
            writer.push(b"CONNECT {\"verbose\":false}\r\n");
        }
        Ok(Publisher::Raw {
            writer,
            contestant: case.contestant,
            _reader,
        })
    }

    async fn publish(&mut self, batch: Vec<Vec<u8>>) -> Result<()> {
        match self {
            Publisher::Unstall(topics, topic) => {
                let publication = |it| Publication::new(topic.clone(), Kind::Binary, it);
                let batch = batch.into_iter().map(publication).collect();
                for result in topics.publish_many(batch).await {
                    result?;
                }
            }
            Publisher::Raw {
                writer,
                contestant: Contestant::Nats,
                ..
            } => {
                let mut lines = Vec::new();
                for payload in batch {
                    lines.extend_from_slice(format!("PUB {FANOUT} {BYTES}\r\n").as_bytes());
                    lines.extend_from_slice(&payload);
                    lines.extend_from_slice(b"\r\n");
                }
                writer.push(&lines);
                writer.flush().await?;
            }
            Publisher::Raw { writer, .. } => {
                batch.iter().for_each(|payload| writer.push(payload));
                writer.flush().await?;
            }
        }
        Ok(())
    }
}
