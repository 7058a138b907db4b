//! From the socket to the inbox. What was read and not yet handed over survives the connection.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::futures::OwnedNotified,
    time::Instant,
};

use crate::{
    defaults::{READ_TURN_BYTES, READ_TURN_MESSAGES},
    error::{Close, ConnectionError},
    events::Event,
    message::{Gap, Incoming},
    options::{Options, Overflow, SpillFallback},
    shared::Shared,
    spill::{Progress, SpillFile},
    stats::{Counters, StallCause},
    ws::{Failure, Received, WebSocket},
};

/// Overflows are reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct OverflowReport {
    messages: u64,
    bytes: u64,
    last: Option<Instant>,
}

/// What a turn of reading found beside messages.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) again: bool,
    pub(crate) pongs: Vec<Bytes>,
    pub(crate) close: Option<Close>,
    pub(crate) failure: Option<Failure>,
}

impl Turn {
    /// A peer may send pongs without end; only a few can be answers.
    pub(crate) fn add_pong(&mut self, payload: Bytes) {
        self.pongs.truncate(15);
        self.pongs.push(payload);
    }
}

/// Received messages between the socket and the inbox.
pub(crate) struct Reading {
    /// Read, and not yet taken by the inbox or the spill file. At most one turn's worth.
    received: VecDeque<Incoming>,
    spill: Option<SpillFile>,
    fallback: SpillFallback,
    paused: bool,
    budget: Option<Pin<Box<OwnedNotified>>>,
    report: OverflowReport,
}

impl Reading {
    pub(crate) fn new(options: &Options) -> Reading {
        let (spill, fallback) = match &options.overflow {
            Overflow::Spill(spill) => (Some(SpillFile::new(spill.clone())), spill.then),
            _ => (None, SpillFallback::Pause),
        };
        Reading {
            received: VecDeque::new(),
            spill,
            fallback,
            paused: false,
            budget: None,
            report: OverflowReport::default(),
        }
    }

    /// Whether reading waits for the application.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Entries and bytes in the spill file.
    pub(crate) fn spilled(&self) -> (u64, u64) {
        self.spill.as_ref().map_or((0, 0), SpillFile::stored)
    }

    /// Puts messages behind those that are not handed over yet.
    pub(crate) fn append(&mut self, mut messages: VecDeque<Incoming>) {
        self.received.append(&mut messages);
    }

    /// What was read and not handed over.
    pub(crate) fn take_received(&mut self) -> VecDeque<Incoming> {
        std::mem::take(&mut self.received)
    }

    /// Marks a place in the stream behind everything received so far.
    pub(crate) fn mark(&mut self, gap: Gap) {
        self.received.push_back(Incoming::Gap(gap));
    }

    /// Reads until the socket is empty, the inbox full, or the turn used up.
    pub(crate) fn turn<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        shared: &Shared,
        counters: &mut Counters,
        unlimited: bool,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Turn {
        let mut turn = Turn::default();
        if let Err(why) = self.hand_over(shared, cx, now) {
            turn.failure = Some(Failure::Broken(why));
            return turn;
        }
        let room = if unlimited {
            usize::MAX
        } else {
            self.room(shared, cx)
        };
        self.set_paused(room == 0, shared, now);
        let limit = room.min(READ_TURN_BYTES);
        let mut bytes = 0;
        turn.again = limit > 0;
        while bytes < limit && self.received.len() < READ_TURN_MESSAGES {
            match ws.poll_read(cx) {
                Poll::Ready(Ok(Received::Message(message))) => {
                    bytes += message.cost();
                    counters.messages_received += 1;
                    counters.bytes_received += message.len() as u64;
                    self.received.push_back(Incoming::Message(message));
                }
                Poll::Ready(Ok(Received::Ping)) => bytes += 1,
                Poll::Ready(Ok(Received::Pong(payload))) => {
                    bytes += 1;
                    turn.add_pong(payload);
                }
                Poll::Ready(Ok(Received::Close(close))) => turn.close = Some(close),
                Poll::Ready(Err(failure)) => {
                    turn.failure = Some(failure);
                    break;
                }
                Poll::Pending => {
                    turn.again = false;
                    break;
                }
            }
        }
        if let Err(why) = self.hand_over(shared, cx, now) {
            turn.failure.get_or_insert(Failure::Broken(why));
        }
        turn
    }

    fn room(&mut self, shared: &Shared, cx: &mut Context<'_>) -> usize {
        let held_up = match &self.spill {
            // The file takes what the inbox cannot.
            Some(spill) if self.received.is_empty() && spill.refused.is_empty() => {
                return if spill.is_busy() { 1 } else { READ_TURN_BYTES };
            }
            _ => !self.received.is_empty(),
        };
        if held_up {
            return 0;
        }
        let room = shared.inbox.room(cx);
        if room == 0 {
            self.wait_for_budget(shared, cx)
        } else {
            self.budget = None
        }
        room
    }

    fn wait_for_budget(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        let Some(budget) = &shared.options.budget else {
            return;
        };
        let freed = self.budget.get_or_insert_with(|| Box::pin(budget.freed()));
        if freed.as_mut().poll(cx).is_ready() {
            self.budget = None;
            cx.waker().wake_by_ref();
        }
    }

    fn set_paused(&mut self, paused: bool, shared: &Shared, now: Instant) {
        if self.paused != paused {
            self.paused = paused;
            shared
                .meter
                .wait(StallCause::ApplicationNotReading, paused, now);
        }
    }

    /// Moves what was read towards the application, in order: the file's messages, then those the
    /// file refused, then the newest.
    fn hand_over(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if let Some(mut spill) = self.spill.take() {
            let result = self.hand_over_spilled(&mut spill, shared, cx, now);
            self.spill = Some(spill);
            return result;
        }
        if self.received.is_empty() {
            return Ok(());
        }
        let pushed = shared.inbox.push(&mut self.received, now, cx);
        self.report.add(pushed.overflowed, pushed.overflowed_bytes);
        if pushed.disconnect {
            return Err(ConnectionError::InboxFull);
        }
        if !self.received.is_empty() {
            self.wait_for_budget(shared, cx);
        }
        Ok(())
    }

    fn hand_over_spilled(
        &mut self,
        spill: &mut SpillFile,
        shared: &Shared,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        loop {
            shared.inbox.push(&mut spill.ready, now, cx);
            if spill.ready.is_empty() && !spill.is_busy() {
                if spill.has_stored() {
                    spill.read();
                } else {
                    shared.inbox.push(&mut spill.refused, now, cx);
                }
            }
            if !spill.is_active() {
                shared.inbox.push(&mut self.received, now, cx);
            }
            if !self.received.is_empty() && !spill.is_busy() {
                self.store(spill)?;
            }
            match spill.poll(cx) {
                Poll::Pending => break,
                Poll::Ready(Progress::Loaded) => {}
                Poll::Ready(Progress::Spilled { messages, bytes }) => {
                    self.report.add(messages, bytes);
                }
                Poll::Ready(Progress::Failed { why, lost }) => {
                    shared.events.push(Event::SpillFailed { why });
                    if lost > 0 {
                        let gap = Gap::Dropped {
                            messages: lost,
                            bytes: 0,
                        };
                        spill.refused.push_front(Incoming::Gap(gap));
                    }
                }
            }
        }
        if spill.is_active() || !self.received.is_empty() {
            self.wait_for_budget(shared, cx);
        }
        Ok(())
    }

    /// To the file, or to the fallback where the file cannot take it.
    fn store(&mut self, spill: &mut SpillFile) -> Result<(), ConnectionError> {
        if spill.can_take(&self.received) {
            spill.write(&mut self.received);
            return Ok(());
        }
        match self.fallback {
            SpillFallback::Pause => Ok(()),
            SpillFallback::Disconnect => Err(ConnectionError::InboxFull),
            SpillFallback::DropNewest => {
                for item in self.received.drain(..) {
                    let Incoming::Message(message) = item else {
                        spill.refused.push_back(item);
                        continue;
                    };
                    self.report.add(1, message.len() as u64);
                    if let Some(Incoming::Gap(Gap::Dropped { messages, bytes })) =
                        spill.refused.back_mut()
                    {
                        *messages += 1;
                        *bytes += message.len() as u64;
                    } else {
                        let gap = Gap::Dropped {
                            messages: 1,
                            bytes: message.len() as u64,
                        };
                        spill.refused.push_back(Incoming::Gap(gap));
                    }
                }
                Ok(())
            }
        }
    }

    /// Reports overflows once a second; returns when the next report is due.
    pub(crate) fn report_overflow(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        let OverflowReport {
            messages,
            bytes,
            last,
        } = self.report;
        if messages == 0 {
            return None;
        }
        let due = last.map_or(now, |last| last + REPORT_INTERVAL);
        if due > now {
            return Some(due);
        }
        self.report = OverflowReport {
            messages: 0,
            bytes: 0,
            last: Some(now),
        };
        shared.events.push(Event::Overflow { messages, bytes });
        None
    }

    /// Goes on handing over while there is no connection; resolves when nothing is left.
    pub(crate) async fn drain(&mut self, shared: &Shared) {
        std::future::poll_fn(|cx| {
            // Between connections there is nothing left to disconnect.
            let _ = self.hand_over(shared, cx, Instant::now());
            let spilling = self.spill.as_ref().is_some_and(SpillFile::is_active);
            if self.received.is_empty() && !spilling {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let now = Instant::now();
        self.set_paused(false, shared, now);
        self.report_overflow(shared, now);
    }
}

impl OverflowReport {
    fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }
}
