//! Received messages on their way to the application: bounded in bytes, moved in batches.

mod conflation;
mod marks;

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;

use crate::{
    defaults::{IDLE_QUEUE_PLACES, MESSAGE_OVERHEAD_BYTES},
    messages::{Gap, Incoming, Message},
    queues::{
        items::{Batch, Item, Items, count_messages, push_gap_item},
        queue,
    },
    reports::{ConnectionError, QueueStats},
    settings::{Account, Options, Overflow, Share},
};
use conflation::{Conflation, Key, key_cost};
use marks::Marks;

/// How the stream ended: `None` after a normal close.
pub(crate) type End = Option<Arc<ConnectionError>>;

/// What a policy did with a batch that did not fit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Messages dropped or replaced, and their payloads' bytes.
    pub(crate) overflowed: u64,
    pub(crate) overflowed_bytes: u64,
    /// The `Disconnect` policy asks to end the connection.
    pub(crate) disconnect: bool,
}

struct State {
    queue: Items,
    /// Bytes in `queue` and in the receiver's hands that it has not reported as taken.
    bytes: usize,
    high_water: usize,
    /// When `queue` last ceased to be empty.
    oldest: Option<Instant>,
    share: Share,
    conflation: Option<Conflation>,
    overflowed: u64,
    discarded: u64,
    receiver_gone: bool,
    /// The application as a whole is gone: what it has not taken counts as that.
    abandoned: bool,
    /// Messages that the application has taken, or does not want.
    taken: u64,
    /// Messages ever queued: what `taken` will be once the application has all of them.
    appended: u64,
    end: Option<End>,
    receiver: Option<Waker>,
    pump: Option<Waker>,
}

/// What the receiver has handed to the application and not reported yet.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    pub(crate) messages: u64,
}

/// One task pushes (the pump), one takes (the receiver).
pub(crate) struct Inbox {
    state: Mutex<State>,
    limit: usize,
    overflow: Overflow,
}

impl Inbox {
    pub(crate) fn new(options: &Options, account: &Account) -> Inbox {
        let conflation = match &options.overflow {
            Overflow::Conflate(_) => Some(Conflation::default()),
            _ => None,
        };
        Inbox {
            limit: options.inbox_bytes,
            overflow: options.overflow.clone(),
            state: Mutex::new(State {
                queue: Items::new(),
                bytes: 0,
                high_water: 0,
                oldest: None,
                share: account.lasting_share(),
                conflation,
                overflowed: 0,
                discarded: 0,
                receiver_gone: false,
                abandoned: false,
                taken: 0,
                appended: 0,
                end: None,
                receiver: None,
                pump: None,
            }),
        }
    }

    /// Moves as much of the batch as the policy allows, and wakes the receiver. If something is
    /// left, the pump is woken when there is room.
    pub(crate) fn push(&self, batch: &mut Batch, now: Instant, cx: &Context<'_>) -> Pushed {
        let mut pushed = Pushed::default();
        // The application's function: outside the lock, for it may use the connection, or panic.
        let mut keys = self.keys(batch).into_iter();
        let receiver = {
            let mut state = self.state.lock().unwrap();
            if state.receiver_gone {
                let mut items = batch.drain(..).map(Item::One).collect();
                state.appended += count_messages(&items);
                state.discard(&mut items);
                return pushed;
            }
            while let Some(item) = batch.pop_front() {
                let key = keys.next().flatten();
                let message = match item {
                    Incoming::Gap(gap) => {
                        state.append_gap(gap, now);
                        continue;
                    }
                    Incoming::Message(message) => message,
                };
                if state.make_room(message.cost() + key_cost(&key), self.limit_of_appends()) {
                    state.append(message, key, now);
                } else if let Some(message) =
                    self.overflow(&mut state, message, key, &mut pushed, now)
                {
                    batch.push_front(Incoming::Message(message));
                    break;
                }
            }
            if !batch.is_empty() {
                state.wake_on_room(cx);
            }
            state.overflowed += pushed.overflowed;
            if state.queue.is_empty() {
                None
            } else {
                state.receiver.take()
            }
        };
        receiver.into_iter().for_each(Waker::wake);
        pushed
    }

    /// What conflation goes by; nothing for other policies.
    fn keys(&self, batch: &Batch) -> Vec<Option<Key>> {
        let Overflow::Conflate(key) = &self.overflow else {
            return Vec::new();
        };
        let keys = batch.iter().map(|item| match item {
            Incoming::Message(message) => key(message).map(Key::from),
            Incoming::Gap(_) => None,
        });
        keys.collect()
    }

    /// Under `Conflate` a quarter is left for values that replace shorter ones.
    fn limit_of_appends(&self) -> usize {
        match self.overflow {
            Overflow::Conflate(_) => self.limit - self.limit / 4,
            _ => self.limit,
        }
    }

    /// Applies the policy to a message that does not fit; gives it back if it must wait.
    fn overflow(
        &self,
        state: &mut State,
        message: Message,
        key: Option<Key>,
        pushed: &mut Pushed,
        now: Instant,
    ) -> Option<Message> {
        match &self.overflow {
            Overflow::Pause | Overflow::Spill(_) => return Some(message),
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
                let replaced = key.and_then(|key| state.replace(&key, &message, self.limit));
                let Some(bytes) = replaced else {
                    return Some(message);
                };
                pushed.count(1, bytes);
            }
        }
        None
    }

    /// Messages dropped on their way here, by the fallback of a spill file.
    pub(crate) fn count_overflowed(&self, messages: u64) {
        self.state.lock().unwrap().overflowed += messages;
    }

    /// How many bytes may be read now. Zero: reading pauses, and the pump is woken when there is
    /// room. Policies that make room themselves always have some.
    pub(crate) fn room(&self, cx: &Context<'_>) -> usize {
        let mut state = self.state.lock().unwrap();
        let makes_room = matches!(
            self.overflow,
            Overflow::DropOldest | Overflow::DropNewest | Overflow::Disconnect
        );
        if state.receiver_gone || makes_room {
            return usize::MAX;
        }
        let used = state.used();
        let room = self.limit_of_appends().saturating_sub(used);
        if state.bytes == 0 || (room > 0 && state.share.cover(used + 1)) {
            return room.max(1);
        }
        if matches!(self.overflow, Overflow::Conflate(_)) {
            return 1;
        }
        state.wake_on_room(cx);
        0
    }

    /// Asks to be woken when there is room for what could not be pushed.
    pub(crate) fn wake_on_room(&self, cx: &Context<'_>) {
        self.state.lock().unwrap().wake_on_room(cx);
    }

    /// Gives back memory that was kept for what comes next, and what is drawn of the budget for it.
    pub(crate) fn shrink(&self) {
        let mut state = self.state.lock().unwrap();
        let used = state.used();
        state.share.settle(used);
    }

    /// The end of the stream, after what is queued. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        let receiver = {
            let mut state = self.state.lock().unwrap();
            state.end.get_or_insert(end);
            state.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
    }

    /// Moves what is queued into `local`, which is empty. `taken` bytes of what was moved before
    /// have been consumed since.
    pub(crate) fn take(
        &self,
        local: &mut Items,
        taken: &mut Taken,
        cx: &Context<'_>,
    ) -> Poll<Result<(), End>> {
        let (result, pump) = {
            let mut state = self.state.lock().unwrap();
            let pump = state.release(std::mem::take(taken));
            let result = if !state.queue.is_empty() {
                state.hand_over(local, matches!(self.overflow, Overflow::DropOldest));
                Poll::Ready(Ok(()))
            } else if let Some(end) = &state.end {
                Poll::Ready(Err(end.clone()))
            } else {
                state.shrink();
                if local.capacity() > IDLE_QUEUE_PLACES {
                    local.shrink_to(IDLE_QUEUE_PLACES);
                }
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            };
            (result, pump)
        };
        pump.into_iter().for_each(Waker::wake);
        result
    }

    /// Reports bytes as consumed between two takes, so that reading goes on meanwhile.
    pub(crate) fn release(&self, taken: &mut Taken) {
        let pump = self.state.lock().unwrap().release(std::mem::take(taken));
        pump.into_iter().for_each(Waker::wake);
    }

    /// After how many consumed bytes the receiver should report them.
    pub(crate) fn release_step(&self) -> usize {
        self.limit / 8
    }

    /// The receiver was dropped, with what it had not handed out: from now on what arrives is
    /// counted and discarded.
    pub(crate) fn receiver_gone(&self, local: &mut Items) {
        let pump = {
            let mut state = self.state.lock().unwrap();
            state.receiver_gone = true;
            state.discard(local);
            let mut queue = std::mem::take(&mut state.queue);
            state.discard(&mut queue);
            let bytes = state.bytes;
            state.release(Taken { bytes, messages: 0 });
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
    }

    /// The application as a whole is gone.
    pub(crate) fn abandon(&self) {
        self.state.lock().unwrap().abandoned = true;
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.state.lock().unwrap().abandoned
    }

    /// How many messages the application has taken, or does not want, in all.
    pub(crate) fn taken_messages(&self) -> u64 {
        self.state.lock().unwrap().taken
    }

    /// What [`taken_messages`](Self::taken_messages) will be once everything in here is taken.
    pub(crate) fn end_of_queue(&self) -> i64 {
        self.state.lock().unwrap().appended as i64
    }

    /// Moves items while there is room, whatever the policy; the rest waits.
    pub(crate) fn push_while_room(&self, items: &mut Items, now: Instant) {
        if items.is_empty() {
            return;
        }
        let receiver = {
            let mut state = self.state.lock().unwrap();
            if state.receiver_gone {
                state.appended += count_messages(items);
                state.discard(items);
                return;
            }
            while let Some(item) = items.pop_front() {
                match item {
                    Item::One(Incoming::Gap(gap)) => state.append_gap(gap, now),
                    item if state.make_room(item.cost(), self.limit) => {
                        state.append_item(item, None, now);
                    }
                    item => {
                        items.push_front(item);
                        break;
                    }
                }
            }
            if state.queue.is_empty() {
                None
            } else {
                state.receiver.take()
            }
        };
        receiver.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_receiver_gone(&self) -> bool {
        self.state.lock().unwrap().receiver_gone
    }

    /// Puts back, before everything else, what was taken and not handed out.
    pub(crate) fn put_back(&self, mut local: Items) {
        let mut state = self.state.lock().unwrap();
        local.append(&mut state.queue);
        state.queue = local;
    }

    /// Takes everything, for moving it to another inbox.
    pub(crate) fn drain(&self) -> Items {
        let mut state = self.state.lock().unwrap();
        let bytes = state.bytes;
        state.release(Taken { bytes, messages: 0 });
        std::mem::take(&mut state.queue)
    }

    /// Queue depth, and the counts of overflowed and of discarded messages.
    pub(crate) fn stats(&self, now: Instant) -> (QueueStats, u64, u64) {
        let state = self.state.lock().unwrap();
        let queue = QueueStats {
            messages: count_messages(&state.queue) as usize,
            bytes: state.bytes,
            high_water: state.high_water,
            limit: self.limit,
            oldest: state
                .oldest
                .filter(|_| !state.queue.is_empty())
                .map(|since| now.saturating_duration_since(since)),
        };
        (queue, state.overflowed, state.discarded)
    }
}

impl Pushed {
    fn count(&mut self, messages: u64, bytes: u64) {
        self.overflowed += messages;
        self.overflowed_bytes += bytes;
    }
}

impl State {
    /// Bytes held, with the keys of conflation.
    fn used(&self) -> usize {
        self.bytes + self.conflation.as_ref().map_or(0, |it| it.bytes)
    }

    /// Wakes the pump when something is taken, and when the budget has what it last refused.
    fn wake_on_room(&mut self, cx: &Context<'_>) {
        self.pump = Some(cx.waker().clone());
        if self.share.poll_refused(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn discard(&mut self, items: &mut Items) {
        let messages = count_messages(items);
        self.discarded += messages;
        if !self.abandoned {
            self.taken += messages;
        }
        items.clear();
    }

    /// Whether so much more fits. One message always does.
    fn make_room(&mut self, cost: usize, limit: usize) -> bool {
        let used = self.used() + cost;
        if self.bytes == 0 {
            self.share.cover_anyway(used);
            return true;
        }
        used <= limit && self.share.cover(used)
    }

    fn append(&mut self, message: Message, key: Option<Key>, now: Instant) {
        self.append_item(Item::One(Incoming::Message(message)), key, now);
    }

    fn append_item(&mut self, item: Item, key: Option<Key>, now: Instant) {
        let cost = item.cost();
        self.appended += item.messages();
        queue::push(&mut self.queue, item);
        self.charge(cost, now);
        if let Some(conflation) = &mut self.conflation {
            conflation.appended(key);
        }
    }

    /// A gap has its place, however full it is.
    fn append_gap(&mut self, gap: Gap, now: Instant) {
        if push_gap_item(&mut self.queue, gap) {
            self.charge(MESSAGE_OVERHEAD_BYTES, now);
            if let Some(conflation) = &mut self.conflation {
                conflation.appended(None);
            }
        }
    }

    /// Something took a place at the back.
    fn charge(&mut self, cost: usize, now: Instant) {
        if self.queue.len() == 1 {
            self.oldest = Some(now);
        }
        self.bytes += cost;
        self.high_water = self.high_water.max(self.bytes);
    }

    /// Drops messages from the front until `cost` bytes are free, and marks the place: what was
    /// dropped before a reconnect, the reconnect, what was dropped after it. Returns how many
    /// messages and bytes.
    fn drop_oldest(&mut self, cost: usize) -> (u64, u64) {
        let mut marks = Marks::default();
        let (mut messages, mut bytes, mut freed) = (0, 0, 0);
        while freed < cost {
            match self.queue.pop_front() {
                Some(Item::One(Incoming::Gap(gap))) => {
                    self.bytes -= MESSAGE_OVERHEAD_BYTES;
                    marks.join(gap);
                }
                Some(item) => {
                    freed += item.cost();
                    messages += item.messages();
                    self.taken += item.messages();
                    bytes += item.payload();
                    marks.dropped(item.messages(), item.payload());
                }
                None => break,
            }
        }
        let mut marks = marks.into_items();
        self.bytes = self.bytes - freed + marks.len() * MESSAGE_OVERHEAD_BYTES;
        marks.append(&mut self.queue);
        self.queue = marks;
        (messages, bytes)
    }

    /// Puts the message where the queued one with its key stands, if it fits there; returns the
    /// bytes replaced.
    fn replace(&mut self, key: &Key, message: &Message, limit: usize) -> Option<u64> {
        let used = self.used();
        let conflation = self.conflation.as_mut()?;
        let index = conflation.index_of(key)?;
        let Some(Item::One(Incoming::Message(old))) = self.queue.get_mut(index) else {
            return None;
        };
        let after = used - old.cost() + message.cost();
        if after > used && (after > limit || !self.share.cover(after)) {
            return None;
        }
        let len = old.len() as u64;
        self.bytes = self.bytes - old.cost() + message.cost();
        self.high_water = self.high_water.max(self.bytes);
        *old = message.clone();
        conflation.places[index].replaced(len);
        Some(len)
    }

    /// Moves what is queued to the receiver. What may still be dropped or replaced by newer data
    /// stays where it can be, but for the first.
    fn hand_over(&mut self, local: &mut Items, one_by_one: bool) {
        if let Some(conflation) = &mut self.conflation {
            if let Some(gap) = conflation.popped() {
                self.bytes += MESSAGE_OVERHEAD_BYTES;
                local.push_back(Item::One(Incoming::Gap(gap)));
            }
            local.extend(self.queue.pop_front());
        } else if one_by_one {
            local.extend(self.queue.pop_front());
        } else {
            std::mem::swap(&mut self.queue, local);
        }
    }

    fn release(&mut self, taken: Taken) -> Option<Waker> {
        if taken.bytes == 0 {
            return None;
        }
        self.taken += taken.messages;
        self.bytes = self.bytes.saturating_sub(taken.bytes);
        let used = self.used();
        self.share.relax(used);
        self.pump.take()
    }

    /// Empty, it gives back the memory that it grew by.
    fn shrink(&mut self) {
        if self.queue.capacity() > IDLE_QUEUE_PLACES {
            self.queue.shrink_to(IDLE_QUEUE_PLACES);
        }
        if let Some(conflation) = &mut self.conflation
            && conflation.places.capacity() > IDLE_QUEUE_PLACES
        {
            *conflation = Conflation {
                front: conflation.front,
                ..Conflation::default()
            };
        }
    }
}
