//! Connections that are cut, and how soon messages come again.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::{
    Workload,
    accepting::Accepting,
    stamps::{look_at, now, stamped},
    words::{hear, let_go, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::Contestant,
    engine::{Engine, Rx, Tx},
    job::Report,
    latency::Latencies,
    meter::Meter,
    payload::Tally,
    relay::Relay,
    table::Column,
    ticks::Ticks,
};

const SIZE: usize = 64;
const PERIOD: Duration = Duration::from_millis(1);
/// From one cut to the next: unstall connects again at once after a connection that lasted.
const BETWEEN: Duration = Duration::from_millis(150);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    cuts: u32,
}

impl Plan {
    fn messages(&self) -> u32 {
        let lasting = (self.cuts + 2) * BETWEEN;
        lasting.as_millis() as u32
    }
}

pub(crate) struct Recovery;

impl Workload for Recovery {
    const NAME: &'static str = "recovery";
    const ABOUT: &'static str = "a message of 64 bytes a millisecond from the server, while a relay \
        cuts the connection every 150 ms: the time from a cut until a message that was made after \
        it is at the application. Engines without a session are dialed again in the client's loop, \
        at once; what was on its way is then lost";
    const NOT_SHOWN: &'static str = "a server that is away for a while, where waits between \
        attempts decide; a network that swallows without an error, which takes the silence time; \
        the way over a real network, whose round trips come on top";
    const REFERENCE: &'static str = "tt-naive";
    const COLUMNS: &'static [Column] = &[
        Column::new("p50 µs", 0, |run| run.client.figure("p50_us")).with_ratio(),
        Column::new("p99 µs", 0, |run| run.client.figure("p99_us")),
        Column::new("lost", 0, |run| run.client.figure("lost")),
        Column::new("doubled", 0, |run| run.client.figure("doubled")),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let cuts = if args.quick { 3 } else { 25 };
        vec![(format!("{cuts} cuts"), Plan { cuts })]
    }

    fn takes_part(contestant: &Contestant) -> bool {
        ["tt-naive", "unstall-plain", "unstall-session"].contains(&contestant.name)
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let mut link = E::accept(&mut server).await?;
        let open = Meter::prepare();
        hear(&mut link, &mut Tally::default(), 1).await?;
        let mut accepting = Accepting::<E>::begin(server);
        let meter = open.start();
        let mut ticks = Ticks::start(PERIOD)?;
        for number in 1..=plan.messages() {
            ticks.due(number).await?;
            accepting.renew(&mut link);
            if link.send(&stamped(number, SIZE)).await.is_err() {
                link = accepting.next().await?;
            }
        }
        accepting.renew(&mut link);
        let report = meter.stop(u64::from(plan.messages()));
        hear(&mut link, &mut Tally::default(), 1).await?;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let relay = Relay::to(server)?;
        let mut link = E::connect(relay.address()).await?;
        let mut latencies = Latencies::new()?;
        let meter = Meter::prepare().start();
        say(&mut link).await?;
        let mut seen = vec![0_u32; plan.messages() as usize + 1];
        let mut cuts = 0;
        let mut next_cut = Instant::now() + BETWEEN;
        let mut cut = None;
        while seen[plan.messages() as usize] == 0 {
            let wait = if cuts < plan.cuts {
                next_cut
            } else {
                Instant::now() + BETWEEN
            };
            let mut take = |message: &[u8]| {
                let (number, made) = look_at(message);
                seen[number as usize] += 1;
                if let Some(at) = cut.filter(|at| made > *at) {
                    latencies.record(now() - at);
                    cut = None;
                }
            };
            match timeout_at(wait, link.receive(&mut take)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => link = E::connect(relay.address()).await?,
                Err(_) if cuts < plan.cuts => {
                    relay.cut();
                    cut = Some(now());
                    cuts += 1;
                    next_cut += BETWEEN;
                }
                Err(_) => {}
            }
        }
        let report = meter.stop(u64::from(plan.messages()));
        say(&mut link).await?;
        // The relay ends with this process.
        let_go(&mut link).await;
        let mut figures = latencies.figures();
        let lost = seen[1..].iter().filter(|times| **times == 0).count();
        let doubled = seen.iter().filter(|times| **times > 1).count();
        figures.insert("lost".to_owned(), lost as f64);
        figures.insert("doubled".to_owned(), doubled as f64);
        Ok(Report { figures, ..report })
    }
}
