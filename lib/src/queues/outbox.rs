//! Sent messages on their way to the socket: bounded in bytes, taken in batches.

mod entry;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{
    defaults::{BUDGET_FLOOR_BYTES, IDLE_QUEUE_PLACES, MESSAGE_OVERHEAD_BYTES, PACKED_BYTES},
    messages::{IntoMessage, Message, SendError, SendRefusal, TrySendError, kind},
    queues::queue,
    reports::{ConnectionError, FlushError, QueueStats},
    settings::{Budget, Options, Share},
    time::later,
};
use entry::messages;
pub(crate) use entry::{Done, Entry, Packed, Queued};
use unstall_proto::{Kind, Records, limits::PACKET_FILL};

struct State {
    queue: VecDeque<Entry>,
    /// Packets that are empty, to be used again: to ask the allocator for each costs page faults.
    spare: Vec<Records>,
    /// Bytes in `queue` and in the pump's hands that are not yet on the socket.
    bytes: usize,
    high_water: usize,
    /// When the first message of `queue` came, and the first of those in the pump's hands.
    oldest: Option<Instant>,
    oldest_taken: Option<Instant>,
    share: Share,
    /// Messages ever accepted.
    accepted: u64,
    /// Messages in `queue` and in the pump's hands.
    waiting: usize,
    /// Every message with a lower number was handed to the pump, or is done with.
    taken: u64,
    /// Every message with a lower number is done with.
    settled: u64,
    /// `flush` waits for this number; packing must not hold back what is before it.
    flush_to: u64,
    expired: u64,
    /// Whether any message ever had a time to live.
    expiring: bool,
    ended: Option<Arc<ConnectionError>>,
    senders: usize,
    pump: Option<Waker>,
}

/// Many tasks push (the senders), one takes (the pump).
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// One permit: whoever has to wait for room or for the budget waits his turn.
    turn: Semaphore,
    written: Notify,
    budget: Option<Arc<Budget>>,
    limit: usize,
    max_message: AtomicUsize,
}

impl Outbox {
    pub(crate) fn new(options: &Options) -> Outbox {
        let limit = options.outbox_bytes.clamp(1, u32::MAX as usize);
        Outbox {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                spare: Vec::new(),
                bytes: 0,
                high_water: 0,
                oldest: None,
                oldest_taken: None,
                share: Share::of(options.budget.clone()),
                accepted: 0,
                waiting: 0,
                taken: 0,
                settled: 0,
                flush_to: 0,
                expired: 0,
                expiring: false,
                ended: None,
                senders: 0,
                pump: None,
            }),
            turn: Semaphore::new(1),
            written: Notify::new(),
            budget: options.budget.clone(),
            limit,
            max_message: AtomicUsize::new(options.max_message_bytes),
        }
    }

    fn check_size(&self, message: Message) -> Result<Message, SendError> {
        let (size, limit) = (message.len(), self.max_message.load(Ordering::Relaxed));
        if size > limit {
            let reason = SendRefusal::TooLarge { size, limit };
            Err(SendError { message, reason })
        } else {
            Ok(message)
        }
    }

    /// Queues a short message if there is room and nobody waits for it. `false`: it goes the long
    /// way, which says why.
    pub(crate) fn push_short(&self, text: bool, payload: &[u8]) -> bool {
        let longest = PACKED_BYTES.min(self.max_message.load(Ordering::Relaxed));
        if payload.len() > longest || self.turn.available_permits() == 0 {
            return false;
        }
        let pump = {
            let mut state = self.state.lock().unwrap();
            if state.ended.is_some() || !state.make_room(payload.len(), self.limit) {
                return false;
            }
            state.append_short(kind(text), payload);
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
        true
    }

    /// Queues short messages under one lock until one is not short or finds no room: that one.
    /// `None`: all that `messages` had, or a packet's worth of them.
    pub(crate) fn push_run<M: IntoMessage>(
        &self,
        messages: &mut impl Iterator<Item = M>,
    ) -> Option<M> {
        let longest = PACKED_BYTES.min(self.max_message.load(Ordering::Relaxed));
        let may_push = self.turn.available_permits() > 0;
        let mut left = None;
        let pump = {
            let mut state = self.state.lock().unwrap();
            let may_push = may_push && state.ended.is_none();
            let mut bytes = 0;
            while bytes < PACKET_FILL
                && let Some(message) = messages.next()
            {
                let payload = message.payload();
                if !may_push
                    || payload.len() > longest
                    || !state.make_room(payload.len(), self.limit)
                {
                    left = Some(message);
                    break;
                }
                bytes += payload.len() + 1;
                state.append_short(kind(message.is_text()), payload);
            }
            match state.queue.is_empty() {
                true => None,
                false => state.pump.take(),
            }
        };
        pump.into_iter().for_each(Waker::wake);
        left
    }

    /// Waits for room and queues the message. Dropped before it resolves: the message was not
    /// queued.
    pub(crate) async fn send(
        &self,
        message: Message,
        time_to_live: Option<Duration>,
    ) -> Result<(), SendError> {
        let message = self.check_size(message)?;
        let expires = time_to_live.map(|life| later(Instant::now(), life));
        match self.push_now(message, expires) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => self.wait_and_push(message, expires).await,
            Err(TrySendError::Refused(error)) => Err(error),
        }
    }

    /// Queues the message in its turn, when there is room for it.
    async fn wait_and_push(
        &self,
        mut message: Message,
        expires: Option<Instant>,
    ) -> Result<(), SendError> {
        self.expire(Instant::now());
        // Closed at the end of the connection: then `push` says why.
        let _turn = self.turn.acquire().await;
        loop {
            // Made before the look, so that nothing given back after it is missed.
            let freed = self.budget.as_ref().map(|budget| budget.freed());
            let written = self.written.notified();
            match self.push(message, expires) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Refused(error)) => return Err(error),
            }
            match freed {
                None => written.await,
                Some(freed) => tokio::select! {
                    () = freed => {}
                    () = written => {}
                },
            }
        }
    }

    pub(crate) fn try_send(&self, message: Message) -> Result<(), TrySendError> {
        self.push_now(self.check_size(message)?, None)
    }

    /// Queues the message if there is room and nobody waits for it.
    fn push_now(&self, message: Message, expires: Option<Instant>) -> Result<(), TrySendError> {
        if self.turn.available_permits() > 0 {
            return self.push(message, expires);
        }
        let ended = self.state.lock().unwrap().ended.clone();
        Err(match ended {
            None => TrySendError::Full(message),
            Some(why) => ended_first(message, why),
        })
    }

    fn push(&self, message: Message, expires: Option<Instant>) -> Result<(), TrySendError> {
        let pump = {
            let mut state = self.state.lock().unwrap();
            if let Some(why) = &state.ended {
                return Err(ended_first(message, why.clone()));
            }
            if !state.make_room(message.len(), self.limit) {
                return Err(TrySendError::Full(message));
            }
            if expires.is_some() || message.len() > PACKED_BYTES {
                state.append(message, expires);
            } else {
                state.append_short(message.kind(), message.as_bytes());
            }
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Resolves when everything accepted before the call is on the socket.
    pub(crate) async fn flush(&self) -> Result<(), FlushError> {
        let (target, pump) = {
            let mut state = self.state.lock().unwrap();
            state.flush_to = state.accepted;
            (state.accepted, state.pump.take())
        };
        pump.into_iter().for_each(Waker::wake);
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            {
                let state = self.state.lock().unwrap();
                if state.settled >= target {
                    return Ok(());
                }
                if let Some(reason) = &state.ended {
                    return Err(FlushError {
                        reason: reason.clone(),
                    });
                }
            }
            written.await;
        }
    }

    /// Moves what is queued into `batch`, which is empty. Nothing: the pump is woken by the next
    /// message. With a `hold`, a small queue younger than it stays for company until the returned
    /// moment.
    pub(crate) fn take(
        &self,
        batch: &mut VecDeque<Entry>,
        hold: Option<(Duration, usize)>,
        now: Instant,
        cx: &Context<'_>,
    ) -> Poll<Option<Instant>> {
        let mut state = self.state.lock().unwrap();
        if state.queue.is_empty() {
            for queue in [batch, &mut state.queue] {
                if queue.capacity() > IDLE_QUEUE_PLACES {
                    queue.shrink_to(IDLE_QUEUE_PLACES);
                }
            }
            state.pump = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let (Some((delay, enough)), Some(oldest)) = (hold, state.oldest) {
            let ripe = later(oldest, delay);
            if now < ripe && state.bytes < enough && state.flush_to <= state.settled {
                state.pump = Some(cx.waker().clone());
                return Poll::Ready(Some(ripe));
            }
        }
        std::mem::swap(&mut state.queue, batch);
        state.oldest_taken = state.oldest.take();
        state.taken = state.accepted;
        Poll::Ready(None)
    }

    /// Messages left the pump.
    pub(crate) fn done(&self, done: Done) {
        if done.messages > 0 {
            self.release(&done, std::iter::empty());
            self.complete(done.upto);
        }
    }

    /// Gives room back, and memory for what comes next.
    pub(crate) fn release(&self, done: &Done, spare: impl Iterator<Item = Records>) {
        {
            let mut state = self.state.lock().unwrap();
            state.release(done);
            let most = self.spare_limit().saturating_sub(state.bytes) / PACKET_FILL;
            let wanted = most.saturating_sub(state.spare.len());
            state.spare.extend(spare.take(wanted));
        }
        self.written.notify_waiters();
    }

    /// What the queue and its spare packets may take together when spare ones come: no more than
    /// the queue may by itself, or than what is free of the budget.
    fn spare_limit(&self) -> usize {
        match self.budget {
            Some(_) => self.limit.min(BUDGET_FLOOR_BYTES),
            None => self.limit,
        }
    }

    /// Gives back memory that was kept for what comes next.
    pub(crate) fn shrink(&self) {
        self.state.lock().unwrap().spare = Vec::new();
    }

    /// Everything before this number counts as flushed.
    pub(crate) fn complete(&self, upto: u64) {
        self.state.lock().unwrap().settle(upto);
        self.written.notify_waiters();
    }

    /// The peer of a session takes no larger message.
    pub(crate) fn limit_messages(&self, bytes: usize) {
        self.max_message.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Drops queued messages whose time has passed, and makes room.
    pub(crate) fn expire(&self, now: Instant) -> u64 {
        let mut done = Done::default();
        {
            let mut state = self.state.lock().unwrap();
            if !state.expiring {
                return 0;
            }
            state.queue.retain(|entry| {
                let keep = match entry {
                    Entry::One(queued) => queued.expires.is_none_or(|expires| expires > now),
                    Entry::Packed(_) => true,
                };
                if !keep {
                    done.add(entry.done());
                }
                keep
            });
            state.expired += done.messages as u64;
            state.release(&done);
            // What stands before it in the queue may not be done with.
            state.settle(0);
        }
        let expired = done.messages as u64;
        if expired > 0 {
            self.written.notify_waiters();
        }
        expired
    }

    /// A message in the pump's hands had passed its time: counted here, released with its batch.
    pub(crate) fn count_expired(&self, messages: u64) {
        self.state.lock().unwrap().expired += messages;
    }

    /// Puts back, before everything else, what the pump took and did not begin to write.
    pub(crate) fn put_back(&self, mut batch: VecDeque<Entry>) {
        let mut state = self.state.lock().unwrap();
        if let Some(first) = batch.front() {
            state.taken = first.first();
            state.oldest = state.oldest_taken.take().or(state.oldest);
        }
        batch.append(&mut state.queue);
        state.queue = batch;
        state.settle(0);
    }

    /// From now on nothing is accepted; what is queued stays for the pump.
    pub(crate) fn refuse(&self, reason: Arc<ConnectionError>) {
        {
            let mut state = self.state.lock().unwrap();
            state.ended.get_or_insert(reason);
        }
        self.turn.close();
        self.written.notify_waiters();
        if let Some(budget) = &self.budget {
            budget.wake();
        }
    }

    /// Takes what was never begun, after the end.
    pub(crate) fn take_unsent(&self) -> Vec<Message> {
        let mut state = self.state.lock().unwrap();
        let unsent = std::mem::take(&mut state.queue);
        (state.bytes, state.waiting) = (0, 0);
        state.share.relax(0);
        messages(unsent)
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.state.lock().unwrap().queue.is_empty()
    }

    pub(crate) fn add_sender(&self) {
        self.state.lock().unwrap().senders += 1;
    }

    /// Returns whether it was the last.
    pub(crate) fn remove_sender(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.senders -= 1;
        state.senders == 0
    }

    pub(crate) fn has_senders(&self) -> bool {
        self.state.lock().unwrap().senders > 0
    }

    /// Queue depth, and the count of expired messages.
    pub(crate) fn stats(&self, now: Instant) -> (QueueStats, u64) {
        let state = self.state.lock().unwrap();
        let queue = QueueStats {
            messages: state.waiting,
            bytes: state.bytes,
            high_water: state.high_water,
            limit: self.limit,
            oldest: state
                .oldest()
                .map(|since| now.saturating_duration_since(since)),
        };
        (queue, state.expired)
    }
}

impl State {
    /// Charges a message of so many bytes, if it fits. One always does.
    #[inline]
    fn make_room(&mut self, payload: usize, limit: usize) -> bool {
        let bytes = self.bytes + payload + MESSAGE_OVERHEAD_BYTES;
        if self.bytes == 0 {
            self.share.cover_one(bytes);
        } else if bytes > limit || !self.share.cover(bytes) {
            return false;
        }
        self.bytes = bytes;
        self.high_water = self.high_water.max(bytes);
        self.waiting += 1;
        if self.queue.is_empty() {
            self.oldest = Some(Instant::now());
        }
        true
    }

    fn append(&mut self, message: Message, expires: Option<Instant>) {
        self.expiring |= expires.is_some();
        let number = self.accepted;
        self.accepted += 1;
        self.queue.push_back(Entry::One(Queued {
            message,
            number,
            expires,
        }));
    }

    #[inline]
    fn append_short(&mut self, kind: Kind, payload: &[u8]) {
        let first = self.accepted;
        self.accepted += 1;
        if let Some(Entry::Packed(packed)) = self.queue.back_mut()
            && packed.records.push_bytes(kind, payload)
        {
            return;
        }
        // Behind a full packet comes another; a first message may stay alone.
        let mut records = self.spare.pop().unwrap_or_else(|| match self.queue.back() {
            Some(Entry::Packed(_)) => Records::with_capacity(PACKET_FILL),
            _ => Records::with_capacity(payload.len() + 8),
        });
        records.push_bytes(kind, payload);
        let packed = Packed { records, first };
        queue::push(&mut self.queue, Entry::Packed(packed));
    }

    fn release(&mut self, done: &Done) {
        self.waiting -= done.messages;
        self.bytes -= done.cost;
        self.share.relax(self.bytes);
    }

    /// Everything before this number is done with; and if that is all the pump has, everything
    /// before the queue.
    fn settle(&mut self, upto: u64) {
        self.settled = self.settled.max(upto);
        if self.settled >= self.taken {
            self.settled = match self.queue.front() {
                Some(first) => first.first(),
                None => self.accepted,
            };
        }
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

fn ended_first(message: Message, why: Arc<ConnectionError>) -> TrySendError {
    let reason = SendRefusal::Ended(why);
    SendError { message, reason }.into()
}
