//! The places of a server's connections, and the means to end them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;

use crate::handles::Connection;
use crate::handles::Shared;
use crate::reports::CloseCode;

/// Every place that is taken: by a handshake, by an open connection, by a handler that outlives
/// its socket.
#[derive(Default)]
pub(super) struct Open {
    places: Mutex<Places>,
    emptied: Notify,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: HashMap<u64, Place>,
    /// Shutting down: whoever opens now is asked to close.
    draining: bool,
    /// How many connections were asked to close.
    asked: usize,
}

/// The means to end one connection from outside.
#[derive(Clone)]
pub(super) struct Control {
    shared: Arc<Shared>,
    pump: AbortHandle,
}

/// Empty during the handshake.
#[derive(Default)]
struct Place {
    control: Option<Control>,
    handler: Option<AbortHandle>,
}

/// One place; dropping the last handle of it gives it back. The transport holds one, and so does
/// the handler's task.
#[derive(Debug)]
pub(super) struct Slot {
    id: u64,
    open: Arc<Open>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (place, empty) = {
            let mut places = self.open.places.lock().unwrap();
            let place = places.taken.remove(&self.id);
            (place, places.taken.is_empty())
        };
        drop(place);
        if empty {
            self.open.emptied.notify_waiters();
        }
    }
}

impl Open {
    pub(super) fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Arc<Slot> {
        let id = {
            let mut places = self.places.lock().unwrap();
            let id = places.next;
            places.next += 1;
            places.taken.insert(id, Place::default());
            id
        };
        Arc::new(Slot {
            id,
            open: self.clone(),
            _permit: permit,
        })
    }

    /// The handshake of this place is done.
    pub(super) fn opened(&self, slot: &Slot, connection: &Connection, pump: AbortHandle) {
        let control = Control {
            shared: connection.shared().clone(),
            pump,
        };
        let mut places = self.places.lock().unwrap();
        if places.draining {
            places.asked += 1;
            control.close();
        }
        if let Some(place) = places.taken.get_mut(&slot.id) {
            place.control = Some(control);
        }
    }

    /// The handler of this place runs; without effect if it has ended already.
    pub(super) fn set_handler(&self, id: u64, handler: AbortHandle) {
        if let Some(place) = self.places.lock().unwrap().taken.get_mut(&id) {
            place.handler = Some(handler);
        }
    }

    /// From now on whoever opens is asked to close. Returns those that are open already, for the
    /// caller to ask: counted before any is asked, for one that is can be gone in no time.
    pub(super) fn drain(&self) -> Vec<Control> {
        let mut places = self.places.lock().unwrap();
        if places.draining {
            return Vec::new();
        }
        places.draining = true;
        let controls: Vec<_> = places
            .taken
            .values()
            .filter_map(|p| p.control.clone())
            .collect();
        places.asked = controls.len();
        controls
    }

    /// Cuts what is left; how many connections that were.
    pub(super) fn abort_all(&self) -> usize {
        let left: Vec<_> = {
            let places = self.places.lock().unwrap();
            let open = places
                .taken
                .values()
                .filter(|place| place.control.is_some());
            open.map(|place| (place.control.clone(), place.handler.clone()))
                .collect()
        };
        for (control, handler) in &left {
            control.iter().for_each(Control::abort);
            handler.iter().for_each(AbortHandle::abort);
        }
        left.len()
    }

    /// Resolves when no place is taken. Cancel safe.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before looking, so that no notification falls in between.
            emptied.as_mut().enable();
            if self.places.lock().unwrap().taken.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn asked(&self) -> usize {
        self.places.lock().unwrap().asked
    }

    /// Connections open now.
    pub(super) fn len(&self) -> usize {
        self.places
            .lock()
            .unwrap()
            .taken
            .values()
            .filter(|p| p.control.is_some())
            .count()
    }
}

impl Control {
    pub(super) fn close(&self) {
        self.shared
            .request_close(CloseCode::GOING_AWAY, "the server shuts down");
    }

    /// Drops the socket. The application's handles learn that the connection was aborted.
    fn abort(&self) {
        self.pump.abort();
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("open", &self.len()).finish()
    }
}
