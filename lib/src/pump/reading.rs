//! Received messages that the inbox has not taken yet. They survive the connection.

use std::task::Poll;

use tokio::time::Instant;

use super::TurnContext;
use crate::{
    defaults::{
        IDLE_QUEUE_PLACES, OVERFLOW_REPORT_INTERVAL, PACKED_RECEIVED_BYTES, READ_TURN_BYTES,
    },
    handles::Shared,
    messages::{Gap, Incoming, Message, SessionNumber, kind},
    queues::{
        items::{Item, Items, Packet, unpacked},
        spill::{SpillFile, SpillProgress},
    },
    reports::{ConnectionError, Event, Report, StallCause},
    settings::{Options, Overflow, SpillFallback},
    time::later,
    ws::CowBytes,
};
use unstall_proto::{self as proto, Records, limits::PACKET_FILL, util::push_back};

/// Overflowed messages that no event has reported yet.
#[derive(Default)]
struct OverflowReport {
    messages: u64,
    bytes: u64,
    /// The next event comes no earlier.
    not_before: Option<Instant>,
}

/// What happens to messages for which the inbox has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// They wait. In a session, credit bounds them.
    Wait,
    /// The overflow policy decides. It may end the connection.
    Policy,
    /// The overflow policy decides, but there is no connection that it could end.
    PolicyAway,
}

/// Received messages that the inbox has not taken yet.
pub(crate) struct Reading {
    /// At most the messages of one turn, or one packet of a session.
    received: Items,
    /// While the `on_connect` hook runs: the messages of this connection.
    setup: Option<Items>,
    /// The latest short messages, packed. `None` if an overflow policy must treat each message by
    /// itself.
    packing: Option<Records>,
    spill: Option<Box<SpillFile>>,
    fallback: SpillFallback,
    paused: bool,
    overflow: OverflowReport,
}

impl Reading {
    pub(crate) fn new(options: &Options) -> Reading {
        let (spill, fallback) = match &options.overflow {
            #[cfg(feature = "spill")]
            Overflow::Spill(spill) => (Some(Box::new(SpillFile::new(spill.clone()))), spill.then),
            _ => (None, SpillFallback::Pause),
        };
        Reading {
            received: Items::new(),
            setup: None,
            packing: matches!(options.overflow, Overflow::Pause).then(Records::default),
            spill,
            fallback,
            paused: false,
            overflow: OverflowReport::default(),
        }
    }

    /// Whether reading waits for the application.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// The queue for what the connection brings.
    fn newest(&mut self) -> &mut Items {
        self.setup.as_mut().unwrap_or(&mut self.received)
    }

    /// Takes a plain message.
    pub(crate) fn receive(&mut self, text: bool, payload: CowBytes<'_>) {
        if let Some(packing) = &mut self.packing
            && payload.len() <= PACKED_RECEIVED_BYTES
        {
            let kind = kind(text);
            if !packing.push_bytes(kind, &payload) {
                let full = std::mem::replace(packing, Records::with_capacity(PACKET_FILL));
                packing.push_bytes(kind, &payload);
                let packet = Packet::plain(full.into_batch());
                push_back(self.newest(), Item::Packet(packet));
            }
            return;
        }
        self.end_packet();
        let message = Message::new(text, payload.into_bytes());
        push_back(self.newest(), Item::One(Incoming::Message(message)));
    }

    /// Takes a packet of a session.
    pub(crate) fn receive_packet(&mut self, batch: proto::Batch, session: SessionNumber) {
        let packet = Item::Packet(Packet::new(batch, session));
        push_back(self.newest(), packet);
    }

    /// Queues the messages that are being packed.
    fn end_packet(&mut self) {
        if let Some(packing) = &mut self.packing
            && !packing.is_empty()
        {
            let packet = Packet::plain(std::mem::take(packing).into_batch());
            push_back(self.newest(), Item::Packet(packet));
        }
    }

    /// Appends a gap after everything received so far.
    pub(crate) fn mark(&mut self, gap: Gap) {
        self.end_packet();
        self.received.push_back(Item::One(Incoming::Gap(gap)));
    }

    /// Changes the messages that wait for the inbox.
    pub(crate) fn change_received(&mut self, change: impl FnOnce(&mut Items)) {
        self.end_packet();
        change(&mut self.received);
    }

    /// From now on what the connection brings goes to the `on_connect` hook.
    pub(crate) fn open_setup(&mut self) {
        self.setup = Some(Items::new());
    }

    /// The hook is done. `left` is what was handed over to it and it did not receive. The stream gets
    /// that, and what still waits for the hook.
    pub(crate) fn close_setup(&mut self, mut left: Items) {
        self.end_packet();
        if let Some(mut came) = self.setup.take() {
            self.received.append(&mut left);
            self.received.append(&mut came);
        }
    }

    /// How many bytes a plain connection may bring now. Zero while earlier messages wait.
    pub(super) fn room(&mut self, turn: &mut TurnContext<'_, '_>) -> usize {
        let room = self.find_room(turn);
        self.set_paused(room == 0, turn.report);
        room
    }

    fn find_room(&mut self, turn: &mut TurnContext<'_, '_>) -> usize {
        if !self.newest().is_empty() {
            return 0;
        }
        if let Some(spill) = self.spill.as_ref().filter(|_| self.setup.is_none()) {
            // The file takes what the inbox has no room for.
            return match spill.has_waiting() {
                true => 0,
                false => READ_TURN_BYTES,
            };
        }
        turn.shared.inbox.room(turn.cx)
    }

    fn set_paused(&mut self, paused: bool, report: &mut Report) {
        if self.paused != paused {
            self.paused = paused;
            report.wait(StallCause::ApplicationNotReading, paused);
        }
    }

    /// Called after the turn has read: hands messages over.
    pub(super) fn end_turn(
        &mut self,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), ConnectionError> {
        self.end_packet();
        // Frees memory if the queue is far larger than what it holds now.
        let newest = self.newest();
        if newest.capacity() > IDLE_QUEUE_PLACES.max(8 * newest.len()) {
            newest.shrink_to(IDLE_QUEUE_PLACES);
        }
        self.hand_over(WhenFull::Policy, turn)
    }

    /// Frees the queue if it is empty.
    pub(super) fn shrink(&mut self) {
        if self.received.is_empty() {
            self.received = Items::new();
        }
    }

    /// Moves received messages to the inbox, in order: first those in the spill file, then the others.
    /// If some must wait, the pump is woken when there is room.
    ///
    /// # Errors
    /// The overflow policy ends the connection.
    pub(crate) fn hand_over(
        &mut self,
        when_full: WhenFull,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), ConnectionError> {
        if !self.holds_any() {
            return Ok(());
        }
        let (shared, now) = (turn.shared, turn.now);
        if let Some(setup) = &mut self.setup {
            shared.inbox.push_to_setup(setup, now);
        }
        let mut result = Ok(());
        if self.spill.is_some() {
            result = self.hand_over_spilled(when_full, turn);
        } else if self.packing.is_some() || when_full == WhenFull::Wait {
            shared.inbox.push_while_room(&mut self.received, now);
        } else if !self.received.is_empty() {
            let mut messages = unpacked(&mut self.received);
            let pushed = shared.inbox.push(&mut messages, now, turn.cx);
            self.received.extend(messages.into_iter().map(Item::One));
            self.overflow
                .add(pushed.overflowed, pushed.overflowed_bytes);
            if pushed.disconnect && when_full == WhenFull::Policy {
                result = Err(ConnectionError::InboxFull);
            }
        }
        if self.holds_any() {
            shared.inbox.wake_on_room(turn.cx);
        }
        result
    }

    /// Whether something waits for the inbox or the hook.
    pub(crate) fn holds_any(&self) -> bool {
        let spill = self.spill.as_ref();
        !self.received.is_empty()
            || self.setup.as_ref().is_some_and(|setup| !setup.is_empty())
            || spill.is_some_and(|spill| spill.holds_any() || !spill.behind.is_empty())
    }

    fn hand_over_spilled(
        &mut self,
        when_full: WhenFull,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), ConnectionError> {
        let Some(mut spill) = self.spill.take() else {
            return Ok(());
        };
        if when_full != WhenFull::Wait {
            spill.behind.append(&mut unpacked(&mut self.received));
        }
        let result = self.drive_spill(&mut spill, when_full, turn);
        turn.report.counters.spilled = spill.stored();
        // Messages of a session wait until the file is empty. They are never written to it.
        if !spill.holds_any() && spill.behind.is_empty() {
            turn.shared
                .inbox
                .push_while_room(&mut self.received, turn.now);
        }
        self.spill = Some(spill);
        result
    }

    fn drive_spill(
        &mut self,
        spill: &mut SpillFile,
        when_full: WhenFull,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), ConnectionError> {
        let shared = turn.shared;
        let mut result = Ok(());
        loop {
            shared.inbox.push(&mut spill.ready, turn.now, turn.cx);
            if spill.ready.is_empty() && !spill.is_busy() && spill.has_stored() {
                spill.read();
            }
            if !spill.holds_any() {
                shared.inbox.push(&mut spill.behind, turn.now, turn.cx);
            }
            if !spill.behind.is_empty()
                && !spill.is_busy()
                && !spill.write()
                && when_full == WhenFull::Policy
            {
                result = self.fall_back(spill, shared);
            }
            match spill.poll(turn.cx) {
                Poll::Pending => {
                    if !spill.holds_any() {
                        spill.shrink();
                    }
                    return result;
                }
                Poll::Ready(SpillProgress::Loaded) => {}
                Poll::Ready(SpillProgress::Spilled { messages, bytes }) => {
                    self.overflow.add(messages, bytes);
                }
                Poll::Ready(SpillProgress::Failed { why, lost }) => {
                    shared.events.push(Event::SpillFailed { why });
                    shared.inbox.count_overflowed(lost);
                }
            }
        }
    }

    /// The spill file is full or has failed: does what its fallback says.
    fn fall_back(&mut self, spill: &mut SpillFile, shared: &Shared) -> Result<(), ConnectionError> {
        if let Some(why) = spill.news_of_full() {
            shared.events.push(Event::SpillFailed { why });
        }
        match self.fallback {
            SpillFallback::Pause => {}
            SpillFallback::Disconnect => return Err(ConnectionError::InboxFull),
            SpillFallback::DropNewest => {
                let (messages, bytes) = spill.drop_behind();
                self.overflow.add(messages, bytes);
                shared.inbox.count_overflowed(messages);
            }
        }
        Ok(())
    }

    /// Reports overflows by an event, if it is time for one.
    pub(super) fn tell_overflow_in_time(&mut self, shared: &Shared, now: Instant) {
        if self.overflow.not_before.is_none_or(|at| at <= now) {
            self.tell_overflow(shared);
        }
    }

    /// When the next event about overflows is due.
    pub(super) fn overflow_at(&self) -> Option<Instant> {
        let at = self.overflow.not_before;
        at.filter(|_| self.overflow.messages > 0)
    }

    /// Reports overflows by an event, however recent the last one is.
    pub(crate) fn tell_overflow(&mut self, shared: &Shared) {
        let OverflowReport {
            messages, bytes, ..
        } = self.overflow;
        if messages > 0 {
            shared.events.push(Event::Overflow { messages, bytes });
            self.overflow = OverflowReport {
                not_before: Some(later(Instant::now(), OVERFLOW_REPORT_INTERVAL)),
                ..OverflowReport::default()
            };
        }
    }

    /// Hands messages over while there is no connection. Resolves when none are left.
    pub(crate) async fn drain(&mut self, shared: &Shared) {
        std::future::poll_fn(|cx| {
            let now = Instant::now();
            let mut report = Report::of(&shared.meter);
            let turn = &mut TurnContext::new(shared, &mut report, cx, now);
            // This cannot fail: the policy has no connection to end.
            let _ = self.hand_over(WhenFull::PolicyAway, turn);
            if !self.holds_any() {
                self.set_paused(false, turn.report);
            }
            shared.meter.publish(&mut report, now);
            match self.holds_any() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        self.tell_overflow(shared);
    }
}

impl OverflowReport {
    fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }
}
