//! The credit of a subscription (SPEC-TOPICS.md, "Credit").

use crate::error::ProtocolError;
use crate::number::Offset;

/// Credit of one connection, and what the application has not taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    pub(super) window: u64,
    pub(super) granted: u64,
    pub(super) received: u64,
    /// What was delivered, and is not taken. Also of older connections.
    pub(super) held: u64,
}

impl Credit {
    /// What may be granted: what is taken, what is there of a message that is not whole, and the
    /// window.
    pub(super) fn limit(&self) -> u64 {
        (self.received + self.window).saturating_sub(self.held)
    }

    pub(super) fn is_due(&self) -> bool {
        self.limit() >= self.granted + self.window / 2
    }

    pub(super) fn spend(&mut self, cost: u64) -> Result<(), ProtocolError> {
        self.received += cost;
        if self.received > self.granted {
            return Err(ProtocolError::CreditExceeded {
                sent: Offset::new(self.received),
                granted: Offset::new(self.granted),
            });
        }
        Ok(())
    }
}
