//! The public handle of a server's sessions, and their limits.

use std::{sync::Arc, time::Duration};

use super::{limits::Limit, registry::Registry};
use crate::defaults;

/// How many sessions a server keeps.
///
/// By default one address, or one [`Principal`](crate::Principal), may have at most three quarters
/// of the sessions. The last quarter is left for everybody else.
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
    /// The most sessions at once, with or without a connection. Default 20,000; at least 1.
    ///
    /// Above the limit, a new session replaces one without a connection. It is the one that has
    /// been without a connection for longest, of the address or principal with the most sessions.
    /// If no other address or principal has more sessions than the new client's, it replaces one of
    /// the client's own. If there is none to replace, the client gets REJECT `full`.
    pub fn sessions(mut self, sessions: usize) -> SessionLimits {
        self.sessions = sessions.max(1);
        self
    }

    /// The most sessions of one address. Above the limit, a new one replaces the address's session
    /// that has been without a connection for longest. Default three quarters of
    /// [`sessions`](SessionLimits::sessions); at least 1.
    pub fn per_address(mut self, sessions: usize) -> SessionLimits {
        self.per_address = Some(sessions.max(1));
        self
    }

    /// The most sessions of one [`Principal`](crate::Principal). Above the limit, a new one
    /// replaces the principal's session that has been without a connection for longest. Default
    /// three quarters of [`sessions`](SessionLimits::sessions); at least 1.
    pub fn per_principal(mut self, sessions: usize) -> SessionLimits {
        self.per_principal = Some(sessions.max(1));
        self
    }

    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.sessions, self.per_address, self.per_principal)
    }
}

/// The sessions of one server, or of several servers and axum routes that share them. A clone is a
/// handle to the same sessions.
///
/// A [`Server`](crate::Server) has its own `Sessions` unless it is [given
/// others](crate::ServerBuilder::sessions). With axum, make one, keep it in the application's
/// state, and give it to each [`Upgrade`](crate::axum::Upgrade).
///
/// If several servers share it, a client may resume its session at any of them. The handler of the
/// server that opened the session keeps running. The session ends when that server shuts down.
#[derive(Clone, Debug)]
pub struct Sessions(pub(super) Arc<Registry>);

impl Sessions {
    /// Makes an empty set of sessions with these limits.
    pub fn new(limits: SessionLimits) -> Sessions {
        Sessions(Registry::new(limits))
    }

    /// The number of sessions, with or without a connection.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of sessions that are without a connection now.
    pub fn detached(&self) -> usize {
        self.0.detached()
    }

    /// Closes every session with code 1001, within its
    /// [`Options::close_timeout`](crate::Options::close_timeout). Each client is asked to connect
    /// again, to another server, at a random moment within `spread`.
    ///
    /// Use it with axum. A [`Server`](crate::Server) does this for its own sessions when it shuts
    /// down.
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
