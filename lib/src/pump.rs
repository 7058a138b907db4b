//! The pump: the one task that owns a connection's WebSocket.
//!
//! Each poll of the task is a turn: it reads, writes and looks at the clock. Reading and writing each
//! go on when the socket is ready for them, up to a bound per turn. The application cannot block it.

mod alarm;
mod closing;
mod ended;
mod flushing;
mod liveness;
mod plain;
mod reading;
mod start;
#[cfg(test)]
mod tests;
mod traffic;
mod writing;

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    defaults::{MESSAGE_OVERHEAD_BYTES, READ_TURN_BYTES, READ_TURN_FRAMES, WRITE_TURN_BYTES},
    handles::{CloseRequest, Shared},
    reports::{ConnectionError, Event, Report, StallCause},
    ws::{Failure, Received, WebSocket},
};

pub(crate) use alarm::Alarm;
use closing::{Closing, Phase, close_code};
pub(crate) use ended::Ended;
use flushing::Flushing;
use liveness::Liveness;
pub(crate) use plain::Plain;
pub(crate) use reading::{Reading, WhenFull};
pub(crate) use traffic::{Traffic, TurnContext};

/// The pump of one connection. `T` is the traffic of a plain connection or of a session.
pub(crate) struct Pump<S, T> {
    ws: WebSocket<S>,
    shared: Arc<Shared>,
    traffic: T,
    flushing: Flushing,
    liveness: Liveness,
    report: Report,
    alarm: Alarm,
    closing: Closing,
    /// How it ended, while the application drives.
    ended: Option<Box<Ended>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, T: Traffic> Pump<S, T> {
    pub(crate) fn new(mut ws: WebSocket<S>, shared: Arc<Shared>, traffic: T) -> Self {
        ws.charge(&shared.account);
        let mut report = Report::of(&shared.meter);
        report.counters.connections += 1;
        let now = Instant::now();
        shared.meter.publish(&mut report, now);
        shared.events.push(Event::Connected {
            generation: report.counters.connections,
        });
        Pump {
            liveness: Liveness::new(&shared, now),
            closing: Closing::new(&shared.options),
            ws,
            shared,
            traffic,
            flushing: Flushing::default(),
            report,
            alarm: Alarm::default(),
            ended: None,
        }
    }

    /// Runs until the connection has ended. The future can be dropped, and `run` called again.
    /// Meanwhile the application may drive the connection too.
    pub(crate) async fn run(&mut self) -> Ended {
        let shared = self.shared.clone();
        let _steady = shared.driver.steady();
        std::future::poll_fn(|cx| {
            let ended = match self.ended.take() {
                Some(ended) => ended,
                None => Box::new(ready!(self.poll(cx))),
            };
            // What follows is not for the application's poll.
            if shared.driver.poll_in_task(cx).is_pending() {
                self.ended = Some(ended);
                return Poll::Pending;
            }
            Poll::Ready(*ended)
        })
        .await
    }

    /// As [`run`](Self::run), in a future that also runs the user's code: only the task drives it.
    pub(crate) async fn run_beside(&mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Runs until every accepted message is on the socket (in a session: accepted by the session).
    /// `Some`: the connection has ended before.
    pub(crate) async fn run_until_idle(&mut self) -> Option<Ended> {
        std::future::poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if self.traffic.is_idle(&self.shared) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Closes this connection, but not the handle.
    pub(crate) fn close(&mut self, request: CloseRequest) {
        if self.closing.request(request.clone()) {
            self.traffic.request_close(&request);
        }
    }

    pub(crate) fn traffic(&mut self) -> &mut T {
        &mut self.traffic
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let now = Instant::now();
        match self.turn(cx, now) {
            Ok(false) => {}
            Ok(true) => {
                let woken = !self.shared.inbox.is_awaited();
                self.shared.driver.go_on(woken, cx);
            }
            Err(failure) => {
                if self.stop(failure, now).is_ready() {
                    return Poll::Ready(self.ended(now));
                }
                cx.waker().wake_by_ref();
            }
        }
        if self.closing.phase == Phase::Lingering && self.linger(cx).is_ready() {
            return Poll::Ready(self.ended(now));
        }
        match self.keep_time(cx, now) {
            Ok(()) => Poll::Pending,
            Err(()) => Poll::Ready(self.ended(now)),
        }
    }

    /// Reads, writes, and advances the closing handshake. `true`: there is more to do at once.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Failure> {
        if self.closing.phase == Phase::Lingering {
            return Ok(false);
        }
        if let Poll::Ready(failure) = self.traffic.poll_evicted(cx) {
            return Err(failure);
        }
        self.look_for_close_request(cx);
        let mut again = self.read(cx, now)?;
        again |= self.write(cx, now)?;
        if self.closing.is_open() && self.traffic.is_over(&self.shared) {
            let failed = self.traffic.failed_with();
            let (code, reason) = self.closing.begin(failed, now);
            self.ws.close(code, reason)?;
            again = true;
        }
        if self.ws.is_flushed() {
            self.closing.complete(now);
        }
        Ok(again)
    }

    fn look_for_close_request(&mut self, cx: &Context<'_>) {
        if self.closing.request.is_some() {
            return;
        }
        if let Some(request) = self.shared.poll_close_request(cx) {
            self.close(request);
        }
    }

    /// Reads until the socket has no more data, the inbox is full, or the turn's bound is reached.
    /// `true`: there may be more.
    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Failure> {
        let room = self.traffic.room(&mut TurnContext::new(
            &self.shared,
            &mut self.report,
            cx,
            now,
        ))?;
        // After the peer's close frame only the end of the stream can come, which needs no room.
        let room = if self.closing.peer.is_some() {
            usize::MAX
        } else {
            room
        };
        let read = self.read_messages(room.min(READ_TURN_BYTES), cx, now);
        let delivered = self.traffic.deliver(&mut TurnContext::new(
            &self.shared,
            &mut self.report,
            cx,
            now,
        ));
        let paused = self.traffic.is_paused();
        self.closing.look_at_pause(paused, now);
        self.liveness.read(&self.ws, paused, &mut self.report, now);
        let again = read?;
        delivered?;
        Ok(again)
    }

    fn read_messages(
        &mut self,
        limit: usize,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, Failure> {
        let (mut bytes, mut frames) = (0, 0);
        while bytes < limit && frames < READ_TURN_FRAMES {
            frames += 1;
            match self.ws.poll_read(cx) {
                Poll::Ready(Ok(Received::Message { text, payload })) => {
                    bytes += payload.len() + MESSAGE_OVERHEAD_BYTES;
                    self.traffic.receive(
                        text,
                        payload,
                        &mut TurnContext::new(&self.shared, &mut self.report, cx, now),
                    )?;
                }
                Poll::Ready(Ok(Received::Part(part))) => bytes += part,
                Poll::Ready(Ok(Received::Ping)) => {}
                Poll::Ready(Ok(Received::Pong(payload))) => {
                    if let Some(round_trip) = self.liveness.pong(&payload, now) {
                        self.report.counters.round_trip = Some(round_trip);
                        #[cfg(feature = "metrics")]
                        crate::reports::counted::round_trip(round_trip);
                    }
                }
                Poll::Ready(Ok(Received::Close(close))) => {
                    self.shared.events.push(Event::PeerClosed(close.clone()));
                    self.closing.peer_closes(close, now);
                }
                Poll::Ready(Err(failure)) => return Err(failure),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(limit > 0)
    }

    /// Sends a ping if one is due. Then fills the write buffer and flushes it, until nothing is left,
    /// the socket is full, or the turn's bound is reached. `true`: there is more to do at once.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Failure> {
        let open = self.closing.is_open();
        let alive = match open {
            true => self.heartbeat(cx, now),
            false => Ok(()),
        };
        match alive.and_then(|()| self.write_batches(open, cx, now)) {
            // Nobody takes what is written. What was received before is still there.
            Err(Failure::Broken(
                why @ (ConnectionError::Io(_) | ConnectionError::PeerSilent(_)),
            )) => {
                let paused = self.traffic.is_paused();
                self.closing.only_listen(why, paused, now);
                Ok(false)
            }
            written => written,
        }
    }

    fn heartbeat(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Failure> {
        let writable = self.flushing.blocked_since().is_none();
        let turn = &mut TurnContext::new(&self.shared, &mut self.report, cx, now);
        let (ws, traffic) = (&mut self.ws, &mut self.traffic);
        self.liveness.heartbeat(ws, writable, traffic, turn)
    }

    fn write_batches(
        &mut self,
        open: bool,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, Failure> {
        let mut written = 0;
        loop {
            match self.flushing.poll(&mut self.ws, &mut self.report, cx, now) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            self.traffic.settle(&mut TurnContext::new(
                &self.shared,
                &mut self.report,
                cx,
                now,
            ));
            if !open {
                return Ok(false);
            }
            if written >= WRITE_TURN_BYTES {
                return Ok(true);
            }
            match self.traffic.fill(
                &mut self.ws,
                &mut TurnContext::new(&self.shared, &mut self.report, cx, now),
            )? {
                0 => return Ok(false),
                bytes => written += bytes,
            }
        }
    }

    /// Decides how a failure ends the connection. `Ready`: immediately.
    fn stop(&mut self, failure: Failure, now: Instant) -> Poll<()> {
        self.closing.linger(now);
        self.ws.discard_received();
        match failure {
            // After the peer's close frame, what it sends is ignored (RFC 6455 section 5.5.1), and so
            // is how its stream ends.
            Failure::Broken(_) if self.closing.peer.is_some() => Poll::Pending,
            Failure::Closed => {
                self.closing.clean = true;
                Poll::Pending
            }
            Failure::Broken(why) => {
                // A peer whose stream has ended is not told: `close_code` has no code for that.
                let told = close_code(&why)
                    .map(|code| self.ws.close(code, &why.to_string()))
                    .is_some_and(|result| result.is_ok());
                self.closing.because(why);
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

    /// Acts on deadlines that are over, publishes the turn's report, and sets the alarm for the next
    /// deadline. `Err`: the connection is over.
    fn keep_time(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), ()> {
        if self.closing.is_over(now) {
            return Err(());
        }
        let closing = self.closing.deadline;
        let mut liveness = None;
        if self.closing.is_open() {
            let peer_reads = self.traffic.peer_always_reads();
            if let Some(why) = self.liveness.verdict(&self.flushing, peer_reads, now) {
                self.closing.because(why);
                return Err(());
            }
            liveness = Some(self.liveness.next(&self.flushing));
        }
        // While lingering there are no turns, so what is due would stay due and wake the task again
        // and again.
        let turn_at = match self.closing.phase {
            Phase::Lingering => None,
            _ => self.traffic.wake_at(),
        };
        let stalls = self.shared.meter.publish(&mut self.report, now);
        let next = [closing, liveness, turn_at, stalls];
        let next = next.into_iter().flatten().min();
        // A deadline that is already over is acted on in the next turn.
        if next.is_some_and(|next| self.alarm.set(next, cx)) {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn ended(&mut self, now: Instant) -> Ended {
        for cause in [StallCause::SocketFull, StallCause::PeerSilent] {
            self.report.wait(cause, false);
        }
        self.shared.meter.publish(&mut self.report, now);
        Ended {
            why: self.closing.take_why(),
            clean: self.closing.clean,
            in_flight: self.traffic.abandon(&self.shared),
            received_any: self.liveness.received_any(),
            requested: self.closing.request.is_some(),
            peer: self.closing.peer.take(),
        }
    }
}
