//! What stands in a queue of received messages.

use std::collections::VecDeque;

use unstall_proto as proto;

use crate::{
    defaults::MESSAGE_OVERHEAD_BYTES,
    messages::{Gap, Incoming, Message},
};

/// What has a place in a queue of received messages.
#[derive(Debug)]
pub(crate) enum Item {
    One(Incoming),
    /// Many messages, still encoded: the receiver cuts them.
    Packet(proto::Batch),
}

impl Item {
    pub(crate) fn messages(&self) -> u64 {
        match self {
            Item::One(incoming) => u64::from(matches!(incoming, Incoming::Message(_))),
            Item::Packet(packet) => packet.remaining(),
        }
    }

    /// What it costs in a queue.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Item::One(incoming) => incoming.cost(),
            Item::Packet(packet) => packet_cost(packet),
        }
    }

    /// The bytes of its payloads.
    pub(crate) fn payload(&self) -> u64 {
        match self {
            Item::One(Incoming::Message(message)) => message.len() as u64,
            Item::One(Incoming::Gap(_)) => 0,
            Item::Packet(packet) => packet.payload(),
        }
    }
}

/// What the messages cost that are left of a packet.
pub(crate) fn packet_cost(packet: &proto::Batch) -> usize {
    packet.payload() as usize + packet.remaining() as usize * MESSAGE_OVERHEAD_BYTES
}

/// Received messages and gaps in order.
pub(crate) type Items = VecDeque<Item>;

/// The same one by one, for the policies that look at each.
pub(crate) type Batch = VecDeque<Incoming>;

pub(crate) fn unpacked(items: &mut Items) -> Batch {
    let mut batch = Batch::with_capacity(items.len());
    for item in items.drain(..) {
        match item {
            Item::One(incoming) => batch.push_back(incoming),
            Item::Packet(mut packet) => {
                let messages = std::iter::from_fn(|| Message::cut(&mut packet));
                batch.extend(messages.map(Incoming::Message));
            }
        }
    }
    batch
}

pub(crate) fn count_messages(items: &Items) -> u64 {
    items.iter().map(Item::messages).sum()
}

/// [`push_gap`] among items.
pub(crate) fn push_gap_item(items: &mut Items, gap: Gap) -> bool {
    if let Some(Item::One(Incoming::Gap(back))) = items.back_mut()
        && back.join(&gap)
    {
        return false;
    }
    items.push_back(Item::One(Incoming::Gap(gap)));
    true
}

/// Puts a gap at the back; `true` if it took a place of its own. However much goes missing while
/// nobody reads, what stands for it stays small.
pub(crate) fn push_gap(batch: &mut Batch, gap: Gap) -> bool {
    if let Some(Incoming::Gap(back)) = batch.back_mut()
        && back.join(&gap)
    {
        return false;
    }
    batch.push_back(Incoming::Gap(gap));
    true
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
