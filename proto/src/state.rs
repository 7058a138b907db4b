//! The life of a session, and the state of its connection.

use std::time::Duration;

use crate::error::ErrorCode;
use crate::event::EndReason;
use crate::number::{Generation, Seq};
use crate::packet::CloseFrame;

/// The life of a session (SPEC.md, "Ending").
#[derive(Clone, Debug, Hash)]
pub(crate) enum State {
    /// Messages are accepted and received.
    Open,
    /// One side asked to close: nothing more is accepted, what was accepted is delivered.
    Closing(Closing),
    /// Everything both ways is acknowledged: nothing is at stake any more. The peer is still to
    /// learn it by END.
    Finished {
        closing: Closing,
        /// The peer has said END: it knows.
        peer_ended: bool,
    },
    /// It is over.
    Ended {
        reason: EndReason,
        /// What the peer is still to be told.
        farewell: Option<Farewell>,
    },
}

/// A close on its way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Closing {
    /// What this side's CLOSE says.
    pub(crate) frame: CloseFrame,
    /// The peer began, and messages are still accepted: this side's CLOSE waits for their end.
    pub(crate) accepting: bool,
    /// How long it may take, in the words of the side that began.
    pub(crate) within: Duration,
    /// The peer's last record and CLOSE, once it came.
    pub(crate) peer: Option<(Seq, CloseFrame)>,
}

/// The last packet of a session that ends before its time.
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

    /// Whether the peer has said END: nothing that it says now matters.
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

/// The connection that carries the session now.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Link {
    pub(crate) generation: Generation,
    pub(crate) state: LinkState,
    /// CLOSE was sent on this connection.
    pub(crate) close_sent: bool,
    /// END was sent on this connection.
    pub(crate) end_sent: bool,
    /// The number of the PING to answer.
    pub(crate) pong: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum LinkState {
    /// There is none.
    #[default]
    Detached,
    /// Client: HELLO is to be sent.
    HelloOwed,
    /// Client: HELLO is sent and not answered.
    HelloSent,
    /// Server: HELLO is granted, WELCOME is to be sent.
    WelcomeOwed,
    /// The resume exchange is done.
    Attached,
}

impl Link {
    /// A new connection takes the place of the older one: whatever was owed to that is gone.
    pub(crate) fn replace(&mut self, generation: Generation, state: LinkState) {
        *self = Link {
            generation,
            state,
            ..Link::default()
        };
    }

    pub(crate) fn detach(&mut self) {
        self.replace(self.generation, LinkState::Detached);
    }

    /// Whether `generation` is the connection that carries the session.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.state != LinkState::Detached && self.generation == generation
    }

    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.state, LinkState::Attached | LinkState::WelcomeOwed)
    }
}
