//! The pump's side of the outbox.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use unstall_proto::{Records, limits::PACKET_FILL};

use super::{Done, Entry, Lane, Outbox, OutboxState};
use crate::defaults::BUDGET_FLOOR_BYTES;

impl OutboxState {
    /// The queue that the pump takes from: the hook's while it runs, else the main one.
    fn open(&mut self) -> &mut Lane {
        self.setup.as_deref_mut().unwrap_or(&mut self.main)
    }
}

impl Outbox {
    /// Moves the queue into `batch`, which is empty. Pending: the queue is empty, and the next message
    /// wakes the pump.
    ///
    /// `hold` is a time and a number of bytes. A queue that is younger and smaller is held back, so
    /// that more messages share the write. The returned moment is when that ends.
    pub(crate) fn take(
        &self,
        batch: &mut VecDeque<Entry>,
        hold: Option<(Duration, usize)>,
        now: Instant,
        cx: &Context<'_>,
    ) -> Poll<Option<Instant>> {
        let mut state = self.lock();
        let lane = state.open();
        if !lane.has_queued() {
            lane.shrink(batch);
            state.pump = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let ripe = hold.and_then(|(delay, enough)| lane.ripe_at(delay, enough));
        if let Some(ripe) = ripe.filter(|ripe| now < *ripe) {
            state.pump = Some(cx.waker().clone());
            return Poll::Ready(Some(ripe));
        }
        lane.take(batch);
        Poll::Ready(None)
    }

    /// The pump has finished messages: frees their room, settles `flush`, and keeps some `spare` packets
    /// to use again.
    pub(crate) fn done(&self, done: Done, spare: impl Iterator<Item = Records>) {
        if done.is_nothing() {
            return;
        }
        {
            let mut state = self.lock();
            self.free(&mut state, &done, spare);
            state.open().settle(done.upto);
        }
        self.written.notify_waiters();
    }

    /// Frees the room of finished messages, and keeps some `spare` packets to use again.
    pub(crate) fn release(&self, done: &Done, spare: impl Iterator<Item = Records>) {
        self.free(&mut self.lock(), done, spare);
        self.written.notify_waiters();
    }

    fn free(&self, state: &mut OutboxState, done: &Done, spare: impl Iterator<Item = Records>) {
        let lane = state.open();
        lane.release(done);
        let free = self.spare_limit().saturating_sub(lane.bytes);
        // Rounded up: a full packet of long messages costs less than its memory. If it were rounded
        // down, a full queue would free a packet and allocate one again and again.
        let most = free.div_ceil(PACKET_FILL);
        let spare_packets = &mut state.packets.spare;
        let wanted = most.saturating_sub(spare_packets.len());
        spare_packets.extend(spare.take(wanted));
    }

    /// Upper bound for queued bytes and spare packets together, but for a part of a packet: the queue's
    /// own limit or, with a budget, the floor that is always free of it.
    fn spare_limit(&self) -> usize {
        match self.bounded {
            true => self.limit.min(BUDGET_FLOOR_BYTES),
            false => self.limit,
        }
    }

    /// Frees spare packets and unused bytes of the budget. Called when the connection is idle.
    pub(crate) fn shrink(&self) {
        let mut state = self.lock();
        state.packets.spare = Vec::new();
        state.main.settle_share();
    }

    /// Whether the connection writes packets as frames, where they are. It counts for packets that
    /// begin after this call.
    pub(crate) fn set_for_frames(&self, for_frames: bool) {
        self.lock().packets.for_frames = for_frames;
    }

    /// Every message before this number counts as flushed.
    pub(crate) fn complete(&self, upto: u64) {
        self.lock().open().settle(upto);
        self.written.notify_waiters();
    }

    /// Sets the largest message that the peer of this connection allows, if it has told one.
    pub(crate) fn set_peer_limit(&self, limit: Option<usize>) {
        let limit = limit.map_or(self.own_max_message, |it| it.min(self.own_max_message));
        self.max_message.store(limit, Ordering::Relaxed);
    }

    /// Drops queued messages whose time to live is over. Returns how many.
    pub(crate) fn expire(&self, now: Instant) -> u64 {
        // Dropping a message may run the user's code, so it happens outside the lock.
        let expired = self.lock().main.take_expired(now);
        if !expired.is_empty() {
            self.written.notify_waiters();
        }
        expired.len() as u64
    }

    /// Counts messages that expired after the pump took them. Their room is freed with their batch.
    pub(crate) fn count_expired(&self, messages: u64) {
        self.lock().open().count_expired(messages);
    }

    /// Puts back, before everything else, what the pump took and did not finish.
    pub(crate) fn put_back(&self, batch: VecDeque<Entry>) {
        self.lock().open().put_back(batch);
    }

    pub(crate) fn has_queued(&self) -> bool {
        self.lock().open().has_queued()
    }
}
