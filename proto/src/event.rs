//! What a session reports.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::{ErrorCode, ProtocolError};
use crate::message::Batch;
use crate::number::Generation;
use crate::packet::CloseFrame;
use crate::queue;
use crate::resume::Rejection;

/// Something that happened; from [`Session::poll_event`](crate::Session::poll_event).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The session exists on both sides.
    Opened,
    /// The session goes on over another connection.
    Resumed {
        /// That connection.
        generation: Generation,
        /// How many records had been sent and are sent again.
        replayed: u64,
    },
    /// HELLO was not answered in time. Close this connection and connect again.
    HandshakeTimedOut(Generation),
    /// A message that did not fit may fit now: [`send`](crate::Session::send) it again.
    Writable,
    /// The peer answered [`ping`](crate::Session::ping).
    Pong {
        /// The time that it took.
        round_trip: Duration,
    },
    /// The server is going away. Connect again at a random moment within this time.
    GoAway {
        /// From now; at most [`MAX_GO_AWAY`](crate::limits::MAX_GO_AWAY).
        within: Duration,
        /// Why, in the server's words.
        reason: String,
    },
    /// The peer closes. What was accepted is still delivered; nothing more can be sent, unless the
    /// answer is [by hand](crate::AnswerClose::ByHand): then what waits may be sent until
    /// [`answer_close`](crate::Session::answer_close).
    Closing(CloseFrame),
    /// The session ended; nothing more is received or sent. This comes as soon as it is certain: a
    /// closed session ends when everything is acknowledged both ways, while the peer is still to
    /// be told so. When it is not [`EndReason::Closed`], collect
    /// [`undelivered`](crate::Session::undelivered).
    Ended(EndReason),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Closed, and everything accepted on both sides was acknowledged.
    Closed(CloseFrame),
    /// The close was not completed by its deadline.
    CloseTimedOut,
    /// The application here ended it at once.
    Aborted {
        /// The reason given.
        reason: String,
    },
    /// The peer ended it at once.
    AbortedByPeer {
        /// The peer's code.
        code: ErrorCode,
        /// The peer's words.
        reason: String,
    },
    /// The server rejected to resume it.
    Rejected(Rejection),
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// There was no connection for the session's whole life.
    Expired,
}

/// What the application receives; from [`Session::recv`](crate::Session::recv).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// The next messages.
    Messages(Batch),
    /// The peer closed, and this was all that it sent. Nothing comes after it.
    Closed(CloseFrame),
    /// The session ended here: messages may be missing. Nothing comes after it.
    Discontinuity(EndReason),
}

/// Events that wait to be polled. Bounded: what a peer can cause again and again is kept once.
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
        queue::push(&mut self.0, event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
