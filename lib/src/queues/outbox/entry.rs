//! What has a place in the outbox, and what of it is done.

use std::collections::VecDeque;

use tokio::time::Instant;
use unstall_proto::{
    self as proto, Records,
    limits::{PACKET_FILL, RECORD_OVERHEAD},
};

use crate::{defaults::MESSAGE_OVERHEAD_BYTES, messages::Message};

/// What has a place in the outbox.
#[derive(Debug)]
pub(crate) enum Entry {
    One(Queued),
    Packed(Packed),
}

/// A message with a place of its own, and the moment from which it is no longer worth sending.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    pub(super) number: u64,
    pub(crate) expires: Option<Instant>,
}

/// Short messages in a row, encoded by those who sent them.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) records: Records,
    /// The place of the first among all messages ever accepted, from 0.
    pub(crate) first: u64,
}

/// What became of messages that the pump took: they are in the socket, or expired unsent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(super) messages: usize,
    /// The bytes of the queue that the outbox gets back.
    pub(super) cost: usize,
    /// Everything before this number is done with.
    pub(super) upto: u64,
}

impl Done {
    pub(crate) fn upto(&self) -> u64 {
        self.upto
    }

    pub(crate) fn add(&mut self, more: Done) {
        self.messages += more.messages;
        self.cost += more.cost;
        self.upto = more.upto;
    }

    /// One message of a packet.
    pub(crate) fn add_cut(&mut self, payload: usize, number: u64) {
        self.messages += 1;
        self.cost += payload + MESSAGE_OVERHEAD_BYTES;
        self.upto = number + 1;
    }
}

impl Entry {
    /// Its share of what is done, once it is.
    pub(crate) fn done(&self) -> Done {
        match self {
            Entry::One(queued) => Done {
                messages: 1,
                cost: queued.message.cost(),
                upto: queued.number + 1,
            },
            Entry::Packed(packed) => {
                let messages = packed.records.messages();
                let payload = packed.records.cost() - messages * RECORD_OVERHEAD;
                Done {
                    messages: messages as usize,
                    cost: payload as usize + messages as usize * MESSAGE_OVERHEAD_BYTES,
                    upto: packed.first + messages,
                }
            }
        }
    }

    pub(super) fn first(&self) -> u64 {
        match self {
            Entry::One(queued) => queued.number,
            Entry::Packed(packed) => packed.first,
        }
    }
}

impl Packed {
    /// Appends short messages that trickle in, so that they share packets: returns the rest.
    pub(super) fn append(&mut self, more: Records) -> Records {
        if more.cost() > PACKET_FILL as u64 / 4 {
            return more;
        }
        let mut rest = Records::default();
        let mut more = more.into_batch();
        while let Some(message) = more.next_ref() {
            if !rest.is_empty() || !self.records.push_bytes(message.kind, message.payload) {
                // They came out of one packet, so they fit into one.
                rest.push_bytes(message.kind, message.payload);
            }
        }
        rest
    }

    /// What is left of a packet that was being cut.
    pub(crate) fn again(mut left: proto::Batch, first: u64) -> Packed {
        let mut records = Records::default();
        while let Some(message) = left.next_ref() {
            // They came out of one packet, so they fit into one.
            records.push_bytes(message.kind, message.payload);
        }
        Packed { records, first }
    }
}

pub(super) fn messages(entries: VecDeque<Entry>) -> Vec<Message> {
    let mut messages = Vec::new();
    for entry in entries {
        match entry {
            Entry::One(queued) => messages.push(queued.message),
            Entry::Packed(packed) => {
                let mut packet = packed.records.into_batch();
                messages.extend(std::iter::from_fn(|| Message::cut(&mut packet)));
            }
        }
    }
    messages
}
