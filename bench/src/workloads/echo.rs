//! Round trips, one in flight.

use std::{net::SocketAddr, time::Instant};

use serde::{Deserialize, Serialize};

use super::{
    Workload,
    words::{hear, let_go, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::Contestant,
    engine::{Engine, Rx, Tx},
    job::{Outcome, Report},
    latency::Latencies,
    meter::Meter,
    payload::{Payloads, Tally},
    table::Column,
};

const SIZE: usize = 64;
/// Round trips before the measured ones.
const WARM_UP: u64 = 50;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    count: u64,
    cores: [usize; 2],
}

pub(crate) struct Echo;

impl Workload for Echo {
    const NAME: &'static str = "echo";
    const ABOUT: &'static str = "round trips of 64 bytes, one in flight, each message flushed at \
        once; less is better. Times on the processor are per round trip";
    const NOT_SHOWN: &'static str = "throughput, several connections; on two cores most of the \
        time is the kernel waking the other core, and the engines hardly differ";
    const REFERENCE: &'static str = "tt-naive";
    const COLUMNS: &'static [Column] = &[
        Column::new("p50 µs", 1, |run| run.client.figure("p50_us"))
            .with_ratio()
            .with_pairs(),
        Column::new("p99 µs", 1, |run| run.client.figure("p99_us"))
            .with_ratio()
            .with_pairs(),
        Column::new("p99.9 µs", 1, |run| run.client.figure("p999_us")),
        Column::new("server ns", 0, |run| run.server.cpu_ns_per_message()),
        Column::new("client ns", 0, |run| run.client.cpu_ns_per_message()),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let count = if args.quick { 200 } else { 5_000 };
        [("one core", [0, 0]), ("two cores", [0, 1])]
            .map(|(title, cores)| (title.to_owned(), Plan { count, cores }))
            .into()
    }

    /// Each message is flushed, so the ways to batch do not differ.
    fn takes_part(contestant: &Contestant) -> bool {
        contestant.name == Self::REFERENCE || !contestant.name.starts_with("tt-")
    }

    fn calibrated(plan: Plan, reference: &Outcome, seconds: f64) -> Plan {
        let rate = reference.client.rate();
        Plan {
            count: (rate * seconds) as u64 + 1_000,
            ..plan
        }
    }

    fn cores(plan: &Plan) -> [usize; 2] {
        plan.cores
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let mut link = E::accept(&mut server).await?;
        let mut payloads = Payloads::new(SIZE);
        let mut tally = Tally::default();
        let open = Meter::prepare();
        hear(&mut link, &mut tally, 1).await?;
        let meter = open.start();
        let count = plan.count + WARM_UP;
        for number in 1..=count {
            link.receive_until(&mut tally, |tally| tally.messages >= number)
                .await?;
            // This equals what came, as the tally checks below.
            link.send(payloads.next()).await?;
        }
        let report = meter.stop(plan.count);
        hear(&mut link, &mut tally, 2).await?;
        say(&mut link).await?;
        tally.verify(SIZE, count)?;
        let_go(&mut link).await;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let mut link = E::connect(server).await?;
        let mut payloads = Payloads::new(SIZE);
        let mut tally = Tally::default();
        let mut latencies = Latencies::new()?;
        let open = Meter::prepare();
        say(&mut link).await?;
        for number in 1..=WARM_UP {
            link.send(payloads.next()).await?;
            link.receive_until(&mut tally, |tally| tally.messages >= number)
                .await?;
        }
        let meter = open.start();
        for number in 1..=plan.count {
            let began = Instant::now();
            link.send(payloads.next()).await?;
            link.receive_until(&mut tally, |tally| tally.messages >= WARM_UP + number)
                .await?;
            latencies.record(began.elapsed());
        }
        let report = meter.stop(plan.count);
        say(&mut link).await?;
        hear(&mut link, &mut tally, 1).await?;
        tally.verify(SIZE, WARM_UP + plan.count)?;
        Ok(Report {
            figures: latencies.figures(),
            ..report
        })
    }
}
