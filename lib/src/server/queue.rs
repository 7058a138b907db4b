//! Connections whose handshake is done and which nobody has accepted yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::open::Slot;
use crate::handles::Connection;

type Waiting = (Connection, Arc<Slot>);

/// Bounded by the limit of open connections, whose places its entries hold.
#[derive(Default)]
pub(super) struct Queue {
    /// `None` once closed.
    waiting: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl Queue {
    /// Adds a connection; it is dropped, and so closes, if nobody will take it any more.
    pub(super) fn push(&self, entry: Waiting) {
        let mut state = self.waiting.lock().unwrap();
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
    pub(super) async fn pop(&self) -> Option<Waiting> {
        loop {
            {
                let mut state = self.waiting.lock().unwrap();
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

    /// Drops what waits and takes nothing more.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.waiting.lock().unwrap();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.arrived.notify_one();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("waiting", &self.waiting.lock().unwrap().waiting.len())
            .finish()
    }
}
