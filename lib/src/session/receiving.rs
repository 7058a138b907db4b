//! Received messages on their way from the protocol to the application.

use tokio::time::Instant;
use unstall_proto as proto;

use crate::{messages::SessionNumber, pump::Reading};

/// What the session has handed over, and how much of it the application has taken.
#[derive(Default)]
pub(super) struct Receiving {
    messages: u64,
    /// Where the messages end that were handed over.
    handed: proto::Position,
    /// Where the messages end that the application has taken.
    pub(super) taken: proto::Position,
    /// When messages without a `Receiver` are discarded.
    pub(super) look_at: Option<Instant>,
}

impl Receiving {
    /// Hands the next packet of messages over. `false`: there is none.
    pub(super) fn next(
        &mut self,
        protocol: &mut proto::Session,
        number: SessionNumber,
        reading: &mut Reading,
    ) -> bool {
        while let Some(incoming) = protocol.recv() {
            // The end of the stream is skipped: it comes as an event too.
            if let proto::Incoming::Messages(batch) = incoming {
                self.messages += batch.remaining();
                self.handed = batch.end();
                reading.receive_packet(batch, number);
                return true;
            }
        }
        false
    }

    /// How many messages were received.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the application has not taken all that was handed over.
    pub(super) fn has_untaken(&self) -> bool {
        self.taken < self.handed
    }
}
