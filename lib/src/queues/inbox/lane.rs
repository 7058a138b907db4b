//! One queue of received messages, charged in bytes.

use std::task::{Context, Waker};

use tokio::time::Instant;
use unstall_proto::util::push_back;

use super::End;
use crate::{
    defaults::{IDLE_QUEUE_PLACES, MESSAGE_OVERHEAD_BYTES},
    messages::{Gap, Incoming, Message, Position},
    queues::items::{Item, Items, count_messages, push_gap, total_cost},
    reports::QueueStats,
    settings::Share,
};

/// One queue of received messages. `limit` in its methods is the bound of the inbox. `keys` are bytes
/// of the inbox that the queue does not hold itself: the keys of conflation.
pub(super) struct Lane {
    pub(super) queue: Items,
    /// Bytes in `queue` and in the receiver's hand.
    pub(super) bytes: usize,
    /// Bytes in the receiver's hand, as it last reported them.
    pub(super) in_hand: usize,
    high_water: usize,
    /// When the first item came into the empty queue.
    oldest: Option<Instant>,
    share: Share,
    pub(super) end: Option<End>,
    pub(super) receiver: Option<Waker>,
}

impl Lane {
    pub(super) fn new(share: Share) -> Lane {
        Lane {
            queue: Items::new(),
            bytes: 0,
            in_hand: 0,
            high_water: 0,
            oldest: None,
            share,
            end: None,
            receiver: None,
        }
    }

    /// Moves items into the queue while there is room. Returns how many new items the queue has.
    pub(super) fn push_while_room(
        &mut self,
        items: &mut Items,
        keys: usize,
        limit: usize,
        now: Instant,
    ) -> usize {
        let mut places = 0;
        while let Some(item) = items.pop_front() {
            match item {
                Item::One(Incoming::Gap(gap)) => places += usize::from(self.append_gap(gap, now)),
                item if self.make_room(item.cost(), keys, limit) => {
                    self.append(item, now);
                    places += 1;
                }
                item => {
                    items.push_front(item);
                    break;
                }
            }
        }
        places
    }

    /// How many more bytes may come. An empty queue always has room.
    pub(super) fn room(&mut self, limit: usize, keys: usize) -> usize {
        let used = self.bytes + keys;
        let room = limit.saturating_sub(used);
        match self.bytes == 0 || (room > 0 && self.share.cover(used + 1)) {
            true => room.max(1),
            false => 0,
        }
    }

    /// Draws the budget for `cost` more bytes, if they fit. An empty queue takes a message of any
    /// size.
    pub(super) fn make_room(&mut self, cost: usize, keys: usize, limit: usize) -> bool {
        let used = self.bytes + keys + cost;
        if self.bytes == 0 {
            self.share.cover_anyway(used);
            return true;
        }
        used <= limit && self.share.cover(used)
    }

    pub(super) fn append(&mut self, item: Item, now: Instant) {
        let cost = item.cost();
        push_back(&mut self.queue, item);
        self.charge(cost, now);
    }

    /// Appends a gap, however full the queue is. Returns whether it is an item of its own.
    pub(super) fn append_gap(&mut self, gap: Gap, now: Instant) -> bool {
        let own = push_gap(&mut self.queue, gap);
        if own {
            self.charge(MESSAGE_OVERHEAD_BYTES, now);
        }
        own
    }

    /// Charges a gap that goes straight to the receiver.
    pub(super) fn charge_gap(&mut self) {
        self.bytes += MESSAGE_OVERHEAD_BYTES;
    }

    /// Charges an item that was appended.
    fn charge(&mut self, cost: usize, now: Instant) {
        if self.queue.len() == 1 {
            self.oldest = Some(now);
        }
        self.bytes += cost;
        self.high_water = self.high_water.max(self.bytes);
    }

    /// Charges a message of `after` bytes in place of one of `before` bytes. `false`: it does not
    /// fit.
    pub(super) fn recharge(
        &mut self,
        before: usize,
        after: usize,
        keys: usize,
        limit: usize,
    ) -> bool {
        let bytes = self.bytes - before + after;
        if after > before && (bytes + keys > limit || !self.share.cover(bytes + keys)) {
            return false;
        }
        self.bytes = bytes;
        self.high_water = self.high_water.max(bytes);
        true
    }

    /// Sets the queue anew and counts its bytes. The receiver's hand is empty.
    pub(super) fn restore(&mut self, queue: Items) {
        self.queue = queue;
        self.in_hand = 0;
        self.bytes = total_cost(&self.queue);
        self.share.relax(self.bytes);
    }

    /// `in_hand` bytes are left in the receiver's hand. Returns whether that made room.
    pub(super) fn report(&mut self, in_hand: usize, keys: usize) -> bool {
        let freed = self.in_hand.saturating_sub(in_hand);
        self.in_hand -= freed;
        self.bytes -= freed;
        if freed > 0 {
            self.share.relax(self.bytes + keys);
        }
        freed > 0
    }

    /// The next message for the hook, and where it ends. Gaps are skipped.
    pub(super) fn next_message(&mut self) -> Option<(Message, Position)> {
        loop {
            match self.queue.pop_front()? {
                Item::One(incoming) => {
                    self.take_off(incoming.cost());
                    if let Incoming::Message(message) = incoming {
                        return Some((message, Position::START));
                    }
                }
                Item::Packet(mut packet) => {
                    let before = packet.cost();
                    let message = Message::cut(&mut packet.batch);
                    let (position, after) = (packet.position(), packet.cost());
                    self.take_off(before - after);
                    if !packet.batch.is_finished() {
                        self.queue.push_front(Item::Packet(packet));
                    }
                    return Some((message?, position));
                }
            }
        }
    }

    fn take_off(&mut self, cost: usize) {
        self.bytes -= cost;
        self.share.relax(self.bytes);
    }

    /// Wakes the task when the budget has the bytes that it last refused.
    pub(super) fn wake_on_budget(&mut self, cx: &Context<'_>) {
        if self.share.poll_refused(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Gives the budget back what the queue does not need, and frees it if it is empty.
    pub(super) fn settle(&mut self, keys: usize) {
        self.share.settle(self.bytes + keys);
        if self.queue.is_empty() {
            self.queue = Items::new();
        }
    }

    pub(super) fn receiver_to_wake(&mut self) -> Option<Waker> {
        match self.queue.is_empty() {
            true => None,
            false => self.receiver.take(),
        }
    }

    pub(super) fn stats(&self, limit: usize, now: Instant) -> QueueStats {
        QueueStats {
            messages: count_messages(&self.queue) as usize,
            bytes: self.bytes,
            high_water: self.high_water,
            limit,
            oldest: self
                .oldest
                .filter(|_| !self.queue.is_empty())
                .map(|since| now.saturating_duration_since(since)),
        }
    }

    /// The queue and `hand` are empty: frees memory that they grew by.
    pub(super) fn shrink(&mut self, hand: &mut Items) {
        for queue in [&mut self.queue, hand] {
            if queue.capacity() > IDLE_QUEUE_PLACES {
                queue.shrink_to(IDLE_QUEUE_PLACES);
            }
        }
    }
}
