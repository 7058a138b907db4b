//! From the socket to the inbox. What was read and not yet handed over survives the connection.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Turn, TurnContext};
use crate::{
    defaults::{IDLE_QUEUE_PLACES, PACKED_RECEIVED_BYTES, READ_TURN_BYTES},
    handles::Shared,
    messages::{Gap, Incoming, Message, kind},
    queues::{
        items::{Item, Items, unpacked},
        spill::{Progress, SpillFile},
    },
    reports::{ConnectionError, Event, StallCause},
    settings::{Options, Overflow, SpillFallback},
    time::later,
    ws::{Failure, Payload, WebSocket},
};
use unstall_proto::{Records, limits::PACKET_FILL};

/// Overflows are reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct OverflowReport {
    messages: u64,
    bytes: u64,
    last: Option<Instant>,
}

/// Received messages between the socket and the inbox.
pub(crate) struct Reading {
    /// Read, and not yet taken by the inbox or the spill file. At most one turn's worth.
    received: Items,
    /// The latest of it, where short messages are packed: those that nothing has to look at before
    /// the application does.
    packing: Option<Records>,
    spill: Option<SpillFile>,
    fallback: SpillFallback,
    paused: bool,
    report: OverflowReport,
}

impl Reading {
    pub(crate) fn new(options: &Options) -> Reading {
        let (spill, fallback) = match &options.overflow {
            Overflow::Spill(spill) => (Some(SpillFile::new(spill.clone())), spill.then),
            _ => (None, SpillFallback::Pause),
        };
        Reading {
            received: Items::new(),
            packing: matches!(options.overflow, Overflow::Pause).then(Records::default),
            spill,
            fallback,
            paused: false,
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
    pub(crate) fn append(&mut self, mut items: Items) {
        self.end_packet();
        self.received.append(&mut items);
    }

    /// What was read and not handed over.
    pub(crate) fn take_received(&mut self) -> Items {
        self.end_packet();
        std::mem::take(&mut self.received)
    }

    /// Marks a place in the stream behind everything received so far.
    pub(crate) fn mark(&mut self, gap: Gap) {
        self.end_packet();
        self.received.push_back(Item::One(Incoming::Gap(gap)));
    }

    /// Reads until the socket is empty, the inbox full, or the turn used up.
    pub(crate) fn turn<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        context: TurnContext<'_, '_>,
        unlimited: bool,
    ) -> Turn {
        let TurnContext {
            shared,
            counters,
            cx,
            now,
        } = context;
        let handed_over = self.hand_over(shared, true, cx, now);
        counters.spilled = self.spilled();
        if let Err(why) = handed_over {
            return Turn {
                failure: Some(Failure::Broken(why)),
                ..Turn::default()
            };
        }
        let room = if unlimited {
            usize::MAX
        } else {
            self.room(shared, cx)
        };
        self.set_paused(room == 0, shared, now);
        let limit = room.min(READ_TURN_BYTES);
        let mut turn = Turn::read(ws, limit, cx, |text, payload| {
            counters.messages_received += 1;
            counters.bytes_received += payload.len() as u64;
            self.receive(text, payload);
            Ok(())
        });
        self.end_packet();
        // Far larger than what comes now, it gives its memory back.
        if self.received.capacity() > IDLE_QUEUE_PLACES.max(8 * self.received.len()) {
            self.received.shrink_to(IDLE_QUEUE_PLACES);
        }
        if let Err(why) = self.hand_over(shared, true, cx, now) {
            turn.failure.get_or_insert(Failure::Broken(why));
        }
        counters.spilled = self.spilled();
        turn
    }

    fn receive(&mut self, text: bool, payload: Payload<'_>) {
        if let Some(packing) = &mut self.packing
            && payload.len() <= PACKED_RECEIVED_BYTES
        {
            let kind = kind(text);
            if !packing.push_bytes(kind, &payload) {
                let full = std::mem::replace(packing, Records::with_capacity(PACKET_FILL));
                self.received.push_back(Item::Packet(full.into_batch()));
                packing.push_bytes(kind, &payload);
            }
            return;
        }
        self.end_packet();
        let message = Message::new(text, payload.into_bytes());
        self.received
            .push_back(Item::One(Incoming::Message(message)));
    }

    fn end_packet(&mut self) {
        if let Some(packing) = &mut self.packing
            && !packing.is_empty()
        {
            let records = std::mem::take(packing);
            self.received.push_back(Item::Packet(records.into_batch()));
        }
    }

    /// How many bytes may be read now. What was read and found no place comes first.
    fn room(&mut self, shared: &Shared, cx: &mut Context<'_>) -> usize {
        if !self.received.is_empty() {
            return 0;
        }
        if let Some(spill) = &self.spill {
            // The file takes what the inbox cannot.
            return if spill.has_waiting() {
                0
            } else {
                READ_TURN_BYTES
            };
        }
        shared.inbox.room(cx)
    }

    fn set_paused(&mut self, paused: bool, shared: &Shared, now: Instant) {
        if self.paused != paused {
            self.paused = paused;
            shared
                .meter
                .wait(StallCause::ApplicationNotReading, paused, now);
        }
    }

    /// Moves what was read towards the application, in order: the file's messages, then those
    /// behind it. Whatever must wait is woken for. After the `live` connection only room counts: no
    /// policy ends it again.
    fn hand_over(
        &mut self,
        shared: &Shared,
        live: bool,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let mut result = Ok(());
        if let Some(mut spill) = self.spill.take() {
            spill.behind.append(&mut unpacked(&mut self.received));
            result = self.hand_over_spilled(&mut spill, shared, live, cx, now);
            self.spill = Some(spill);
        } else if self.packing.is_some() {
            shared.inbox.push_while_room(&mut self.received, now);
        } else if !self.received.is_empty() {
            let mut batch = unpacked(&mut self.received);
            let pushed = shared.inbox.push(&mut batch, now, cx);
            self.received.extend(batch.into_iter().map(Item::One));
            self.report.add(pushed.overflowed, pushed.overflowed_bytes);
            if pushed.disconnect && live {
                result = Err(ConnectionError::InboxFull);
            }
        }
        if self.holds_any() {
            shared.inbox.wake_on_room(cx);
        }
        result
    }

    fn holds_any(&self) -> bool {
        let spill = self.spill.as_ref();
        !self.received.is_empty()
            || spill.is_some_and(|spill| spill.holds_any() || !spill.behind.is_empty())
    }

    fn hand_over_spilled(
        &mut self,
        spill: &mut SpillFile,
        shared: &Shared,
        live: bool,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let mut result = Ok(());
        loop {
            shared.inbox.push(&mut spill.ready, now, cx);
            if spill.ready.is_empty() && !spill.is_busy() && spill.has_stored() {
                spill.read();
            }
            if !spill.holds_any() {
                shared.inbox.push(&mut spill.behind, now, cx);
            }
            if !spill.behind.is_empty() && !spill.is_busy() && !spill.write() && live {
                result = self.fall_back(spill, shared);
            }
            match spill.poll(cx) {
                Poll::Pending => {
                    if !spill.holds_any() {
                        spill.shrink();
                    }
                    return result;
                }
                Poll::Ready(Progress::Loaded) => {}
                Poll::Ready(Progress::Spilled { messages, bytes }) => {
                    self.report.add(messages, bytes);
                }
                Poll::Ready(Progress::Failed { why, lost }) => {
                    shared.events.push(Event::SpillFailed { why });
                    shared.inbox.count_overflowed(lost);
                }
            }
        }
    }

    /// The file takes no more.
    fn fall_back(&mut self, spill: &mut SpillFile, shared: &Shared) -> Result<(), ConnectionError> {
        if let Some(why) = spill.news_of_full() {
            shared.events.push(Event::SpillFailed { why });
        }
        match self.fallback {
            SpillFallback::Pause => {}
            SpillFallback::Disconnect => return Err(ConnectionError::InboxFull),
            SpillFallback::DropNewest => {
                let (messages, bytes) = spill.drop_behind();
                self.report.add(messages, bytes);
                shared.inbox.count_overflowed(messages);
            }
        }
        Ok(())
    }

    /// Reports overflows once a second; returns when the next report is due.
    pub(crate) fn report_overflow(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        if self.report.messages == 0 {
            return None;
        }
        let due = self
            .report
            .last
            .map_or(now, |last| later(last, REPORT_INTERVAL));
        if due > now {
            return Some(due);
        }
        self.report_all(shared, now);
        None
    }

    /// Reports what was not reported yet, however short ago the last report was.
    pub(crate) fn report_all(&mut self, shared: &Shared, now: Instant) {
        let report = std::mem::take(&mut self.report);
        self.report.last = Some(now);
        if report.messages > 0 {
            let (messages, bytes) = (report.messages, report.bytes);
            shared.events.push(Event::Overflow { messages, bytes });
        }
    }

    /// Goes on handing over while there is no connection; resolves when nothing is left.
    pub(crate) async fn drain(&mut self, shared: &Shared) {
        std::future::poll_fn(|cx| {
            // Between connections there is nothing left to disconnect.
            let _ = self.hand_over(shared, false, cx, Instant::now());
            let mut counters = shared.meter.counters();
            counters.spilled = self.spilled();
            shared.meter.publish(counters);
            if self.holds_any() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        let now = Instant::now();
        self.set_paused(false, shared, now);
        self.report_all(shared, now);
    }
}

impl OverflowReport {
    fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }
}
