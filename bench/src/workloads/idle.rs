//! What an idle connection costs.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_local, time::sleep};

use super::{
    Workload,
    words::{hear, let_go, say},
};
use crate::{
    Result,
    args::Measure,
    contestants::{Contestant, FEW},
    engine::{Engine, Rx, Tx},
    job::Report,
    limits,
    meter::{Meter, rss_bytes},
    payload::{Payloads, Tally},
    table::Column,
};

const CONNECTIONS: u64 = 10_000;
const QUICK_CONNECTIONS: u64 = 50;
const SIZE: usize = 64;
/// Memory that does not change for this long counts as settled.
const SETTLED: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Includes the first one, over which the workers talk.
    connections: u64,
    tls: bool,
}

pub(crate) struct Idle;

impl Workload for Idle {
    const NAME: &'static str = "idle";
    const ABOUT: &'static str = "memory per connection: connections are made one after the other, \
        each carries one message of 64 bytes up and one down, and then waits in a task of its own. \
        The figures are what the process's resident memory grew by from the first connection to \
        the last, divided by the number of connections; less is better";
    const NOT_SHOWN: &'static str = "the kernel's memory for each socket, which is alike for all; \
        connections that had streamed before they fell idle; what an idle connection costs in time \
        (heartbeats)";
    const REFERENCE: &'static str = "raw";
    const COLUMNS: &'static [Column] = &[
        Column::new("server KiB/conn", 1, |run| run.server.figure("kib")).with_excess(),
        Column::new("client KiB/conn", 1, |run| run.client.figure("kib")).with_excess(),
        Column::new("server MiB", 1, |run| run.server.peak_mib()),
        Column::new("client MiB", 1, |run| run.client.peak_mib()),
    ];
    type Plan = Plan;

    fn cases(args: &Measure) -> Vec<(String, Plan)> {
        let wanted = if args.quick {
            QUICK_CONNECTIONS
        } else {
            CONNECTIONS
        };
        let connections = wanted.min(limits::connections());
        let fewer = match connections < wanted {
            true => " (the limit of file descriptors forbids more)",
            false => "",
        };
        let case = |(tls, title)| {
            let title = format!("{connections} connections{fewer}, {title}");
            (title, Plan { connections, tls })
        };
        [(false, "without TLS"), (true, "with TLS")]
            .map(case)
            .into()
    }

    fn takes_part(contestant: &Contestant) -> bool {
        FEW.contains(&contestant.name)
    }

    fn tls(plan: &Plan) -> bool {
        plan.tls
    }

    async fn server<E: Engine>(plan: Plan, server: E::Server) -> Result<Report> {
        hold_accepted::<E>(
            server,
            plan.connections,
            Exchange::new(Payloads::new(SIZE), 1),
        )
        .await
    }

    async fn client<E: Engine>(plan: Plan, server: SocketAddr) -> Result<Report> {
        hold_dialed::<E>(
            server,
            plan.connections,
            Exchange::new(Payloads::new(SIZE), 1),
        )
        .await
    }
}

/// What each connection carries each way before it waits: one message after the other.
pub(super) struct Exchange {
    messages: Rc<[Bytes]>,
    /// How long all connections wait before the memory is measured.
    rest: Duration,
}

impl Exchange {
    pub(super) fn new(mut payloads: Payloads, count: u64) -> Exchange {
        let messages = (0..count).map(|_| payloads.next().clone()).collect();
        Exchange {
            messages,
            rest: Duration::ZERO,
        }
    }

    pub(super) fn and_rest(self, rest: Duration) -> Exchange {
        Exchange { rest, ..self }
    }
}

/// The server's part. The first connection of `connections` is the one over which the workers talk.
pub(super) async fn hold_accepted<E: Engine>(
    mut server: E::Server,
    connections: u64,
    exchange: Exchange,
) -> Result<Report> {
    limits::connections();
    let mut link = E::accept(&mut server).await?;
    let mut tally = Tally::default();
    let open = Meter::prepare();
    hear(&mut link, &mut tally, 1).await?;
    let before = rss_bytes();
    let meter = open.start();
    say(&mut link).await?;
    for _ in 1..connections {
        let mut link = E::accept(&mut server).await?;
        let answers = exchange.messages.clone();
        spawn_local(async move {
            for answer in &answers[..] {
                let mut tally = Tally::default();
                link.receive_until(&mut tally, |tally| tally.messages >= 1)
                    .await?;
                link.send(answer).await?;
            }
            wait(link).await
        });
    }
    hear(&mut link, &mut tally, 2).await?;
    let report = settled(meter, before, connections).await;
    say(&mut link).await?;
    let_go(&mut link).await;
    Ok(report)
}

/// The client's part.
pub(super) async fn hold_dialed<E: Engine>(
    server: SocketAddr,
    connections: u64,
    exchange: Exchange,
) -> Result<Report> {
    limits::connections();
    let mut link = E::connect(server).await?;
    let mut tally = Tally::default();
    let open = Meter::prepare();
    say(&mut link).await?;
    hear(&mut link, &mut tally, 1).await?;
    let before = rss_bytes();
    let meter = open.start();
    for _ in 1..connections {
        let mut link = E::connect(server).await?;
        let mut tally = Tally::default();
        for (message, number) in exchange.messages.iter().zip(1..) {
            link.send(message).await?;
            link.receive_until(&mut tally, |tally| tally.messages >= number)
                .await?;
        }
        tally.verify_messages(&exchange.messages[..])?;
        spawn_local(wait(link));
    }
    sleep(exchange.rest).await;
    // Measured before the server hears that it may leave.
    let report = settled(meter, before, connections).await;
    say(&mut link).await?;
    hear(&mut link, &mut tally, 2).await?;
    Ok(report)
}

/// Waits until the peer ends the connection.
async fn wait(mut link: impl Rx) -> Result<()> {
    loop {
        link.receive(&mut |_| {}).await?;
    }
}

/// Measures once the memory no longer changes.
async fn settled(meter: Meter, before: u64, connections: u64) -> Report {
    let mut bytes = rss_bytes();
    loop {
        sleep(SETTLED).await;
        let now = rss_bytes();
        if now == bytes {
            break;
        }
        bytes = now;
    }
    let others = connections - 1;
    let kib = (bytes as f64 - before as f64) / 1024.0 / others as f64;
    Report {
        figures: [("kib".to_owned(), kib)].into(),
        ..meter.stop(others)
    }
}
