//! The connection that carries a session.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use unstall_proto as proto;

use super::Session;
use crate::{
    handles::Shared,
    reports::{ConnectionError, Report, StallCause},
    time::later,
};

/// The connection that carries the session now, or carried it last.
#[derive(Default)]
pub(super) struct Carrier {
    /// `None` while there is no connection.
    generation: Option<proto::Generation>,
    answer: HelloAnswer,
    /// Whether any connection has ever carried the session.
    opened: bool,
    /// When this client leaves a server that goes away.
    leave_at: Option<Instant>,
    /// When the last connection was lost.
    lost_at: Option<Instant>,
    /// On a server: the HELLO that came with the request. Until another packet has come, the client may
    /// send it again, because it does not know that it was taken.
    with_request: Option<Box<proto::Hello>>,
}

/// The server's answer to HELLO on the present connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HelloAnswer {
    /// None yet.
    #[default]
    Awaited,
    /// WELCOME.
    Welcome,
    /// None in time. The pump has not been told yet.
    TimedOut,
    /// None in time. The pump was told.
    GivenUp,
}

impl Carrier {
    pub(super) fn generation(&self) -> Option<proto::Generation> {
        self.generation
    }

    pub(super) fn was_opened(&self) -> bool {
        self.opened
    }

    pub(super) fn opened(&mut self) {
        self.opened = true;
        self.answer = HelloAnswer::Welcome;
        self.lost_at = None;
    }

    /// The session was resumed. Returns how long there was no connection.
    pub(super) fn resumed(&mut self, now: Instant) -> Duration {
        self.answer = HelloAnswer::Welcome;
        let lost_at = self.lost_at.take();
        lost_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    pub(super) fn was_unanswered(&mut self) {
        self.answer = HelloAnswer::TimedOut;
    }

    /// Whether the packet repeats the HELLO that came with the request. Only the first packet can.
    #[inline]
    pub(super) fn repeats_hello(&mut self, packet: &Bytes) -> bool {
        let taken = self.with_request.take();
        taken.is_some_and(|taken| proto::Hello::from_packet(packet.clone()) == Ok(*taken))
    }

    /// The server asks its clients to leave within this time. Each client draws its own moment, so
    /// that they do not all leave at once.
    pub(super) fn goes_away(&mut self, within: Duration, now: Instant) {
        self.leave_at = Some(later(now, within.mul_f64(fastrand::f64())));
    }
}

impl Session {
    /// On a client: begins on a new connection. `false`: the session has ended and wants none.
    pub(crate) fn attach(&mut self) -> bool {
        let time = self.time(Instant::now());
        let generation = self.protocol.attach(time);
        generation
            .into_iter()
            .for_each(|generation| self.attached(generation));
        generation.is_some()
    }

    /// On a server: goes on over a connection that has sent HELLO.
    ///
    /// # Errors
    /// Why the protocol refuses it.
    pub(crate) fn resume(
        &mut self,
        hello: &proto::Hello,
        shared: &Shared,
    ) -> Result<(), proto::Rejection> {
        let token = proto::Token(super::random());
        let generation = self.protocol.resume(hello, token)?;
        let now = Instant::now();
        self.carrier.lost_at.get_or_insert(now);
        let mut report = Report::of(&shared.meter);
        for cause in [StallCause::SocketFull, StallCause::PeerSilent] {
            report.wait(cause, false);
        }
        shared.meter.publish(&mut report, now);
        self.attached(generation);
        Ok(())
    }

    /// The session goes on over a new connection.
    pub(crate) fn attached(&mut self, generation: proto::Generation) {
        self.carrier.generation = Some(generation);
        self.carrier.with_request = None;
        self.evictable.set_idle(false);
        self.carrier.answer = HelloAnswer::Awaited;
        self.carrier.leave_at = None;
    }

    /// On a server: the HELLO of the new connection came with its request.
    #[cfg(feature = "server")]
    pub(crate) fn came_with_request(&mut self, hello: proto::Hello) {
        self.carrier.with_request = Some(Box::new(hello));
    }

    /// The connection is lost.
    pub(crate) fn detach(&mut self, shared: &Shared, now: Instant) {
        if let Some(generation) = self.carrier.generation.take() {
            self.protocol.detach(self.time(now), generation);
            self.evictable.set_idle(true);
            self.carrier.lost_at.get_or_insert(now);
        }
        if !self.ending.is_peer_closing() {
            self.carrier.leave_at = None;
        }
        shared.outbox.shrink();
        let mut report = Report::of(&shared.meter);
        report.wait(StallCause::Connecting, !self.is_over());
        shared.meter.publish(&mut report, now);
    }

    /// Why this client leaves the connection now. Returned once.
    pub(super) fn why_leave(&mut self, shared: &Shared, now: Instant) -> Option<ConnectionError> {
        if self.carrier.answer == HelloAnswer::TimedOut {
            self.carrier.answer = HelloAnswer::GivenUp;
            let waited = shared.options.connect_timeout;
            return Some(ConnectionError::HelloUnanswered(waited));
        }
        self.leaves_at().filter(|at| *at <= now)?;
        self.carrier.leave_at = None;
        Some(ConnectionError::GoingAway)
    }

    /// When this client leaves a server that goes away. `None` if the session is closing anyway.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        let leave_at = self.carrier.leave_at;
        leave_at.filter(|_| !self.ending.is_closing())
    }

    /// When this client may come back to the server that closed the session. `None`: it has not said.
    pub(crate) fn comes_back_at(&self) -> Option<Instant> {
        let leave_at = self.carrier.leave_at;
        leave_at.filter(|_| self.ending.is_peer_closing())
    }

    /// Whether the last connection carried the session.
    pub(crate) fn was_welcomed(&self) -> bool {
        self.carrier.answer == HelloAnswer::Welcome
    }
}
