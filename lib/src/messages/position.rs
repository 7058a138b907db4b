//! Where a received message ends, for acknowledging by hand.

use std::sync::atomic::{AtomicU64, Ordering};

use unstall_proto as proto;

/// Where a message of a session ends, from [`Receiver::position`](crate::Receiver::position).
///
/// Note it after a message. Give it to
/// [`Receiver::acknowledge_to`](crate::Receiver::acknowledge_to) once everything up to that message
/// is done. It belongs to one session: a position of an earlier session or of another connection
/// acknowledges nothing. Within a connection, later positions compare as greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    session: SessionNumber,
    end: proto::Position,
}

/// The number of a session within this process. Later sessions have higher numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionNumber(u64);

impl SessionNumber {
    /// Plain messages have this in place of a session.
    pub(crate) const PLAIN: SessionNumber = SessionNumber(0);

    /// A number that no session of this process had before.
    pub(crate) fn next() -> SessionNumber {
        static LAST: AtomicU64 = AtomicU64::new(0);
        SessionNumber(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Position {
    /// Before the first message of every session.
    pub(crate) const START: Position = Position {
        session: SessionNumber::PLAIN,
        end: proto::Position::START,
    };

    pub(crate) fn new(session: SessionNumber, end: proto::Position) -> Position {
        Position { session, end }
    }

    /// The place within `session`, or `None` if the position is of another session.
    pub(crate) fn within(self, session: SessionNumber) -> Option<proto::Position> {
        (self.session == session).then_some(self.end)
    }
}
