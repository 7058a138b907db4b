//! One of many consumers stops.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Workload, many,
    stamps::{look_at, now, stamped},
    words::{hear, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::{Contestant, FEW},
    engine::{Engine, Link, Rx},
    job::Report,
    latency::Latencies,
    payload::Tally,
    table::Column,
    ticks::Ticks,
};

const SIZE: usize = 4 << 10;
const PERIOD: Duration = Duration::from_millis(4);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    connections: u64,
    /// Ticks of each of the three parts.
    ticks: u32,
}

pub(crate) struct Slow;

impl Workload for Slow {
    const NAME: &'static str = "slow";
    const ABOUT: &'static str = "a message of 4 KiB every 4 ms to each of 100 connections, in \
        three parts of equal length: all read; one has stopped, and what is on its way to it \
        fills up; the same, full. Latency is from the message's making to the application of the \
        other 99, in the first part and in the last. What a full queue does not take is dropped \
        and counted; unstall's sender is that queue, the others have a channel of 1,024 messages \
        before a task that writes";
    const NOT_SHOWN: &'static str = "a server that waits for the slow one, where all wait with \
        any engine; many slow ones";
    const COLUMNS: &'static [Column] = &[
        Column::new("p50 µs", 0, |run| run.client.figure("p50_us")),
        Column::new("beside ×", 2, |run| {
            run.client.figure("beside_p50_us") / run.client.figure("p50_us")
        }),
        Column::new("p99 µs", 0, |run| run.client.figure("p99_us")),
        Column::new("beside ×", 2, |run| {
            run.client.figure("beside_p99_us") / run.client.figure("p99_us")
        }),
        Column::new("dropped", 0, |run| run.server.figure("dropped")),
        Column::new("server MiB", 1, |run| run.server.peak_mib()),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let (connections, ticks) = if args.quick { (5, 20) } else { (100, 700) };
        let plan = Plan { connections, ticks };
        vec![(format!("{connections} connections"), plan)]
    }

    fn takes_part(contestant: &Contestant) -> bool {
        FEW.contains(&contestant.name)
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let (links, ready) = many::accept::<E>(&mut server, plan.connections).await?;
        let share = |link: E::Link| link.share(E::BATCHING);
        let (senders, mut receivers): (Vec<_>, Vec<_>) = links.into_iter().map(share).unzip();
        let meter = ready.start();
        let mut ticks = Ticks::start(PERIOD)?;
        let mut dropped = 0;
        for tick in 1..=3 * plan.ticks {
            ticks.due(tick).await?;
            let message = stamped(tick, SIZE);
            for sender in &senders {
                dropped += u32::from(!sender.try_send(&message)?);
            }
        }
        let report = meter.stop(u64::from(3 * plan.ticks) * plan.connections);
        hear(&mut receivers[0], &mut Tally::default(), 1).await?;
        Ok(Report {
            figures: [("dropped".to_owned(), f64::from(dropped))].into(),
            ..report
        })
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let (links, meter) = many::connect::<E>(server, plan.connections).await?;
        let parts = Arc::new(Mutex::new([Latencies::new()?, Latencies::new()?]));
        let mut receiving = JoinSet::new();
        for (place, mut link) in links.into_iter().enumerate() {
            let parts = parts.clone();
            let stops = place as u64 + 1 == plan.connections;
            let last = if stops { plan.ticks } else { 3 * plan.ticks };
            receiving.spawn_local(async move {
                let mut tick = 0;
                while tick < last {
                    let mut take = |message: &[u8]| {
                        let (number, made) = look_at(message);
                        let latency = now().saturating_sub(made);
                        tick = number;
                        let mut parts = parts.lock().expect("nobody panics in it");
                        match (number - 1) / plan.ticks {
                            0 => parts[0].record(latency),
                            2 => parts[1].record(latency),
                            _ => {}
                        }
                    };
                    link.receive(&mut take).await?;
                }
                Ok(link)
            });
        }
        // Keeps the connections open until all are done.
        let mut open = many::all(receiving).await?;
        let report = meter.stop(u64::from(3 * plan.ticks) * (plan.connections - 1));
        // All at the same time, because the server leaves when it hears one.
        let said = open.iter_mut().map(say);
        let _ = timeout(Duration::from_secs(1), join_all(said)).await;
        let [first, beside] = &*parts.lock().expect("nobody panics in it");
        let mut figures = first.figures();
        for (name, value) in beside.figures() {
            figures.insert(format!("beside_{name}"), value);
        }
        Ok(Report { figures, ..report })
    }
}
