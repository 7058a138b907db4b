//! Received messages on their way to the application: bounded in bytes, moved in batches.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;

use crate::{
    budget::Share,
    defaults::{IDLE_QUEUE_PLACES, MESSAGE_OVERHEAD_BYTES},
    error::ConnectionError,
    message::{Gap, Incoming, Message},
    options::{KeyFn, Options, Overflow},
    stats::QueueStats,
};

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
    queue: VecDeque<Incoming>,
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

impl Taken {
    pub(crate) fn add(&mut self, item: &Incoming) {
        self.bytes += item.cost();
        self.messages += u64::from(is_message(item));
    }
}

fn is_message(item: &Incoming) -> bool {
    matches!(item, Incoming::Message(_))
}

pub(crate) fn count_messages(items: &VecDeque<Incoming>) -> u64 {
    items.iter().filter(|item| is_message(item)).count() as u64
}

/// One task pushes (the pump), one takes (the receiver).
pub(crate) struct Inbox {
    state: Mutex<State>,
    limit: usize,
    overflow: Overflow,
}

impl Inbox {
    pub(crate) fn new(options: &Options) -> Inbox {
        let conflation = match &options.overflow {
            Overflow::Conflate(key) => Some(Conflation::new(key.clone())),
            _ => None,
        };
        Inbox {
            limit: options.inbox_bytes,
            overflow: options.overflow.clone(),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                high_water: 0,
                oldest: None,
                share: Share::of(options.budget.clone()),
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
    pub(crate) fn push(
        &self,
        batch: &mut VecDeque<Incoming>,
        now: Instant,
        cx: &Context<'_>,
    ) -> Pushed {
        let mut pushed = Pushed::default();
        let receiver = {
            let mut state = self.state.lock().unwrap();
            if state.receiver_gone {
                state.appended += count_messages(batch);
                state.discard(batch);
                return pushed;
            }
            while let Some(item) = batch.pop_front() {
                if state.has_room(item.cost(), self.limit) || matches!(item, Incoming::Gap(_)) {
                    state.append(item, now);
                } else if let Some(item) = state.overflow(item, &self.overflow, &mut pushed, now) {
                    batch.push_front(item);
                    break;
                }
            }
            if !batch.is_empty() {
                state.pump = Some(cx.waker().clone());
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
        let room = self.limit.saturating_sub(state.bytes);
        let bytes = state.bytes;
        if (room > 0 && state.share.cover(bytes + 1)) || state.bytes == 0 {
            return room.max(1);
        }
        if self.overflow.conflates() {
            return 1;
        }
        state.pump = Some(cx.waker().clone());
        0
    }

    /// Asks to be woken when there is room for what could not be pushed.
    pub(crate) fn wake_on_room(&self, cx: &Context<'_>) {
        self.state.lock().unwrap().pump = Some(cx.waker().clone());
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
        local: &mut VecDeque<Incoming>,
        taken: &mut Taken,
        cx: &Context<'_>,
    ) -> Poll<Result<(), End>> {
        let (result, pump) = {
            let mut state = self.state.lock().unwrap();
            let pump = state.release(std::mem::take(taken));
            let result = if !state.queue.is_empty() {
                state.hand_over(local, &self.overflow);
                Poll::Ready(Ok(()))
            } else if let Some(end) = &state.end {
                Poll::Ready(Err(end.clone()))
            } else {
                if local.capacity() > IDLE_QUEUE_PLACES {
                    local.shrink_to(IDLE_QUEUE_PLACES);
                    state.queue.shrink_to(IDLE_QUEUE_PLACES);
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
    pub(crate) fn receiver_gone(&self, local: &mut VecDeque<Incoming>) {
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

    /// Moves messages while there is room, whatever the policy; the rest waits.
    pub(crate) fn push_while_room(&self, batch: &mut VecDeque<Incoming>, now: Instant) {
        if batch.is_empty() {
            return;
        }
        let receiver = {
            let mut state = self.state.lock().unwrap();
            if state.receiver_gone {
                state.appended += count_messages(batch);
                state.discard(batch);
                return;
            }
            while let Some(item) = batch.front() {
                if !state.has_room(item.cost(), self.limit) && is_message(item) {
                    break;
                }
                let item = batch.pop_front().expect("it is there");
                state.append(item, now);
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
    pub(crate) fn put_back(&self, mut local: VecDeque<Incoming>) {
        let mut state = self.state.lock().unwrap();
        local.append(&mut state.queue);
        state.queue = local;
    }

    /// Takes everything, for moving it to another inbox.
    pub(crate) fn drain(&self) -> VecDeque<Incoming> {
        let mut state = self.state.lock().unwrap();
        let bytes = state.bytes;
        state.release(Taken { bytes, messages: 0 });
        std::mem::take(&mut state.queue)
    }

    /// Queue depth, and the counts of overflowed and of discarded messages.
    pub(crate) fn stats(&self, now: Instant) -> (QueueStats, u64, u64) {
        let state = self.state.lock().unwrap();
        let queue = QueueStats {
            messages: state.queue.len(),
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

impl State {
    fn has_room(&mut self, cost: usize, limit: usize) -> bool {
        self.bytes == 0 || (self.bytes + cost <= limit && self.share.cover(self.bytes + cost))
    }

    fn discard(&mut self, items: &mut VecDeque<Incoming>) {
        let messages = count_messages(items);
        self.discarded += messages;
        if !self.abandoned {
            self.taken += messages;
        }
        items.clear();
    }

    fn append(&mut self, item: Incoming, now: Instant) {
        if let Some(conflation) = &mut self.conflation {
            conflation.appended(&item);
        } else if let (
            Incoming::Gap(Gap::Reconnected { away: more, .. }),
            Some(Incoming::Gap(Gap::Reconnected { away, .. })),
        ) = (&item, self.queue.back_mut())
        {
            // However often the connection is lost while nobody reads, it is one gap.
            *away += *more;
            return;
        } else if let (
            Incoming::Gap(Gap::SessionLost { why: latest }),
            Some(Incoming::Gap(Gap::SessionLost { why })),
        ) = (&item, self.queue.back_mut())
        {
            *why = latest.clone();
            return;
        }
        if self.queue.is_empty() {
            self.oldest = Some(now);
        }
        self.appended += u64::from(is_message(&item));
        self.bytes += item.cost();
        self.high_water = self.high_water.max(self.bytes);
        self.queue.push_back(item);
    }

    /// Applies the policy to a message that does not fit; gives it back if it must wait.
    fn overflow(
        &mut self,
        item: Incoming,
        policy: &Overflow,
        pushed: &mut Pushed,
        now: Instant,
    ) -> Option<Incoming> {
        let Incoming::Message(message) = item else {
            return Some(item);
        };
        match policy {
            Overflow::Pause | Overflow::Spill(_) => Some(Incoming::Message(message)),
            Overflow::Disconnect => {
                pushed.disconnect = true;
                Some(Incoming::Message(message))
            }
            Overflow::DropNewest => {
                self.mark_dropped_at_back(&message, pushed, now);
                None
            }
            Overflow::DropOldest => {
                let cost = message.cost();
                self.drop_oldest(cost, pushed);
                self.append(Incoming::Message(message), now);
                None
            }
            Overflow::Conflate(_) => {
                let replaced = self.conflation.as_mut().and_then(|conflation| {
                    conflation.replace(&mut self.queue, &mut self.bytes, &message)
                });
                let Some(bytes) = replaced else {
                    return Some(Incoming::Message(message));
                };
                pushed.overflowed += 1;
                pushed.overflowed_bytes += bytes;
                None
            }
        }
    }

    fn mark_dropped_at_back(&mut self, message: &Message, pushed: &mut Pushed, now: Instant) {
        pushed.overflowed += 1;
        pushed.overflowed_bytes += message.len() as u64;
        if let Some(Incoming::Gap(Gap::Dropped { messages, bytes })) = self.queue.back_mut() {
            *messages += 1;
            *bytes += message.len() as u64;
        } else {
            let gap = Gap::Dropped {
                messages: 1,
                bytes: message.len() as u64,
            };
            self.append(Incoming::Gap(gap), now);
        }
    }

    /// Drops messages from the front until `cost` bytes are free, and marks the place. Gaps that
    /// stand there are kept, those of earlier drops are joined.
    fn drop_oldest(&mut self, cost: usize, pushed: &mut Pushed) {
        let (mut messages, mut bytes, mut freed) = (0, 0, 0);
        let mut kept = Vec::new();
        while freed < cost {
            let Some(item) = self.queue.pop_front() else {
                break;
            };
            match item {
                Incoming::Message(message) => {
                    freed += message.cost();
                    pushed.overflowed += 1;
                    pushed.overflowed_bytes += message.len() as u64;
                    messages += 1;
                    self.taken += 1;
                    bytes += message.len() as u64;
                }
                Incoming::Gap(Gap::Dropped {
                    messages: earlier,
                    bytes: earlier_bytes,
                }) => {
                    self.bytes -= MESSAGE_OVERHEAD_BYTES;
                    messages += earlier;
                    bytes += earlier_bytes;
                }
                gap => kept.push(gap),
            }
        }
        self.bytes -= freed;
        kept.into_iter()
            .rev()
            .for_each(|gap| self.queue.push_front(gap));
        if messages > 0 {
            self.bytes += MESSAGE_OVERHEAD_BYTES;
            self.queue
                .push_front(Incoming::Gap(Gap::Dropped { messages, bytes }));
        }
    }

    fn hand_over(&mut self, local: &mut VecDeque<Incoming>, policy: &Overflow) {
        match (&mut self.conflation, policy) {
            (Some(conflation), _) => {
                if let Some(item) = self.queue.pop_front() {
                    if let Some(gap) = conflation.popped(&item) {
                        self.bytes += gap.cost();
                        local.push_back(gap);
                    }
                    local.push_back(item);
                }
            }
            // What may still be dropped for newer data stays where it can be.
            (None, Overflow::DropOldest) => local.extend(self.queue.pop_front()),
            _ => std::mem::swap(&mut self.queue, local),
        }
    }

    fn release(&mut self, taken: Taken) -> Option<Waker> {
        if taken.bytes == 0 {
            return None;
        }
        self.taken += taken.messages;
        self.bytes = self.bytes.saturating_sub(taken.bytes);
        let bytes = self.bytes;
        self.share.relax(bytes);
        self.pump.take()
    }
}

impl Overflow {
    fn conflates(&self) -> bool {
        matches!(self, Overflow::Conflate(_))
    }
}

/// Where in the queue the latest message of each key stands.
struct Conflation {
    key: KeyFn,
    latest: HashMap<Vec<u8>, u64>,
    /// Replaced messages by place: their number and bytes.
    replaced: HashMap<u64, (u64, u64)>,
    /// The place of the queue's front, and of the next append.
    front: u64,
    next: u64,
}

impl Conflation {
    fn new(key: KeyFn) -> Conflation {
        Conflation {
            key,
            latest: HashMap::new(),
            replaced: HashMap::new(),
            front: 0,
            next: 0,
        }
    }

    fn key_of(&self, item: &Incoming) -> Option<Vec<u8>> {
        match item {
            Incoming::Message(message) => (self.key)(message),
            Incoming::Gap(_) => None,
        }
    }

    fn appended(&mut self, item: &Incoming) {
        if let Some(key) = self.key_of(item) {
            self.latest.insert(key, self.next);
        }
        self.next += 1;
    }

    /// Puts the message where the queued one with its key stands; returns the bytes replaced.
    fn replace(
        &mut self,
        queue: &mut VecDeque<Incoming>,
        bytes: &mut usize,
        message: &Message,
    ) -> Option<u64> {
        let place = *self.latest.get(&(self.key)(message)?)?;
        let slot = queue.get_mut((place - self.front) as usize)?;
        let Incoming::Message(old) = slot else {
            return None;
        };
        let old_len = old.len() as u64;
        *bytes = *bytes - old.cost() + message.cost();
        *slot = Incoming::Message(message.clone());
        let replaced = self.replaced.entry(place).or_default();
        replaced.0 += 1;
        replaced.1 += old_len;
        Some(old_len)
    }

    /// The front was popped; returns the gap that stands before it.
    fn popped(&mut self, item: &Incoming) -> Option<Incoming> {
        let place = self.front;
        self.front += 1;
        if let Some(key) = self.key_of(item)
            && self.latest.get(&key) == Some(&place)
        {
            self.latest.remove(&key);
        }
        let (messages, bytes) = self.replaced.remove(&place)?;
        Some(Incoming::Gap(Gap::Conflated { messages, bytes }))
    }
}
