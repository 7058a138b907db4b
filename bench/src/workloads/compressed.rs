//! Compressed messages: how fast they go, and what their connections hold.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Workload,
    idle::{Exchange, hold_accepted, hold_dialed},
    stream::{receive_down, send_down},
    transfer::{self, Transfer},
};
use crate::{
    Result,
    args::Measure,
    contestants::{self, Contestant, Visit, python},
    engine::Engine,
    job::{Outcome, Report},
    limits,
    payload::Payloads,
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

    fn plan_for(plan: Transfer, contestant: &Contestant) -> Transfer {
        let spared = if contestant.name == python::NAME {
            20
        } else {
            1
        };
        let count = (plan.count / spared).max(4);
        Transfer { count, ..plan }
    }

    async fn server<E: Engine>(plan: Transfer, server: E::Server) -> Result<Report> {
        send_down::<E>(server, Payloads::ticks(plan.size), plan.count).await
    }

    async fn client<E: Engine>(plan: Transfer, server: SocketAddr) -> Result<Report> {
        receive_down::<E>(server, Payloads::ticks(plan.size), plan.count).await
    }
}

/// Includes the first connection, over which the workers talk.
const CONNECTIONS: u64 = 1_000;
const QUICK_CONNECTIONS: u64 = 20;
/// Each way over each connection: more than the window holds.
const TICKS: u64 = 40;
/// An idle connection of unstall frees what it does not need at the second ping. Here it pings each
/// second.
const REST_MS: u64 = 4_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    connections: u64,
    size: usize,
    /// How long the connections are idle before their memory is measured.
    rest_ms: u64,
}

pub(crate) struct CompressedHeld;

impl Workload for CompressedHeld {
    const NAME: &'static str = "compressed-held";
    const ABOUT: &'static str = "memory per connection: each connection carries 40 ticks of JSON each \
        way, compressed, and then waits in a task of its own, until memory is measured at once or later. The figures are what the process's \
        resident memory grew by, divided by the number of connections; less is better";
    const NOT_SHOWN: &'static str = "the default ping interval of unstall, of 10 s: what an idle connection \
        does not need is freed at the second ping, here after two seconds";
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
            [0, REST_MS].map(|rest_ms| {
                let plan = Held {
                    connections,
                    size,
                    rest_ms,
                };
                let title = format!("{connections} connections, ticks of {size} bytes");
                (format!("{title}, idle for {} s", rest_ms / 1000), plan)
            })
        };
        args.sizes(&SIZES).into_iter().flat_map(case).collect()
    }

    fn contestants() -> &'static [Contestant] {
        contestants::COMPRESSED
    }

    async fn visit<V: Visit>(contestant: &str, visit: V) -> Result<V::Done> {
        contestants::with_compressed(contestant, visit).await
    }

    async fn server<E: Engine>(plan: Held, server: E::Server) -> Result<Report> {
        hold_accepted::<E>(server, plan.connections, plan.exchange()).await
    }

    async fn client<E: Engine>(plan: Held, server: SocketAddr) -> Result<Report> {
        hold_dialed::<E>(server, plan.connections, plan.exchange()).await
    }
}

impl Held {
    fn exchange(&self) -> Exchange {
        let size = self.size;
        let rest = Duration::from_millis(self.rest_ms);
        Exchange::new(Payloads::ticks(size), TICKS).and_rest(rest)
    }
}
