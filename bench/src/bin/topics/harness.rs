//! What all workloads share: server processes, and a core for the clients.

use std::{
    cell::RefCell,
    future::Future,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use tokio::task::LocalSet;

pub(crate) use crate::goals::{Table, median};
use crate::{Result, node::Job};

/// The payload of most workloads, in bytes.
pub(crate) const BYTES: usize = 200;

/// The core of servers that are bound to one, and that of their clients.
pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENTS: usize = 1;

/// A server that is killed when the run is over.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: String,
}

impl Running {
    pub(crate) fn new(child: Child, address: String) -> Running {
        Running { child, address }
    }

    /// A node of unstall, in a process of its own. It ends with this process, too.
    pub(crate) fn node(job: &Job) -> Result<Running> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("node")
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim() {
            "" => Err("the node did not start".into()),
            address => Ok(Running::new(child, address.to_owned())),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/topics", self.address)
    }

    /// A line of `/proc/PID/status`, in KiB: `VmRSS` is the memory now, `VmHWM` its peak.
    pub(crate) fn memory(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim_matches([':', '\t', ' ']).split(' ').next());
        Ok(kib.ok_or("the system does not say")?.trim().parse()?)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs clients on one thread, which is bound to a core if there is one.
pub(crate) fn clients<T>(core: Option<usize>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let before = sched_getaffinity(Pid::from_raw(0))?;
    if let Some(core) = core {
        pin(core);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = LocalSet::new().block_on(&runtime, work);
    sched_setaffinity(Pid::from_raw(0), &before)?;
    done
}

/// Binds this thread, and those that it starts, to a core.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// A message with its number and its time in front: see [`stamp`].
pub(crate) fn message(number: u64, micros: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; bytes];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload[8..16].copy_from_slice(&micros.to_be_bytes());
    payload
}

/// Number and time of a [`message`].
pub(crate) fn stamp(payload: &[u8]) -> (u64, u64) {
    let number = |from: usize| {
        let bytes = payload.get(from..from + 8).and_then(|it| it.first_chunk());
        bytes.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
    };
    (number(0), number(8))
}

/// The value that this part of all values is not above, in microseconds.
pub(crate) fn percentile(times: &[Duration], part: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let nth = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(nth).map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
}

/// Writes so many bytes to a file and syncs it, over and over, as a store has to.
pub(crate) fn syncs(directory: &Path, bytes: usize, count: u64) -> Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(directory)?;
    let block = vec![b'.'; bytes];
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// How long messages were under way, in microseconds.
pub(crate) struct Latencies(RefCell<Histogram<u64>>);

impl Latencies {
    pub(crate) fn new() -> Result<Latencies> {
        Ok(Latencies(RefCell::new(Histogram::new(3)?)))
    }

    pub(crate) fn record(&self, micros: u64) {
        // It grows as far as it has to.
        let _ = self.0.borrow_mut().record(micros);
    }

    /// The 50th and the 99th percentile since the last call.
    pub(crate) fn take(&self) -> [f64; 2] {
        let mut histogram = self.0.borrow_mut();
        let percentiles = [0.5, 0.99].map(|part| histogram.value_at_quantile(part) as f64);
        histogram.reset();
        percentiles
    }
}
