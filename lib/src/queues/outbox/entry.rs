//! The entries of the outbox, and the record of what the pump has done with them.

use std::collections::VecDeque;

use tokio::time::Instant;
use unstall_proto::{
    self as proto, Records,
    limits::{PACKET_FILL, RECORD_OVERHEAD},
};

use crate::{defaults::MESSAGE_OVERHEAD_BYTES, messages::Message};

/// An entry of the outbox.
#[derive(Debug)]
pub(crate) enum Entry {
    One(Queued),
    Packed(Packed),
}

/// How a message is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// When its time to live is over. It is not sent after that.
    pub(crate) expires: Option<Instant>,
    /// A plain connection sends it without compression.
    pub(crate) uncompressed: bool,
}

/// A message with an entry of its own: a long one, or one that is to be sent in another manner than
/// usual.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    /// Its number among all messages ever accepted, from 0.
    pub(super) number: u64,
    pub(crate) manner: Manner,
}

/// Short messages in a row, encoded when they were sent.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) records: Records,
    /// The number of the first one among all messages ever accepted, from 0.
    pub(crate) first: u64,
}

/// Messages that the pump has taken and finished: they are on the socket, or expired unsent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(super) messages: usize,
    /// Bytes of the outbox that come free.
    pub(super) cost: usize,
    /// Every message with a lower number is finished.
    pub(super) upto: u64,
}

impl Done {
    pub(crate) fn is_nothing(&self) -> bool {
        self.messages == 0
    }

    pub(crate) fn upto(&self) -> u64 {
        self.upto
    }

    pub(crate) fn add(&mut self, more: Done) {
        self.messages += more.messages;
        self.cost += more.cost;
        self.upto = more.upto;
    }

    /// Adds one message of a packet.
    pub(crate) fn add_cut(&mut self, payload: usize, number: u64) {
        self.messages += 1;
        self.cost += payload + MESSAGE_OVERHEAD_BYTES;
        self.upto = number + 1;
    }
}

impl Entry {
    /// What finishing this entry adds.
    pub(crate) fn done(&self) -> Done {
        match self {
            Entry::One(queued) => Done {
                messages: 1,
                cost: queued.message.cost(),
                upto: queued.number + 1,
            },
            Entry::Packed(packed) => packed.done(),
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
    /// The bytes of its payloads.
    pub(crate) fn payload(&self) -> u64 {
        self.records.cost() - self.records.messages() * RECORD_OVERHEAD
    }

    /// What finishing it adds.
    pub(crate) fn done(&self) -> Done {
        let messages = self.records.messages();
        Done {
            messages: messages as usize,
            cost: self.payload() as usize + messages as usize * MESSAGE_OVERHEAD_BYTES,
            upto: self.first + messages,
        }
    }

    /// Appends the messages of a packet that is at most a quarter full, so that small packets merge
    /// into full ones. Returns the messages that did not fit.
    pub(super) fn append(&mut self, more: Records) -> Records {
        if more.cost() > PACKET_FILL as u64 / 4 {
            return more;
        }
        let mut rest = Records::default();
        let mut more = more.into_batch();
        while let Some(message) = more.next_ref() {
            if !rest.is_empty() || !self.records.push_bytes(message.kind, message.payload) {
                // This cannot fail: the messages came out of one packet.
                rest.push_bytes(message.kind, message.payload);
            }
        }
        rest
    }

    /// Packs the rest of a packet again, of which some messages were written.
    pub(crate) fn again(mut left: proto::Batch, first: u64) -> Packed {
        let mut records = Records::default();
        while let Some(message) = left.next_ref() {
            // This cannot fail: the messages came out of one packet.
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
