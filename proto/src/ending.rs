//! How a session ends (SPEC.md, "Ending").

use std::time::Duration;

use crate::error::{ErrorCode, ProtocolError};
use crate::event::{EndReason, Event};
use crate::limits::AnswerClose;
use crate::number::{Generation, Seq};
use crate::packet::{CloseFrame, cut_reason};
use crate::session::Session;
use crate::state::{Closing, Farewell, LinkState, State};
use crate::time::Time;
use crate::timer::Timer;
use crate::undelivered::Undelivered;

impl Session {
    /// Closes the session: nothing more is accepted, everything accepted on both sides is still
    /// delivered, and then [`Event::Ended`] with [`EndReason::Closed`] comes. When that takes
    /// longer than `within`, it ends with [`EndReason::CloseTimedOut`] and
    /// [`undelivered`](Session::undelivered) has what was not acknowledged.
    ///
    /// The peer is told the deadline, and keeps it as well, cut to a bound of its own. The application goes on taking what
    /// the peer had sent. Closing again, or after the peer, may only shorten the deadline; the
    /// peer's CLOSE is answered with its own words.
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) and
    /// [`poll_timeout`](Session::poll_timeout), until [`is_over`](Session::is_over).
    pub fn close(&mut self, now: Time, frame: CloseFrame, within: Duration) {
        match self.state {
            State::Open => {
                self.state = State::Closing(Closing {
                    frame,
                    accepting: false,
                    within,
                    peer: None,
                });
                self.timers.set(Timer::Close, now, within);
                self.forget_unopened();
            }
            State::Closing(_)
            | State::Finished {
                peer_ended: false, ..
            } => {
                self.timers.shorten(Timer::Close, now, within);
                self.answer_close();
            }
            State::Finished { .. } | State::Ended { .. } => {}
        }
    }

    /// Nothing more is accepted: the peer's CLOSE is answered once all was sent. Needed only with
    /// [`AnswerClose::ByHand`]; without effect unless the peer has closed.
    ///
    /// After calling this: the same as after [`close`](Session::close).
    pub fn answer_close(&mut self) {
        if let State::Closing(closing) = &mut self.state
            && closing.accepting
        {
            closing.accepting = false;
            self.check_finished();
        }
    }

    /// Ends the session at once, and tells the peer if there is a connection. What was accepted
    /// and not acknowledged is in [`undelivered`](Session::undelivered).
    ///
    /// After calling this: [`poll_transmit`](Session::poll_transmit) until
    /// [`is_over`](Session::is_over).
    pub fn abort(&mut self, reason: &str) {
        let reason = cut_reason(reason).to_owned();
        let farewell = Farewell {
            code: ErrorCode::APPLICATION,
            reason: reason.clone(),
        };
        self.end(EndReason::Aborted { reason }, Some(farewell));
    }

    /// The messages that were accepted and not acknowledged, in order, each with its fate. Once:
    /// a second call gives none. Before the session has ended it gives none.
    pub fn undelivered(&mut self) -> Undelivered {
        match self.state {
            State::Ended { .. } => self.outbox.take_undelivered(),
            _ => Undelivered::default(),
        }
    }

    /// Whether nothing is left to do: the session can be dropped once its last messages are
    /// received and its undelivered ones collected.
    pub fn is_over(&self) -> bool {
        match &self.state {
            State::Open | State::Closing(_) => false,
            State::Finished { peer_ended, .. } => {
                *peer_ended && (self.link.end_sent || !self.link.is_attached())
            }
            State::Ended { farewell, .. } => farewell.is_none(),
        }
    }

    /// Whether the session needs a connection to go on or to end well.
    pub fn wants_connection(&self) -> bool {
        match self.state {
            State::Open | State::Closing(_) => true,
            State::Finished { peer_ended, .. } => !peer_ended,
            State::Ended { .. } => false,
        }
    }

    /// The peer sends nothing after `last`.
    pub(crate) fn handle_close(
        &mut self,
        now: Time,
        last: Seq,
        within_millis: u64,
        frame: CloseFrame,
    ) -> Result<(), ProtocolError> {
        let received = self.inbox.received();
        if last > received {
            let expected = received.next().unwrap_or(received);
            let first = last.next().unwrap_or(last);
            return Err(ProtocolError::SequenceGap { expected, first });
        }
        if last < received || self.inbox.has_partial() {
            return Err(ProtocolError::Unexpected(
                "CLOSE before the end of what was sent",
            ));
        }
        match &mut self.state {
            State::Open => {
                let peer = Some((last, frame.clone()));
                // The peer may say ten years.
                let within = Duration::from_millis(within_millis).min(self.config.max_close);
                self.state = State::Closing(Closing {
                    frame: frame.clone(),
                    accepting: self.config.answer_close == AnswerClose::ByHand,
                    within,
                    peer,
                });
                self.timers.set(Timer::Close, now, within);
                self.events.push(Event::Closing(frame));
            }
            State::Closing(closing) if closing.peer.is_none() => {
                closing.peer = Some((last, frame));
            }
            // The same again after a resume.
            _ => {}
        }
        self.check_finished();
        Ok(())
    }

    /// The peer knows that everything is acknowledged; then this side knows it as well. The close
    /// deadline goes on until this side's END is sent: the peer may take nothing any more.
    pub(crate) fn handle_end(&mut self) -> Result<(), ProtocolError> {
        match &mut self.state {
            State::Finished { peer_ended, .. } => {
                *peer_ended = true;
                self.rest_if_over();
                Ok(())
            }
            _ => Err(ProtocolError::Unexpected(
                "END before everything is acknowledged",
            )),
        }
    }

    /// Notices that the close is complete: all received and acknowledged, both ways.
    pub(crate) fn check_finished(&mut self) {
        let State::Closing(closing) = &self.state else {
            return;
        };
        let Some((last, frame)) = &closing.peer else {
            return;
        };
        if *last != self.acks.ready() {
            return;
        }
        // Nothing more will come that the acknowledgement could wait for.
        self.acks.hurry();
        if closing.accepting || !self.outbox.is_delivered() {
            return;
        }
        self.events
            .push(Event::Ended(EndReason::Closed(frame.clone())));
        self.timers.stop(Timer::AckDelay);
        self.state = State::Finished {
            closing: closing.clone(),
            peer_ended: false,
        };
    }

    /// A close is complete at once when no peer has answered, none is being asked, and nothing is
    /// to be delivered.
    pub(crate) fn forget_unopened(&mut self) {
        let State::Closing(closing) = &self.state else {
            return;
        };
        let asked = self.epoch.is_some() || self.link.state != LinkState::Detached;
        if !asked && self.outbox.is_delivered() {
            self.end(EndReason::Closed(closing.frame.clone()), None);
        }
    }

    /// The session ends for this reason. Has no effect when it has ended, or is over.
    pub(crate) fn end(&mut self, reason: EndReason, farewell: Option<Farewell>) {
        if self.is_over() {
            return;
        }
        let reason = match &self.state {
            State::Ended { .. } => return,
            // All is acknowledged: nothing can go wrong any more, and it was reported.
            State::Finished { closing, .. } => EndReason::Closed(
                closing
                    .peer
                    .as_ref()
                    .map_or(&closing.frame, |p| &p.1)
                    .clone(),
            ),
            State::Open | State::Closing(_) => {
                self.events.push(Event::Ended(reason.clone()));
                reason
            }
        };
        self.timers.stop_all();
        self.inbox.drop_partial();
        let farewell = farewell.filter(|_| self.link.is_attached());
        self.state = State::Ended { reason, farewell };
    }

    /// A session that is over wakes nobody.
    pub(crate) fn rest_if_over(&mut self) {
        if self.is_over() {
            self.timers.stop_all();
        }
    }

    /// The peer broke the protocol on this connection.
    pub(crate) fn fail(&mut self, now: Time, generation: Generation, error: ProtocolError) {
        if error.is_resumable() {
            return self.detach(now, generation);
        }
        let farewell = Farewell {
            code: error.code(),
            reason: cut_reason(&error.to_string()).to_owned(),
        };
        self.end(EndReason::Protocol(error), Some(farewell));
    }

    /// The close has taken too long.
    pub(crate) fn close_timed_out(&mut self) {
        let farewell = Farewell {
            code: ErrorCode::CLOSE_TIMEOUT,
            reason: "the close was not completed in time".to_owned(),
        };
        let finished = matches!(self.state, State::Finished { .. });
        self.end(EndReason::CloseTimedOut, (!finished).then_some(farewell));
    }
}
