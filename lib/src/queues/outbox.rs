//! The queue of sent messages, from the application to the pump. It is bounded in bytes.

mod entry;
mod lane;
mod packets;
mod run;
mod taking;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{
    defaults::{COMPRESSED_RUN_BYTES, DRIVE_BYTES, DRIVE_LONG_BYTES, PACKED_BYTES},
    messages::{Message, SendError, SendRefusal, TrySendError, kind},
    reports::{ConnectionError, FlushError, QueueStats},
    settings::{Account, Options},
};
use entry::messages;
pub(crate) use entry::{Done, Entry, Manner, Packed, Queued};
use lane::Lane;
use packets::Packets;
pub(crate) use run::Passed;

struct OutboxState {
    main: Lane,
    /// While the `on_connect` hook runs: what the hook sends. It is written before `main`.
    setup: Option<Box<Lane>>,
    packets: Packets,
    senders: usize,
    pump: Option<Waker>,
}

/// Any number of senders push, and the pump takes.
pub(crate) struct Outbox {
    state: Mutex<OutboxState>,
    /// One permit. It belongs to the sender that waits for room or for the budget; the others wait
    /// for the permit, in order.
    line: Semaphore,
    /// Room came free, messages were flushed, or the queue has ended.
    written: Notify,
    account: Account,
    /// A budget bounds this queue together with others.
    bounded: bool,
    limit: usize,
    /// A run of messages ends when so many bytes are queued, and the sender writes them.
    run_limit: usize,
    /// So much is queued that the sender should write it.
    filled: AtomicBool,
    /// The largest message that both this side and the peer of the present connection allow.
    max_message: AtomicUsize,
    /// The largest message that this side allows.
    own_max_message: usize,
}

impl Outbox {
    pub(crate) fn new(options: &Options, account: &Account) -> Outbox {
        Outbox {
            state: Mutex::new(OutboxState {
                main: Lane::new(account.lasting_share()),
                setup: None,
                packets: Packets::default(),
                senders: 0,
                pump: None,
            }),
            line: Semaphore::new(1),
            written: Notify::new(),
            account: account.clone(),
            bounded: account.is_bounded(),
            limit: options.outbox_bytes.max(1),
            run_limit: match options.compression {
                Some(_) => COMPRESSED_RUN_BYTES,
                None => usize::MAX,
            },
            filled: AtomicBool::new(false),
            max_message: AtomicUsize::new(options.max_message_bytes),
            own_max_message: options.max_message_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap()
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

    /// The longest message that shares a packet.
    fn longest_packed(&self) -> usize {
        PACKED_BYTES.min(self.max_message.load(Ordering::Relaxed))
    }

    /// Whether senders wait for room. They come first.
    fn has_line(&self) -> bool {
        self.line.available_permits() == 0
    }

    /// Queues a short message if there is room and no sender waits. `false`: call
    /// [`send`](Self::send), which says why.
    pub(crate) fn push_short(&self, text: bool, payload: &[u8]) -> bool {
        if payload.len() > self.longest_packed() || self.has_line() {
            return false;
        }
        let pump = {
            let mut state = self.lock();
            let OutboxState { main, packets, .. } = &mut *state;
            if main.ended.is_some() || !main.make_room(payload.len(), self.limit) {
                return false;
            }
            if main.append_short(kind(text), payload, packets) {
                self.note_filled(main, DRIVE_BYTES);
            }
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
        true
    }

    /// Notes whether the sender should write what is queued: from so many bytes on.
    fn note_filled(&self, lane: &Lane, enough: usize) {
        if lane.bytes >= enough {
            self.filled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether so much was queued since the last call that the sender should write it.
    #[inline]
    pub(crate) fn take_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed) && self.filled.swap(false, Ordering::Relaxed)
    }

    /// Waits for room and queues the message. If the future is dropped before it resolves, the
    /// message is not queued.
    pub(crate) async fn send(&self, message: Message, manner: Manner) -> Result<(), SendError> {
        let message = self.check_size(message)?;
        match self.push_now(message, manner) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => self.wait_and_push(message, manner).await,
            Err(TrySendError::Refused(error)) => Err(error),
        }
    }

    /// Waits in the line of senders, then for room, and queues the message.
    async fn wait_and_push(&self, mut message: Message, manner: Manner) -> Result<(), SendError> {
        self.expire(Instant::now());
        // If the connection has ended, the line is closed, and `push` says why.
        let _place = self.line.acquire().await;
        loop {
            // Registered before the attempt, so that no later notification is missed.
            let written = self.written.notified();
            match self.push(message, manner) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Refused(error)) => return Err(error),
            }
            tokio::select! {
                () = self.refused_by_budget() => {}
                () = written => {}
            }
        }
    }

    /// Resolves when the budget has the bytes that it last refused.
    async fn refused_by_budget(&self) {
        poll_fn(|cx| self.lock().main.poll_refused(cx)).await;
    }

    pub(crate) fn try_send(&self, message: Message) -> Result<(), TrySendError> {
        self.try_send_in(message, Manner::default())
    }

    pub(crate) fn try_send_in(&self, message: Message, manner: Manner) -> Result<(), TrySendError> {
        self.push_now(self.check_size(message)?, manner)
    }

    /// Queues the message if there is room and no sender waits.
    fn push_now(&self, message: Message, manner: Manner) -> Result<(), TrySendError> {
        if !self.has_line() {
            return self.push(message, manner);
        }
        let ended = self.lock().main.ended.clone();
        Err(match ended {
            None => TrySendError::Full(message),
            Some(why) => refused(message, why),
        })
    }

    fn push(&self, message: Message, manner: Manner) -> Result<(), TrySendError> {
        let pump = {
            let mut state = self.lock();
            let OutboxState { main, packets, .. } = &mut *state;
            main.push(message, manner, self.limit, packets)?;
            self.note_filled(main, DRIVE_LONG_BYTES);
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Resolves when everything accepted before the call is on the socket.
    pub(crate) async fn flush(&self) -> Result<(), FlushError> {
        self.flush_lane(|state| Some(&mut state.main)).await
    }

    async fn flush_lane(
        &self,
        lane: impl Fn(&mut OutboxState) -> Option<&mut Lane>,
    ) -> Result<(), FlushError> {
        let closed = || FlushError {
            reason: Arc::new(ConnectionError::ClosedHere),
        };
        let (target, pump) = {
            let mut state = self.lock();
            let lane = lane(&mut state).ok_or_else(closed)?;
            let target = lane.flush();
            (target, state.pump.take())
        };
        pump.into_iter().for_each(Waker::wake);
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            {
                let mut state = self.lock();
                let lane = lane(&mut state).ok_or_else(closed)?;
                if lane.is_flushed(target) {
                    return Ok(());
                }
                if let Some(reason) = &lane.ended {
                    let reason = reason.clone();
                    return Err(FlushError { reason });
                }
            }
            written.await;
        }
    }

    /// From now on the pump takes only what the `on_connect` hook sends. Everything else waits until
    /// [`close_setup`](Self::close_setup).
    pub(crate) fn open_setup(&self) {
        self.lock().setup = Some(Box::new(Lane::new(self.account.lasting_share())));
    }

    /// As [`send`](Self::send), for the hook.
    pub(crate) async fn send_setup(&self, message: Message) -> Result<(), SendError> {
        let mut message = self.check_size(message)?;
        loop {
            let written = self.written.notified();
            let pushed = {
                let mut state = self.lock();
                let OutboxState { setup, packets, .. } = &mut *state;
                let pushed = match setup {
                    Some(setup) => setup.push(message, Manner::default(), self.limit, packets),
                    None => Err(refused(message, Arc::new(ConnectionError::ClosedHere))),
                };
                pushed.map(|()| state.pump.take())
            };
            match pushed {
                Ok(pump) => {
                    pump.into_iter().for_each(Waker::wake);
                    return Ok(());
                }
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Refused(error)) => return Err(error),
            }
            written.await;
        }
    }

    /// As [`flush`](Self::flush), for the hook.
    pub(crate) async fn flush_setup(&self) -> Result<(), FlushError> {
        self.flush_lane(|state| state.setup.as_deref_mut()).await
    }

    /// The hook has returned and sends no more. What it has sent is still written.
    pub(crate) fn end_setup(&self) {
        if let Some(setup) = &mut self.lock().setup {
            setup.ended = Some(Arc::new(ConnectionError::ClosedHere));
        }
        self.written.notify_waiters();
    }

    /// The hook is done: the pump takes everything else again. What is left of the hook's messages is
    /// dropped, because the hook sends them again on the next connection.
    pub(crate) fn close_setup(&self) {
        let (setup, pump) = {
            let mut state = self.lock();
            (state.setup.take(), state.pump.take())
        };
        // Dropping a message may run the user's code, so it happens outside the lock.
        drop(setup);
        self.written.notify_waiters();
        pump.into_iter().for_each(Waker::wake);
    }

    /// From now on no message is accepted. What is queued stays for the pump.
    pub(crate) fn refuse(&self, reason: Arc<ConnectionError>) {
        {
            let mut state = self.lock();
            state.main.ended.get_or_insert(reason);
        }
        self.line.close();
        self.written.notify_waiters();
    }

    /// Why no message is accepted any more.
    pub(crate) fn why_ended(&self) -> Arc<ConnectionError> {
        let why = self.lock().main.ended.clone();
        why.unwrap_or_else(|| Arc::new(ConnectionError::ClosedHere))
    }

    /// After the end: takes the messages of which nothing was written.
    pub(crate) fn take_unsent(&self) -> Vec<Message> {
        let unsent = self.lock().main.take_all();
        messages(unsent)
    }

    pub(crate) fn add_sender(&self) {
        self.lock().senders += 1;
    }

    /// Returns whether the sender was the last one.
    pub(crate) fn remove_sender(&self) -> bool {
        let mut state = self.lock();
        state.senders -= 1;
        state.senders == 0
    }

    pub(crate) fn has_senders(&self) -> bool {
        self.lock().senders > 0
    }

    /// The state of the queue, and how many messages have expired.
    pub(crate) fn stats(&self, now: Instant) -> (QueueStats, u64) {
        self.lock().main.stats(self.limit, now)
    }
}

fn refused(message: Message, why: Arc<ConnectionError>) -> TrySendError {
    let reason = SendRefusal::Ended(why);
    SendError { message, reason }.into()
}
