//! The application of the second and third row: it checks each packet and is slow about it.

use std::sync::Arc;
use std::time::Duration;

use super::Plan;
use super::watch::Progress;
use crate::packets::{Checker, Report};

/// The consumer pauses for [`PAUSE`] after so many packets: about 20,000 packets a second, far
/// below what the server can send.
const PACKETS_PER_PAUSE: u64 = 32;
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct SlowConsumer {
    checker: Checker,
    taken: u64,
    progress: Arc<Progress>,
}

impl SlowConsumer {
    pub(super) fn new(plan: Plan, progress: Arc<Progress>) -> Self {
        Self {
            checker: Checker::exactly(plan.count, plan.size),
            taken: 0,
            progress,
        }
    }

    /// Takes one packet and, now and then, time.
    pub(super) async fn take(&mut self, packet: &[u8]) {
        self.checker.take(packet);
        self.taken += 1;
        self.progress.consumed.add(1);
        if self.taken.is_multiple_of(PACKETS_PER_PAUSE) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(super) fn has_all(&self, plan: Plan) -> bool {
        self.taken >= plan.count
    }

    pub(super) fn report(&self) -> Report {
        self.checker.report()
    }
}
