//! How a session ends (SPEC.md, "Ending").

use std::time::Duration;

use crate::connection::Phase;
use crate::error::{ErrorCode, ProtocolError};
use crate::event::{EndReason, Event};
use crate::limits::AnswerClose;
use crate::number::{Generation, Seq};
use crate::packet::CloseFrame;
use crate::session::Session;
use crate::state::{Closing, Farewell, State};
use crate::time::Time;
use crate::timer::Timer;
use crate::undelivered::Undelivered;
use crate::util::cut_reason;

impl Session {
    /// Closes the session. Nothing more is accepted. Everything that was accepted on both sides is
    /// still delivered, and then [`Event::Ended`] comes with [`EndReason::Closed`]. When that takes
    /// longer than `within`, the session ends with [`EndReason::CloseTimedOut`], and
    /// [`undelivered`](Session::undelivered) has what was not acknowledged.
    ///
    /// The peer is told the deadline, and keeps it as well, cut to a bound of its own. The
    /// application goes on taking what the peer had sent. A second call, or a call after the peer
    /// has closed, can only shorten the deadline. The peer's CLOSE is answered with the peer's code
    /// and reason.
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

    /// Nothing more is accepted, so the peer's CLOSE is answered once everything was sent. Only
    /// needed with [`AnswerClose::ByHand`]. Without effect unless the peer has closed.
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

    /// Ends the session at once, and tells the peer if there is a connection.
    /// [`undelivered`](Session::undelivered) has what was accepted and not acknowledged.
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

    /// The messages that were accepted and not acknowledged, in order, each with its fate. They are
    /// given back once, and only after the session has ended: otherwise there are none.
    pub fn undelivered(&mut self) -> Undelivered {
        match self.state {
            State::Ended { .. } => self.sending.outbox.take_undelivered(),
            _ => Undelivered::default(),
        }
    }

    /// Whether nothing is left to send or to wait for. Drop the session once its last messages are
    /// [received](Session::recv) and its undelivered ones collected. No timer runs any more.
    ///
    /// A session that has ended by ABORT is over when that was sent, or when its connection is
    /// lost. Close a connection that does not take it.
    pub fn is_over(&self) -> bool {
        match &self.state {
            State::Open | State::Closing(_) => false,
            State::Finished { peer_ended, .. } => {
                *peer_ended && (self.connection.end_sent || !self.connection.is_attached())
            }
            State::Ended { farewell, .. } => farewell.is_none(),
        }
    }

    /// Whether the session needs a connection to continue or to end well.
    pub fn wants_connection(&self) -> bool {
        match self.state {
            State::Open | State::Closing(_) => true,
            State::Finished { peer_ended, .. } => !peer_ended,
            State::Ended { .. } => false,
        }
    }

    /// The peer sends no records after `last`.
    pub(super) fn handle_close(
        &mut self,
        now: Time,
        last: Seq,
        within_millis: u64,
        frame: CloseFrame,
    ) -> Result<(), ProtocolError> {
        let received = self.receiving.inbox.received();
        if last > received {
            let expected = received.next().unwrap_or(received);
            let first = last.next().unwrap_or(last);
            return Err(ProtocolError::SequenceGap { expected, first });
        }
        if last < received || self.receiving.inbox.has_partial() {
            return Err(ProtocolError::Unexpected(
                "CLOSE before the end of what was sent",
            ));
        }
        match &mut self.state {
            State::Open => {
                let peer = Some((last, frame.clone()));
                // The peer can say ten years.
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
            // CLOSE comes again after a resume.
            _ => {}
        }
        self.check_finished();
        Ok(())
    }

    /// The peer has learned that everything is acknowledged. The close deadline still counts until
    /// this side's END is sent, because the peer may not read any more.
    pub(super) fn handle_end(&mut self) -> Result<(), ProtocolError> {
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

    /// Finishes the close when everything is received and acknowledged both ways.
    pub(super) fn check_finished(&mut self) {
        let State::Closing(closing) = &self.state else {
            return;
        };
        let Some((last, frame)) = &closing.peer else {
            return;
        };
        if *last != self.receiving.acks.ready() {
            return;
        }
        // No more messages will come, so the acknowledgement need not wait for them.
        self.receiving.acks.hurry();
        if closing.accepting || !self.sending.outbox.is_delivered() {
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

    /// Completes a close at once when no server knows of the session, and nothing is to be
    /// delivered.
    pub(super) fn forget_unopened(&mut self) {
        let State::Closing(closing) = &self.state else {
            return;
        };
        let known = self.agreement.epoch.is_some() || self.connection.phase != Phase::Detached;
        if !known && self.sending.outbox.is_delivered() {
            self.end(EndReason::Closed(closing.frame.clone()), None);
        }
    }

    /// The session ends for this reason. Without effect when it has ended already.
    pub(super) fn end(&mut self, reason: EndReason, farewell: Option<Farewell>) {
        if self.is_over() {
            return;
        }
        let reason = match &self.state {
            State::Ended { .. } => return,
            // Everything is acknowledged, so it ends well whatever happens. This was reported.
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
        self.receiving.inbox.drop_partial();
        let farewell = farewell.filter(|_| self.connection.is_attached());
        self.state = State::Ended { reason, farewell };
    }

    /// Stops all timers when the session is over.
    pub(super) fn rest_if_over(&mut self) {
        if self.is_over() {
            self.timers.stop_all();
        }
    }

    /// The peer broke the protocol on this connection.
    pub(super) fn fail(&mut self, now: Time, generation: Generation, error: ProtocolError) {
        if error.is_resumable() {
            return self.detach(now, generation);
        }
        let farewell = Farewell {
            code: error.code(),
            reason: cut_reason(&error.to_string()).to_owned(),
        };
        self.end(EndReason::Protocol(error), Some(farewell));
    }

    /// The deadline of the close has passed.
    pub(super) fn close_timed_out(&mut self) {
        let farewell = Farewell {
            code: ErrorCode::CLOSE_TIMEOUT,
            reason: "the close was not completed in time".to_owned(),
        };
        let finished = matches!(self.state, State::Finished { .. });
        self.end(EndReason::CloseTimedOut, (!finished).then_some(farewell));
    }
}
