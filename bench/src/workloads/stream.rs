//! One request, many messages down.

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
    engine::{Engine, Rx, send_all},
    job::{Outcome, Report},
    meter::Meter,
    payload::{Payloads, Tally},
    table::Column,
};

pub(crate) struct Stream;

impl Workload for Stream {
    const NAME: &'static str = "stream";
    const ABOUT: &'static str = "one request, then messages from server to client as fast as they \
        go; the client looks at both ends and the length of each. Rates are the client's, from its \
        request to its last message; times on the processor are whole processes', from the request \
        to the end";
    const NOT_SHOWN: &'static str = "latency, a network that loses or delays, TLS, several \
        connections, several threads";
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

    async fn server<E: Engine>(plan: Transfer, server: E::Server) -> Result<Report> {
        send_down::<E>(server, Payloads::new(plan.size), plan.count).await
    }

    async fn client<E: Engine>(plan: Transfer, server: SocketAddr) -> Result<Report> {
        receive_down::<E>(server, Payloads::new(plan.size), plan.count).await
    }
}

/// The server's part: waits for the request, and sends so many messages.
pub(super) async fn send_down<E: Engine>(
    mut server: E::Server,
    mut payloads: Payloads,
    count: u64,
) -> Result<Report> {
    let mut link = E::accept(&mut server).await?;
    let mut tally = Tally::default();
    let open = Meter::prepare();
    hear(&mut link, &mut tally, 1).await?;
    let meter = open.start();
    send_all(&mut link, E::BATCHING, &mut payloads, count).await?;
    hear(&mut link, &mut tally, 2).await?;
    let report = meter.stop(count);
    say(&mut link).await?;
    let_go(&mut link).await;
    Ok(report)
}

/// The client's part: asks, and receives them all.
pub(super) async fn receive_down<E: Engine>(
    server: SocketAddr,
    payloads: Payloads,
    count: u64,
) -> Result<Report> {
    let mut link = E::connect(server).await?;
    let mut tally = Tally::default();
    let mut meter = Meter::prepare().start();
    say(&mut link).await?;
    link.receive_until(&mut tally, |tally| tally.messages >= count)
        .await?;
    meter.stop_clock();
    let report = meter.stop(count);
    say(&mut link).await?;
    hear(&mut link, &mut tally, 1).await?;
    tally.verify_as(payloads, count)?;
    Ok(report)
}
