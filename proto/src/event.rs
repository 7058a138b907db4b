//! What a session reports, and what it hands over to the application.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::{ErrorCode, ProtocolError};
use crate::message::Batch;
use crate::number::Generation;
use crate::packet::CloseFrame;
use crate::resume::Rejection;
use crate::util;

/// Something that happened. [`Session::poll_event`](crate::Session::poll_event) returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The session is open on both sides.
    Opened,
    /// The session continues on another connection.
    Resumed {
        /// The number of that connection.
        generation: Generation,
        /// How many records had been sent before and are sent again.
        replayed: u64,
    },
    /// The server did not answer HELLO in time. Close this connection and connect again.
    HandshakeTimedOut(Generation),
    /// A message that was refused as [`Full`](crate::SendError::Full) may fit now. Send it again.
    Writable,
    /// The peer answered [`ping`](crate::Session::ping).
    Pong {
        /// The time from PING to PONG.
        round_trip: Duration,
    },
    /// The server goes away. Connect again at a random moment within this time.
    GoAway {
        /// The time from now on; at most [`MAX_GO_AWAY`](crate::limits::MAX_GO_AWAY).
        within: Duration,
        /// The reason, in the server's words.
        reason: String,
    },
    /// The peer closes the session. What was accepted is still delivered. Nothing more is accepted,
    /// unless the answer is [by hand](crate::AnswerClose::ByHand): then the application may send
    /// until it calls [`answer_close`](crate::Session::answer_close).
    Closing(CloseFrame),
    /// The session has ended: nothing more is delivered, either way. This comes once.
    ///
    /// A closed session ends when everything is acknowledged both ways. The peer is still to be
    /// told so: keep the session until [`is_over`](crate::Session::is_over). The application need
    /// not wait for that.
    ///
    /// When the reason is not [`EndReason::Closed`], collect
    /// [`undelivered`](crate::Session::undelivered).
    Ended(EndReason),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// It was closed, and everything accepted on both sides was acknowledged.
    Closed(CloseFrame),
    /// The close was not completed by its deadline.
    CloseTimedOut,
    /// The application on this side aborted it.
    Aborted {
        /// The reason that it gave.
        reason: String,
    },
    /// The peer aborted it.
    AbortedByPeer {
        /// The peer's code.
        code: ErrorCode,
        /// The reason, in the peer's words.
        reason: String,
    },
    /// The server refused to resume it.
    Rejected(Rejection),
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// It was without a connection for too long.
    Expired,
}

/// What the application receives. [`Session::recv`](crate::Session::recv) returns it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// The next messages.
    Messages(Batch),
    /// The peer closed the session, and all its messages were handed over. Nothing follows.
    Closed(CloseFrame),
    /// The session ended. Messages of the peer may be missing. Nothing follows.
    Discontinuity(EndReason),
}

/// The events that were not polled. What a peer can cause again and again is kept once.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    pub(crate) fn push(&mut self, event: Event) {
        let repeated = matches!(
            event,
            Event::Writable | Event::Pong { .. } | Event::GoAway { .. }
        );
        if repeated {
            let kind = std::mem::discriminant(&event);
            self.0
                .retain(|waiting| std::mem::discriminant(waiting) != kind);
        }
        util::push_back(&mut self.0, event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
