//! The job of a worker, and its report: one line of JSON each.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::tcp::SocketFacts;

/// The task of one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) workload: String,
    pub(crate) contestant: String,
    pub(crate) role: Role,
    pub(crate) runtime: Runtime,
    /// The core to run on, if the runtime is bound to one.
    pub(crate) core: usize,
    /// The congestion control of every connection.
    pub(crate) congestion: String,
    /// The worker gives up after this long.
    pub(crate) limit: Duration,
    /// The workload's own plan.
    pub(crate) plan: serde_json::Value,
}

/// What a worker's tasks run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runtime {
    /// One thread, bound to a core.
    Pinned,
    /// tokio's default, with a thread for each core. Nothing is bound.
    Default,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Server,
    Client { server: SocketAddr },
}

/// What a worker writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line {
    Listening(SocketAddr),
    Report(Report),
}

/// What a worker measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Messages of the measured part; in `duplex` those of one direction.
    pub(crate) messages: u64,
    /// How long the measured part lasted, by this process's clock.
    pub(crate) seconds: f64,
    /// Time on the processor in the measured part.
    pub(crate) user_ns: u64,
    pub(crate) system_ns: u64,
    /// Context switches in the measured part: of a thread that waited, and of one that could have
    /// gone on. A wake-up follows each of the first.
    pub(crate) waited: u64,
    pub(crate) preempted: u64,
    /// The most memory the process ever held.
    pub(crate) peak_rss_bytes: u64,
    /// The core the process was bound to, where the system lets it.
    pub(crate) pinned: Option<usize>,
    /// The socket options of the process's connections, as the kernel reports them.
    pub(crate) sockets: Vec<SocketFacts>,
    /// What else the workload measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) figures: BTreeMap<String, f64>,
}

impl Report {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Nanoseconds on the processor per message.
    pub(crate) fn cpu_ns_per_message(&self) -> f64 {
        (self.user_ns + self.system_ns) as f64 / self.messages as f64
    }

    /// Context switches per message.
    pub(crate) fn switches_per_message(&self) -> f64 {
        (self.waited + self.preempted) as f64 / self.messages as f64
    }

    /// Wake-ups per message.
    pub(crate) fn wake_ups_per_message(&self) -> f64 {
        self.waited as f64 / self.messages as f64
    }

    /// A figure of the workload's own.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn peak_mib(&self) -> f64 {
        self.peak_rss_bytes as f64 / f64::from(1 << 20)
    }
}

/// Both reports of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) server: Report,
    pub(crate) client: Report,
}
