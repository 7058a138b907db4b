//! The items of a queue of received messages.

use std::collections::VecDeque;

use unstall_proto as proto;

use crate::{
    defaults::MESSAGE_OVERHEAD_BYTES,
    messages::{Gap, Incoming, Message, MessageRef, Position, SessionNumber},
};

/// An item in a queue of received messages.
#[derive(Debug)]
pub(crate) enum Item {
    /// A plain message, or a gap.
    One(Incoming),
    /// Many messages, still encoded. The receiver decodes them one by one.
    Packet(Packet),
}

/// Received messages, still encoded, and the session that they belong to.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) batch: proto::Batch,
    session: SessionNumber,
}

impl Packet {
    /// A packet of a session.
    pub(crate) fn new(batch: proto::Batch, session: SessionNumber) -> Packet {
        Packet { batch, session }
    }

    /// Plain messages that were packed on this side.
    pub(crate) fn plain(batch: proto::Batch) -> Packet {
        Packet::new(batch, SessionNumber::PLAIN)
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.session == SessionNumber::PLAIN
    }

    /// What the messages that are not decoded yet cost in a queue.
    pub(crate) fn cost(&self) -> usize {
        self.batch.payload() as usize + self.batch.remaining() as usize * MESSAGE_OVERHEAD_BYTES
    }

    /// Where the last decoded message ends.
    pub(crate) fn position(&self) -> Position {
        Position::new(self.session, self.batch.position())
    }

    /// Where the last message of the packet ends.
    pub(crate) fn end(&self) -> Position {
        Position::new(self.session, self.batch.end())
    }
}

impl Item {
    pub(crate) fn messages(&self) -> u64 {
        match self {
            Item::One(incoming) => u64::from(matches!(incoming, Incoming::Message(_))),
            Item::Packet(packet) => packet.batch.remaining(),
        }
    }

    /// What it costs in a queue.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Item::One(incoming) => incoming.cost(),
            Item::Packet(packet) => packet.cost(),
        }
    }

    /// The bytes of its payloads, without the overhead of a queue.
    pub(crate) fn payload(&self) -> u64 {
        match self {
            Item::One(Incoming::Message(message)) => message.len() as u64,
            Item::One(Incoming::Gap(_)) => 0,
            Item::Packet(packet) => packet.batch.payload(),
        }
    }

    pub(crate) fn as_packet(&self) -> Option<&Packet> {
        match self {
            Item::One(_) => None,
            Item::Packet(packet) => Some(packet),
        }
    }

    /// Whether it belongs to a session, whose peer waits for an acknowledgement.
    pub(crate) fn is_of_session(&self) -> bool {
        self.as_packet().is_some_and(|packet| !packet.is_plain())
    }
}

/// Received messages and gaps in order.
pub(crate) type Items = VecDeque<Item>;

/// Received messages and gaps without packets, for the overflow policies that treat each message by
/// itself.
pub(crate) type Unpacked = VecDeque<Incoming>;

/// Takes all packets apart into their messages.
pub(crate) fn unpacked(items: &mut Items) -> Unpacked {
    let mut unpacked = Unpacked::with_capacity(items.len());
    for item in items.drain(..) {
        match item {
            Item::One(incoming) => unpacked.push_back(incoming),
            Item::Packet(mut packet) => {
                let messages = std::iter::from_fn(|| Message::cut(&mut packet.batch));
                unpacked.extend(messages.map(Incoming::Message));
            }
        }
    }
    unpacked
}

pub(crate) fn count_messages(items: &Items) -> u64 {
    items.iter().map(Item::messages).sum()
}

pub(crate) fn total_cost(items: &Items) -> usize {
    items.iter().map(Item::cost).sum()
}

/// Appends a gap, or joins it with a gap at the back. Returns whether it is an item of its own.
/// Because gaps are joined, they stay few, however much goes missing while nobody reads.
pub(crate) fn push_gap(items: &mut Items, gap: Gap) -> bool {
    if let Some(Item::One(Incoming::Gap(back))) = items.back_mut()
        && back.join(&gap)
    {
        return false;
    }
    items.push_back(Item::One(Incoming::Gap(gap)));
    true
}

/// As [`push_gap`], for unpacked messages.
pub(crate) fn push_gap_unpacked(unpacked: &mut Unpacked, gap: Gap) {
    if let Some(Incoming::Gap(back)) = unpacked.back_mut()
        && back.join(&gap)
    {
        return;
    }
    unpacked.push_back(Incoming::Gap(gap));
}

/// What is passed on message by message.
pub(crate) trait Draw {
    /// The next message or gap. `None` when nothing more is there now.
    fn draw(&mut self) -> Option<Drawn<'_>>;
}

/// The next one to be passed on.
pub(crate) enum Drawn<'b> {
    /// It lies in a packet with others.
    Packed(MessageRef<'b>),
    Own(Incoming),
}

impl Drawn<'_> {
    pub(crate) fn into_incoming(self) -> Incoming {
        match self {
            Drawn::Packed(message) => Incoming::Message(message.to_message()),
            Drawn::Own(incoming) => incoming,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_no_larger_than_its_queue_place_is_charged() {
        assert!(
            2 * size_of::<Item>() <= MESSAGE_OVERHEAD_BYTES,
            "{}",
            size_of::<Item>()
        );
    }
}
