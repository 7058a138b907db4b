//! A session of `unstall.v1`. It outlives its connections.
//!
//! The crate `unstall-proto` has the protocol, as a value without I/O. This room joins that value to
//! the queues of the application, and to one connection after the other.

mod carrier;
mod client;
mod ending;
mod guard;
pub(crate) mod opening;
mod packets;
mod receiving;
mod sending;

use std::task::{Context, Poll};

use tokio::time::Instant;
use tracing::Span;
use unstall_proto as proto;
use unstall_proto::Wait;

use crate::{
    handles::Shared,
    messages::SessionNumber,
    pump::{Alarm, Reading, TurnContext, WhenFull},
    reports::{ConnectionError, Event, Report, SessionLoss, StallCause},
    settings::{Account, Evictable, Share},
    spans,
    time::later,
};

use carrier::Carrier;
use ending::Ending;
pub(crate) use guard::SessionGuard;
pub(crate) use packets::{Packets, over_packets};
use receiving::Receiving;
use sending::Sending;

/// A session, with what it needs between the protocol and the queues of the application.
pub(crate) struct Session {
    protocol: proto::Session,
    /// When the protocol's clock was zero.
    origin: Instant,
    number: SessionNumber,
    carrier: Carrier,
    sending: Sending,
    receiving: Receiving,
    ending: Ending,
    /// Its span, once its task runs.
    span: Span,
    /// The bytes that the protocol keeps in memory.
    share: Share,
    /// Declared after the share, so that the share gives its bytes back first.
    evictable: Evictable,
}

impl Session {
    pub(crate) fn new(protocol: proto::Session, origin: Instant, account: &Account) -> Session {
        Session {
            protocol,
            origin,
            number: SessionNumber::next(),
            carrier: Carrier::default(),
            sending: Sending::default(),
            receiving: Receiving::default(),
            ending: Ending::default(),
            span: Span::none(),
            share: account.share(),
            evictable: account.evictable(),
        }
    }

    /// Begins the span of the session, as a child of the current span.
    pub(crate) fn begin_span(&mut self) -> &Span {
        self.span = spans::session();
        &self.span
    }

    fn time(&self, now: Instant) -> proto::Time {
        proto::Time::new(now.saturating_duration_since(self.origin))
    }

    /// Whether the peer has ever agreed to the session.
    pub(crate) fn was_opened(&self) -> bool {
        self.carrier.was_opened()
    }

    /// How many messages were received, and up to where the peer has acknowledged. A change shows that
    /// the session made progress.
    pub(crate) fn moved(&self) -> (u64, proto::Seq) {
        (self.receiving.messages(), self.protocol.acknowledged())
    }

    /// Hands received messages over, tells the protocol what the application has taken, and acts on
    /// the protocol's events and timers.
    fn exchange(&mut self, reading: &mut Reading, turn: &mut TurnContext<'_, '_>) {
        let time = self.time(turn.now);
        if self.protocol.poll_timeout().is_some_and(|at| at <= time) {
            self.protocol.handle_timeout(time);
        }
        // The limit of the peer is known before its first message is.
        self.tell_events(turn.shared, turn.report, turn.now);
        // This cannot fail: in a session no overflow policy ends the connection.
        let _ = reading.hand_over(WhenFull::Wait, turn);
        while !reading.holds_any()
            && self
                .receiving
                .next(&mut self.protocol, self.number, reading)
        {
            let _ = reading.hand_over(WhenFull::Wait, turn);
        }
        self.report_taken(turn);
        self.tell_events(turn.shared, turn.report, turn.now);
        self.settle(turn.shared);
    }

    /// Tells the protocol what the application has taken, acknowledged by hand, and asked for.
    fn report_taken(&mut self, turn: &mut TurnContext<'_, '_>) {
        let time = self.time(turn.now);
        let (taken, look_at) = turn.shared.inbox.taken(turn.now, turn.cx);
        self.receiving.look_at = look_at;
        if let Some(taken) = taken.within(self.number) {
            self.receiving.taken = taken;
            self.protocol.taken(time, taken);
        }
        let (processed, go_away) = turn.shared.board.asked(turn.cx.waker());
        if let Some(within) = go_away {
            self.protocol.go_away(within, "");
        }
        if turn.shared.options.acknowledge_by_hand
            && let Some(processed) = processed.and_then(|it| it.within(self.number))
        {
            self.protocol.acknowledge(time, processed);
        }
    }

    /// Reports what the session waits for. The pump reports waits for the socket and the peer.
    fn tell_stalls(&self, reading: &Reading, report: &mut Report) {
        let away = !self.protocol.is_attached() && !self.is_over();
        let wait = self.protocol.waits_for().filter(|_| !away);
        let credit = wait == Some(Wait::Credit);
        // A session that the budget holds back counts as waiting for the replay buffer, unless it
        // waits for credit.
        let replay = wait == Some(Wait::Replay) || (self.sending.held_back && !away && !credit);
        let unread = reading.holds_any() || self.protocol.holds_peer_back();
        report.wait(StallCause::Connecting, away);
        report.wait(StallCause::OutOfCredit, credit);
        report.wait(StallCause::ReplayFull, replay);
        report.wait(StallCause::ApplicationNotReading, unread);
    }

    /// Acts on the protocol's events, and tells the handles of them.
    fn tell_events(&mut self, shared: &Shared, report: &mut Report, now: Instant) {
        while let Some(event) = self.protocol.poll_event() {
            match event {
                proto::Event::Opened => {
                    self.carrier.opened();
                    let limit = self.protocol.max_send_message();
                    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                    shared.outbox.set_peer_limit(Some(limit));
                    shared.events.push(Event::SessionOpened);
                }
                proto::Event::Resumed { replayed, .. } => {
                    let after = self.carrier.resumed(now);
                    report.counters.resumes += 1;
                    shared.events.push(Event::Resumed { after, replayed });
                }
                proto::Event::HandshakeTimedOut(_) => self.carrier.was_unanswered(),
                proto::Event::GoAway { within, .. } => {
                    self.carrier.goes_away(within, now);
                    shared.events.push(Event::GoAway { within });
                }
                proto::Event::Closing(frame) => self.peer_closes(shared, &frame),
                proto::Event::Ended(reason) => self.ending.ended(reason),
                _ => {}
            }
        }
    }

    /// Tells the handles what was delivered, and charges what the protocol keeps.
    fn settle(&mut self, shared: &Shared) {
        self.settle_deliveries(shared);
        self.hold();
    }

    /// Charges the bytes that the protocol keeps. They are held already, so this is never refused;
    /// accepting more messages is.
    fn hold(&mut self) {
        let stats = self.protocol.stats();
        let bytes = stats.send_memory + stats.receive_memory;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.share.cover_anyway(bytes);
        self.share.relax(bytes);
        self.sending.kept = bytes;
    }

    /// Ends the session if it holds most of a budget that is used up.
    fn end_if_evicted(&mut self, cx: &Context<'_>) {
        if !self.is_over() && self.evictable.poll_evicted(cx).is_ready() {
            self.give_up(ConnectionError::SessionLost(SessionLoss::Evicted));
        }
    }

    /// When the next turn is due at the latest.
    fn wake_at(&self) -> Option<Instant> {
        let timer = self.protocol.poll_timeout();
        let timer = timer.map(|at| later(self.origin, at.since_origin()));
        [
            timer,
            self.close_at(),
            self.leaves_at(),
            self.receiving.look_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Serves the application while there is no connection. Resolves when the session has ended.
    pub(crate) async fn serve_detached(&mut self, shared: &Shared, reading: &mut Reading) {
        let mut alarm = Alarm::default();
        std::future::poll_fn(|cx| {
            loop {
                let now = Instant::now();
                let mut report = Report::of(&shared.meter);
                self.turn_detached(reading, &mut TurnContext::new(shared, &mut report, cx, now));
                let stalls = shared.meter.publish(&mut report, now);
                if self.is_over() {
                    return Poll::Ready(());
                }
                let times = [self.wake_at(), stalls];
                let next = times.into_iter().flatten().min();
                if next.is_none_or(|next| !alarm.set(next, cx)) {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    fn turn_detached(&mut self, reading: &mut Reading, turn: &mut TurnContext<'_, '_>) {
        self.end_if_evicted(turn.cx);
        self.exchange(reading, turn);
        if let Some(request) = turn.shared.poll_close_request(turn.cx) {
            self.request_close(&request);
        }
        if self.ending.is_near() {
            if self.was_opened() {
                self.accept(turn);
            }
            self.close_when_due(turn.shared, turn.now);
            self.exchange(reading, turn);
        }
        self.tell_stalls(reading, turn.report);
    }

    /// After the end: hands over the messages that are left.
    async fn drain(&mut self, shared: &Shared, reading: &mut Reading) {
        std::future::poll_fn(|cx| self.poll_drain(shared, reading, cx)).await;
    }

    fn poll_drain(
        &mut self,
        shared: &Shared,
        reading: &mut Reading,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let now = Instant::now();
        let mut report = Report::of(&shared.meter);
        self.exchange(reading, &mut TurnContext::new(shared, &mut report, cx, now));
        report.wait(StallCause::ApplicationNotReading, reading.holds_any());
        shared.meter.publish(&mut report, now);
        match reading.holds_any() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

/// Random bytes for session ids and tokens.
///
/// # Panics
/// The operating system gives no random bytes. No secret can be made without them.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
