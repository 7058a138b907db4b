//! Messages that are sent while there is no connection.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    Workload,
    accepting::Accepting,
    words::{hear, let_go, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::{Contestant, FEW},
    engine::{Engine, Rx, send_all},
    job::{Outcome, Report},
    meter::Meter,
    payload::{Payloads, Tally},
    relay::Relay,
    table::Column,
};

const SIZE: usize = 4 << 10;
/// After this time the cut was noticed, and every message that finds room was accepted.
const AWAY: Duration = Duration::from_millis(150);
const SENT: Duration = Duration::from_millis(600);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    messages: u64,
}

pub(crate) struct CatchUp;

impl Workload for CatchUp {
    const NAME: &'static str = "catch-up";
    const ABOUT: &'static str = "the connection is cut and held; the server then sends 16 MiB in \
        messages of 4 KiB, of which a session's queue keeps what it has room for, and the rest \
        waits in send; then the relay lets connections pass. The time is from there to the last \
        message at the application. Engines without a session are dialed again and are sent the \
        same after that; all goes through a relay in the client's process, which costs a copy each \
        way";
    const NOT_SHOWN: &'static str = "packets that had left and were lost, which a session sends \
        again from where it keeps them: with the default window at most 8 MiB";
    const REFERENCE: &'static str = "tt-batched";
    const COLUMNS: &'static [Column] = &[
        Column::new("ms", 1, |run| run.client.figure("ms")).with_ratio(),
        Column::new("MiB/s", 0, |run: &Outcome| {
            let bytes = run.client.messages as f64 * SIZE as f64;
            bytes / f64::from(1 << 20) / run.client.figure("ms") * 1e3
        }),
        Column::new("server MiB", 1, |run| run.server.peak_mib()),
        Column::new("client MiB", 1, |run| run.client.peak_mib()),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let mib = if args.quick { 1 } else { 16 };
        let messages = (mib << 20) / SIZE as u64;
        vec![(format!("{mib} MiB"), Plan { messages })]
    }

    fn takes_part(contestant: &Contestant) -> bool {
        FEW.contains(&contestant.name)
    }

    async fn server<E: Engine>(plan: Plan, mut server: E::Server) -> Result<Report> {
        let mut link = E::accept(&mut server).await?;
        let open = Meter::prepare();
        hear(&mut link, &mut Tally::default(), 1).await?;
        let mut accepting = Accepting::<E>::begin(server);
        let meter = open.start();
        sleep(AWAY).await;
        loop {
            let mut payloads = Payloads::new(SIZE);
            let sent = send_all(&mut link, E::BATCHING, &mut payloads, plan.messages);
            if sent.await.is_ok() {
                break;
            }
            link = accepting.next().await?;
        }
        let report = meter.stop(plan.messages);
        hear(&mut link, &mut Tally::default(), 1).await?;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        let relay = Relay::to(server)?;
        let mut link = E::connect(relay.address()).await?;
        let meter = Meter::prepare().start();
        say(&mut link).await?;
        sleep(AWAY / 3).await;
        relay.hold();
        relay.cut();
        sleep(SENT).await;
        let opened = Instant::now();
        relay.open();
        let mut tally = Tally::default();
        while link
            .receive_until(&mut tally, |tally| tally.messages >= plan.messages)
            .await
            .is_err()
        {
            (link, tally) = (E::connect(relay.address()).await?, Tally::default());
        }
        let ms = opened.elapsed().as_secs_f64() * 1e3;
        let report = meter.stop(plan.messages);
        tally.verify(SIZE, plan.messages)?;
        say(&mut link).await?;
        // The relay ends with this process.
        let_go(&mut link).await;
        Ok(Report {
            figures: [("ms".to_owned(), ms)].into(),
            ..report
        })
    }
}
