//! The clients of a run: subscribers that count, and one publisher.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::{sync::Semaphore, task::LocalSet};
use unstall_proto::{Kind, topics::Topic};
use unstall_topics::{Topics, store::Publication};

use crate::{
    BYTES, Contestant, Job, Report, Result, pin,
    socket::{self, Writer},
    speak::Subscriber,
};

pub(crate) fn run(job: &str) -> Result<()> {
    pin(1);
    let job: Job = serde_json::from_str(job)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = LocalSet::new().block_on(&runtime, measure(Rc::new(job)))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn measure(job: Rc<Job>) -> Result<Report> {
    let begun = Instant::now();
    let latencies = Rc::new(RefCell::new(Histogram::<u64>::new(3)?));
    let there = Arc::new(Semaphore::new(0));
    let mut subscribers = Vec::new();
    for _ in 0..job.subscribers {
        let (job, there, latencies) = (job.clone(), there.clone(), latencies.clone());
        subscribers.push(tokio::task::spawn_local(async move {
            subscribe(&job, &there, begun, &latencies).await
        }));
        // The queue of the kernel for new connections is short.
        tokio::task::yield_now().await;
    }
    let _all = there.acquire_many(job.subscribers as u32).await?;
    let start = Instant::now();
    // It stays until all is delivered: closing a socket with unread bytes takes back what was sent.
    let _publisher = publish(&job, begun).await?;
    for subscriber in subscribers {
        subscriber.await??;
    }
    let deliveries = job.messages as f64 * job.subscribers as f64;
    let latencies = latencies.borrow();
    Ok(Report {
        deliveries_per_second: deliveries / start.elapsed().as_secs_f64(),
        p50: latencies.value_at_quantile(0.5),
        p99: latencies.value_at_quantile(0.99),
    })
}

/// Counts messages until all are there, each once and in order.
async fn subscribe(
    job: &Job,
    there: &Semaphore,
    begun: Instant,
    latencies: &RefCell<Histogram<u64>>,
) -> Result<()> {
    let subprotocol = (job.contestant == Contestant::Unstall).then_some("unstall.topics.v1");
    let (mut reader, mut writer) = socket::connect(&job.address, subprotocol).await?;
    let mut subscriber = Subscriber::start(job.contestant, &mut writer).await?;
    if job.contestant == Contestant::Ws {
        there.add_permits(1);
    }
    let mut expected = 0;
    while expected < job.messages {
        let payload = reader.next().await?;
        let now = begun.elapsed().as_micros() as u64;
        let mut out_of_order = None;
        let is_there = subscriber.take(payload, |payload| {
            let (number, sent) = stamp(payload);
            if number != expected {
                out_of_order.get_or_insert((number, expected));
            }
            expected += 1;
            if job.rate > 0 {
                latencies
                    .borrow_mut()
                    .saturating_record(now.saturating_sub(sent));
            }
        })?;
        if let Some((number, expected)) = out_of_order {
            return Err(format!("message {number} came in place of {expected}").into());
        }
        if is_there {
            there.add_permits(1);
        }
        subscriber.answer(&mut writer);
        if writer.waiting() > 0 {
            writer.flush().await?;
        }
    }
    Ok(())
}

fn stamp(payload: &[u8]) -> (u64, u64) {
    let number = |from: usize| {
        let bytes = payload.get(from..from + 8).and_then(|it| it.first_chunk());
        bytes.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
    };
    (number(0), number(8))
}

fn message(number: u64, begun: Instant) -> Vec<u8> {
    let mut payload = vec![b'.'; BYTES];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload[8..16].copy_from_slice(&(begun.elapsed().as_micros() as u64).to_be_bytes());
    payload
}

async fn publish(job: &Job, begun: Instant) -> Result<Publisher> {
    let mut publisher = match job.contestant {
        Contestant::Unstall => Publisher::Unstall(
            Topics::connect([format!("ws://{}/topics", job.address)]),
            Topic::new("bench.fanout")?,
        ),
        Contestant::Nats | Contestant::Ws => {
            let (reader, mut writer) = socket::connect(&job.address, None).await?;
            if job.contestant == Contestant::Nats {
                writer.push(b"CONNECT {\"verbose\":false}\r\n", false);
            }
            Publisher::Raw {
                writer,
                contestant: job.contestant,
                _reader: reader,
            }
        }
    };
    if job.rate == 0 {
        let mut number = 0;
        while number < job.messages {
            let batch = (number..job.messages.min(number + 64)).map(|it| message(it, begun));
            let batch: Vec<_> = batch.collect();
            number += batch.len() as u64;
            publisher.publish(batch).await?;
        }
        return Ok(publisher);
    }
    let start = Instant::now();
    for number in 0..job.messages {
        let due = start + Duration::from_secs_f64(number as f64 / job.rate as f64);
        tokio::time::sleep_until(due.into()).await;
        publisher.publish(vec![message(number, begun)]).await?;
    }
    Ok(publisher)
}

enum Publisher {
    Unstall(Topics, Topic),
    Raw {
        writer: Writer,
        contestant: Contestant,
        /// Dropping it would close half of the connection.
        _reader: socket::Reader,
    },
}

impl Publisher {
    async fn publish(&mut self, batch: Vec<Vec<u8>>) -> Result<()> {
        match self {
            Publisher::Unstall(topics, topic) => {
                let batch = batch
                    .into_iter()
                    .map(|it| Publication::new(topic.clone(), Kind::Binary, it));
                for result in topics.publish_many(batch.collect()).await {
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
                    lines.extend_from_slice(format!("PUB bench.fanout {BYTES}\r\n").as_bytes());
                    lines.extend_from_slice(&payload);
                    lines.extend_from_slice(b"\r\n");
                }
                writer.push(&lines, false);
                writer.flush().await?;
            }
            Publisher::Raw { writer, .. } => {
                for payload in batch {
                    writer.push(&payload, false);
                }
                writer.flush().await?;
            }
        }
        Ok(())
    }
}
