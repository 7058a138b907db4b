//! One queue of sent messages, charged in bytes.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use unstall_proto::{Kind, Records, limits::PACKET_FILL, util::push_back};

use super::{Done, Entry, Manner, Packed, Packets, Queued, refused};
use crate::{
    defaults::{BUDGET_FLOOR_BYTES, IDLE_QUEUE_PLACES, MESSAGE_OVERHEAD_BYTES, PACKED_BYTES},
    messages::{Message, TrySendError},
    reports::{ConnectionError, QueueStats},
    settings::Share,
    time::later,
};

/// One queue of sent messages, and how far they have come. Messages are numbered from 0. `limit` in
/// the methods is the bound of the outbox.
pub(super) struct Lane {
    queue: VecDeque<Entry>,
    /// Bytes in `queue`, bytes that the pump has taken and not finished, and reserved bytes.
    pub(super) bytes: usize,
    high_water: usize,
    /// When the first message came into the empty `queue`.
    oldest: Option<Instant>,
    /// The same for the messages that the pump took last.
    oldest_taken: Option<Instant>,
    share: Share,
    numbers: Numbers,
    /// Messages in `queue`, and messages that the pump has taken and not finished.
    waiting: usize,
    expired: u64,
    /// Whether any message ever had a time to live.
    expiring: bool,
    /// Why no message is accepted any more.
    pub(super) ended: Option<Arc<ConnectionError>>,
}

/// How far the messages have come. Invariant: `settled` ≤ `accepted`, `taken` ≤ `accepted`.
#[derive(Default)]
struct Numbers {
    /// Messages ever accepted.
    accepted: u64,
    /// The pump has taken every message with a lower number.
    taken: u64,
    /// Every message with a lower number is written, or has expired.
    settled: u64,
    /// `flush` waits for this number. Packing must not hold back messages before it.
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

    /// Charges a message of so many payload bytes, if it fits. An empty queue takes a message of any
    /// size.
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

    /// Reserves room for several messages. Returns how many bytes, which is at most `most`, and zero
    /// if the queue is full.
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

    /// Gives reserved bytes back.
    pub(super) fn give_back(&mut self, reserved: usize) {
        self.bytes -= reserved;
        self.share.relax(self.bytes);
    }

    /// Queues messages whose bytes were reserved. `reserved` bytes stay reserved for later ones.
    pub(super) fn push_records(&mut self, mut records: Records, reserved: usize) {
        self.high_water = self.high_water.max(self.bytes - reserved);
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
            push_back(&mut self.queue, Entry::Packed(packed));
        }
    }

    /// Queues a message if there is room.
    pub(super) fn push(
        &mut self,
        message: Message,
        manner: Manner,
        limit: usize,
        packets: &mut Packets,
    ) -> Result<(), TrySendError> {
        if let Some(why) = &self.ended {
            return Err(refused(message, why.clone()));
        }
        if !self.make_room(message.len(), limit) {
            return Err(TrySendError::Full(message));
        }
        if manner != Manner::default() || message.len() > PACKED_BYTES {
            self.append(message, manner);
        } else {
            self.append_short(message.kind(), message.as_bytes(), packets);
        }
        Ok(())
    }

    fn append(&mut self, message: Message, manner: Manner) {
        self.expiring |= manner.expires.is_some();
        let number = self.numbers.accepted;
        self.numbers.accepted += 1;
        let queued = Queued {
            message,
            number,
            manner,
        };
        push_back(&mut self.queue, Entry::One(queued));
    }

    /// Returns whether a packet is full: the message began another one, or the next message of this length
    /// would.
    #[inline]
    pub(super) fn append_short(
        &mut self,
        kind: Kind,
        payload: &[u8],
        packets: &mut Packets,
    ) -> bool {
        let first = self.numbers.accepted;
        self.numbers.accepted += 1;
        if let Some(Entry::Packed(packed)) = self.queue.back_mut()
            && packed.records.push_bytes(kind, payload)
        {
            return !packed.records.has_room_for(payload.len());
        }
        // After a full packet, more messages are likely to follow. A first message may stay alone.
        let mut records = packets.take(|| match self.queue.back() {
            Some(Entry::Packed(_)) => PACKET_FILL,
            _ => payload.len() + 8,
        });
        records.push_bytes(kind, payload);
        let packed = Packed { records, first };
        push_back(&mut self.queue, Entry::Packed(packed));
        true
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Until when a queue of less than `enough` bytes is held back, so that more messages share the
    /// write. `None`: it is not held back.
    pub(super) fn ripe_at(&self, delay: Duration, enough: usize) -> Option<Instant> {
        let oldest = self.oldest?;
        let small = self.bytes < enough && self.numbers.flush_to <= self.numbers.settled;
        small.then(|| later(oldest, delay))
    }

    /// Moves the queue into `batch`, which is empty.
    pub(super) fn take(&mut self, batch: &mut VecDeque<Entry>) {
        std::mem::swap(&mut self.queue, batch);
        self.oldest_taken = self.oldest.take();
        self.numbers.taken = self.numbers.accepted;
    }

    /// Puts back, before everything else, what the pump took and did not finish.
    pub(super) fn put_back(&mut self, mut batch: VecDeque<Entry>) {
        if let Some(first) = batch.front() {
            self.numbers.taken = first.first();
            self.oldest = self.oldest_taken.take().or(self.oldest);
        }
        batch.append(&mut self.queue);
        self.queue = batch;
        self.settle(0);
    }

    /// After the end: takes everything.
    pub(super) fn take_all(&mut self) -> VecDeque<Entry> {
        (self.bytes, self.waiting) = (0, 0);
        self.share.settle(0);
        std::mem::take(&mut self.queue)
    }

    /// Takes the messages out whose time to live is over.
    pub(super) fn take_expired(&mut self, now: Instant) -> VecDeque<Entry> {
        if !self.expiring {
            return VecDeque::new();
        }
        let is_expired = |entry: &Entry| match entry {
            Entry::One(queued) => queued.manner.expires.is_some_and(|expires| expires <= now),
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
        // Not up to the expired messages: earlier ones in the queue may still wait.
        self.settle(0);
        expired
    }

    pub(super) fn count_expired(&mut self, messages: u64) {
        self.expired += messages;
    }

    /// Frees the room of finished messages.
    pub(super) fn release(&mut self, done: &Done) {
        self.waiting -= done.messages;
        self.bytes -= done.cost;
        self.share.relax(self.bytes);
    }

    /// Every message before this number is finished. If the pump has then finished all that it took,
    /// every message before the queue's front is.
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

    /// Stops holding queued messages back. Returns the number to wait for.
    pub(super) fn flush(&mut self) -> u64 {
        self.numbers.flush_to = self.numbers.accepted;
        self.numbers.accepted
    }

    pub(super) fn is_flushed(&self, target: u64) -> bool {
        self.numbers.settled >= target
    }

    /// Ready when the budget has the bytes that it last refused.
    pub(super) fn poll_refused(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.share.poll_refused(cx)
    }

    /// Gives the budget back what the queue does not need, and frees it if it is empty.
    pub(super) fn settle_share(&mut self) {
        self.share.settle(self.bytes);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// The queue and `batch` are empty: frees memory that they grew by.
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

    /// When the message came that has waited longest.
    fn oldest(&self) -> Option<Instant> {
        if self.waiting > self.queue.len() {
            self.oldest_taken
        } else {
            self.oldest.filter(|_| self.waiting > 0)
        }
    }
}
