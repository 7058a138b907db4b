//! The connection that carries a session (SPEC.md, "The connection of a session").

use crate::number::Generation;

/// The newest connection of the session, and what was sent on it.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Connection {
    pub(crate) generation: Generation,
    pub(crate) phase: Phase,
    /// CLOSE was sent on this connection.
    pub(crate) close_sent: bool,
    /// END was sent on this connection.
    pub(crate) end_sent: bool,
    /// The number of the PING to answer.
    pub(crate) pong: Option<u64>,
}

/// How far the resume exchange has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The session has no connection.
    #[default]
    Detached,
    /// Client: HELLO is to be sent.
    HelloOwed,
    /// Client: HELLO was sent and is not answered.
    HelloSent,
    /// Server: HELLO was granted, WELCOME is to be sent.
    WelcomeOwed,
    /// The resume exchange is done.
    Attached,
}

impl Connection {
    /// A new connection replaces the older one. What was owed on that one is forgotten.
    pub(crate) fn replace(&mut self, generation: Generation, phase: Phase) {
        *self = Connection {
            generation,
            phase,
            ..Connection::default()
        };
    }

    /// The connection is lost.
    pub(crate) fn detach(&mut self) {
        self.replace(self.generation, Phase::Detached);
    }

    /// Whether `generation` is the connection that carries the session.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.phase != Phase::Detached && self.generation == generation
    }

    /// Whether the resume exchange is done, but for WELCOME that is still to be sent.
    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attached | Phase::WelcomeOwed)
    }
}
