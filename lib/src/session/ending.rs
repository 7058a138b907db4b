//! How a session ends: what is still delivered, by when, and what the handles are told.

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
    spans,
    time::earlier,
};

/// How far the ending of a session has come.
#[derive(Default)]
pub(super) struct Ending {
    /// The application's request to close.
    request: Option<CloseRequest>,
    /// The protocol was told of the request.
    begun: bool,
    /// The peer has begun to close.
    peer_closing: bool,
    /// Why the session has ended, as the protocol says.
    reason: Option<EndReason>,
    /// Why this side gave the session up.
    given_up: Option<ConnectionError>,
    /// If the session is lost, another one follows. It sends what this one did not accept.
    renewed: bool,
}

impl Ending {
    pub(super) fn ended(&mut self, reason: EndReason) {
        self.reason = Some(reason);
    }

    pub(super) fn reason(&self) -> Option<&EndReason> {
        self.reason.as_ref()
    }

    /// If this session is lost, another one follows.
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

    /// Whether either side has asked for the end.
    pub(super) fn is_near(&self) -> bool {
        self.request.is_some() || self.peer_closing
    }
}

impl Session {
    /// Whether the session has ended and has nothing left to send.
    pub(crate) fn is_over(&self) -> bool {
        self.protocol.is_over()
    }

    /// Gives the session up. The peer is told by ABORT, if there is a connection.
    pub(crate) fn give_up(&mut self, why: ConnectionError) {
        self.protocol.abort(&why.to_string());
        self.ending.given_up.get_or_insert(why);
    }

    /// The application asks for the close. Accepted messages go first.
    pub(super) fn request_close(&mut self, request: &CloseRequest) {
        self.ending.request.get_or_insert_with(|| request.clone());
    }

    /// When the session's close has to begin, even if messages still wait. This is a little before the
    /// deadline of the connection, so that the peer can still be told.
    pub(super) fn close_at(&self) -> Option<Instant> {
        let request = self
            .ending
            .request
            .as_ref()
            .filter(|_| !self.ending.begun)?;
        Some(earlier(request.deadline, request.timeout / 10))
    }

    /// Begins to close the session, or answers the peer's close, as soon as the session has accepted
    /// every message, or at [`close_at`](Self::close_at).
    pub(super) fn close_when_due(&mut self, shared: &Shared, now: Instant) {
        self.abort_if_abandoned(shared);
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

    /// Ends a closing session whose application has dropped every handle, with messages that it never
    /// received. After the application's own messages are delivered, there is nothing to wait for.
    fn abort_if_abandoned(&mut self, shared: &Shared) {
        let request = self.ending.request.as_ref();
        let Some(request) = request.filter(|_| self.ending.begun) else {
            return;
        };
        if self.receiving.has_untaken()
            && shared.inbox.is_abandoned()
            && self.protocol.is_attached()
            && self.protocol.acknowledged() == self.protocol.accepted()
            // The acknowledgement of what it did receive goes first.
            && !self.protocol.hurry_acknowledgement()
        {
            let code = request.code;
            self.protocol.abort(&format!(
                "its application closed with code {code} before it received every message"
            ));
        }
    }

    pub(super) fn peer_closes(&mut self, shared: &Shared, frame: &proto::CloseFrame) {
        self.ending.peer_closing = true;
        if self.ending.renewed && is_followed(frame) {
            // The outbox goes on accepting, for the next session.
            self.protocol.answer_close();
        } else {
            shared.outbox.refuse(Arc::new(closed_by_peer(frame)));
        }
    }

    /// Whether another session follows this one, which has ended.
    pub(super) fn is_renewed(&self) -> bool {
        let renewed = self.ending.renewed;
        match (&self.ending.reason, &self.ending.given_up) {
            (Some(EndReason::Closed(frame)), _) => renewed && is_followed(frame),
            (_, Some(why)) => renewed && why.is_retryable(),
            _ => renewed,
        }
    }

    /// After the end: gives undelivered messages back, and returns how the stream ends.
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
            spans::failed(&self.span, why);
            shared.events.push(Event::SessionLost {
                why: why.clone(),
                undelivered: lost - lost_before,
            });
        }
        end
    }

    /// Gives undelivered messages back to the application.
    fn collect(&mut self, shared: &Shared, in_setup: bool) {
        let now = Instant::now();
        let mut report = Report::of(&shared.meter);
        self.tell_events(shared, &mut report, now);
        self.settle(shared);
        shared.meter.publish(&mut report, now);
        self.give_up_sending(shared, in_setup);
    }

    /// After the end: ends the handle too.
    pub(crate) async fn finish(&mut self, shared: &Shared, reading: &mut Reading) {
        let lost = self.conclude(shared, false);
        self.end_handle(shared, reading, lost.clone(), lost).await;
    }

    /// Ends the handle with `end`. `lost` is why the session was lost; a gap marks that.
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

    /// The task of the session was dropped: gives undelivered messages back all the same.
    pub(super) fn vanish(&mut self, shared: &Shared) {
        self.protocol.abort("the task was stopped");
        self.collect(shared, false);
    }
}

/// Whether a client may begin another session after this close.
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

/// The error for a session that ended without a close.
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

/// The error for a server's rejection.
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
