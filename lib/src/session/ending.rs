//! How a session ends here: what is still delivered, by when, and what everyone is told.

use std::sync::Arc;

use tokio::time::Instant;
use unstall_proto as proto;
use unstall_proto::EndReason;

use super::Session;
use crate::{
    handles::{CloseRequest, Shared},
    messages::{CloseReport, Gap},
    pump::Reading,
    queues::inbox::End,
    reports::{Close, CloseCode, ConnectionError, Event, Report, SessionLoss},
    time::earlier,
};

/// How far the end of a session has come.
#[derive(Default)]
pub(super) struct Ending {
    /// The application asked for the end.
    request: Option<CloseRequest>,
    /// The protocol was told of the request.
    begun: bool,
    /// The peer has begun to close.
    peer_closing: bool,
    /// Why it has ended, by the protocol; and why this side gave it up.
    reason: Option<EndReason>,
    given_up: Option<ConnectionError>,
    /// A client that begins anew after this session, with what was not accepted into it.
    renewed: bool,
}

impl Ending {
    pub(super) fn ended(&mut self, reason: EndReason) {
        self.reason = Some(reason);
    }

    pub(super) fn reason(&self) -> Option<&EndReason> {
        self.reason.as_ref()
    }

    /// Another session follows this one if it is lost.
    pub(super) fn renew(&mut self, renewed: bool) {
        self.renewed = renewed;
    }

    pub(super) fn is_peer_closing(&self) -> bool {
        self.peer_closing
    }

    /// Whether either side has begun to close.
    pub(super) fn is_closing(&self) -> bool {
        self.begun || self.peer_closing
    }

    /// Whether either side wants the end.
    pub(super) fn is_near(&self) -> bool {
        self.request.is_some() || self.peer_closing
    }
}

impl Session {
    /// Whether nothing is left to say or to hear.
    pub(crate) fn is_over(&self) -> bool {
        self.protocol.is_over()
    }

    /// Gives the session up.
    pub(crate) fn give_up(&mut self, why: ConnectionError) {
        self.protocol.abort(&why.to_string());
        self.ending.given_up.get_or_insert(why);
    }

    /// Close was asked for: everything accepted goes first.
    pub(super) fn request_close(&mut self, request: &CloseRequest) {
        self.ending.request.get_or_insert_with(|| request.clone());
    }

    /// When the session's close has to begin, whatever still waits; a little before the
    /// connection's end, so that the peer can be told.
    pub(super) fn close_at(&self) -> Option<Instant> {
        let request = self
            .ending
            .request
            .as_ref()
            .filter(|_| !self.ending.begun)?;
        Some(earlier(request.deadline, request.timeout / 10))
    }

    /// Starts to close the session, or answers the peer's close, once everything accepted is in it
    /// or the time has come.
    pub(super) fn close_when_due(&mut self, shared: &Shared, now: Instant) {
        self.stop_for_nobody(shared);
        let at = self.close_at();
        if at.is_none_or(|at| now < at) && !self.is_idle(shared) {
            return;
        }
        if let (Some(at), Some(request)) = (at, &self.ending.request) {
            self.ending.begun = true;
            let frame = proto::CloseFrame::new(request.code.as_u16(), &request.reason);
            let within = at.saturating_duration_since(now);
            self.protocol.close(self.time(now), frame, within);
        }
        if self.ending.peer_closing {
            self.protocol.answer_close();
        }
    }

    /// The application is gone, and some of what it received it will never take: once its own
    /// messages are delivered there is nothing to wait for.
    fn stop_for_nobody(&mut self, shared: &Shared) {
        let request = self.ending.request.as_ref();
        let Some(request) = request.filter(|_| self.ending.begun) else {
            return;
        };
        if self.receiving.has_untaken()
            && shared.inbox.is_abandoned()
            && self.protocol.is_attached()
            && self.protocol.acknowledged() == self.protocol.accepted()
            // What it did take is told first.
            && !self.protocol.hurry_acknowledgement()
        {
            let code = request.code;
            self.protocol.abort(&format!(
                "its application ended with code {code} before it took everything"
            ));
        }
    }

    pub(super) fn peer_closes(&mut self, shared: &Shared, frame: &proto::CloseFrame) {
        self.ending.peer_closing = true;
        if self.ending.renewed && is_followed(frame) {
            // A client that begins anew goes on accepting, for the next session.
            self.protocol.answer_close();
        } else {
            shared.outbox.refuse(Arc::new(closed_by_peer(frame)));
        }
    }

    /// Whether another session is to follow this one, which has ended.
    pub(super) fn is_renewed(&self) -> bool {
        let renewed = self.ending.renewed;
        match (&self.ending.reason, &self.ending.given_up) {
            (Some(EndReason::Closed(frame)), _) => renewed && is_followed(frame),
            (_, Some(why)) => renewed && why.is_retryable(),
            _ => renewed,
        }
    }

    /// After the end: collects what was not delivered, and says how the stream ends.
    pub(super) fn conclude(&mut self, shared: &Shared, in_setup: bool) -> End {
        let (_, lost_before) = shared.board.progress();
        self.collect(shared, in_setup);
        let end = match (&self.ending.reason, self.ending.given_up.take()) {
            (Some(EndReason::Closed(frame)), _) => match CloseCode::received(frame.code) {
                CloseCode::NORMAL | CloseCode::GOING_AWAY => None,
                _ if self.ending.begun => None,
                _ => Some(closed_by_peer(frame)),
            },
            (_, Some(why)) => Some(why),
            (Some(reason), None) => Some(session_error(reason)),
            (None, None) => Some(ConnectionError::Aborted),
        };
        let end = end.map(Arc::new);
        if let Some(why) = end.as_ref().filter(|_| self.was_opened()) {
            let (_, lost) = shared.board.progress();
            shared.events.push(Event::SessionLost {
                why: why.clone(),
                undelivered: lost - lost_before,
            });
        }
        end
    }

    fn collect(&mut self, shared: &Shared, in_setup: bool) {
        let now = Instant::now();
        let mut report = Report::of(&shared.meter);
        self.tell_events(shared, &mut report, now);
        shared.meter.publish(&report, now);
        self.give_up_sending(shared, in_setup);
    }

    /// Ends the handle with the session.
    pub(crate) async fn finish(&mut self, shared: &Shared, reading: &mut Reading) {
        let lost = self.conclude(shared, false);
        self.end_handle(shared, reading, lost.clone(), lost).await;
    }

    /// The end of the handle, for its users: `end`, after the session was `lost`.
    pub(super) async fn end_handle(
        &mut self,
        shared: &Shared,
        reading: &mut Reading,
        end: End,
        lost: End,
    ) {
        shared.end(end.clone(), self.report(end.clone()));
        while self
            .receiving
            .next(&mut self.protocol, self.number, reading)
        {}
        if let Some(why) = lost.filter(|_| self.was_opened()) {
            reading.mark(Gap::SessionLost { why });
        }
        self.drain(shared, reading).await;
        shared.inbox.end(end);
    }

    fn report(&self, error: End) -> CloseReport {
        let peer = match &self.ending.reason {
            Some(EndReason::Closed(frame)) => Some(Close {
                code: Some(CloseCode::received(frame.code)),
                reason: frame.reason.clone(),
            }),
            _ => None,
        };
        CloseReport {
            clean: peer.is_some(),
            peer,
            error,
            ..CloseReport::default()
        }
    }

    /// The task of the session vanishes: everything accepted comes back all the same.
    pub(super) fn vanish(&mut self, shared: &Shared) {
        self.protocol.abort("the task was stopped");
        self.collect(shared, false);
    }
}

/// Whether a client comes back after a close like this.
fn is_followed(frame: &proto::CloseFrame) -> bool {
    match CloseCode::received(frame.code) {
        CloseCode::NORMAL => false,
        CloseCode::GOING_AWAY => true,
        _ => closed_by_peer(frame).is_retryable(),
    }
}

fn closed_by_peer(frame: &proto::CloseFrame) -> ConnectionError {
    ConnectionError::ClosedByPeer(Close {
        code: Some(CloseCode::received(frame.code)),
        reason: frame.reason.clone(),
    })
}

/// What ended a session otherwise than by a close, as the application is told.
fn session_error(reason: &EndReason) -> ConnectionError {
    ConnectionError::SessionLost(match reason {
        EndReason::Expired => SessionLoss::Expired,
        EndReason::Rejected(rejection) => session_loss(*rejection),
        EndReason::CloseTimedOut => SessionLoss::CloseTimedOut,
        EndReason::AbortedByPeer { code, .. } if *code == proto::ErrorCode::CLOSE_TIMEOUT => {
            SessionLoss::CloseTimedOut
        }
        EndReason::AbortedByPeer { reason, .. } => SessionLoss::AbortedByPeer(reason.clone()),
        EndReason::Aborted { reason } => SessionLoss::Refused(reason.clone()),
        EndReason::Protocol(error) => SessionLoss::Refused(error.to_string()),
        other => SessionLoss::Refused(format!("{other:?}")),
    })
}

/// A server's rejection, as the application is told.
pub(super) fn session_loss(rejection: proto::Rejection) -> SessionLoss {
    match rejection {
        proto::Rejection::Expired => SessionLoss::Expired,
        proto::Rejection::Unknown => SessionLoss::Unknown,
        proto::Rejection::NotYours => SessionLoss::NotYours,
        proto::Rejection::Superseded => SessionLoss::Superseded,
        proto::Rejection::Full { .. } => SessionLoss::Full,
        other => SessionLoss::Refused(other.to_string()),
    }
}
