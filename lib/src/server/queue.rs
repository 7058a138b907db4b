//! Connections that are open and wait for the application to accept them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;

use super::open::Member;
use crate::{handles::Connection, ws::transport::Held};

/// A new connection, with what its handler holds so that it is counted.
pub(super) struct Accepted {
    pub(super) connection: Connection,
    pub(super) member: Arc<Member>,
    /// Its place among the connections, or among the sessions.
    pub(super) place: Held,
}

/// Its length is bounded: each entry holds a place of a connection or of a session.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Entries>,
    arrived: Notify,
}

#[derive(Default)]
struct Entries {
    waiting: VecDeque<Accepted>,
    closed: bool,
}

impl Queue {
    /// Adds a connection. After [`close`](Queue::close) the connection is dropped, which closes it.
    pub(super) fn push(&self, entry: Accepted) {
        let mut state = self.state.lock().unwrap();
        if state.closed {
            drop(state);
            drop(entry);
            return;
        }
        state.waiting.push_back(entry);
        drop(state);
        self.arrived.notify_one();
    }

    /// The next connection; `None` once closed. Cancel safe.
    pub(super) async fn pop(&self) -> Option<Accepted> {
        loop {
            {
                let mut state = self.state.lock().unwrap();
                if let Some(entry) = state.waiting.pop_front() {
                    // One notification may stand for several entries.
                    if !state.waiting.is_empty() {
                        self.arrived.notify_one();
                    }
                    return Some(entry);
                }
                if state.closed {
                    self.arrived.notify_one();
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Drops all entries and accepts no more.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.state.lock().unwrap();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.arrived.notify_one();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.state.lock().unwrap().waiting.len();
        f.debug_struct("Queue").field("waiting", &waiting).finish()
    }
}
