//! Many messages from client to server.

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

pub(crate) struct Up;

impl Workload for Up {
    const NAME: &'static str = "up";
    const ABOUT: &'static str = "messages from client to server, masked, as fast as they go; the \
        server looks at both ends and the length of each. Rates are the client's, from its first \
        message to the server's word that all have come";
    const NOT_SHOWN: &'static str = "latency, a network that loses or delays, TLS, several \
        connections, several threads; raw TCP does not mask";
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
        let mut link = E::accept(&mut server).await?;
        let mut tally = Tally::default();
        let open = Meter::prepare();
        hear(&mut link, &mut tally, 1).await?;
        let meter = open.start();
        link.receive_until(&mut tally, |tally| tally.messages >= plan.count)
            .await?;
        let report = meter.stop(plan.count);
        say(&mut link).await?;
        tally.verify(plan.size, plan.count)?;
        let_go(&mut link).await;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Transfer, server: SocketAddr) -> Result<Report> {
        let mut link = E::connect(server).await?;
        let mut payloads = Payloads::new(plan.size);
        let mut tally = Tally::default();
        let meter = Meter::prepare().start();
        say(&mut link).await?;
        send_all(&mut link, E::BATCHING, &mut payloads, plan.count).await?;
        hear(&mut link, &mut tally, 1).await?;
        Ok(meter.stop(plan.count))
    }
}
