//! One message to many connections.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    Workload, many,
    words::{hear, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::Contestant,
    engine::{Engine, Tx},
    job::{Outcome, Report},
    payload::{Payloads, Tally},
    table::Column,
};

const SIZE: usize = 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    connections: u64,
    messages: u64,
}

pub(crate) struct FanOut;

impl Workload for FanOut {
    const NAME: &'static str = "fan-out";
    const ABOUT: &'static str = "messages of 1 KiB, each to all of 1,000 connections of one \
        process: the payload is made once, and each connection's sender is given it in turn. \
        Rates and times are per delivery";
    const NOT_SHOWN: &'static str = "consumers that are slow (see slow); clients on machines of \
        their own: here one process reads all of them";
    const COLUMNS: &'static [Column] = &[
        Column::new("k deliveries/s", 1, |run: &Outcome| run.client.rate() / 1e3)
            .with_ratio()
            .with_pairs(),
        Column::new("server ns", 0, |run| run.server.cpu_ns_per_message()).with_ratio(),
        Column::new("client ns", 0, |run| run.client.cpu_ns_per_message()),
        Column::new("server MiB", 1, |run| run.server.peak_mib()),
        Column::new("client MiB", 1, |run| run.client.peak_mib()),
    ];
    const REFERENCE: &'static str = "tt-naive";
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let (connections, messages) = if args.quick { (20, 5) } else { (1_000, 20) };
        let plan = Plan {
            connections,
            messages,
        };
        vec![(format!("{connections} connections"), plan)]
    }

    /// Each message is flushed, so the ways to batch do not differ.
    fn takes_part(contestant: &Contestant) -> bool {
        !["tt-64", "tt-batched", "packed", "unstall-batch"].contains(&contestant.name)
    }

    fn calibrated(plan: Plan, reference: &Outcome, seconds: f64) -> Plan {
        let rate = reference.client.rate();
        let messages = (rate * seconds) as u64 / plan.connections;
        Plan {
            messages: messages.max(10),
            ..plan
        }
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let (mut links, ready) = many::accept::<E>(&mut server, plan.connections).await?;
        let mut payloads = Payloads::new(SIZE);
        let meter = ready.start();
        for _ in 0..plan.messages {
            let payload = payloads.next();
            for link in &mut links {
                link.send(payload).await?;
            }
        }
        for link in &mut links {
            Tx::flush(link).await?;
        }
        let report = meter.stop(plan.messages * plan.connections);
        // Keeps the connections open until all are done.
        for link in &mut links {
            hear(link, &mut Tally::default(), 1).await?;
        }
        Ok(report)
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let (links, mut meter) = many::connect::<E>(server, plan.connections).await?;
        let mut open = many::receive(links, SIZE, plan.messages).await?;
        meter.stop_clock();
        let report = meter.stop(plan.messages * plan.connections);
        for link in &mut open {
            say(link).await?;
        }
        Ok(report)
    }
}
