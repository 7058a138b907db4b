//! Whether time and memory grow as the work does.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{
    Workload, many,
    words::{hear, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::{Contestant, FEW},
    engine::{Engine, Tx, send_all},
    job::Report,
    payload::{Payloads, Tally},
    table::Column,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    connections: u64,
    /// On each connection.
    messages: u64,
    size: usize,
}

pub(crate) struct Growth;

impl Workload for Growth {
    const NAME: &'static str = "growth";
    const ABOUT: &'static str = "a stream as in stream, at 1, 10 and 100 times the messages, the \
        connections and the bytes of a message. Growth is linear where the time for each message, \
        or for each byte, stays or falls";
    const NOT_SHOWN: &'static str = "what happens where the machine's memory ends";
    const COLUMNS: &'static [Column] = &[
        Column::new("ns/msg", 0, |run| {
            run.client.seconds * 1e9 / run.client.messages as f64
        })
        .with_ratio(),
        Column::new("both cpu ns/msg", 0, |run| {
            run.server.cpu_ns_per_message() + run.client.cpu_ns_per_message()
        }),
        Column::new("ns/KiB", 1, |run| {
            run.client.seconds * 1e9 / (run.client.figure("bytes") / 1024.0)
        }),
        Column::new("server MiB", 1, |run| run.server.peak_mib()),
        Column::new("client MiB", 1, |run| run.client.peak_mib()),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let base = Plan {
            connections: 1,
            messages: if args.quick { 200 } else { 20_000 },
            size: 100,
        };
        let mut cases = Vec::new();
        for times in [1, 10, 100] {
            let messages = base.messages * times;
            cases.push((format!("{messages} messages"), Plan { messages, ..base }));
        }
        for times in [10, 100] {
            let size = base.size * times as usize;
            cases.push((format!("messages of {size} bytes"), Plan { size, ..base }));
        }
        for connections in [10, 100] {
            let title = format!("{connections} connections");
            cases.push((
                title,
                Plan {
                    connections,
                    ..base
                },
            ));
        }
        cases
    }

    fn takes_part(contestant: &Contestant) -> bool {
        FEW.contains(&contestant.name)
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let (links, ready) = many::accept::<E>(&mut server, plan.connections).await?;
        let meter = ready.start();
        let mut sending = JoinSet::new();
        for mut link in links {
            sending.spawn_local(async move {
                let mut payloads = Payloads::new(plan.size);
                send_all(&mut link, E::BATCHING, &mut payloads, plan.messages).await?;
                hear(&mut link, &mut Tally::default(), 1).await
            });
        }
        many::all(sending).await?;
        Ok(meter.stop(plan.messages * plan.connections))
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let (links, mut meter) = many::connect::<E>(server, plan.connections).await?;
        let mut open = many::receive(links, plan.size, plan.messages).await?;
        meter.stop_clock();
        let messages = plan.messages * plan.connections;
        let report = meter.stop(messages);
        for link in &mut open {
            say(link).await?;
            Tx::flush(link).await?;
        }
        let bytes = messages as f64 * plan.size as f64;
        Ok(Report {
            figures: [("bytes".to_owned(), bytes)].into(),
            ..report
        })
    }
}
