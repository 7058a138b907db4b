//! A server's sessions, as the application sees them.

use std::{sync::Arc, time::Duration};

use super::{limits::Limit, registry::Registry};
use crate::defaults;

/// How many sessions a server keeps.
///
/// Unless set, a single address and a single [`Principal`](crate::Principal) have at most three
/// quarters of the sessions, so that the last quarter is left for everybody else.
#[derive(Clone, Copy, Debug)]
#[must_use = "setters return the changed limits"]
pub struct SessionLimits {
    sessions: usize,
    per_address: Option<usize>,
    per_principal: Option<usize>,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions: defaults::SERVER_SESSIONS,
            per_address: None,
            per_principal: None,
        }
    }
}

impl SessionLimits {
    /// Sessions at once, with or without a connection. Default 20,000; at least 1.
    ///
    /// When there are as many, a new session takes the place of one without a connection: one of
    /// the address or principal that has most sessions, the longest away first. If nobody has more
    /// than the newcomer, it takes the place of one of its own. If none of those is without a
    /// connection, the newcomer gets REJECT `full`.
    pub fn sessions(mut self, sessions: usize) -> SessionLimits {
        self.sessions = sessions.max(1);
        self
    }

    /// Sessions that one address opened. A new one above it takes the place of the one of them that
    /// is longest without a connection. Default three quarters of
    /// [`sessions`](SessionLimits::sessions); at least 1.
    pub fn per_address(mut self, sessions: usize) -> SessionLimits {
        self.per_address = Some(sessions.max(1));
        self
    }

    /// Sessions that one [`Principal`](crate::Principal) opened. A new one above it takes the place
    /// of the one of them that is longest without a connection. Default three quarters of
    /// [`sessions`](SessionLimits::sessions); at least 1.
    pub fn per_principal(mut self, sessions: usize) -> SessionLimits {
        self.per_principal = Some(sessions.max(1));
        self
    }

    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.sessions, self.per_address, self.per_principal)
    }
}

/// The sessions of one server, or of several servers and axum routes that share them. Clones are
/// the same sessions.
///
/// A [`Server`](crate::Server) has its own unless it is
/// [given others](crate::ServerBuilder::sessions). With axum, make one, keep it in the
/// application's state, and give it to each [`Upgrade`](crate::axum::Upgrade).
///
/// If several share it, a client may resume its session at any of them. The handler stays the one
/// of the server that opened the session, and the shutdown of that server ends it.
#[derive(Clone, Debug)]
pub struct Sessions(pub(super) Arc<Registry>);

impl Sessions {
    /// No sessions yet.
    pub fn new(limits: SessionLimits) -> Sessions {
        Sessions(Registry::new(limits))
    }

    /// Sessions in all, with or without a connection.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions without a connection now.
    pub fn detached(&self) -> usize {
        self.0.detached()
    }

    /// Asks every session to close with code 1001, within its
    /// [`Options::close_timeout`](crate::Options::close_timeout), and its client to come back, to
    /// another server, at a random moment within `spread`.
    ///
    /// For axum. A [`Server`](crate::Server) that shuts down does so with the sessions that it
    /// opened.
    pub fn close_all(&self, spread: Duration) {
        self.0.close_all(spread);
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::new(SessionLimits::default())
    }
}

impl From<SessionLimits> for Sessions {
    fn from(limits: SessionLimits) -> Sessions {
        Sessions::new(limits)
    }
}

impl From<&Sessions> for Sessions {
    fn from(sessions: &Sessions) -> Sessions {
        sessions.clone()
    }
}
