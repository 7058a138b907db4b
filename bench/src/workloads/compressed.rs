//! Compressed messages: how fast they go, and what their connections hold.

use std::{net::SocketAddr, rc::Rc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_local;

use super::{
    Workload,
    idle::settled,
    transfer::{self, Transfer},
    words::{hear, let_go, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::{self, Contestant, Visit},
    engine::{Engine, Rx, Tx, send_all},
    job::{Outcome, Report},
    limits,
    meter::{Meter, rss_bytes},
    payload::{Payloads, Tally},
    table::Column,
};

const SIZES: [usize; 2] = [300, 4 << 10];

pub(crate) struct Compressed;

impl Workload for Compressed {
    const NAME: &'static str = "compressed";
    const ABOUT: &'static str = "one request, then ticks of JSON from server to client as fast as they \
        go, compressed by permessage-deflate with a window of 4 KiB and context takeover";
    const NOT_SHOWN: &'static str = "data that does not compress; how many bytes are saved on a slow \
        network; the first megabyte of each connection";
    const REFERENCE: &'static str = "yawc";
    const COLUMNS: &'static [Column] = transfer::COLUMNS;
    type Plan = Transfer;

    fn cases(args: &Measure) -> Vec<(String, Transfer)> {
        let bytes = if args.quick { 1 << 20 } else { 32 << 20 };
        let case = |size: usize| {
            let count = (bytes / size) as u64;
            (format!("ticks of {size} bytes"), Transfer { size, count })
        };
        args.sizes(&SIZES).into_iter().map(case).collect()
    }

    fn contestants() -> &'static [Contestant] {
        contestants::COMPRESSED
    }

    async fn visit<V: Visit>(contestant: &str, visit: V) -> Result<V::Done> {
        contestants::with_compressed(contestant, visit).await
    }

    fn calibrated(plan: Transfer, reference: &Outcome, seconds: f64) -> Transfer {
        transfer::calibrated(plan, reference, seconds)
    }

    async fn server<E: Engine>(plan: Transfer, mut server: E::Server) -> Result<Report> {
        let mut link = E::accept(&mut server).await?;
        let mut payloads = Payloads::ticks(plan.size);
        let mut tally = Tally::default();
        let open = Meter::prepare();
        hear(&mut link, &mut tally, 1).await?;
        let meter = open.start();
        send_all(&mut link, E::BATCHING, &mut payloads, plan.count).await?;
        hear(&mut link, &mut tally, 2).await?;
        let report = meter.stop(plan.count);
        say(&mut link).await?;
        let_go(&mut link).await;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Transfer, server: SocketAddr) -> Result<Report> {
        let mut link = E::connect(server).await?;
        let mut tally = Tally::default();
        let mut meter = Meter::prepare().start();
        say(&mut link).await?;
        link.receive_until(&mut tally, |tally| tally.messages >= plan.count)
            .await?;
        meter.stop_clock();
        let report = meter.stop(plan.count);
        say(&mut link).await?;
        hear(&mut link, &mut tally, 1).await?;
        tally.verify_as(Payloads::ticks(plan.size), plan.count)?;
        Ok(report)
    }
}

/// Includes the first connection, over which the workers talk.
const CONNECTIONS: u64 = 1_000;
const QUICK_CONNECTIONS: u64 = 20;
/// Each way over each connection: more than the window holds.
const TICKS: u64 = 40;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    connections: u64,
    size: usize,
}

pub(crate) struct CompressedHeld;

impl Workload for CompressedHeld {
    const NAME: &'static str = "compressed-held";
    const ABOUT: &'static str = "memory per connection: each connection carries 40 ticks of JSON each \
        way, compressed, and then waits in a task of its own. The figures are what the process's \
        resident memory grew by, divided by the number of connections; less is better";
    const NOT_SHOWN: &'static str = "connections that are idle for long: unstall frees more then";
    const REFERENCE: &'static str = "yawc";
    const COLUMNS: &'static [Column] = &[
        Column::new("server KiB/conn", 1, |run| run.server.figure("kib")).with_ratio(),
        Column::new("client KiB/conn", 1, |run| run.client.figure("kib")),
    ];
    type Plan = Held;

    fn cases(args: &Measure) -> Vec<(String, Held)> {
        let wanted = if args.quick {
            QUICK_CONNECTIONS
        } else {
            CONNECTIONS
        };
        let connections = wanted.min(limits::connections());
        let case = |size: usize| {
            let title = format!("{connections} connections, ticks of {size} bytes");
            (title, Held { connections, size })
        };
        args.sizes(&SIZES).into_iter().map(case).collect()
    }

    fn contestants() -> &'static [Contestant] {
        contestants::COMPRESSED
    }

    async fn visit<V: Visit>(contestant: &str, visit: V) -> Result<V::Done> {
        contestants::with_compressed(contestant, visit).await
    }

    async fn server<E: Engine>(plan: Held, mut server: E::Server) -> Result<Report> {
        limits::connections();
        let mut link = E::accept(&mut server).await?;
        let mut tally = Tally::default();
        let open = Meter::prepare();
        hear(&mut link, &mut tally, 1).await?;
        let before = rss_bytes();
        let meter = open.start();
        say(&mut link).await?;
        let ticks = ticks(plan.size);
        for _ in 1..plan.connections {
            let mut link = E::accept(&mut server).await?;
            let ticks = ticks.clone();
            spawn_local(async move {
                for tick in &ticks[..] {
                    let mut tally = Tally::default();
                    link.receive_until(&mut tally, |tally| tally.messages >= 1)
                        .await?;
                    link.send(tick).await?;
                }
                wait(link).await
            });
        }
        hear(&mut link, &mut tally, 2).await?;
        let report = settled(meter, before, plan.connections).await;
        say(&mut link).await?;
        let_go(&mut link).await;
        Ok(report)
    }

    async fn client<E: Engine>(plan: Held, server: SocketAddr) -> Result<Report> {
        limits::connections();
        let mut link = E::connect(server).await?;
        let mut tally = Tally::default();
        let open = Meter::prepare();
        say(&mut link).await?;
        hear(&mut link, &mut tally, 1).await?;
        let before = rss_bytes();
        let meter = open.start();
        let ticks = ticks(plan.size);
        for _ in 1..plan.connections {
            let mut link = E::connect(server).await?;
            let mut tally = Tally::default();
            for (tick, number) in ticks.iter().zip(1..) {
                link.send(tick).await?;
                link.receive_until(&mut tally, |tally| tally.messages >= number)
                    .await?;
            }
            tally.verify_as(Payloads::ticks(plan.size), TICKS)?;
            spawn_local(wait(link));
        }
        let report = settled(meter, before, plan.connections).await;
        say(&mut link).await?;
        hear(&mut link, &mut tally, 2).await?;
        Ok(report)
    }
}

/// What each connection carries each way.
fn ticks(size: usize) -> Rc<[Bytes]> {
    let mut payloads = Payloads::ticks(size);
    (0..TICKS).map(|_| payloads.next().clone()).collect()
}

/// Waits until the peer ends the connection.
async fn wait(mut link: impl Rx) -> Result<()> {
    loop {
        link.receive(&mut |_| {}).await?;
    }
}
