//! What upstream has sent before an answer that is waited for. The client gets it in its place.

use unstall::{Message, defaults::MESSAGE_OVERHEAD_BYTES};

use super::{
    limits,
    pool::{Pool, Share},
};

/// Messages for the client, in order.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) messages: Vec<Message>,
    share: Share,
    is_full: bool,
}

impl Held {
    pub(super) fn new(pool: &Pool) -> Held {
        Held {
            messages: Vec::new(),
            share: pool.share(),
            is_full: false,
        }
    }

    /// Takes one more, which has been received already.
    pub(super) fn push(&mut self, message: Message) {
        let cost = message.len().saturating_add(MESSAGE_OVERHEAD_BYTES);
        let drawn = self.share.draw(cost);
        self.is_full |= !drawn || self.share.bytes() > limits::HELD_BYTES;
        self.messages.push(message);
    }

    /// No more messages may be received before these are passed.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// They were passed.
    pub(super) fn passed(&mut self) {
        self.share.give_back(self.share.bytes());
        self.is_full = false;
    }
}
