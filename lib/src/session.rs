//! A session joined to its connections, which it outlives.

pub(crate) mod client;
mod counting;
mod ending;
mod kept;
mod packets;
mod sending;

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use unstall_proto as proto;
use unstall_proto::{EndReason, Seq, Wait};

use crate::{
    handles::{CloseRequest, Shared},
    messages::{Gap, Incoming},
    queues::{
        items::{Item, Items, count_messages},
        outbox::Entry,
        queue,
    },
    reports::{ConnectionError, Event, StallCause},
    time::{granted, later},
};

pub(crate) use counting::Held;
use counting::{Ends, HandedOver, Unacknowledged};
pub(crate) use kept::Kept;
pub(crate) use packets::{Packets, over_packets};

/// A session and what lies between it and the queues of the application.
pub(crate) struct Link {
    session: proto::Session,
    /// The origin of the session's clock.
    origin: Instant,
    generation: Option<proto::Generation>,
    /// Taken from the outbox, not yet accepted by the session.
    waiting: VecDeque<Entry>,
    /// Messages that are not acknowledged.
    unacknowledged: Unacknowledged,
    /// Up to which number the messages of the outbox are complete at which record, for `flush`.
    flushes: VecDeque<(Seq, u64)>,
    taken: HandedOver,
    processed: Ends,
    by_hand: bool,
    /// What the inbox will have counted as taken when the first message of this session is next.
    taken_before: i64,
    opened: bool,
    /// What is sent now is the hook's: it will send it again, in another session.
    set_up: bool,
    /// A client that begins anew after this session, with what was not accepted into it.
    renewed: bool,
    received: u64,
    /// Received, waiting for room in the inbox.
    backlog: Items,
    request: Option<CloseRequest>,
    /// This side, or the peer, has begun to close.
    closing: bool,
    peer_closing: bool,
    end: Option<EndReason>,
    /// Why this side gave the session up.
    given_up: Option<ConnectionError>,
    failure: Option<ConnectionError>,
    /// The server did not answer HELLO.
    unanswered: bool,
    /// The present connection carries the session.
    welcomed: bool,
    /// When this client leaves a server that goes away.
    leave_at: Option<Instant>,
    lost_at: Option<Instant>,
    held: Held,
    /// All sessions together keep too much for this one to accept more.
    held_back: bool,
}

impl Link {
    pub(crate) fn new(session: proto::Session, shared: &Shared, origin: Instant) -> Link {
        Link {
            session,
            origin,
            generation: None,
            waiting: VecDeque::new(),
            unacknowledged: Unacknowledged::default(),
            flushes: VecDeque::new(),
            taken: HandedOver::default(),
            processed: Ends::default(),
            by_hand: shared.options.acknowledge_by_hand,
            taken_before: shared.inbox.end_of_queue(),
            opened: false,
            set_up: false,
            renewed: false,
            received: 0,
            backlog: Items::new(),
            request: None,
            closing: false,
            peer_closing: false,
            end: None,
            given_up: None,
            failure: None,
            unanswered: false,
            welcomed: false,
            leave_at: None,
            lost_at: None,
            held: Held::default(),
            held_back: false,
        }
    }

    /// Counts what it holds among that of other sessions.
    pub(crate) fn hold(&mut self, held: Held) {
        self.held = held;
    }

    /// A fresh session begins with other queues.
    pub(crate) fn bind(&mut self, to: &Shared) {
        self.taken_before = to.inbox.end_of_queue();
    }

    /// Goes on with other queues, to which what was received is moved.
    pub(crate) fn rebind(&mut self, from: &Shared, to: &Shared) {
        let taken = from.inbox.taken_messages() as i64 - self.taken_before;
        self.taken_before = to.inbox.end_of_queue() - taken;
        let mut received = from.inbox.drain();
        received.append(&mut self.backlog);
        self.backlog = received;
    }

    /// Hands over first what an earlier connection received.
    pub(crate) fn put_before(&mut self, mut earlier: Items) {
        self.taken_before += count_messages(&earlier) as i64;
        earlier.append(&mut self.backlog);
        self.backlog = earlier;
    }

    /// What was received and not handed over yet.
    fn receive_rest(&mut self) {
        while let Some(incoming) = self.session.recv() {
            if let proto::Incoming::Messages(batch) = incoming {
                self.receive(batch);
            }
        }
    }

    /// Marks a place in the stream, behind everything received.
    fn mark(&mut self, gap: Gap) {
        self.backlog.push_back(Item::One(Incoming::Gap(gap)));
    }

    /// Whether the peer ever agreed to the session.
    pub(crate) fn was_opened(&self) -> bool {
        self.opened
    }

    /// Whether the set-up was not completed.
    pub(crate) fn is_set_up(&self) -> bool {
        self.set_up
    }

    /// Whether the last connection carried the session.
    pub(crate) fn was_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Whether what is sent now is the hook's own, which nobody else is to be told of.
    pub(crate) fn set_up(&mut self, set_up: bool) {
        self.set_up = set_up;
        // Nobody waits for the hook's own any more.
        self.flushes.clear();
    }

    pub(crate) fn time(&self, now: Instant) -> proto::Time {
        proto::Time::new(now.saturating_duration_since(self.origin))
    }

    pub(crate) fn session(&mut self) -> &mut proto::Session {
        &mut self.session
    }

    /// The session goes on over this connection.
    pub(crate) fn attached(&mut self, generation: proto::Generation) {
        self.generation = Some(generation);
        self.failure = None;
        self.unanswered = false;
        self.welcomed = false;
        self.leave_at = None;
    }

    /// How much was received and how far the peer acknowledged: grows with every message moved.
    pub(crate) fn moved(&self) -> (u64, proto::Seq) {
        (self.received, self.session.acknowledged())
    }

    /// The connection was replaced.
    pub(crate) fn lose(&mut self, shared: &Shared, now: Instant) {
        self.lost_at.get_or_insert(now);
        for cause in [StallCause::SocketFull, StallCause::PeerSilent] {
            shared.meter.wait(cause, false, now);
        }
    }

    /// The connection is gone.
    pub(crate) fn detach(&mut self, shared: &Shared, now: Instant) {
        if let Some(generation) = self.generation.take() {
            self.session.detach(self.time(now), generation);
            self.lost_at.get_or_insert(now);
        }
        if !self.peer_closing {
            self.leave_at = None;
        }
        shared.outbox.shrink();
        self.tell_stalls(shared, now);
        self.tell_events(shared, now);
    }

    /// Hands over what was received, and tells the session what the application took.
    fn exchange(&mut self, shared: &Shared, cx: &Context<'_>, now: Instant) {
        // Before looking, so that nothing taken in between goes unnoticed.
        shared.inbox.wake_on_room(cx);
        let time = self.time(now);
        if self.session.poll_timeout().is_some_and(|at| at <= time) {
            self.session.handle_timeout(time);
        }
        shared.inbox.push_while_room(&mut self.backlog, now);
        while self.backlog.is_empty() {
            match self.session.recv() {
                Some(proto::Incoming::Messages(batch)) => self.receive(batch),
                // The end comes as an event as well.
                Some(_) => {}
                None => break,
            }
            shared.inbox.push_while_room(&mut self.backlog, now);
        }
        // After handing over: without a receiver that counts as taken.
        self.report_taken(shared, time, cx);
        self.tell_events(shared, now);
    }

    fn report_taken(&mut self, shared: &Shared, time: proto::Time, cx: &Context<'_>) {
        let taken = shared.inbox.taken_messages() as i64 - self.taken_before;
        if let Some(position) = self.taken.count_to(taken) {
            self.session.taken(time, position);
        }
        let (processed, go_away) = shared.board.asked(cx.waker());
        if let Some(within) = go_away {
            self.session.go_away(within, "");
        }
        let processed = processed as i64 - self.taken_before;
        if self.by_hand
            && let Some(position) = self.processed.count_to(processed)
        {
            self.session.acknowledge(time, position);
        }
    }

    /// A packet's messages, on their way to the application, which cuts them.
    fn receive(&mut self, packet: proto::Batch) {
        self.received += packet.remaining();
        self.taken.push(packet.clone());
        if self.by_hand {
            self.processed.push_all(packet.clone());
        }
        queue::push(&mut self.backlog, Item::Packet(packet));
    }

    /// What the session waits for; the pump tells what the socket does.
    fn tell_stalls(&self, shared: &Shared, now: Instant) {
        let away = !self.session.is_attached() && !self.is_over();
        let wait = self.session.waits_for().filter(|_| !away);
        let credit = wait == Some(Wait::Credit);
        // With something unsent it is credit or the socket that holds the replay up.
        let replay = wait == Some(Wait::Replay) || (self.held_back && !away && !credit);
        let unread = !self.backlog.is_empty() || self.session.holds_peer_back();
        for (cause, waiting) in [
            (StallCause::Connecting, away),
            (StallCause::OutOfCredit, credit),
            (StallCause::ReplayFull, replay),
            (StallCause::ApplicationNotReading, unread),
        ] {
            shared.meter.wait(cause, waiting, now);
        }
    }

    fn tell_events(&mut self, shared: &Shared, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                proto::Event::Opened => {
                    (self.opened, self.welcomed) = (true, true);
                    let limit = self.session.max_send_message();
                    shared.outbox.limit_messages(limit as usize);
                    self.lost_at = None;
                    shared.events.push(Event::SessionOpened);
                }
                proto::Event::Resumed { replayed, .. } => {
                    self.welcomed = true;
                    let after = self
                        .lost_at
                        .take()
                        .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                    shared.meter.count_resume();
                    shared.events.push(Event::Resumed { after, replayed });
                }
                proto::Event::HandshakeTimedOut(_) => {
                    let silent = ConnectionError::PeerSilent(shared.options.connect_timeout);
                    self.failure = Some(silent);
                    self.unanswered = true;
                }
                proto::Event::GoAway { within, .. } => {
                    let within = granted(within);
                    self.leave_at = Some(later(now, within.mul_f64(fastrand::f64())));
                    shared.events.push(Event::GoAway { within });
                }
                proto::Event::Closing(frame) => self.peer_closes(shared, &frame),
                proto::Event::Ended(reason) => self.end = Some(reason),
                _ => {}
            }
        }
        self.settle_deliveries(shared);
        let stats = self.session.stats();
        self.held.set(stats.unacknowledged + stats.untaken);
    }

    /// When the session must be looked at though nothing happened.
    fn next_timer(&self) -> Option<Instant> {
        let timer = self.session.poll_timeout();
        let timer = timer.map(|at| later(self.origin, at.since_origin()));
        [timer, self.close_at(), self.leaves_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When this client leaves a server that goes away, unless the session ends anyway.
    fn leaves_at(&self) -> Option<Instant> {
        self.leave_at
            .filter(|_| !self.closing && !self.peer_closing)
    }

    /// Serves the application while there is no connection. Resolves when the session is over.
    pub(crate) async fn serve_detached(&mut self, shared: &Shared) {
        let mut alarm = crate::pump::Alarm::default();
        std::future::poll_fn(|cx| {
            loop {
                let now = Instant::now();
                self.exchange(shared, cx, now);
                self.tell_stalls(shared, now);
                if let Some(request) = shared.poll_close_request(cx) {
                    self.request_close(&request);
                }
                if self.request.is_some() || self.peer_closing {
                    if self.opened {
                        self.accept(shared, cx, now);
                    }
                    self.close_when_due(shared, now);
                    self.exchange(shared, cx, now);
                }
                if self.is_over() {
                    return Poll::Ready(());
                }
                let times = [self.next_timer(), shared.meter.report(now)];
                let Some(next) = times.into_iter().flatten().min() else {
                    return Poll::Pending;
                };
                if !alarm.set(next, cx) {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Hands over what is left, after the end.
    pub(crate) async fn drain(&mut self, shared: &Shared) {
        std::future::poll_fn(|cx| {
            self.exchange(shared, cx, Instant::now());
            if self.backlog.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.held.set(0);
    }
}

/// Random bytes for names and secrets.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness of the operating system nothing secret can be made.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
