//! Sent messages on their way to the socket: bounded in bytes, taken in batches.

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
    budget::{Budget, Share},
    defaults::IDLE_QUEUE_PLACES,
    error::{ConnectionError, FlushError, SendError, SendRefusal, TrySendError},
    message::Message,
    options::Options,
    stats::QueueStats,
};

/// A message in the outbox, with the moment from which it is no longer worth sending.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Message,
    pub(crate) expires: Option<Instant>,
}

struct State {
    queue: VecDeque<Queued>,
    /// Bytes in `queue` and in the pump's hands that are not yet on the socket.
    bytes: usize,
    high_water: usize,
    oldest: Option<Instant>,
    share: Share,
    /// Messages ever accepted, and those that are done with: written or expired.
    accepted: u64,
    done: u64,
    /// `flush` waits for this many; packing must not hold them back.
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
    /// One permit a byte: who waits for room waits here, in order.
    room: Semaphore,
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
                bytes: 0,
                high_water: 0,
                oldest: None,
                share: Share::of(options.budget.clone()),
                accepted: 0,
                done: 0,
                flush_to: 0,
                expired: 0,
                expiring: false,
                ended: None,
                senders: 0,
                pump: None,
            }),
            room: Semaphore::new(limit),
            written: Notify::new(),
            budget: options.budget.clone(),
            limit,
            max_message: AtomicUsize::new(options.max_message_bytes),
        }
    }

    /// What a message draws from `room`: a message over the limit takes all of it.
    fn permits(&self, message: &Message) -> u32 {
        message.cost().min(self.limit) as u32
    }

    fn check_size(&self, message: &Message) -> Result<(), SendRefusal> {
        let (size, limit) = (message.len(), self.max_message.load(Ordering::Relaxed));
        if size > limit {
            Err(SendRefusal::TooLarge { size, limit })
        } else {
            Ok(())
        }
    }

    /// Waits for room and queues the message. Dropped before it resolves: the message was not
    /// queued.
    pub(crate) async fn send(
        &self,
        message: Message,
        time_to_live: Option<Duration>,
    ) -> Result<(), SendError> {
        if let Err(reason) = self.check_size(&message) {
            return Err(SendError { message, reason });
        }
        let expires = time_to_live.map(|life| Instant::now() + life);
        let permits = self.permits(&message);
        let permit = match self.room.try_acquire_many(permits) {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.expire(Instant::now());
                self.room.acquire_many(permits).await.ok()
            }
        };
        let mut queued = Queued { message, expires };
        loop {
            let freed = self.budget.as_ref().map(|budget| budget.freed());
            match self.push(queued) {
                Ok(()) => {
                    permit.into_iter().for_each(|permit| permit.forget());
                    return Ok(());
                }
                Err((back, SendRefusal::Full)) => {
                    queued = back;
                    // Only a budget refuses a message that has its permits.
                    if let Some(freed) = freed {
                        freed.await;
                    }
                }
                Err((Queued { message, .. }, reason)) => return Err(SendError { message, reason }),
            }
        }
    }

    pub(crate) fn try_send(&self, message: Message) -> Result<(), TrySendError> {
        if let Err(reason) = self.check_size(&message) {
            return Err(TrySendError { message, reason });
        }
        let Ok(permit) = self.room.try_acquire_many(self.permits(&message)) else {
            let ended = self.state.lock().unwrap().ended.clone();
            let reason = ended.map_or(SendRefusal::Full, SendRefusal::Ended);
            return Err(TrySendError { message, reason });
        };
        match self.push(Queued {
            message,
            expires: None,
        }) {
            Ok(()) => {
                permit.forget();
                Ok(())
            }
            Err((Queued { message, .. }, reason)) => Err(TrySendError { message, reason }),
        }
    }

    fn push(&self, queued: Queued) -> Result<(), (Queued, SendRefusal)> {
        let pump = {
            let mut state = self.state.lock().unwrap();
            if let Some(reason) = &state.ended {
                let reason = SendRefusal::Ended(reason.clone());
                return Err((queued, reason));
            }
            let bytes = state.bytes + queued.message.cost();
            if !state.share.cover(bytes) {
                return Err((queued, SendRefusal::Full));
            }
            state.bytes = bytes;
            state.high_water = state.high_water.max(bytes);
            state.accepted += 1;
            state.expiring |= queued.expires.is_some();
            if state.queue.is_empty() {
                state.oldest = Some(Instant::now());
            }
            state.queue.push_back(queued);
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
                if state.done >= target {
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
        batch: &mut VecDeque<Queued>,
        hold: Option<(Duration, usize)>,
        now: Instant,
        cx: &Context<'_>,
    ) -> Poll<Option<Instant>> {
        let mut state = self.state.lock().unwrap();
        if state.queue.is_empty() {
            if batch.capacity() > IDLE_QUEUE_PLACES {
                batch.shrink_to(IDLE_QUEUE_PLACES);
                state.queue.shrink_to(IDLE_QUEUE_PLACES);
            }
            state.pump = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let (Some((delay, enough)), Some(oldest)) = (hold, state.oldest) {
            let ripe = oldest + delay;
            if now < ripe && state.bytes < enough && state.flush_to <= state.done {
                state.pump = Some(cx.waker().clone());
                return Poll::Ready(Some(ripe));
            }
        }
        std::mem::swap(&mut state.queue, batch);
        Poll::Ready(None)
    }

    /// Messages left the pump: written to the socket, or expired unsent.
    pub(crate) fn done(&self, messages: u64, bytes: usize, permits: usize) {
        if messages > 0 {
            self.release(bytes, permits);
            self.complete(messages);
        }
    }

    /// Gives room back.
    pub(crate) fn release(&self, bytes: usize, permits: usize) {
        {
            let mut state = self.state.lock().unwrap();
            state.bytes -= bytes;
            let bytes = state.bytes;
            state.share.relax(bytes);
        }
        self.room.add_permits(permits);
    }

    /// So many messages more count as flushed.
    pub(crate) fn complete(&self, messages: u64) {
        if messages > 0 {
            self.state.lock().unwrap().done += messages;
            self.written.notify_waiters();
        }
    }

    /// The peer of a session takes no larger message.
    pub(crate) fn limit_messages(&self, bytes: usize) {
        self.max_message.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Drops queued messages whose time has passed, and makes room.
    pub(crate) fn expire(&self, now: Instant) -> u64 {
        let (mut bytes, mut permits) = (0, 0);
        let expired = {
            let mut state = self.state.lock().unwrap();
            if !state.expiring {
                return 0;
            }
            let before = state.queue.len();
            state.queue.retain(|queued| {
                let keep = queued.expires.is_none_or(|expires| expires > now);
                if !keep {
                    bytes += queued.message.cost();
                    permits += self.permits(&queued.message) as usize;
                }
                keep
            });
            let expired = (before - state.queue.len()) as u64;
            state.expired += expired;
            expired
        };
        self.done(expired, bytes, permits);
        expired
    }

    /// A message in the pump's hands had passed its time: counted here, released with its batch.
    pub(crate) fn count_expired(&self, messages: u64) {
        self.state.lock().unwrap().expired += messages;
    }

    pub(crate) fn released(&self, message: &Message) -> (usize, usize) {
        (message.cost(), self.permits(message) as usize)
    }

    /// Puts back, before everything else, what the pump took and did not begin to write.
    pub(crate) fn put_back(&self, mut batch: VecDeque<Queued>) {
        let mut state = self.state.lock().unwrap();
        batch.append(&mut state.queue);
        state.queue = batch;
    }

    /// From now on nothing is accepted; what is queued stays for the pump.
    pub(crate) fn refuse(&self, reason: Arc<ConnectionError>) {
        {
            let mut state = self.state.lock().unwrap();
            state.ended.get_or_insert(reason);
        }
        self.room.close();
        self.written.notify_waiters();
        if let Some(budget) = &self.budget {
            budget.wake();
        }
    }

    /// Takes what was never begun, after the end.
    pub(crate) fn take_unsent(&self) -> Vec<Message> {
        let mut state = self.state.lock().unwrap();
        let unsent = std::mem::take(&mut state.queue);
        state.bytes = 0;
        state.share.relax(0);
        unsent.into_iter().map(|queued| queued.message).collect()
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
            messages: (state.accepted - state.done) as usize,
            bytes: state.bytes,
            high_water: state.high_water,
            limit: self.limit,
            oldest: state
                .oldest
                .filter(|_| state.accepted > state.done)
                .map(|since| now.saturating_duration_since(since)),
        };
        (queue, state.expired)
    }
}
