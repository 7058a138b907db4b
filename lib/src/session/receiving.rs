//! From the session towards the application.

use tokio::time::Instant;
use unstall_proto as proto;

use crate::{messages::SessionNumber, pump::Reading};

/// What the session has handed over, and how far the application has come with it.
#[derive(Default)]
pub(super) struct Receiving {
    messages: u64,
    /// Where the messages that were handed over end, and those that the application took.
    handed: proto::Position,
    pub(super) taken: proto::Position,
    /// When what nobody takes is to be looked at again.
    pub(super) look_at: Option<Instant>,
}

impl Receiving {
    /// Takes the next packet's messages from the protocol; `false`: there are none.
    pub(super) fn next(
        &mut self,
        protocol: &mut proto::Session,
        number: SessionNumber,
        reading: &mut Reading,
    ) -> bool {
        while let Some(incoming) = protocol.recv() {
            // The end comes as an event as well.
            if let proto::Incoming::Messages(batch) = incoming {
                self.messages += batch.remaining();
                self.handed = batch.end();
                reading.receive_packet(batch, number);
                return true;
            }
        }
        false
    }

    /// Messages received in all.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the application has not taken all that was handed over.
    pub(super) fn has_untaken(&self) -> bool {
        self.taken < self.handed
    }
}
