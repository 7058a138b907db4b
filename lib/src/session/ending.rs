//! How a session ends here: what is still delivered, by when, and what everyone is told.

use std::sync::Arc;

use tokio::time::Instant;
use unstall_proto as proto;
use unstall_proto::EndReason;

use super::Link;
use crate::{
    handles::{CloseRequest, Shared},
    messages::{CloseReport, Gap},
    queues::inbox::End,
    reports::{Close, CloseCode, ConnectionError, Event, SessionLoss},
    time::earlier,
};

impl Link {
    /// Whether nothing is left to say or to hear.
    pub(crate) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Gives the session up.
    pub(crate) fn give_up(&mut self, why: ConnectionError) {
        self.session.abort(&why.to_string());
        self.given_up.get_or_insert(why);
    }

    /// Close was asked for: everything accepted goes first.
    pub(crate) fn request_close(&mut self, request: &CloseRequest) {
        self.request.get_or_insert_with(|| request.clone());
    }

    /// When the session's close has to begin, whatever still waits; a little before the
    /// connection's end, so that the peer can be told.
    pub(super) fn close_at(&self) -> Option<Instant> {
        let request = self.request.as_ref().filter(|_| !self.closing)?;
        Some(earlier(request.deadline, request.within / 10))
    }

    /// Starts to close the session, or answers the peer's close, once everything accepted is in it
    /// or the time has come.
    pub(super) fn close_when_due(&mut self, shared: &Shared, now: Instant) {
        self.stop_for_nobody(shared);
        let at = self.close_at();
        if at.is_none_or(|at| now < at) && !self.is_idle(shared) {
            return;
        }
        if let (Some(at), Some(request)) = (at, &self.request) {
            self.closing = true;
            let frame = proto::CloseFrame::new(request.code.as_u16(), &request.reason);
            let within = at.saturating_duration_since(now);
            self.session.close(self.time(now), frame, within);
        }
        if self.peer_closing {
            self.session.answer_close();
        }
    }

    /// The application is gone, and some of what it received it will never take: once its own
    /// messages are delivered there is nothing to wait for.
    fn stop_for_nobody(&mut self, shared: &Shared) {
        let Some(request) = self.request.as_ref().filter(|_| self.closing) else {
            return;
        };
        if !self.taken.is_empty()
            && shared.inbox.is_abandoned()
            && self.session.is_attached()
            && self.session.acknowledged() == self.session.accepted()
            // What it did take is told first.
            && !self.session.hurry_acknowledgement()
        {
            let code = request.code;
            self.session.abort(&format!(
                "its application ended with code {code} before it took everything"
            ));
        }
    }

    pub(super) fn peer_closes(&mut self, shared: &Shared, frame: &proto::CloseFrame) {
        self.peer_closing = true;
        if self.renewed && is_followed(frame) {
            // A client that begins anew goes on accepting, for the next session.
            self.session.answer_close();
        } else {
            shared.outbox.refuse(Arc::new(closed_by_peer(frame)));
        }
    }

    /// Whether another session is to follow this one, which has ended.
    pub(crate) fn is_renewed(&self) -> bool {
        match (&self.end, &self.given_up) {
            (Some(EndReason::Closed(frame)), _) => self.renewed && is_followed(frame),
            (_, Some(why)) => self.renewed && why.is_retryable(),
            _ => self.renewed,
        }
    }

    /// After the end: collects what was not delivered, and says how the stream ends.
    pub(crate) fn conclude(&mut self, shared: &Shared) -> End {
        self.tell_events(shared, Instant::now());
        self.put_back_waiting(shared);
        let lost_before = shared.board.progress().lost;
        self.collect_undelivered(shared);
        let end = match (&self.end, self.given_up.take()) {
            (Some(EndReason::Closed(frame)), _) => match CloseCode::received(frame.code) {
                CloseCode::NORMAL | CloseCode::GOING_AWAY => None,
                _ if self.closing => None,
                _ => Some(closed_by_peer(frame)),
            },
            (_, Some(why)) => Some(why),
            (Some(reason), None) => Some(session_error(reason)),
            (None, None) => Some(ConnectionError::Aborted),
        };
        let end = end.map(Arc::new);
        if let Some(why) = end.as_ref().filter(|_| self.opened) {
            let undelivered = shared.board.progress().lost - lost_before;
            shared.events.push(Event::SessionLost {
                why: why.clone(),
                undelivered,
            });
        }
        end
    }

    /// Ends the handle with the session.
    pub(crate) async fn finish(&mut self, shared: &Shared) {
        let lost = self.conclude(shared);
        self.end_handle(shared, lost.clone(), lost).await;
    }

    /// The end of the handle, for its users: `end`, after the session was `lost`.
    pub(super) async fn end_handle(&mut self, shared: &Shared, end: End, lost: End) {
        shared.end(end.clone(), self.report(end.clone()));
        self.receive_rest();
        if let Some(why) = lost.filter(|_| self.opened) {
            self.mark(Gap::SessionLost { why });
        }
        self.drain(shared).await;
        shared.inbox.end(end);
    }

    fn report(&self, error: End) -> CloseReport {
        let peer = match &self.end {
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
    pub(crate) fn vanish(&mut self, shared: &Shared) {
        self.session.abort("the task was stopped");
        self.tell_events(shared, Instant::now());
        self.put_back_waiting(shared);
        self.collect_undelivered(shared);
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
