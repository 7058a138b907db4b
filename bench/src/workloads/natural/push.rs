//! Messages of one size from server to client, one await each.

use serde::{Deserialize, Serialize};

use super::{
    super::words::{hear, let_go, say},
    CLIENT_SWITCHES, CLIENT_WAKE_UPS, SERVER_SWITCHES, SERVER_WAKE_UPS,
};
use crate::{
    Result,
    args::Measure,
    engine::{Batching, Link},
    job::{Outcome, Report},
    meter::Meter,
    payload::{Payloads, Tally},
    table::Column,
};

const SIZES: [usize; 6] = [64, 200, 1_000, 4 << 10, 64 << 10, 1 << 20];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(super) size: usize,
    pub(super) count: u64,
}

impl Plan {
    /// For those that are so much slower that fewer messages do.
    pub(super) fn spared(self) -> Plan {
        let by = match self.size {
            ..512 => 20,
            512..2048 => 10,
            2048..16384 => 3,
            _ => 1,
        };
        Plan {
            count: (self.count / by).max(4),
            ..self
        }
    }
}

pub(super) const COLUMNS: &[Column] = &[
    Column::new("k msg/s", 1, |run: &Outcome| run.client.rate() / 1e3)
        .with_ratio()
        .with_pairs(),
    Column::new("client ns/msg", 0, |run| run.client.cpu_ns_per_message()).with_ratio(),
    Column::new("server ns/msg", 0, |run| run.server.cpu_ns_per_message()),
    CLIENT_SWITCHES,
    CLIENT_WAKE_UPS,
    SERVER_SWITCHES,
    SERVER_WAKE_UPS,
    Column::new("client MiB", 1, |run| run.client.peak_mib()),
    Column::new("server MiB", 1, |run| run.server.peak_mib()),
];

pub(super) fn cases(args: &Measure) -> Vec<(String, Plan)> {
    // Calibrating wants enough to be past the connection's first breaths.
    let bytes = if args.quick { 1 << 20 } else { 48 << 20 };
    let case = |size: usize| {
        let count = (bytes / (size + 256) as u64).max(4);
        let title = format!("push of {size} bytes, times and switches a message");
        (title, Plan { size, count })
    };
    args.sizes(&SIZES).into_iter().map(case).collect()
}

pub(super) async fn server(mut link: impl Link, batching: Batching, plan: Plan) -> Result<Report> {
    let mut payloads = Payloads::new(plan.size);
    let mut tally = Tally::default();
    let open = Meter::prepare();
    hear(&mut link, &mut tally, 1).await?;
    let meter = open.start();
    let mut flushing = batching.flushing();
    for _ in 0..plan.count {
        let payload = payloads.next();
        link.feed(payload).await?;
        if flushing.due(payload.len()) {
            link.flush().await?;
        }
    }
    link.flush().await?;
    hear(&mut link, &mut tally, 2).await?;
    let report = meter.stop(plan.count);
    say(&mut link).await?;
    let_go(&mut link).await;
    Ok(report)
}

pub(super) async fn client(mut link: impl Link, plan: Plan) -> Result<Report> {
    let mut tally = Tally::default();
    let meter = Meter::prepare().start();
    say(&mut link).await?;
    link.receive_until(&mut tally, |tally| tally.messages >= plan.count)
        .await?;
    let report = meter.stop(plan.count);
    say(&mut link).await?;
    hear(&mut link, &mut tally, 1).await?;
    tally.verify(plan.size, plan.count)?;
    Ok(report)
}
