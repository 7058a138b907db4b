//! Both directions at once.

use std::net::SocketAddr;

use super::{
    Workload,
    transfer::{self, Transfer},
    words::{hear, let_go, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::Contestant,
    engine::{Batching, Engine, Link, Rx, Tx, send_all},
    job::{Outcome, Report},
    meter::Meter,
    payload::{Payloads, Tally},
    table::Column,
};

pub(crate) struct Duplex;

impl Workload for Duplex {
    const NAME: &'static str = "duplex";
    const ABOUT: &'static str = "stream and up at once on one connection: each side sends from one \
        future and receives in another, joined in one task. Rates are those of each direction, \
        until both are through; times on the processor are per message sent and one received";
    const NOT_SHOWN: &'static str = "what happens where an application writes and reads in turn \
        (it deadlocks), latency, a network that loses or delays, TLS; raw TCP does not mask";
    const COLUMNS: &'static [Column] = transfer::COLUMNS;
    type Plan = Transfer;

    fn cases(args: &Measure) -> Vec<(String, Transfer)> {
        transfer::cases(args)
    }

    fn calibrated(plan: Transfer, reference: &Outcome, seconds: f64) -> Transfer {
        transfer::calibrated(plan, reference, seconds)
    }

    fn plan_for(plan: Transfer, contestant: &Contestant) -> Transfer {
        transfer::plan_for(plan, contestant)
    }

    async fn server<E: Engine>(plan: Transfer, mut server: E::Server) -> Result<Report> {
        let (mut tx, mut rx) = E::accept(&mut server).await?.split();
        let mut payloads = Payloads::new(plan.size);
        let mut tally = Tally::default();
        let open = Meter::prepare();
        hear(&mut rx, &mut tally, 1).await?;
        let meter = open.start();
        both(
            &mut tx,
            &mut rx,
            E::BATCHING,
            &mut payloads,
            &mut tally,
            &plan,
        )
        .await?;
        say(&mut tx).await?;
        hear(&mut rx, &mut tally, 2).await?;
        let report = meter.stop(plan.count);
        say(&mut tx).await?;
        tally.verify(plan.size, plan.count)?;
        let_go(&mut rx).await;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Transfer, server: SocketAddr) -> Result<Report> {
        let (mut tx, mut rx) = E::connect(server).await?.split();
        let mut payloads = Payloads::new(plan.size);
        let mut tally = Tally::default();
        let meter = Meter::prepare().start();
        say(&mut tx).await?;
        both(
            &mut tx,
            &mut rx,
            E::BATCHING,
            &mut payloads,
            &mut tally,
            &plan,
        )
        .await?;
        hear(&mut rx, &mut tally, 1).await?;
        let report = meter.stop(plan.count);
        say(&mut tx).await?;
        hear(&mut rx, &mut tally, 2).await?;
        tally.verify(plan.size, plan.count)?;
        Ok(report)
    }
}

async fn both(
    tx: &mut impl Tx,
    rx: &mut impl Rx,
    batching: Batching,
    payloads: &mut Payloads,
    tally: &mut Tally,
    plan: &Transfer,
) -> Result<()> {
    tokio::try_join!(
        send_all(tx, batching, payloads, plan.count),
        rx.receive_until(tally, |tally| tally.messages >= plan.count),
    )?;
    Ok(())
}
