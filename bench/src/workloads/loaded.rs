//! Round trips at a fixed rate, during a stream that saturates the same connection.

use std::{
    cell::Cell,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;

use super::{
    Workload,
    words::{hear, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::Contestant,
    engine::{Engine, Link, Rx, Tx},
    job::Report,
    latency::Latencies,
    meter::Meter,
    payload::{Payloads, Tally, is_word, word},
    shared::Shared,
    table::Column,
    ticks::Ticks,
};

const SIZE: usize = 64;
const STREAM_SIZE: usize = 4 << 10;
const PERIOD: Duration = Duration::from_millis(1);
/// Messages of the stream before the first round trip, so that all queues are full.
const WARM_UP: u64 = 4_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    count: u32,
}

pub(crate) struct Loaded;

impl Workload for Loaded {
    const NAME: &'static str = "loaded";
    const ABOUT: &'static str = "1,000 round trips of 64 bytes a second, each from the moment it \
        was due, while the server sends messages of 4 KiB as fast as its queue takes them; answers \
        go through the same queue. unstall's sender is that queue; the others have a bounded \
        channel of 1,024 messages before a task that writes. Less latency and more stream are \
        better";
    const NOT_SHOWN: &'static str = "a network with less bandwidth than loopback, where all queues \
        take longer; a server that gives answers a queue of their own";
    const COLUMNS: &'static [Column] = &[
        Column::new("p50 µs", 0, |run| run.client.figure("p50_us")).with_ratio(),
        Column::new("p99 µs", 0, |run| run.client.figure("p99_us"))
            .with_ratio()
            .with_pairs(),
        Column::new("p99.9 µs", 0, |run| run.client.figure("p999_us")),
        Column::new("stream MB/s", 0, |run| run.client.figure("stream_mb_s")).with_ratio(),
        Column::new("server MiB", 1, |run| run.server.peak_mib()),
        Column::new("client MiB", 1, |run| run.client.peak_mib()),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let seconds = if args.quick { 0.1 } else { args.seconds };
        let count = (seconds / PERIOD.as_secs_f64()) as u32;
        vec![("two cores".to_owned(), Plan { count })]
    }

    /// Contestants whose way to batch makes no sense behind a queue do not take part.
    fn takes_part(contestant: &Contestant) -> bool {
        !["tt-naive", "tt-64", "packed"].contains(&contestant.name)
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let link = E::accept(&mut server).await?;
        let open = Meter::prepare();
        let (shared, mut rx) = link.share(E::BATCHING);
        let mut tally = Tally::default();
        hear(&mut rx, &mut tally, 1).await?;
        let meter = open.start();
        let stop = Rc::new(Cell::new(false));
        let stream = spawn_local(stream(shared.clone(), stop.clone()));
        let mut payloads = Payloads::new(SIZE);
        let mut answered = 0;
        while tally.words < 2 {
            rx.receive(&mut |message| tally.take(message)).await?;
            while answered < tally.messages {
                shared.send(payloads.next()).await?;
                answered += 1;
            }
        }
        let report = meter.stop(u64::from(plan.count));
        stop.set(true);
        stream.await??;
        shared.send(&word()).await?;
        // The writing task may still run until here.
        hear(&mut rx, &mut tally, 3).await?;
        tally.verify(SIZE, u64::from(plan.count))?;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let (mut tx, mut rx) = E::connect(server).await?.split();
        let open = Meter::prepare();
        let mut received = Received::new()?;
        say(&mut tx).await?;
        while received.stream.messages < WARM_UP {
            rx.receive(&mut |message| received.take(message)).await?;
        }
        let before = received.stream.messages;
        let mut ticks = Ticks::start(PERIOD)?;
        received.start = ticks.start;
        let meter = open.start();
        round_trips(&mut tx, &mut rx, &mut ticks, &mut received, plan.count).await?;
        let report = meter.stop(u64::from(plan.count));
        let streamed = (received.stream.messages - before) * STREAM_SIZE as u64;
        say(&mut tx).await?;
        while received.stream.words < 1 {
            rx.receive(&mut |message| received.take(message)).await?;
        }
        say(&mut tx).await?;
        received.answers.verify(SIZE, u64::from(plan.count))?;
        let messages = received.stream.messages;
        received.stream.verify(STREAM_SIZE, messages)?;
        let mut figures = received.latencies.figures();
        let rate = streamed as f64 / report.seconds / 1e6;
        figures.insert("stream_mb_s".to_owned(), rate);
        Ok(Report { figures, ..report })
    }
}

/// Sends until told to stop.
async fn stream(shared: Shared, stop: Rc<Cell<bool>>) -> Result<()> {
    let mut payloads = Payloads::new(STREAM_SIZE);
    while !stop.get() {
        shared.send(payloads.next()).await?;
    }
    Ok(())
}

/// Sends a request at each tick, even if earlier ones are not answered, and receives at the same time.
async fn round_trips(
    tx: &mut impl Tx,
    rx: &mut impl Rx,
    ticks: &mut Ticks,
    received: &mut Received,
    count: u32,
) -> Result<()> {
    let mut payloads = Payloads::new(SIZE);
    let mut sent = 0;
    while received.answers.messages < u64::from(count) {
        let mut take = |message: &[u8]| received.take(message);
        // This future must not be dropped before it is done: some engines could not go on after that.
        let mut receive = pin!(rx.receive(&mut take));
        loop {
            tokio::select! {
                biased;
                due = ticks.due(sent + 1), if sent < count => {
                    due?;
                    sent += 1;
                    tx.send(payloads.next()).await?;
                }
                done = &mut receive => break done?,
            }
        }
    }
    Ok(())
}

/// Counts what the client received: answers, the stream, and words.
struct Received {
    start: Instant,
    latencies: Latencies,
    answers: Tally,
    stream: Tally,
}

impl Received {
    fn new() -> Result<Received> {
        Ok(Received {
            start: Instant::now(),
            latencies: Latencies::new()?,
            answers: Tally::default(),
            stream: Tally::default(),
        })
    }

    fn take(&mut self, message: &[u8]) {
        if message.len() == STREAM_SIZE || is_word(message) {
            return self.stream.take(message);
        }
        self.answers.take(message);
        let due = self.start + PERIOD * self.answers.messages as u32;
        self.latencies.record(due.elapsed());
    }
}
