//! The connections of this process, for the doctor.

use std::sync::{Arc, Mutex, Weak};

use super::Shared;

/// The connections that may still be alive.
static CONNECTIONS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Lists a connection for as long as it lives.
pub(crate) fn add(connection: &Arc<Shared>) {
    let mut connections = CONNECTIONS.lock().unwrap();
    // Swept when the list would grow: a constant share of the work.
    if connections.len() == connections.capacity() {
        connections.retain(|connection| connection.strong_count() > 0);
    }
    connections.push(Arc::downgrade(connection));
}

/// The connections that are alive now.
pub(crate) fn living() -> Vec<Arc<Shared>> {
    CONNECTIONS
        .lock()
        .unwrap()
        .iter()
        .filter_map(Weak::upgrade)
        .collect()
}
