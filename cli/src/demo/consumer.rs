//! The slow consumer of rows 2, 3 and 4, which checks each packet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Plan;
use super::watch::Progress;
use crate::packets::{Checker, Report};
use crate::time::later;

/// The consumer checks the clock after this many packets.
const PACKETS_PER_PAUSE: u64 = 32;

/// The time for each packet on average: 20,000 a second, far below what the server can send. An
/// average makes a row last equally long on a busy machine.
const PER_PACKET: Duration = Duration::from_micros(50);

pub(super) struct SlowConsumer {
    checker: Checker,
    taken: u64,
    started: Option<Instant>,
    progress: Arc<Progress>,
}

impl SlowConsumer {
    pub(super) fn new(plan: Plan, progress: Arc<Progress>) -> Self {
        Self {
            checker: Checker::exactly(plan.count, plan.size),
            taken: 0,
            started: None,
            progress,
        }
    }

    /// Checks one packet, and waits now and then.
    pub(super) async fn take(&mut self, packet: &[u8]) {
        self.checker.take(packet);
        self.taken += 1;
        self.progress.consumed.add(1);
        let started = *self.started.get_or_insert_with(Instant::now);
        if self.taken.is_multiple_of(PACKETS_PER_PAUSE) {
            tokio::time::sleep_until(later(started, PER_PACKET.mul_f64(self.taken as f64))).await;
        }
    }

    pub(super) fn has_all(&self, plan: Plan) -> bool {
        self.taken >= plan.count
    }

    pub(super) fn report(&self) -> Report {
        self.checker.report()
    }
}
