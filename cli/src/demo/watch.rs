//! Watches the progress of a row.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

const TICK: Duration = Duration::from_millis(50);

/// If a tick comes later than this, the machine was busy, and the tick does not count.
const LATE: Duration = Duration::from_millis(500);

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts every step that either end makes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Requests whose `send` returned.
    pub(super) client_sent: Counter,
    /// Requests that the server has read.
    pub(super) server_read: Counter,
    /// Packets whose `send` returned.
    pub(super) server_sent: Counter,
    /// Packets that the client has read.
    pub(super) client_received: Counter,
    /// Packets that the consumer has checked.
    pub(super) consumed: Counter,
}

/// A snapshot of [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Steps {
    pub(super) client_sent: u64,
    pub(super) server_read: u64,
    pub(super) server_sent: u64,
    pub(super) client_received: u64,
    pub(super) consumed: u64,
}

impl Progress {
    pub(super) fn steps(&self) -> Steps {
        Steps {
            client_sent: self.client_sent.get(),
            server_read: self.server_read.get(),
            server_sent: self.server_sent.get(),
            client_received: self.client_received.get(),
            consumed: self.consumed.get(),
        }
    }
}

/// How a watched client ended.
pub(super) enum Watched<T> {
    Finished(T),
    /// No step was made for this long.
    Stalled(Duration),
}

/// Runs `client` until it ends, or until neither end makes a step for `stalled_after`.
pub(super) async fn watch<T>(
    client: impl Future<Output = T>,
    progress: &Progress,
    bar: &ProgressBar,
    stalled_after: Duration,
) -> Watched<T> {
    let mut client = std::pin::pin!(client);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = progress.steps();
    let (mut quiet_since, mut last_tick) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            result = &mut client => return Watched::Finished(result),
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        let steps = progress.steps();
        bar.set_position(steps.consumed);
        if steps != last || now.saturating_duration_since(last_tick) > LATE {
            (last, quiet_since) = (steps, now);
        } else if now.saturating_duration_since(quiet_since) >= stalled_after {
            return Watched::Stalled(now.saturating_duration_since(quiet_since));
        }
        last_tick = now;
    }
}
