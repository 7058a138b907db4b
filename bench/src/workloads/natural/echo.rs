//! Round trips, one or several in flight.

use std::{collections::VecDeque, time::Instant};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};

use super::{
    super::words::{hear, let_go, say},
    CLIENT_SWITCHES, CLIENT_WAKE_UPS, SERVER_SWITCHES, SERVER_WAKE_UPS,
};
use crate::{
    Result,
    args::Measure,
    engine::{Batching, Flushing, Link},
    job::{Outcome, Report},
    latency::Latencies,
    meter::Meter,
    payload::{Payloads, Tally},
    table::Column,
};

const SIZE: usize = 64;
const IN_FLIGHT: [u64; 2] = [1, 64];
/// Round trips before the measured ones, for each in flight.
const WARM_UP: u64 = 50;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    count: u64,
    in_flight: u64,
}

impl Plan {
    /// For those that are slower with many in flight, so that fewer do.
    pub(super) fn spared(self) -> Plan {
        let by = if self.in_flight > 1 { 4 } else { 1 };
        Plan {
            count: (self.count / by).max(4),
            ..self
        }
    }

    /// So many round trips, but enough for a percentile.
    pub(super) fn counting(self, count: u64) -> Plan {
        Plan {
            count: count.max(5_000),
            ..self
        }
    }

    fn warm_up(&self) -> u64 {
        WARM_UP * self.in_flight
    }
}

pub(super) const COLUMNS: &[Column] = &[
    Column::new("p50 µs", 1, |run| run.client.figure("p50_us"))
        .with_ratio()
        .with_pairs(),
    Column::new("p99 µs", 1, |run| run.client.figure("p99_us"))
        .with_ratio()
        .with_pairs(),
    Column::new("k a second", 1, |run: &Outcome| run.client.rate() / 1e3)
        .with_ratio()
        .with_pairs(),
    Column::new("client ns", 0, |run| run.client.cpu_ns_per_message()),
    Column::new("server ns", 0, |run| run.server.cpu_ns_per_message()),
    CLIENT_SWITCHES,
    CLIENT_WAKE_UPS,
    SERVER_SWITCHES,
    SERVER_WAKE_UPS,
];

pub(super) fn cases(args: &Measure) -> Vec<(String, Plan)> {
    let count = if args.quick { 200 } else { 5_000 };
    let case = |in_flight: u64| {
        let title = format!("echo with {in_flight} in flight, times and switches a round trip");
        let count = count * in_flight;
        (title, Plan { count, in_flight })
    };
    IN_FLIGHT.map(case).into()
}

pub(super) async fn server(link: impl Link, batching: Batching, plan: Plan) -> Result<Report> {
    let mut talk = Talk::new(link, batching);
    let open = Meter::prepare();
    talk.answer(plan.warm_up()).await?;
    let meter = open.start();
    talk.answer(plan.count).await?;
    let report = meter.stop(plan.count);
    hear(&mut talk.link, &mut talk.tally, 1).await?;
    say(&mut talk.link).await?;
    talk.tally.verify(SIZE, plan.warm_up() + plan.count)?;
    let_go(&mut talk.link).await;
    Ok(report)
}

pub(super) async fn client(link: impl Link, batching: Batching, plan: Plan) -> Result<Report> {
    let mut talk = Talk::new(link, batching);
    let open = Meter::prepare();
    talk.ask(plan.warm_up(), plan.in_flight).await?;
    let meter = open.start();
    let latencies = talk.ask(plan.count, plan.in_flight).await?;
    let report = meter.stop(plan.count);
    say(&mut talk.link).await?;
    hear(&mut talk.link, &mut talk.tally, 1).await?;
    talk.tally.verify(SIZE, plan.warm_up() + plan.count)?;
    Ok(Report {
        figures: latencies.figures(),
        ..report
    })
}

/// One end of the conversation.
struct Talk<L> {
    link: L,
    batching: Batching,
    flushing: Flushing,
    /// Something was fed since the last flush.
    fed: bool,
    payloads: Payloads,
    tally: Tally,
}

impl<L: Link> Talk<L> {
    fn new(link: L, batching: Batching) -> Talk<L> {
        Talk {
            link,
            batching,
            flushing: batching.flushing(),
            fed: false,
            payloads: Payloads::new(SIZE),
            tally: Tally::default(),
        }
    }

    /// The server's part: answers so many messages.
    async fn answer(&mut self, count: u64) -> Result<()> {
        let mut answered = self.tally.messages;
        let end = answered + count;
        while answered < end {
            self.hear().await?;
            while answered < self.tally.messages {
                // Equal to what came, as the tally proves at the end.
                self.say().await?;
                answered += 1;
            }
        }
        self.link.flush().await?;
        self.fed = false;
        Ok(())
    }

    /// The client's part: makes so many round trips.
    async fn ask(&mut self, count: u64, in_flight: u64) -> Result<Latencies> {
        let mut latencies = Latencies::new()?;
        let mut under_way = VecDeque::new();
        let mut answered = self.tally.messages;
        let mut sent = answered;
        let end = answered + count;
        while answered < end {
            while sent < end && sent < answered + in_flight {
                under_way.push_back(Instant::now());
                self.say().await?;
                sent += 1;
            }
            self.hear().await?;
            while answered < self.tally.messages {
                let began: Instant = under_way.pop_front().ok_or("an answer to nothing")?;
                latencies.record(began.elapsed());
                answered += 1;
            }
        }
        Ok(latencies)
    }

    async fn say(&mut self) -> Result<()> {
        let payload = self.payloads.next();
        self.link.feed(payload).await?;
        self.fed = !self.flushing.due(payload.len());
        if !self.fed {
            self.link.flush().await?;
        }
        Ok(())
    }

    /// Waits for at least one message. An expert, who flushes after several, does so as well before
    /// he has to wait.
    async fn hear(&mut self) -> Result<()> {
        let Talk { link, tally, .. } = self;
        if self.fed && matches!(self.batching, Batching::Messages(_)) {
            // Safe to drop for the engine that is used so, tokio-tungstenite.
            let mut take = |message: &[u8]| tally.take(message);
            if let Some(done) = link.receive(&mut take).now_or_never() {
                return done;
            }
            link.flush().await?;
            self.fed = false;
        }
        link.receive(&mut |message| tally.take(message)).await
    }
}
