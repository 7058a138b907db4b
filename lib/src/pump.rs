//! The pump: the one task that owns a connection's WebSocket.
//!
//! Each turn reads, writes and looks at the clock, each on its own readiness and each with a share
//! of the turn. Nothing that the application does can block it.

mod alarm;
mod flushing;
mod liveness;
mod plain;
mod reading;
mod start;
mod turn;
mod writing;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    defaults::LINGER,
    handles::{CloseRequest, Shared},
    messages::CloseReport,
    reports::{Close, CloseCode, ConnectionError, Counters, Event, StallCause},
    settings::Evictable,
    time::later,
    ws::{Failure, WebSocket},
};

pub(crate) use alarm::Alarm;
pub(crate) use flushing::Flushing;
use liveness::Liveness;
pub(crate) use plain::Plain;
pub(crate) use reading::Reading;
pub(crate) use turn::{Turn, TurnContext};

/// How messages travel over a WebSocket: as they are, or in the packets of a session.
pub(crate) trait Traffic {
    /// Reads until the socket is empty, the application's room used up, or the turn.
    fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        context: TurnContext<'_, '_>,
        unlimited: bool,
    ) -> Turn;

    /// Fills the write buffer and flushes it, until nothing is left, the socket is full, or the
    /// turn used up. `true`: there is more to do at once.
    fn write<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        flushing: &mut Flushing,
        context: TurnContext<'_, '_>,
        open: bool,
    ) -> Result<bool, Failure>;

    /// Whether reading waits for the application.
    fn is_paused(&self) -> bool;

    /// Whether the peer reads whatever its application does. Then one from which nothing comes is
    /// gone, even if our bytes wait; else it may be alive and just not read them.
    fn peer_always_reads(&self) -> bool;

    /// Close was asked for, once: what was accepted is written first.
    fn request_close(&mut self, request: &CloseRequest);

    /// Whether nothing that was accepted waits to be written.
    fn is_idle(&self, shared: &Shared) -> bool;

    /// Whether all is said, so that the WebSocket is to be closed.
    fn is_over(&self, shared: &Shared) -> bool;

    /// When `write` has to be called though nothing happened.
    fn wake_at(&self) -> Option<Instant>;

    /// Tells what has to be told now and then; returns when to call again.
    fn report(&mut self, shared: &Shared, now: Instant) -> Option<Instant>;

    /// The connection is gone. Returns how many messages may or may not have left.
    fn abandon(&mut self, shared: &Shared) -> u64;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Close was asked for: the outbox is written first.
    Draining,
    /// A close frame was sent or received and the other is awaited, or the socket takes nothing any
    /// more: what the peer still has to say is read.
    Closing,
    /// Nothing more is said: the last bytes are flushed and the peer's FIN awaited.
    Lingering,
}

/// How a WebSocket ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` after a normal close.
    pub(crate) why: Option<ConnectionError>,
    /// Both close frames were exchanged.
    pub(crate) clean: bool,
    pub(crate) peer: Option<Close>,
    /// Messages in the write buffer, not whole on the socket.
    pub(crate) in_flight: u64,
    /// Something was received: the peer has proved that it speaks.
    pub(crate) received_any: bool,
    /// The end was asked for on this side.
    pub(crate) requested: bool,
}

impl Ended {
    /// No WebSocket was open when the end was asked for.
    pub(crate) fn requested() -> Ended {
        Ended {
            requested: true,
            clean: true,
            ..Ended::because(ConnectionError::ClosedHere)
        }
    }

    /// No WebSocket could be opened.
    pub(crate) fn because(why: ConnectionError) -> Ended {
        Ended {
            why: Some(why).filter(|why| !matches!(why, ConnectionError::ClosedHere)),
            clean: false,
            peer: None,
            in_flight: 0,
            received_any: false,
            requested: false,
        }
    }

    /// Ends the handle with this connection: the last messages, then the end of the stream.
    pub(crate) async fn finish(self, shared: &Shared, reading: &mut Reading) {
        let why = self.why.map(Arc::new);
        let report = CloseReport {
            clean: self.clean,
            peer: self.peer,
            in_flight: self.in_flight,
            error: why.clone(),
            ..CloseReport::default()
        };
        // Who asked for the end knows of it.
        let end = why.filter(|_| !self.requested);
        reading.report_all(shared, Instant::now());
        shared.end(end.clone(), report);
        reading.drain(shared).await;
        shared.inbox.end(end);
    }
}

pub(crate) struct Pump<S, T> {
    ws: WebSocket<S>,
    /// Dropped after the WebSocket, which gives its bytes back first.
    evictable: Evictable,
    shared: Arc<Shared>,
    traffic: T,
    flushing: Flushing,
    liveness: Liveness,
    counters: Counters,
    alarm: Alarm,
    phase: Phase,
    /// When the present phase, if it is not `Open`, is cut short.
    deadline: Option<Instant>,
    request: Option<CloseRequest>,
    peer: Option<Close>,
    why: Option<ConnectionError>,
    clean: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin, T: Traffic> Pump<S, T> {
    pub(crate) fn new(mut ws: WebSocket<S>, shared: Arc<Shared>, traffic: T) -> Self {
        ws.charge(&shared.account);
        let mut counters = shared.meter.counters();
        counters.connections += 1;
        shared.meter.publish(counters);
        shared.events.push(Event::Connected {
            generation: counters.connections,
        });
        Pump {
            liveness: Liveness::new(&shared, Instant::now()),
            ws,
            evictable: shared.account.evictable(),
            shared,
            traffic,
            flushing: Flushing::default(),
            counters,
            alarm: Alarm::default(),
            phase: Phase::Open,
            deadline: None,
            request: None,
            peer: None,
            why: None,
            clean: false,
        }
    }

    /// Runs until the connection has ended. May be dropped and called again.
    pub(crate) async fn run(&mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Runs until everything accepted is on the socket; `Some` if the connection ends before.
    pub(crate) async fn run_until_idle(&mut self) -> Option<Ended> {
        std::future::poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if self.traffic.is_idle(&self.shared) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    pub(crate) fn traffic(&mut self) -> &mut T {
        &mut self.traffic
    }

    /// Goes on with other queues; `change` makes the traffic do so.
    pub(crate) fn rebind(&mut self, shared: Arc<Shared>, change: impl FnOnce(&mut T)) {
        change(&mut self.traffic);
        self.shared = shared;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let now = Instant::now();
        let turn = self.turn(cx, now);
        self.counters.resumes = self.shared.meter.counters().resumes;
        self.shared.meter.publish(self.counters);
        match turn {
            Ok(false) => {}
            // After all that is ready: the receiver takes what this turn brought while it is in the
            // processor's cache, however the runtime orders its tasks.
            Ok(true) => _ = pin!(tokio::task::yield_now()).poll(cx),
            Err(failure) => {
                if self.stop(failure, now).is_ready() {
                    return Poll::Ready(self.ended());
                }
                cx.waker().wake_by_ref();
            }
        }
        if self.phase == Phase::Lingering && self.linger(cx).is_ready() {
            return Poll::Ready(self.ended());
        }
        match self.keep_time(cx, now) {
            Ok(()) => Poll::Pending,
            Err(()) => Poll::Ready(self.ended()),
        }
    }

    /// Reads, writes, and moves on in the closing handshake. `true`: there is more to do at once.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Failure> {
        if self.phase == Phase::Lingering {
            return Ok(false);
        }
        if let Poll::Ready(held) = self.evictable.poll_evicted(cx) {
            return Err(Failure::Broken(ConnectionError::Evicted { held }));
        }
        self.look_for_close_request(cx);
        let mut again = self.read(cx, now)?;
        again |= self.write(cx, now)?;
        if self.is_open() && self.traffic.is_over(&self.shared) {
            self.close(now)?;
            again = true;
        }
        if self.peer.is_some() && self.ws.is_flushed() && !self.clean {
            // The server closes the TCP connection (RFC 6455 §7.1.1); it has a moment for it.
            self.clean = true;
            self.end_by(later(now, LINGER));
        }
        Ok(again)
    }

    /// Whether messages may still be written.
    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining)
    }

    fn end_by(&mut self, deadline: Instant) {
        let earlier = self.deadline.filter(|earlier| *earlier < deadline);
        self.deadline = earlier.or(Some(deadline));
    }

    fn close(&mut self, now: Instant) -> Result<(), Failure> {
        self.phase = Phase::Closing;
        self.end_by(later(now, self.shared.options.close_timeout));
        match &self.request {
            Some(request) => self.ws.close(request.code, &request.reason),
            None => self.ws.close(CloseCode::NORMAL, ""),
        }
    }

    fn look_for_close_request(&mut self, cx: &Context<'_>) {
        if self.request.is_some() {
            return;
        }
        let Some(request) = self.shared.poll_close_request(cx) else {
            return;
        };
        self.end_by(request.deadline);
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
            self.traffic.request_close(&request);
        }
        self.request = Some(request);
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Failure> {
        // After the peer's close frame only the end of the stream can follow.
        let unlimited = self.peer.is_some();
        let context = TurnContext {
            shared: &self.shared,
            counters: &mut self.counters,
            cx,
            now,
        };
        let turn = self.traffic.read(&mut self.ws, context, unlimited);
        self.liveness
            .read(&self.ws, self.traffic.is_paused(), &self.shared, now);
        for pong in turn.pongs {
            self.counters.round_trip = self.liveness.pong(&pong, now).or(self.counters.round_trip);
        }
        if let Some(close) = turn.close {
            self.shared.events.push(Event::PeerClosed(close.clone()));
            self.peer = Some(close);
            self.phase = Phase::Closing;
            self.end_by(later(now, self.shared.options.close_timeout));
        }
        match turn.failure {
            Some(failure) => Err(failure),
            None => Ok(turn.again),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Failure> {
        let open = self.is_open();
        if open {
            self.liveness.heartbeat(
                &mut self.ws,
                self.flushing.blocked_since().is_none(),
                &self.traffic,
                &self.shared,
                now,
            )?;
        }
        let context = TurnContext {
            shared: &self.shared,
            counters: &mut self.counters,
            cx,
            now,
        };
        let (ws, flushing) = (&mut self.ws, &mut self.flushing);
        let written = self.traffic.write(ws, flushing, context, open);
        match written {
            Err(Failure::Broken(why @ ConnectionError::Io(_))) => {
                self.only_listen(why, now);
                Ok(false)
            }
            written => written,
        }
    }

    /// The socket takes nothing any more. What the peer said before may still wait to be read, for
    /// as long as the application takes.
    fn only_listen(&mut self, why: ConnectionError, now: Instant) {
        self.phase = Phase::Closing;
        self.why.get_or_insert(why);
        let patience =
            (!self.traffic.is_paused()).then(|| later(now, self.shared.options.close_timeout));
        let requested = self.request.as_ref().map(|request| request.deadline);
        self.deadline = requested.or(patience);
    }

    /// Decides how a failure ends the connection; `Ready`: at once.
    fn stop(&mut self, failure: Failure, now: Instant) -> Poll<()> {
        self.phase = Phase::Lingering;
        // Nothing is read from it any more.
        self.ws.discard_received();
        self.end_by(later(now, LINGER.min(self.shared.options.close_timeout)));
        match failure {
            // What a peer sends behind its close frame is nothing (RFC 6455 section 5.5.1), and so
            // is how its stream ends.
            Failure::Broken(_) if self.peer.is_some() => Poll::Pending,
            Failure::Closed => {
                self.clean = true;
                Poll::Pending
            }
            Failure::Broken(why) => {
                // Nothing can be told to a peer whose stream is gone.
                let told = close_code(&why)
                    .map(|code| self.ws.close(code, &why.to_string()))
                    .is_some_and(|result| result.is_ok());
                self.why.get_or_insert(why);
                if told { Poll::Pending } else { Poll::Ready(()) }
            }
        }
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.ws.poll_flush(cx)) {
            Ok(()) | Err(Failure::Closed) => self.ws.poll_linger(cx),
            Err(Failure::Broken(_)) => Poll::Ready(()),
        }
    }

    /// Acts on deadlines that are past and sets the alarm for the next. `Err`: the end.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), ()> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(());
        }
        let mut liveness = None;
        if self.is_open() {
            let peer_reads = self.traffic.peer_always_reads();
            if let Some(why) = self.liveness.verdict(&self.flushing, peer_reads, now) {
                self.why = Some(why);
                return Err(());
            }
            liveness = Some(self.liveness.next(&self.flushing));
        }
        let next = [
            self.deadline,
            liveness,
            // Without a turn, what is due would be due again at once.
            self.traffic
                .wake_at()
                .filter(|_| self.phase != Phase::Lingering),
            self.traffic.report(&self.shared, now),
            self.shared.meter.report(now),
        ];
        let next = next.into_iter().flatten().min();
        // What is due already is due for the next turn, with its own look at the clock.
        if next.is_some_and(|next| self.alarm.set(next, cx)) {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn ended(&mut self) -> Ended {
        let now = Instant::now();
        self.shared.meter.wait(StallCause::SocketFull, false, now);
        self.shared.meter.wait(StallCause::PeerSilent, false, now);
        let why = match &self.peer {
            // The peer has said why, whatever became of the socket afterwards.
            Some(close) => abnormal(close.clone()),
            None => self.why.take(),
        };
        Ended {
            why,
            clean: self.clean,
            peer: self.peer.take(),
            in_flight: self.traffic.abandon(&self.shared),
            received_any: self.liveness.received_any(),
            requested: self.request.is_some(),
        }
    }
}

/// A close that is not the normal end of a stream.
fn abnormal(close: Close) -> Option<ConnectionError> {
    match close.code {
        None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) => None,
        Some(_) => Some(ConnectionError::ClosedByPeer(close)),
    }
}

/// What the peer is told before a connection is failed (RFC 6455 §7.1.7).
fn close_code(why: &ConnectionError) -> Option<CloseCode> {
    match why {
        ConnectionError::Protocol(_) => Some(CloseCode::PROTOCOL_ERROR),
        ConnectionError::InvalidText => Some(CloseCode::INVALID_PAYLOAD),
        ConnectionError::MessageTooLarge { .. } => Some(CloseCode::MESSAGE_TOO_BIG),
        ConnectionError::InboxFull => Some(CloseCode::POLICY_VIOLATION),
        // The want of memory is ours and passes: the peer may come back.
        ConnectionError::Evicted { .. } => Some(CloseCode::TRY_AGAIN_LATER),
        _ => None,
    }
}
