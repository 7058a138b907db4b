//! Time, processor time, context switches and memory of this process.

use std::time::{Duration, Instant};

use crate::{
    job::Report,
    tcp::{self, SocketFacts},
};

/// Proof that the connections of this process are open and have the same options.
pub(crate) struct Ready {
    sockets: Vec<SocketFacts>,
}

impl Ready {
    pub(crate) fn start(self) -> Meter {
        Meter {
            sockets: self.sockets,
            before: Usage::now(),
            began: Instant::now(),
            seconds: None,
        }
    }
}

/// Measures from its start to [`Meter::stop`].
pub(crate) struct Meter {
    sockets: Vec<SocketFacts>,
    began: Instant,
    before: Usage,
    seconds: Option<f64>,
}

impl Meter {
    /// Called when the connections are open, before anything is measured.
    pub(crate) fn prepare() -> Ready {
        Ready {
            sockets: tcp::tune_all(),
        }
    }

    /// Stops the clock. Processor time is measured until [`Meter::stop`].
    pub(crate) fn stop_clock(&mut self) {
        self.seconds = Some(self.began.elapsed().as_secs_f64());
    }

    pub(crate) fn stop(self, messages: u64) -> Report {
        let seconds = self
            .seconds
            .unwrap_or_else(|| self.began.elapsed().as_secs_f64());
        let usage = Usage::now();
        let before = self.before;
        Report {
            messages,
            seconds,
            user_ns: usage.user.saturating_sub(before.user).as_nanos() as u64,
            system_ns: usage.system.saturating_sub(before.system).as_nanos() as u64,
            waited: usage.waited.saturating_sub(before.waited),
            preempted: usage.preempted.saturating_sub(before.preempted),
            peak_rss_bytes: peak_rss_bytes(),
            sockets: self.sockets,
            ..Report::default()
        }
    }
}

/// What all threads of this process have used.
#[derive(Clone, Copy, Default)]
struct Usage {
    user: Duration,
    system: Duration,
    waited: u64,
    preempted: u64,
}

impl Usage {
    #[cfg(unix)]
    fn now() -> Usage {
        use nix::sys::{
            resource::{UsageWho, getrusage},
            time::{TimeVal, TimeValLike},
        };
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return Usage::default();
        };
        let duration = |time: TimeVal| Duration::from_micros(time.num_microseconds() as u64);
        Usage {
            user: duration(usage.user_time()),
            system: duration(usage.system_time()),
            waited: usage.voluntary_context_switches() as u64,
            preempted: usage.involuntary_context_switches() as u64,
        }
    }

    #[cfg(not(unix))]
    fn now() -> Usage {
        Usage::default()
    }
}

/// The largest resident memory: `VmHWM` of proc_pid_status(5). Zero where the system does not tell it.
///
/// The peak of getrusage would survive exec, and so count the parent's.
fn peak_rss_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// The resident memory now: `VmRSS`. Zero where the system does not tell it.
pub(crate) fn rss_bytes() -> u64 {
    status_bytes("VmRSS:")
}

fn status_bytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
