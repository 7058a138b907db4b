//! The life of a session, from open to over (SPEC.md, "Ending").

use std::time::Duration;

use crate::error::ErrorCode;
use crate::event::EndReason;
use crate::number::Seq;
use crate::packet::CloseFrame;

/// The life of a session.
#[derive(Clone, Debug, Hash)]
pub(crate) enum State {
    /// Messages are accepted and received.
    Open,
    /// One side closes. What was accepted is still delivered.
    Closing(Closing),
    /// Everything is acknowledged both ways. Only the peer is still to learn it, by END.
    Finished {
        closing: Closing,
        /// The peer has sent END, so it knows.
        peer_ended: bool,
    },
    /// It is over.
    Ended {
        reason: EndReason,
        /// What the peer is still to be told.
        farewell: Option<Farewell>,
    },
}

/// A close that is not complete.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Closing {
    /// What this side's CLOSE says.
    pub(crate) frame: CloseFrame,
    /// The peer closes, and the application may still send: this side's CLOSE waits for it.
    pub(crate) accepting: bool,
    /// How long the close may take, as this side's CLOSE says.
    pub(crate) within: Duration,
    /// The peer's last record and what its CLOSE says, once that has arrived.
    pub(crate) peer: Option<(Seq, CloseFrame)>,
}

/// The ABORT of a session.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Farewell {
    pub(crate) code: ErrorCode,
    pub(crate) reason: String,
}

impl State {
    pub(crate) fn closing(&self) -> Option<&Closing> {
        match self {
            State::Closing(closing) | State::Finished { closing, .. } => Some(closing),
            State::Open | State::Ended { .. } => None,
        }
    }

    /// Whether messages are accepted from the application.
    pub(crate) fn is_accepting(&self) -> bool {
        match self {
            State::Open => true,
            State::Closing(closing) => closing.accepting,
            State::Finished { .. } | State::Ended { .. } => false,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, State::Ended { .. })
    }

    /// Whether the peer has sent END. Nothing that it sends after that matters.
    pub(crate) fn peer_has_ended(&self) -> bool {
        matches!(
            self,
            State::Finished {
                peer_ended: true,
                ..
            }
        )
    }
}
