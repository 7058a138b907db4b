//! A session joined to its connections, which it outlives.

pub(crate) mod client;
pub(crate) mod packets;
pub(crate) mod registry;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use unstall_proto as proto;
use unstall_proto::{EndReason, Fate, Position, Seq, Wait};

use crate::{
    error::{CloseCode, ConnectionError},
    events::Event,
    message::{Gap, Incoming, Message},
    outbox::Queued,
    shared::{CloseRequest, Shared},
    stats::StallCause,
};

/// A message that was accepted and that the peer's application never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The message, whole.
    pub message: Message,
    /// Whether any of it was sent: then the peer may have it.
    pub maybe_delivered: bool,
}

/// What the handles see of a session.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<BoardState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct BoardState {
    agreed: bool,
    /// Messages accepted into sessions, and those that were acknowledged or given back.
    accepted: u64,
    settled: u64,
    lost: u64,
    undelivered: Vec<Undelivered>,
    /// By hand: messages that the application has processed.
    processed: u64,
    pump: Option<Waker>,
    /// GOAWAY is to be sent, with this window.
    go_away: Option<Duration>,
    stats: Option<proto::Stats>,
}

impl Board {
    /// Whether a session was ever agreed.
    pub(crate) fn is_session(&self) -> bool {
        self.state.lock().unwrap().agreed
    }

    /// The peer agreed to a session.
    pub(crate) fn agree(&self) {
        self.state.lock().unwrap().agreed = true;
    }

    /// What the session holds: for replay, and for the application.
    pub(crate) fn held_bytes(&self) -> u64 {
        let stats = self.state.lock().unwrap().stats;
        stats.map_or(0, |stats| stats.unacknowledged + stats.untaken)
    }

    /// Asks the client to connect elsewhere within this time.
    pub(crate) fn go_away(&self, within: Duration) {
        let pump = {
            let mut state = self.state.lock().unwrap();
            state.go_away = Some(within);
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn take_undelivered(&self) -> Vec<Undelivered> {
        std::mem::take(&mut self.state.lock().unwrap().undelivered)
    }

    /// Messages that were given back so far, and those that are settled either way.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.lost, state.settled)
    }

    /// Messages accepted into sessions so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.lock().unwrap().accepted
    }

    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// By hand: everything up to this many received messages is processed.
    pub(crate) fn acknowledge(&self, messages: u64) {
        let pump = {
            let mut state = self.state.lock().unwrap();
            state.processed = state.processed.max(messages);
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
    }
}

/// Counts received messages and knows where each ends.
#[derive(Default)]
struct Ends {
    /// The ends of messages that were handed over and not counted off yet.
    ends: VecDeque<Position>,
    /// How many were counted off.
    counted: u64,
}

impl Ends {
    /// Counts off up to `total` messages; the end of the last, if there was any.
    fn count_to(&mut self, total: u64) -> Option<Position> {
        // A total from before this session wraps to a huge number.
        let more = (total as i64).saturating_sub(self.counted as i64).max(0);
        let more = (more as u64).min(self.ends.len() as u64);
        self.counted += more;
        self.ends.drain(..more as usize).next_back()
    }
}

/// A session and what lies between it and the queues of the application.
pub(crate) struct Link {
    session: proto::Session,
    /// The origin of the session's clock.
    origin: Instant,
    generation: Option<proto::Generation>,
    /// Taken from the outbox, not yet accepted by the session.
    waiting: VecDeque<Queued>,
    /// The last record of each message that is not acknowledged.
    unacknowledged: VecDeque<Seq>,
    /// How many messages were complete at which record, for `flush`.
    flushes: VecDeque<(Seq, u64)>,
    taken: Ends,
    processed: Ends,
    by_hand: bool,
    /// Messages taken before this session, which the inbox's count includes.
    taken_before: u64,
    opened: bool,
    forget_undelivered: bool,
    received: u64,
    /// Received, waiting for room in the inbox.
    backlog: VecDeque<Incoming>,
    request: Option<CloseRequest>,
    closing: bool,
    end: Option<EndReason>,
    failure: Option<ConnectionError>,
    /// When this client leaves a server that goes away.
    leave_at: Option<Instant>,
    lost_at: Option<Instant>,
}

impl Link {
    pub(crate) fn new(session: proto::Session, shared: &Shared, origin: Instant) -> Link {
        shared.board.agree();
        let taken = shared.inbox.taken_messages();
        Link {
            session,
            origin,
            generation: None,
            waiting: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            flushes: VecDeque::new(),
            taken: Ends::default(),
            processed: Ends::default(),
            by_hand: shared.options.acknowledge_by_hand,
            taken_before: taken,
            opened: false,
            forget_undelivered: false,
            received: 0,
            backlog: VecDeque::new(),
            request: None,
            closing: false,
            end: None,
            failure: None,
            leave_at: None,
            lost_at: None,
        }
    }

    /// Goes on with other queues, to which what these received is moved.
    pub(crate) fn rebind(&mut self, from: &Shared, to: &Shared) {
        let taken = from.inbox.taken_messages().wrapping_sub(self.taken_before);
        self.taken_before = to.inbox.taken_messages().wrapping_sub(taken);
        self.put_before(from.inbox.drain());
    }

    /// Whether the peer ever agreed to the session.
    pub(crate) fn was_opened(&self) -> bool {
        self.opened
    }

    /// What was not delivered is nobody's: the hook sent it, and will again.
    pub(crate) fn forget_undelivered(&mut self) {
        self.forget_undelivered = true;
    }

    /// The connection was replaced.
    pub(crate) fn lose(&mut self, now: Instant) {
        self.lost_at.get_or_insert(now);
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
        self.leave_at = None;
    }

    /// The connection is gone.
    pub(crate) fn detach(&mut self, shared: &Shared, now: Instant) {
        if let Some(generation) = self.generation.take() {
            self.session.detach(self.time(now), generation);
            self.lost_at.get_or_insert(now);
        }
        self.tell_stalls(shared, now, false);
        self.tell_events(shared, now);
    }

    /// Whether nothing is left to say or to hear.
    pub(crate) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// What was received and not handed over yet.
    fn receive_rest(&mut self) {
        while let Some(incoming) = self.session.recv() {
            if let proto::Incoming::Messages(batch) = incoming {
                self.cut(batch);
            }
        }
    }

    /// Why the session ended, if it has.
    pub(crate) fn end(&self) -> Option<&EndReason> {
        self.end.as_ref()
    }

    /// Marks a place in the stream, behind everything received.
    pub(crate) fn mark(&mut self, gap: Gap) {
        self.backlog.push_back(Incoming::Gap(gap));
    }

    pub(crate) fn take_backlog(&mut self) -> VecDeque<Incoming> {
        std::mem::take(&mut self.backlog)
    }

    /// Puts what was received in front of what is received from now on.
    pub(crate) fn put_before(&mut self, mut first: VecDeque<Incoming>) {
        first.append(&mut self.backlog);
        self.backlog = first;
    }

    /// Messages that wait for the session come back to the outbox.
    pub(crate) fn put_back_waiting(&mut self, shared: &Shared) {
        shared.outbox.put_back(std::mem::take(&mut self.waiting));
    }

    /// Tells the session what the application took since, and hands over what it received.
    fn exchange(&mut self, shared: &Shared, cx: &Context<'_>, now: Instant) {
        // Before looking, so that nothing taken in between goes unnoticed.
        shared.inbox.wake_on_room(cx);
        let time = self.time(now);
        if self.session.poll_timeout().is_some_and(|at| at <= time) {
            self.session.handle_timeout(time);
        }
        self.report_taken(shared, time, cx);
        shared.inbox.push_while_room(&mut self.backlog, now);
        while self.backlog.is_empty() {
            match self.session.recv() {
                Some(proto::Incoming::Messages(batch)) => self.cut(batch),
                Some(_) => {}
                None => break,
            }
            shared.inbox.push_while_room(&mut self.backlog, now);
        }
        self.tell_events(shared, now);
    }

    fn report_taken(&mut self, shared: &Shared, time: proto::Time, cx: &Context<'_>) {
        let taken = shared
            .inbox
            .taken_messages()
            .wrapping_sub(self.taken_before);
        if let Some(position) = self.taken.count_to(taken) {
            self.session.taken(time, position);
        }
        let (processed, go_away) = {
            let mut board = shared.board.state.lock().unwrap();
            board.pump = Some(cx.waker().clone());
            (
                board.processed.wrapping_sub(self.taken_before),
                board.go_away.take(),
            )
        };
        if let Some(within) = go_away {
            self.session.go_away(within, "");
        }
        if self.by_hand
            && let Some(position) = self.processed.count_to(processed)
        {
            self.session.acknowledge(time, position);
        }
    }

    fn cut(&mut self, mut batch: proto::Batch) {
        while let Some(message) = batch.next_ref() {
            let text = message.kind == proto::Kind::Text;
            self.taken.ends.push_back(message.end);
            if self.by_hand {
                self.processed.ends.push_back(message.end);
            }
            let message = Message::copied(text, message.payload);
            self.received += 1;
            self.backlog.push_back(Incoming::Message(message));
        }
    }

    /// Moves messages from the outbox into the session while it has room.
    fn accept(&mut self, shared: &Shared, cx: &Context<'_>, now: Instant) -> u64 {
        let mut accepted = 0;
        let (mut cost, mut permits, mut expired) = (0, 0, 0);
        loop {
            if self.waiting.is_empty() {
                let _ = shared.outbox.take(&mut self.waiting, None, now, cx);
            }
            let Some(queued) = self.waiting.front() else {
                break;
            };
            let message = &queued.message;
            if queued.expires.is_some_and(|expires| expires <= now) {
                expired += 1;
            } else {
                let payload = match message.as_text() {
                    Some(text) => proto::Payload::Text(text),
                    None => proto::Payload::Binary(message.as_bytes()),
                };
                match self.session.send(payload) {
                    Ok(seq) => {
                        accepted += 1;
                        self.unacknowledged.push_back(seq);
                    }
                    Err(proto::SendError::TooLarge { .. }) => {
                        shared.board.state.lock().unwrap().accepted += 1;
                        self.give_back(shared, vec![(message.clone(), false)]);
                    }
                    Err(_) => break,
                }
            }
            let (message_cost, message_permits) = shared.outbox.released(message);
            cost += message_cost;
            permits += message_permits;
            self.waiting.pop_front();
        }
        if cost > 0 {
            shared.outbox.release(cost, permits);
        }
        if expired > 0 {
            shared.outbox.count_expired(expired);
            shared.events.push(Event::Expired { messages: expired });
        }
        if accepted + expired > 0 {
            self.flushes
                .push_back((self.session.accepted(), accepted + expired));
            shared.board.state.lock().unwrap().accepted += accepted;
        }
        accepted
    }

    fn give_back(&self, shared: &Shared, messages: Vec<(Message, bool)>) {
        if messages.is_empty() {
            return;
        }
        let mut board = shared.board.state.lock().unwrap();
        board.lost += messages.len() as u64;
        board
            .undelivered
            .extend(
                messages
                    .into_iter()
                    .map(|(message, maybe_delivered)| Undelivered {
                        message,
                        maybe_delivered,
                    }),
            );
    }

    /// What is on the socket now counts as flushed.
    fn settle_flushes(&mut self, shared: &Shared) {
        let mut messages = 0;
        while let Some((seq, count)) = self.flushes.front() {
            if *seq > self.session.transmitted() {
                break;
            }
            messages += count;
            self.flushes.pop_front();
        }
        shared.outbox.complete(messages);
    }

    /// What the peer acknowledged counts as delivered.
    fn settle_deliveries(&mut self, shared: &Shared) {
        let acknowledged = self.session.acknowledged();
        let count = self
            .unacknowledged
            .partition_point(|seq| *seq <= acknowledged);
        if count > 0 {
            self.unacknowledged.drain(..count);
            shared.board.state.lock().unwrap().settled += count as u64;
            shared.board.wake();
        }
    }

    fn tell_stalls(&self, shared: &Shared, now: Instant, attached: bool) {
        let wait = self.session.waits_for().filter(|_| attached);
        shared
            .meter
            .wait(StallCause::OutOfCredit, wait == Some(Wait::Credit), now);
        let full = !self.waiting.is_empty() && attached && wait != Some(Wait::Credit);
        shared.meter.wait(StallCause::ReplayFull, full, now);
        let unread = attached && !self.backlog.is_empty();
        shared
            .meter
            .wait(StallCause::ApplicationNotReading, unread, now);
    }

    fn tell_events(&mut self, shared: &Shared, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                proto::Event::Opened => {
                    self.opened = true;
                    let limit = self.session.max_send_message();
                    shared.outbox.limit_messages(limit as usize);
                    self.lost_at = None;
                    shared.events.push(Event::SessionOpened);
                }
                proto::Event::Resumed { replayed, .. } => {
                    let after = self.lost_at.take().map_or(Duration::ZERO, |at| now - at);
                    shared.meter.count_resume();
                    shared.events.push(Event::Resumed { after, replayed });
                }
                proto::Event::HandshakeTimedOut(_) => {
                    let silent = ConnectionError::PeerSilent(shared.options.connect_timeout);
                    self.failure = Some(silent);
                }
                proto::Event::GoAway { within, .. } => {
                    self.leave_at = Some(now + within.mul_f64(fastrand::f64()));
                    shared.events.push(Event::GoAway { within });
                }
                proto::Event::Closing(frame) => {
                    shared.outbox.refuse(Arc::new(closed_by_peer(&frame)));
                }
                proto::Event::Ended(reason) => {
                    self.end = Some(reason);
                }
                _ => {}
            }
        }
        self.settle_deliveries(shared);
        shared.board.state.lock().unwrap().stats = Some(self.session.stats());
    }

    /// Close was asked for: everything accepted goes first.
    pub(crate) fn request_close(&mut self, request: &CloseRequest) {
        self.request.get_or_insert_with(|| request.clone());
    }

    /// Starts to close the session once everything accepted is in it.
    fn close_when_empty(&mut self, shared: &Shared, now: Instant) {
        let Some(request) = &self.request else { return };
        if self.closing || !self.waiting.is_empty() || shared.outbox.has_queued() {
            return;
        }
        self.closing = true;
        let left = request.deadline.saturating_duration_since(now);
        // The session's end must come before that of the connection, to be told to the peer.
        let within = left - left / 10;
        let frame = proto::CloseFrame::new(request.code.as_u16(), &request.reason);
        self.session.close(self.time(now), frame, within);
    }

    /// Collects what the peer never acknowledged, after the end.
    pub(crate) fn collect_undelivered(&mut self, shared: &Shared) {
        let undelivered: Vec<_> = self
            .session
            .undelivered()
            .map(|message| {
                let text = message.kind == proto::Kind::Text;
                let maybe = message.fate == Fate::MaybeDelivered;
                (Message::new(text, message.payload), maybe)
            })
            .collect();
        self.unacknowledged.clear();
        let flushed = self.flushes.drain(..).map(|(_, count)| count).sum();
        shared.outbox.complete(flushed);
        if !self.forget_undelivered {
            self.give_back(shared, undelivered);
        }
        shared.board.wake();
    }

    /// Serves the application while there is no connection. Resolves when the session is over.
    pub(crate) async fn serve_detached(&mut self, shared: &Shared) {
        let mut alarm = crate::timers::Alarm::default();
        std::future::poll_fn(|cx| {
            loop {
                let now = Instant::now();
                self.exchange(shared, cx, now);
                if let Some(request) = shared.poll_close_request(cx) {
                    self.request_close(&request);
                    if self.opened {
                        self.accept(shared, cx, now);
                    }
                    self.close_when_empty(shared, now);
                    self.exchange(shared, cx, now);
                }
                if self.session.is_over() || self.end.is_some() {
                    return Poll::Ready(());
                }
                let Some(at) = self.session.poll_timeout() else {
                    return Poll::Pending;
                };
                if !alarm.set(self.origin + at.since_origin(), cx) {
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

pub(crate) fn closed_by_peer(frame: &proto::CloseFrame) -> ConnectionError {
    ConnectionError::ClosedByPeer(crate::error::Close {
        code: Some(CloseCode::received(frame.code)),
        reason: frame.reason.clone(),
    })
}

/// What ended a session otherwise than by a close, as the application is told.
pub(crate) fn session_error(reason: &EndReason) -> ConnectionError {
    use crate::error::SessionLoss;
    ConnectionError::SessionLost(match reason {
        EndReason::Rejected(proto::Rejection::Expired) | EndReason::Expired => SessionLoss::Expired,
        EndReason::Rejected(proto::Rejection::Unknown) => SessionLoss::Unknown,
        EndReason::Rejected(proto::Rejection::NotYours) => SessionLoss::NotYours,
        EndReason::Rejected(proto::Rejection::Superseded) => SessionLoss::Superseded,
        EndReason::Rejected(proto::Rejection::Full { .. }) => SessionLoss::Full,
        EndReason::Rejected(other) => SessionLoss::Refused(other.to_string()),
        EndReason::CloseTimedOut => SessionLoss::CloseTimedOut,
        EndReason::AbortedByPeer { reason, .. } => SessionLoss::AbortedByPeer(reason.clone()),
        EndReason::Protocol(error) => SessionLoss::Refused(error.to_string()),
        other => SessionLoss::Refused(format!("{other:?}")),
    })
}

/// Random bytes for names and secrets.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness of the operating system nothing secret can be made.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
