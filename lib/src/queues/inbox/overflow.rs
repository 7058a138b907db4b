//! The overflow policies: what happens to a message for which the inbox has no room.

use std::task::{Context, Waker};

use tokio::time::Instant;

use super::{
    Inbox, InboxState, Reader,
    conflation::{Key, key_cost},
    marks::Marks,
};
use crate::{
    defaults::MESSAGE_OVERHEAD_BYTES,
    messages::{Gap, Incoming, Message},
    queues::items::{Item, Items, Unpacked},
    settings::Overflow,
};

/// What a policy did with messages that did not fit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Messages that were dropped or replaced.
    pub(crate) overflowed: u64,
    /// The bytes of their payloads.
    pub(crate) overflowed_bytes: u64,
    /// The `Disconnect` policy wants the connection to end.
    pub(crate) disconnect: bool,
}

impl Inbox {
    /// Moves as many messages into the queue as the policy allows, and wakes the receiver. If
    /// messages are left, the pump is woken when there is room.
    pub(crate) fn push(&self, messages: &mut Unpacked, now: Instant, cx: &Context<'_>) -> Pushed {
        let mut pushed = Pushed::default();
        // The user's function runs outside the lock, because it may use the connection or panic.
        let mut keys = self.keys(messages).into_iter();
        let receiver = {
            let mut state = self.lock();
            if state.reader != Reader::Present {
                let mut items: Items = messages.drain(..).map(Item::One).collect();
                state.discard_unwanted(&mut items, now);
                return pushed;
            }
            while let Some(incoming) = messages.pop_front() {
                let key = keys.next().flatten();
                let message = match incoming {
                    Incoming::Gap(gap) => {
                        state.append_gap(gap, now);
                        continue;
                    }
                    Incoming::Message(message) => message,
                };
                let keys = state.key_bytes() + key_cost(&key);
                let limit = self.limit_of_appends();
                if state.main.make_room(message.cost(), keys, limit) {
                    state.append(message, key, now);
                } else if let Some(message) =
                    self.overflow(&mut state, message, key, &mut pushed, now)
                {
                    messages.push_front(Incoming::Message(message));
                    break;
                }
            }
            if !messages.is_empty() {
                state.wake_on_room(cx);
            }
            state.overflowed += pushed.overflowed;
            state.main.receiver_to_wake()
        };
        receiver.into_iter().for_each(Waker::wake);
        pushed
    }

    /// The key of each message under `Conflate`. Empty for other policies.
    fn keys(&self, messages: &Unpacked) -> Vec<Option<Key>> {
        let Overflow::Conflate(key) = &self.options.overflow else {
            return Vec::new();
        };
        let keys = messages.iter().map(|incoming| match incoming {
            Incoming::Message(message) => key(message).map(Key::from),
            Incoming::Gap(_) => None,
        });
        keys.collect()
    }

    /// How full the queue may be for a new message to be appended. Under `Conflate` a quarter is left
    /// for messages that replace shorter ones.
    pub(super) fn limit_of_appends(&self) -> usize {
        let limit = self.options.inbox_bytes;
        match self.options.overflow {
            Overflow::Conflate(_) => limit - limit / 4,
            _ => limit,
        }
    }

    /// Applies the policy to a message that does not fit. Returns the message if it must wait.
    fn overflow(
        &self,
        state: &mut InboxState,
        message: Message,
        key: Option<Key>,
        pushed: &mut Pushed,
        now: Instant,
    ) -> Option<Message> {
        match &self.options.overflow {
            Overflow::Pause => return Some(message),
            #[cfg(feature = "spill")]
            Overflow::Spill(_) => return Some(message),
            Overflow::Disconnect => {
                pushed.disconnect = true;
                return Some(message);
            }
            Overflow::DropNewest => {
                let (messages, bytes) = (1, message.len() as u64);
                pushed.count(messages, bytes);
                state.append_gap(Gap::Dropped { messages, bytes }, now);
            }
            Overflow::DropOldest => {
                let dropped = state.drop_oldest(message.cost());
                pushed.count(dropped.0, dropped.1);
                state.append(message, key, now);
            }
            Overflow::Conflate(_) => {
                let limit = self.options.inbox_bytes;
                let replaced = key.and_then(|key| state.replace(&key, &message, limit));
                let Some(bytes) = replaced else {
                    return Some(message);
                };
                pushed.count(1, bytes);
            }
        }
        None
    }

    /// Counts messages that the spill file lost, or that its fallback dropped.
    pub(crate) fn count_overflowed(&self, messages: u64) {
        self.lock().overflowed += messages;
    }
}

impl Pushed {
    fn count(&mut self, messages: u64, bytes: u64) {
        self.overflowed += messages;
        self.overflowed_bytes += bytes;
    }
}

impl InboxState {
    fn append(&mut self, message: Message, key: Option<Key>, now: Instant) {
        let item = Item::One(Incoming::Message(message));
        self.main.append(item, now);
        if let Some(conflation) = &mut self.conflation {
            conflation.appended(key);
        }
    }

    fn append_gap(&mut self, gap: Gap, now: Instant) {
        if self.main.append_gap(gap, now)
            && let Some(conflation) = &mut self.conflation
        {
            conflation.appended(None);
        }
    }

    /// Drops messages from the front until `cost` bytes are free, and marks them by gaps. Returns how
    /// many messages and bytes were dropped.
    fn drop_oldest(&mut self, cost: usize) -> (u64, u64) {
        let mut marks = Marks::default();
        let (mut messages, mut bytes, mut freed) = (0, 0, 0);
        let lane = &mut self.main;
        while freed < cost {
            match lane.queue.pop_front() {
                Some(Item::One(Incoming::Gap(gap))) => {
                    lane.bytes -= MESSAGE_OVERHEAD_BYTES;
                    marks.join(gap);
                }
                Some(item) => {
                    freed += item.cost();
                    messages += item.messages();
                    bytes += item.payload();
                    marks.dropped(item.messages(), item.payload());
                    if let Some(packet) = item.as_packet() {
                        self.taken = self.taken.max(packet.end());
                    }
                }
                None => break,
            }
        }
        let mut marks = marks.into_items();
        lane.bytes = lane.bytes - freed + marks.len() * MESSAGE_OVERHEAD_BYTES;
        marks.append(&mut lane.queue);
        lane.queue = marks;
        (messages, bytes)
    }

    /// Replaces the queued message with the same key, if the new one fits. Returns the payload bytes
    /// that were replaced.
    fn replace(&mut self, key: &Key, message: &Message, limit: usize) -> Option<u64> {
        let keys = self.key_bytes();
        let conflation = self.conflation.as_mut()?;
        let index = conflation.index_of(key)?;
        let Some(Item::One(Incoming::Message(old))) = self.main.queue.get(index) else {
            return None;
        };
        let (before, len) = (old.cost(), old.len() as u64);
        if !self.main.recharge(before, message.cost(), keys, limit) {
            return None;
        }
        self.main.queue[index] = Item::One(Incoming::Message(message.clone()));
        conflation.slots[index].replaced(len);
        Some(len)
    }
}
