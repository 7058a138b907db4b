//! The open connections and sessions of a server, so that a shutdown can end them all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    defaults,
    handles::{Connection, Shared},
    reports::CloseCode,
};

/// Plain connections, and sessions with or without a connection. Each counts once, from its start
/// until it and its handler have ended.
#[derive(Default)]
pub(super) struct Open {
    state: Mutex<Members>,
    emptied: Notify,
}

#[derive(Default)]
struct Members {
    next: u64,
    members: HashMap<u64, Ends>,
    /// Set during a shutdown. A member that starts now is closed at once, and its client is asked
    /// to connect again, elsewhere, within this time.
    draining: Option<Duration>,
    /// How many were asked to close.
    asked: usize,
}

/// The handles that end one member.
#[derive(Default)]
struct Ends {
    /// `None` until it has started.
    control: Option<Control>,
    handler: Option<AbortHandle>,
}

#[derive(Clone)]
pub(super) enum Control {
    WebSocket {
        shared: Arc<Shared>,
        task: AbortHandle,
    },
    /// A connection that speaks HTTP.
    #[cfg(feature = "axum")]
    Http {
        /// Says that the request under way is the last one.
        last: Arc<Notify>,
        task: AbortHandle,
    },
}

/// A connection or session that counts as open. It is removed when the last clone of its `Arc` is
/// dropped.
#[derive(Debug)]
pub(super) struct Member {
    id: u64,
    open: Arc<Open>,
}

impl Drop for Member {
    fn drop(&mut self) {
        let (ends, empty) = {
            let mut state = self.open.state.lock().unwrap();
            let ends = state.members.remove(&self.id);
            (ends, state.members.is_empty())
        };
        drop(ends);
        if empty {
            self.open.emptied.notify_waiters();
        }
    }
}

impl Member {
    /// Records the application's handle and the task that runs it.
    pub(super) fn started(&self, connection: &Connection, task: AbortHandle) {
        let shared = connection.shared().clone();
        self.controlled(Control::WebSocket { shared, task });
    }

    /// Records what ends a connection that speaks HTTP.
    #[cfg(feature = "axum")]
    pub(super) fn entered(&self, last: Arc<Notify>, task: AbortHandle) {
        self.controlled(Control::Http { last, task });
    }

    fn controlled(&self, control: Control) {
        let mut state = self.open.state.lock().unwrap();
        if let Some(spread) = state.draining {
            state.asked += 1;
            control.close(spread);
        }
        if let Some(ends) = state.members.get_mut(&self.id) {
            ends.control = Some(control);
        }
    }

    /// Records the task of its handler.
    pub(super) fn handled(&self, handler: AbortHandle) {
        let mut state = self.open.state.lock().unwrap();
        if let Some(ends) = state.members.get_mut(&self.id) {
            ends.handler = Some(handler);
        }
    }
}

impl Open {
    pub(super) fn join(self: &Arc<Self>) -> Arc<Member> {
        let id = {
            let mut state = self.state.lock().unwrap();
            let id = state.next;
            state.next += 1;
            state.members.insert(id, Ends::default());
            id
        };
        let open = self.clone();
        Arc::new(Member { id, open })
    }

    /// Starts a shutdown. Returns the members that have started, for the caller to close; later
    /// ones are closed as they start. They are counted first, because one may end as soon as it is
    /// closed.
    pub(super) fn drain(&self, spread: Duration) -> Vec<Control> {
        let mut state = self.state.lock().unwrap();
        if state.draining.is_some() {
            return Vec::new();
        }
        state.draining = Some(spread);
        let members = state.members.values();
        let controls: Vec<_> = members.filter_map(|ends| ends.control.clone()).collect();
        state.asked = controls.len();
        controls
    }

    /// Aborts the members that are left, and returns their number.
    pub(super) fn abort_all(&self) -> usize {
        let left: Vec<_> = {
            let state = self.state.lock().unwrap();
            let started = state.members.values().filter(|it| it.control.is_some());
            started
                .map(|ends| (ends.control.clone(), ends.handler.clone()))
                .collect()
        };
        for (control, handler) in &left {
            control.iter().for_each(Control::abort);
            handler.iter().for_each(AbortHandle::abort);
        }
        left.len()
    }

    /// Resolves when all have ended. Cancel safe.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before the check, so that no notification is missed.
            emptied.as_mut().enable();
            if self.state.lock().unwrap().members.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }
}

impl Control {
    /// Closes it. A session's client is asked to connect again, elsewhere, within `spread`.
    pub(super) fn close(&self, spread: Duration) {
        match self {
            Control::WebSocket { shared, .. } => {
                shared.board.go_away(spread.max(defaults::GO_AWAY_SPREAD));
                shared.request_close(CloseCode::GOING_AWAY, "the server shuts down");
            }
            #[cfg(feature = "axum")]
            Control::Http { last, .. } => last.notify_one(),
        }
    }

    /// Drops the socket. The application's handles learn that the connection was aborted.
    fn abort(&self) {
        match self {
            Control::WebSocket { task, .. } => task.abort(),
            #[cfg(feature = "axum")]
            Control::Http { task, .. } => task.abort(),
        }
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.state.lock().unwrap().members.len();
        f.debug_struct("Open").field("open", &open).finish()
    }
}
