//! What `stream`, `up` and `duplex` have in common: many messages of one size, as fast as they go.

use serde::{Deserialize, Serialize};

use crate::{
    args::Measure, contestants::Contestant, engine::Batching, job::Outcome, table::Column,
};

const SIZES: [usize; 5] = [64, 512, 4 << 10, 64 << 10, 1 << 20];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) size: usize,
    /// Messages in each direction that has any.
    pub(crate) count: u64,
}

pub(crate) const COLUMNS: &[Column] = &[
    Column::new("k msg/s", 1, |run| run.client.rate() / 1e3)
        .with_ratio()
        .with_pairs(),
    Column::new("server ns/msg", 0, |run| run.server.cpu_ns_per_message()),
    Column::new("client ns/msg", 0, |run| run.client.cpu_ns_per_message()),
    Column::new("both ns/msg", 0, |run| {
        run.server.cpu_ns_per_message() + run.client.cpu_ns_per_message()
    })
    .with_pairs(),
    Column::new("server MiB", 1, |run| run.server.peak_mib()),
    Column::new("client MiB", 1, |run| run.client.peak_mib()),
];

pub(crate) fn cases(args: &Measure) -> Vec<(String, Transfer)> {
    // Calibration needs enough messages to be past the start of the connection.
    let bytes = if args.quick { 1 << 20 } else { 48 << 20 };
    let case = |size: usize| {
        let count = (bytes / (size + 256) as u64).max(4);
        (
            format!("messages of {size} bytes"),
            Transfer { size, count },
        )
    };
    args.sizes(&SIZES).into_iter().map(case).collect()
}

pub(crate) fn calibrated(plan: Transfer, reference: &Outcome, seconds: f64) -> Transfer {
    let rate = reference.client.rate();
    Transfer {
        count: ((rate * seconds) as u64).max(4),
        ..plan
    }
}

/// A loop that flushes each small message is much slower, so it gets fewer messages.
pub(crate) fn plan_for(plan: Transfer, contestant: &Contestant) -> Transfer {
    let spared = match contestant.batching {
        Batching::Naive if plan.size < 1024 => 10,
        _ => 1,
    };
    Transfer {
        count: (plan.count / spared).max(4),
        ..plan
    }
}
