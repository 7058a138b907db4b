//! One queue of sent messages, charged in bytes.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use unstall_proto::{Kind, Records, limits::PACKET_FILL};

use super::{Done, Entry, Packed, Queued, refused};
use crate::{
    defaults::{BUDGET_FLOOR_BYTES, IDLE_QUEUE_PLACES, MESSAGE_OVERHEAD_BYTES, PACKED_BYTES},
    messages::{Message, TrySendError},
    queues::queue,
    reports::{ConnectionError, QueueStats},
    settings::Share,
    time::later,
};

/// One queue of sent messages, and how far they have come. Messages are numbered from 0.
pub(super) struct Lane {
    queue: VecDeque<Entry>,
    /// Bytes in `queue` and in the pump's hands that are not yet on the socket, and reserved ones.
    pub(super) bytes: usize,
    high_water: usize,
    /// When the first message of `queue` came, and the first of those in the pump's hands.
    oldest: Option<Instant>,
    oldest_taken: Option<Instant>,
    share: Share,
    numbers: Numbers,
    /// Messages in `queue` and in the pump's hands.
    waiting: usize,
    expired: u64,
    /// Whether any message ever had a time to live.
    expiring: bool,
    pub(super) ended: Option<Arc<ConnectionError>>,
}

/// How far the messages have come. Invariant: `settled` ≤ `accepted`, `taken` ≤ `accepted`.
#[derive(Default)]
struct Numbers {
    /// Messages ever accepted.
    accepted: u64,
    /// Every message with a lower number was handed to the pump, or is done with.
    taken: u64,
    /// Every message with a lower number is done with.
    settled: u64,
    /// `flush` waits for this number; packing must not hold back what is before it.
    flush_to: u64,
}

impl Lane {
    pub(super) fn new(share: Share) -> Lane {
        Lane {
            queue: VecDeque::new(),
            bytes: 0,
            high_water: 0,
            oldest: None,
            oldest_taken: None,
            share,
            numbers: Numbers::default(),
            waiting: 0,
            expired: 0,
            expiring: false,
            ended: None,
        }
    }

    /// Whether a message of so many bytes fits: then its bytes are charged. One always does.
    #[inline]
    pub(super) fn make_room(&mut self, payload: usize, limit: usize) -> bool {
        let bytes = self.bytes + payload + MESSAGE_OVERHEAD_BYTES;
        if self.bytes == 0 {
            self.share.cover_anyway(bytes);
        } else if bytes > limit || !self.share.cover(bytes) {
            return false;
        }
        self.bytes = bytes;
        self.high_water = self.high_water.max(bytes);
        self.count_waiting(1);
        true
    }

    fn count_waiting(&mut self, messages: usize) {
        self.waiting += messages;
        if self.queue.is_empty() {
            self.oldest = Some(Instant::now());
        }
    }

    /// Reserves room for several messages: how many bytes, at most `most`. Zero: it is full.
    pub(super) fn reserve(&mut self, most: usize, limit: usize) -> usize {
        let free = limit.saturating_sub(self.bytes).min(most);
        let under_floor = BUDGET_FLOOR_BYTES.saturating_sub(self.bytes).min(free);
        let reserved = [free, under_floor];
        let reserved = reserved
            .into_iter()
            .find(|room| self.share.cover(self.bytes + room));
        let reserved = reserved.unwrap_or(0);
        self.bytes += reserved;
        reserved
    }

    /// Queues messages for which `reserved` bytes were reserved, of which they need `cost`.
    pub(super) fn push_reserved(&mut self, mut records: Records, reserved: usize, cost: usize) {
        self.bytes = self.bytes - reserved + cost;
        self.high_water = self.high_water.max(self.bytes);
        self.share.relax(self.bytes);
        let messages = records.messages();
        if messages == 0 {
            return;
        }
        self.count_waiting(messages as usize);
        if let Some(Entry::Packed(last)) = self.queue.back_mut() {
            records = last.append(records);
        }
        self.numbers.accepted += messages;
        let first = self.numbers.accepted - records.messages();
        if !records.is_empty() {
            let packed = Packed { records, first };
            queue::push(&mut self.queue, Entry::Packed(packed));
        }
    }

    /// Queues a message if there is room.
    pub(super) fn push(
        &mut self,
        message: Message,
        expires: Option<Instant>,
        limit: usize,
        spare: &mut Vec<Records>,
    ) -> Result<(), TrySendError> {
        if let Some(why) = &self.ended {
            return Err(refused(message, why.clone()));
        }
        if !self.make_room(message.len(), limit) {
            return Err(TrySendError::Full(message));
        }
        if expires.is_some() || message.len() > PACKED_BYTES {
            self.append(message, expires);
        } else {
            self.append_short(message.kind(), message.as_bytes(), spare);
        }
        Ok(())
    }

    fn append(&mut self, message: Message, expires: Option<Instant>) {
        self.expiring |= expires.is_some();
        let number = self.numbers.accepted;
        self.numbers.accepted += 1;
        self.queue.push_back(Entry::One(Queued {
            message,
            number,
            expires,
        }));
    }

    #[inline]
    pub(super) fn append_short(&mut self, kind: Kind, payload: &[u8], spare: &mut Vec<Records>) {
        let first = self.numbers.accepted;
        self.numbers.accepted += 1;
        if let Some(Entry::Packed(packed)) = self.queue.back_mut()
            && packed.records.push_bytes(kind, payload)
        {
            return;
        }
        // Behind a full packet comes another; a first message may stay alone.
        let mut records = spare.pop().unwrap_or_else(|| match self.queue.back() {
            Some(Entry::Packed(_)) => Records::with_capacity(PACKET_FILL),
            _ => Records::with_capacity(payload.len() + 8),
        });
        records.push_bytes(kind, payload);
        let packed = Packed { records, first };
        queue::push(&mut self.queue, Entry::Packed(packed));
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When the queue is old enough not to wait for company any longer.
    pub(super) fn ripe_at(&self, delay: Duration, enough: usize) -> Option<Instant> {
        let oldest = self.oldest?;
        let small = self.bytes < enough && self.numbers.flush_to <= self.numbers.settled;
        small.then(|| later(oldest, delay))
    }

    /// Moves what is queued into `batch`, which is empty.
    pub(super) fn take(&mut self, batch: &mut VecDeque<Entry>) {
        std::mem::swap(&mut self.queue, batch);
        self.oldest_taken = self.oldest.take();
        self.numbers.taken = self.numbers.accepted;
    }

    /// Puts back, before everything else, what the pump took and did not begin to write.
    pub(super) fn put_back(&mut self, mut batch: VecDeque<Entry>) {
        if let Some(first) = batch.front() {
            self.numbers.taken = first.first();
            self.oldest = self.oldest_taken.take().or(self.oldest);
        }
        batch.append(&mut self.queue);
        self.queue = batch;
        self.settle(0);
    }

    /// Takes everything, after the end.
    pub(super) fn take_all(&mut self) -> VecDeque<Entry> {
        (self.bytes, self.waiting) = (0, 0);
        self.share.settle(0);
        std::mem::take(&mut self.queue)
    }

    /// Takes out the messages whose time has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> VecDeque<Entry> {
        if !self.expiring {
            return VecDeque::new();
        }
        let is_expired = |entry: &Entry| match entry {
            Entry::One(queued) => queued.expires.is_some_and(|expires| expires <= now),
            Entry::Packed(_) => false,
        };
        let (expired, kept): (VecDeque<_>, _) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(is_expired);
        self.queue = kept;
        let mut done = Done::default();
        expired
            .iter()
            .for_each(|entry: &Entry| done.add(entry.done()));
        self.expired += done.messages as u64;
        self.release(&done);
        // What stands before it in the queue may not be done with.
        self.settle(0);
        expired
    }

    pub(super) fn count_expired(&mut self, messages: u64) {
        self.expired += messages;
    }

    /// Gives room back.
    pub(super) fn release(&mut self, done: &Done) {
        self.waiting -= done.messages;
        self.bytes -= done.cost;
        self.share.relax(self.bytes);
    }

    /// Everything before this number is done with; and if that is all the pump has, everything
    /// before the queue.
    pub(super) fn settle(&mut self, upto: u64) {
        let numbers = &mut self.numbers;
        numbers.settled = numbers.settled.max(upto);
        if numbers.settled >= numbers.taken {
            numbers.settled = match self.queue.front() {
                Some(first) => first.first(),
                None => numbers.accepted,
            };
        }
    }

    /// What is queued must not be held back: the number to wait for.
    pub(super) fn flush(&mut self) -> u64 {
        self.numbers.flush_to = self.numbers.accepted;
        self.numbers.accepted
    }

    pub(super) fn is_flushed(&self, target: u64) -> bool {
        self.numbers.settled >= target
    }

    /// Ready when the budget has what it last refused.
    pub(super) fn poll_refused(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.share.poll_refused(cx)
    }

    /// Idle, it gives back what was drawn of the budget.
    pub(super) fn settle_share(&mut self) {
        self.share.settle(self.bytes);
    }

    /// Empty, it gives back the memory that it grew by.
    pub(super) fn shrink(&mut self, batch: &mut VecDeque<Entry>) {
        for queue in [batch, &mut self.queue] {
            if queue.capacity() > IDLE_QUEUE_PLACES {
                queue.shrink_to(IDLE_QUEUE_PLACES);
            }
        }
    }

    pub(super) fn stats(&self, limit: usize, now: Instant) -> (QueueStats, u64) {
        let queue = QueueStats {
            messages: self.waiting,
            bytes: self.bytes,
            high_water: self.high_water,
            limit,
            oldest: self
                .oldest()
                .map(|since| now.saturating_duration_since(since)),
        };
        (queue, self.expired)
    }

    /// When the message came that waits longest.
    fn oldest(&self) -> Option<Instant> {
        if self.waiting > self.queue.len() {
            self.oldest_taken
        } else {
            self.oldest.filter(|_| self.waiting > 0)
        }
    }
}
