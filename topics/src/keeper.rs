//! The task that keeps a client connected, and what its handles share with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tracing::{Instrument, Span};
use unstall::{CloseCode, printable};
use unstall_proto::{
    Time,
    topics::{Client, ClientConfig, ClientEvent, Refusal, ServerReject, SubscriptionId},
};

use crate::{
    answers::Answers,
    defaults::CLIENT_PACKETS_A_TURN,
    dialer::{Dialed, Dialer, Outcome, words},
    events::{EventsSender, TopicsEvent},
    link::{LinkSender, Lost, NotSent, Received},
    publish_error::PublishError,
    stats::TopicsStats,
};

/// What the handles of a client hold. When the last one is dropped, the client ends.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// What the handles share with the task.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The task has something to do.
    work: Notify,
    /// Publishers that wait for room stand in line here.
    pub(crate) line: Semaphore,
    /// There may be room for the first in the line.
    pub(crate) room: Notify,
    pub(crate) events: EventsSender,
    /// Each connection has a token of its own.
    pub(crate) renews_tokens: bool,
    /// Its connections are within it.
    pub(crate) span: Span,
    origin: Instant,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) client: Client,
    pub(crate) readers: HashMap<SubscriptionId, Arc<Notify>>,
    pub(crate) answers: Answers,
    /// The client has ended, and why.
    pub(crate) ended: Option<Arc<str>>,
    /// All handles are gone, or the application wants no more.
    closing: bool,
    /// Leave this node for the next one, and why.
    pub(crate) leave: Option<&'static str>,
    leave_at: Option<Instant>,
    rejected: Option<ServerReject>,
    welcomed: bool,
    counters: Counters,
}

/// What a client counts.
#[derive(Debug, Default)]
struct Counters {
    connections: u64,
    stored: u64,
    refused: u64,
}

impl Handle {
    /// Starts a client in a task of its own.
    pub(crate) fn start(config: ClientConfig, dialer: Dialer) -> Arc<Handle> {
        let state = State {
            client: Client::new(config),
            readers: HashMap::new(),
            answers: Answers::default(),
            ended: None,
            closing: false,
            leave: None,
            leave_at: None,
            rejected: None,
            welcomed: false,
            counters: Counters::default(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Notify::new(),
            line: Semaphore::new(1),
            room: Notify::new(),
            events: EventsSender::default(),
            renews_tokens: dialer.renews_tokens(),
            span: dialer.span(),
            origin: Instant::now(),
        });
        tokio::spawn(shared.clone().keep(dialer));
        Arc::new(Handle { shared })
    }
}

impl Handle {
    /// Ends the client.
    pub(crate) fn close(&self) {
        self.shared.with(|state, _| state.closing = true);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Locks, changes, and then wakes the task. What it does is short, and never the user's code.
    pub(crate) fn with<R>(&self, change: impl FnOnce(&mut State, Time) -> R) -> R {
        let changed = change(&mut self.lock(), self.now());
        self.work.notify_one();
        changed
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::new(self.origin.elapsed())
    }

    /// Connects, carries packets, connects again, until the client ends.
    async fn keep(self: Arc<Self>, mut dialer: Dialer) {
        // If the runtime ends, or something here panics, who waits is told too.
        let _ends = Ends(&self);
        while !self.lock().closing {
            let Some((outcome, why)) = self.once(&mut dialer).await else {
                break;
            };
            if self.lock().closing {
                // The client left by itself, so nothing was lost.
                break;
            }
            let wait = dialer.after(&outcome);
            self.events
                .send(TopicsEvent::Disconnected { why: why.clone() });
            let Some(wait) = wait else {
                return self.end(&why);
            };
            self.closing_or(tokio::time::sleep(wait)).await;
        }
        self.end("it was closed");
    }

    /// One attempt, and one connection if it succeeds. What came of it, and why it ended. `None` if
    /// the client is closed before there is a connection.
    async fn once(&self, dialer: &mut Dialer) -> Option<(Outcome, Arc<str>)> {
        let dial = dialer.dial().instrument(self.span.clone());
        let dialed = match self.closing_or(dial).await? {
            Ok(dialed) => dialed,
            Err(error) => {
                let why = error.to_string().into();
                return Some((Outcome::Failed(error), why));
            }
        };
        let token = dialed.token.clone();
        self.with(|state, now| {
            (state.leave, state.leave_at) = (None, None);
            state.welcomed = false;
            state.client.attach(now, token.clone());
        });
        let why = self.carry(dialed).await;
        let (rejected, welcomed) = self.with(|state, now| {
            state.client.detach(now);
            (state.rejected.take(), state.welcomed)
        });
        self.dispatch();
        Some(match rejected {
            Some(reject) => {
                let why = words(&reject).into();
                (Outcome::Rejected(reject, token), why)
            }
            None => (Outcome::Lived { welcomed }, why),
        })
    }

    /// Carries packets until the connection ends, and says why.
    async fn carry(&self, dialed: Dialed) -> Arc<str> {
        let Dialed {
            sender,
            mut receiver,
            ..
        } = dialed;
        let mut stuck = None;
        loop {
            self.dispatch();
            let leaves = self.lock().leaves();
            if let Some(why) = leaves {
                // What has no answer is sent again elsewhere, so nothing has to be sent here.
                sender.close(CloseCode::NORMAL, "").await;
                return why.into();
            }
            let more = match self.transmit(&sender, &mut stuck) {
                Ok(more) => more,
                Err(Lost(why)) => return lost(why),
            };
            let (leave_at, timeout) = {
                let state = self.lock();
                (state.leave_at, state.client.poll_timeout())
            };
            let deadline = timeout.map(|at| self.origin + at.since_origin());
            let deadline = deadline.into_iter().chain(leave_at).min();
            let packet = stuck.clone();
            tokio::select! {
                received = receiver.recv() => match self.received(received) {
                    Ok(()) => {}
                    Err(why) => {
                        // The peer is told why, as far as it still reads.
                        let _ = self.transmit(&sender, &mut stuck);
                        sender.close(CloseCode::PROTOCOL_ERROR, "").await;
                        return why;
                    }
                },
                () = self.work.notified() => {}
                sent = send(&sender, packet), if stuck.is_some() => {
                    stuck = None;
                    if let Err(Lost(why)) = sent {
                        return lost(why);
                    }
                }
                () = until(deadline), if deadline.is_some() => self.on_time(),
                () = tokio::task::yield_now(), if more => {}
            }
        }
    }

    fn received(&self, received: Result<Received, Lost>) -> Result<(), Arc<str>> {
        let received = received.map_err(|Lost(why)| lost(why))?;
        let now = self.now();
        let client = &mut self.lock().client;
        let handled = match received {
            Received::Packet(packet) => client.handle_packet(now, packet),
            Received::Text => client.handle_text(now),
        };
        handled.map_err(|error| format!("the node broke the protocol: {error}").into())
    }

    fn on_time(&self) {
        let mut state = self.lock();
        let now = self.now();
        state.client.handle_timeout(now);
        if state.leave_at.is_some_and(|at| at <= Instant::now()) {
            state.leave = Some("the node asked the client to go elsewhere");
        }
    }

    /// Sends what there is to send. `true`: there is more.
    fn transmit(&self, sender: &LinkSender, stuck: &mut Option<Bytes>) -> Result<bool, Lost> {
        for _ in 0..CLIENT_PACKETS_A_TURN {
            if stuck.is_some() {
                return Ok(false);
            }
            let Some(packet) = self.lock().client.poll_transmit(self.now()) else {
                return Ok(false);
            };
            match sender.try_send(packet.into_bytes()) {
                Ok(()) => {}
                Err(NotSent::Full(packet)) => *stuck = Some(packet),
                Err(NotSent::Lost) => return Err(Lost(None)),
            }
        }
        Ok(true)
    }

    /// Tells everybody what happened to them.
    fn dispatch(&self) {
        let mut state = self.lock();
        while let Some(event) = state.client.poll_event() {
            match event {
                ClientEvent::Readable(id) => {
                    if let Some(reader) = state.readers.get(&id) {
                        reader.notify_one();
                    }
                }
                ClientEvent::Published { count, offset, .. } => {
                    state.counters.stored += count;
                    for nth in 0..count {
                        let offset = offset.and_then(|first| first.checked_add(nth));
                        let result = offset.ok_or(PublishError::StoredBefore);
                        state.answers.answer(result);
                    }
                }
                ClientEvent::Refused { reason, .. } => {
                    state.counters.refused += 1;
                    if reason == Refusal::Expired && self.renews_tokens {
                        state.leave = Some(EXPIRED);
                    }
                    state.answers.answer(Err(PublishError::Refused(reason)));
                }
                ClientEvent::Unknown { count, .. } => {
                    for _ in 0..count {
                        state.answers.answer(Err(PublishError::Unknown));
                    }
                }
                ClientEvent::Room => self.room.notify_one(),
                ClientEvent::Rejected(reject) => state.rejected = Some(reject),
                ClientEvent::Welcomed(welcome) => {
                    state.welcomed = true;
                    self.room.notify_one();
                    state.counters.connections += 1;
                    self.events.send(TopicsEvent::Connected {
                        log: welcome.log,
                        node: printable(&welcome.name).to_string(),
                    });
                }
                ClientEvent::GoAway { within, .. } => {
                    let wait = within.mul_f64(fastrand::f64());
                    state.leave_at = Some(Instant::now() + wait);
                }
                ClientEvent::Aborted { .. } => {
                    state.leave = Some("the node gave the connection up");
                }
                _ => {}
            }
        }
    }

    /// The client is over: everybody who waits learns it. Only the first call counts.
    fn end(&self, why: &str) {
        self.dispatch();
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(why.into());
        for message in state.client.give_up(self.now()) {
            let error = match message.may_be_stored {
                true => PublishError::Unknown,
                false => PublishError::NotSent,
            };
            state.answers.answer(Err(error));
        }
        state
            .readers
            .values()
            .for_each(|reader| reader.notify_one());
        drop(state);
        self.room.notify_one();
        self.line.close();
        self.events.end();
    }

    /// Waits for something, but not when all handles are gone.
    async fn closing_or<R>(&self, future: impl Future<Output = R>) -> Option<R> {
        tokio::pin!(future);
        loop {
            if self.lock().closing {
                return None;
            }
            tokio::select! {
                done = &mut future => return Some(done),
                () = self.work.notified() => {}
            }
        }
    }
}

/// The reason for a new connection when the token of this one has expired.
pub(crate) const EXPIRED: &str = "the token has expired";

impl State {
    pub(crate) fn stats(&self) -> TopicsStats {
        let (unanswered, unanswered_bytes) = self.client.unanswered();
        let welcome = self.client.welcome();
        TopicsStats {
            log: welcome.map(|welcome| welcome.log),
            node: welcome.map(|welcome| printable(&welcome.name).to_string()),
            connections: self.counters.connections,
            subscriptions: self.readers.len(),
            unanswered,
            unanswered_bytes,
            stored: self.counters.stored,
            refused: self.counters.refused,
        }
    }

    /// Why the client is to leave this node, if it is.
    fn leaves(&self) -> Option<&'static str> {
        match self {
            State { closing: true, .. } => Some("the client was closed"),
            State {
                rejected: Some(_), ..
            } => Some("the node rejects the client"),
            State { leave, .. } => *leave,
        }
    }
}

/// Ends the client when its task ends.
struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end("its runtime was shut down");
    }
}

fn lost(why: Option<unstall::ConnectionError>) -> Arc<str> {
    match why {
        Some(error) => error.to_string().into(),
        None => "the connection was closed".into(),
    }
}

async fn send(sender: &LinkSender, packet: Option<Bytes>) -> Result<(), Lost> {
    match packet {
        Some(packet) => sender.send(packet).await,
        None => std::future::pending().await,
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
