//! The queue of received messages, from the pump to the application. It is bounded in bytes.

mod conflation;
mod lane;
mod marks;
mod overflow;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;

use crate::{
    defaults::DISCARD_AFTER,
    messages::{Incoming, Message, Position},
    queues::items::{Item, Items, Packet, count_messages, total_cost},
    reports::{ConnectionError, QueueStats},
    settings::{Account, Options, Overflow},
    time::later,
};
use conflation::Conflation;
use lane::Lane;

/// How the stream ended: `None` after a normal close.
pub(crate) type End = Option<Arc<ConnectionError>>;

/// Whether the application still receives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The `Receiver` exists.
    Present,
    /// The `Receiver` was dropped at this moment. A `Sender` is left.
    Dropped(Instant),
    /// Every handle was dropped. What the application did not receive, it never will.
    Gone,
}

struct InboxState {
    main: Lane,
    /// While the `on_connect` hook runs: the messages for the hook. In a box, as all that most
    /// connections never have.
    setup: Option<Box<Lane>>,
    conflation: Option<Box<Conflation>>,
    reader: Reader,
    /// Up to where the application has taken the messages of the latest session.
    taken: Position,
    overflowed: u64,
    discarded: u64,
    pump: Option<Waker>,
}

/// The pump pushes, and the receiver takes.
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
    options: Arc<Options>,
    account: Account,
}

impl Inbox {
    pub(crate) fn new(options: Arc<Options>, account: &Account) -> Inbox {
        let conflation = match &options.overflow {
            Overflow::Conflate(_) => Some(Box::default()),
            _ => None,
        };
        Inbox {
            state: Mutex::new(InboxState {
                main: Lane::new(account.lasting_share()),
                setup: None,
                conflation,
                reader: Reader::Present,
                taken: Position::START,
                overflowed: 0,
                discarded: 0,
                pump: None,
            }),
            options,
            account: account.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap()
    }

    /// Moves items into the queue while there is room, whatever the overflow policy is. The rest
    /// stays in `items`.
    pub(crate) fn push_while_room(&self, items: &mut Items, now: Instant) {
        if items.is_empty() {
            return;
        }
        let receiver = {
            let mut state = self.lock();
            state.discard_unwanted(items, now);
            let (keys, limit) = (state.key_bytes(), self.options.inbox_bytes);
            let places = state.main.push_while_room(items, keys, limit, now);
            if let Some(conflation) = &mut state.conflation {
                (0..places).for_each(|_| conflation.appended(None));
            }
            state.main.receiver_to_wake()
        };
        receiver.into_iter().for_each(Waker::wake);
    }

    /// Moves items into the queue of the `on_connect` hook while there is room.
    pub(crate) fn push_to_setup(&self, items: &mut Items, now: Instant) {
        let receiver = {
            let mut state = self.lock();
            let Some(setup) = &mut state.setup else {
                return;
            };
            setup.push_while_room(items, 0, self.options.inbox_bytes, now);
            setup.receiver_to_wake()
        };
        receiver.into_iter().for_each(Waker::wake);
    }

    /// How many bytes may be read now. At zero reading pauses, and the pump is woken when there is
    /// room. Policies that drop messages or disconnect never pause reading.
    pub(crate) fn room(&self, cx: &Context<'_>) -> usize {
        let mut state = self.lock();
        let makes_room = matches!(
            self.options.overflow,
            Overflow::DropOldest | Overflow::DropNewest | Overflow::Disconnect
        );
        let keys = state.key_bytes();
        let nobody = state.reader != Reader::Present;
        let room = match &mut state.setup {
            Some(setup) => setup.room(self.options.inbox_bytes, 0),
            None if makes_room || nobody => return usize::MAX,
            None => state.main.room(self.limit_of_appends(), keys),
        };
        if room == 0 && state.setup.is_none() && state.conflation.is_some() {
            // The next message may replace a queued one without needing room.
            return 1;
        }
        if room == 0 {
            state.wake_on_room(cx);
        }
        room
    }

    /// Wakes the pump when there is room for what could not be pushed.
    pub(crate) fn wake_on_room(&self, cx: &Context<'_>) {
        self.lock().wake_on_room(cx);
    }

    /// Gives the budget back what the queue does not need. Called when the connection is idle.
    pub(crate) fn shrink(&self) {
        let mut state = self.lock();
        let keys = state.key_bytes();
        state.main.settle(keys);
    }

    /// Up to where the application has taken the messages of the latest session, and when to ask
    /// again at the latest. The pump is woken when the application takes more.
    ///
    /// Once the `Receiver` was dropped [`DISCARD_AFTER`] ago, queued messages are discarded and count
    /// as taken.
    pub(crate) fn taken(&self, now: Instant, cx: &Context<'_>) -> (Position, Option<Instant>) {
        let mut state = self.lock();
        state.pump = Some(cx.waker().clone());
        let Reader::Dropped(since) = state.reader else {
            return (state.taken, None);
        };
        let until = later(since, DISCARD_AFTER);
        let mut look_at = None;
        if !state.main.queue.is_empty() && now < until {
            look_at = Some(until);
        } else if !state.main.queue.is_empty() {
            let mut queued = std::mem::take(&mut state.main.queue);
            state.discard_unwanted(&mut queued, now);
            state.main.restore(queued);
        }
        (state.taken, look_at)
    }

    /// Ends the stream, after everything that is queued. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        let receiver = {
            let mut state = self.lock();
            state.main.end.get_or_insert(end);
            state.main.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
    }

    /// Moves what is queued into `hand`, which is empty, and returns its bytes. The application has
    /// taken everything up to `taken`.
    pub(crate) fn take(
        &self,
        hand: &mut Items,
        taken: Position,
        cx: &Context<'_>,
    ) -> Poll<Result<usize, End>> {
        let (result, pump, replaced) = {
            let mut state = self.lock();
            let pump = state.report(0, taken);
            let mut replaced = None;
            let result = if !state.main.queue.is_empty() {
                Poll::Ready(Ok(state.hand_over(hand, self.is_one_by_one())))
            } else if let Some(end) = &state.main.end {
                Poll::Ready(Err(end.clone()))
            } else {
                state.shrink(hand);
                replaced = state.main.receiver.replace(cx.waker().clone());
                Poll::Pending
            };
            (result, pump, replaced)
        };
        // Dropping a waker may run the user's code, so it happens outside the lock.
        drop(replaced);
        pump.into_iter().for_each(Waker::wake);
        result
    }

    /// Whether the receiver takes one item at a time, because the others may still be dropped.
    fn is_one_by_one(&self) -> bool {
        matches!(self.options.overflow, Overflow::DropOldest)
    }

    /// Whether the receiver waits and was not woken since.
    pub(crate) fn is_awaited(&self) -> bool {
        self.lock().main.receiver.is_some()
    }

    /// As [`take`](Self::take), if something is queued. Nobody waits for more until the next call.
    pub(crate) fn take_now(&self, hand: &mut Items, taken: Position) -> Option<usize> {
        let (cost, pump, receiver) = {
            let mut state = self.lock();
            let pump = state.report(0, taken);
            let receiver = state.main.receiver.take();
            let there = !state.main.queue.is_empty();
            let cost = there.then(|| state.hand_over(hand, self.is_one_by_one()));
            (cost, pump, receiver)
        };
        // Dropping a waker may run the user's code, so it happens outside the lock.
        drop(receiver);
        pump.into_iter().for_each(Waker::wake);
        cost
    }

    /// Reports between two calls of [`take`](Self::take): `in_hand` bytes are left in the receiver's
    /// hand, and the application has taken everything up to `taken`. So reading can go on before
    /// the hand is empty.
    pub(crate) fn report(&self, in_hand: usize, taken: Position) {
        let pump = self.lock().report(in_hand, taken);
        pump.into_iter().for_each(Waker::wake);
    }

    /// After how many received bytes the receiver reports, so that reading goes on meanwhile.
    pub(crate) fn report_step(&self) -> usize {
        self.options.inbox_bytes / 8
    }

    /// The `Receiver` was dropped. `hand` is what it had not handed out. `gone`: no `Sender` is
    /// left, or the task panics.
    ///
    /// Messages of a session count as taken only if a `Sender` is still there after
    /// [`DISCARD_AFTER`], because a handler that returns drops its `Sender` a moment later.
    pub(crate) fn receiver_gone(&self, mut hand: Items, gone: bool) {
        let pump = {
            let mut state = self.lock();
            state.reader = match gone {
                true => Reader::Gone,
                false => Reader::Dropped(Instant::now()),
            };
            hand.append(&mut state.main.queue);
            state.discard_unwanted(&mut hand, Instant::now());
            state.main.restore(hand);
            state.conflation = None;
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
    }

    /// The application has dropped every handle.
    pub(crate) fn abandon(&self) {
        self.lock().reader = Reader::Gone;
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().reader == Reader::Gone
    }

    pub(crate) fn is_receiver_gone(&self) -> bool {
        self.lock().reader != Reader::Present
    }

    /// From now on received messages go to the `on_connect` hook.
    pub(crate) fn open_setup(&self) {
        self.lock().setup = Some(Box::new(Lane::new(self.account.lasting_share())));
    }

    /// The next message for the hook.
    ///
    /// # Errors
    /// The hook has returned, or its connection has ended.
    pub(crate) fn take_for_setup(&self, cx: &Context<'_>) -> Poll<Result<Message, End>> {
        let (result, pump) = {
            let mut state = self.lock();
            let Some(setup) = &mut state.setup else {
                return Poll::Ready(Err(None));
            };
            match setup.next_message() {
                Some((message, taken)) => {
                    state.taken = state.taken.max(taken);
                    (Poll::Ready(Ok(message)), state.pump.take())
                }
                None => {
                    setup.receiver = Some(cx.waker().clone());
                    (Poll::Pending, None)
                }
            }
        };
        pump.into_iter().for_each(Waker::wake);
        result
    }

    /// The hook has returned. Returns what it did not receive, which the stream gets.
    pub(crate) fn close_setup(&self) -> Items {
        let (queue, receiver) = {
            let mut state = self.lock();
            match state.setup.take() {
                Some(mut setup) => (std::mem::take(&mut setup.queue), setup.receiver.take()),
                None => (Items::new(), None),
            }
        };
        receiver.into_iter().for_each(Waker::wake);
        queue
    }

    /// The state of the queue, and how many messages overflowed and were discarded.
    pub(crate) fn stats(&self, now: Instant) -> (QueueStats, u64, u64) {
        let state = self.lock();
        let queue = state.main.stats(self.options.inbox_bytes, now);
        (queue, state.overflowed, state.discarded)
    }
}

impl InboxState {
    /// Wakes the pump when the application takes something, or when the budget has the bytes that it
    /// last refused.
    fn wake_on_room(&mut self, cx: &Context<'_>) {
        self.pump = Some(cx.waker().clone());
        self.main.wake_on_budget(cx);
        if let Some(setup) = &mut self.setup {
            setup.wake_on_budget(cx);
        }
    }

    /// Discards `items` if there is no `Receiver`. They count as taken while a `Sender` is left.
    /// Messages of a session stay in `items` until [`DISCARD_AFTER`] has passed.
    fn discard_unwanted(&mut self, items: &mut Items, now: Instant) {
        let held_until = match self.reader {
            Reader::Present => return,
            Reader::Gone => now,
            Reader::Dropped(since) => later(since, DISCARD_AFTER),
        };
        let mut discarded = std::mem::take(items);
        if now < held_until {
            let (held, plain) = discarded.into_iter().partition(Item::is_of_session);
            (*items, discarded) = (held, plain);
        }
        self.discarded += count_messages(&discarded);
        if self.reader != Reader::Gone {
            let ends = discarded
                .iter()
                .filter_map(Item::as_packet)
                .map(Packet::end);
            self.taken = ends.fold(self.taken, Position::max);
        }
    }

    /// The bytes that the keys of conflation take up.
    fn key_bytes(&self) -> usize {
        self.conflation.as_ref().map_or(0, |it| it.bytes)
    }

    /// Moves what is queued into `hand` and returns its bytes. With `one_by_one`, or with
    /// conflation, only the first item moves: the others may still be dropped or replaced.
    fn hand_over(&mut self, hand: &mut Items, one_by_one: bool) -> usize {
        let lane = &mut self.main;
        if let Some(conflation) = &mut self.conflation
            && let Some(gap) = conflation.popped()
        {
            lane.charge_gap();
            hand.push_back(Item::One(Incoming::Gap(gap)));
        }
        lane.in_hand = match one_by_one || self.conflation.is_some() {
            true => {
                hand.extend(lane.queue.pop_front());
                total_cost(hand)
            }
            false => {
                std::mem::swap(&mut lane.queue, hand);
                lane.bytes
            }
        };
        lane.in_hand
    }

    fn report(&mut self, in_hand: usize, taken: Position) -> Option<Waker> {
        self.taken = self.taken.max(taken);
        let keys = self.key_bytes();
        match self.main.report(in_hand, keys) {
            true => self.pump.take(),
            false => None,
        }
    }

    /// The queue and `hand` are empty: frees memory that they grew by.
    fn shrink(&mut self, hand: &mut Items) {
        self.main.shrink(hand);
        if let Some(conflation) = &mut self.conflation {
            conflation.shrink();
        }
    }
}
