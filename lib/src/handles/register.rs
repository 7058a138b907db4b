//! The connections of this process, for the doctor.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, Weak},
};

use super::Shared;

/// The connections that are alive, by their number.
static CONNECTIONS: LazyLock<Mutex<HashMap<u64, Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// Lists a connection until it is dropped.
pub(crate) fn add(connection: &Arc<Shared>) {
    let entry = Arc::downgrade(connection);
    CONNECTIONS.lock().unwrap().insert(connection.id, entry);
}

/// Lists a connection no more. Whether it was listed.
///
/// The memory of many connections is given back when they are gone.
pub(super) fn remove(id: u64) -> bool {
    let mut connections = CONNECTIONS.lock().unwrap();
    let was_listed = connections.remove(&id).is_some();
    // Halved at a quarter: a constant share of the work.
    let len = connections.len();
    if len < connections.capacity() / 4 {
        connections.shrink_to(2 * len);
    }
    was_listed
}

/// The connection of this number, if it is alive.
#[cfg(feature = "status")]
pub(crate) fn find(id: u64) -> Option<Arc<Shared>> {
    let connections = CONNECTIONS.lock().unwrap();
    connections.get(&id).and_then(Weak::upgrade)
}

/// The connections that are alive now.
pub(crate) fn living() -> Vec<Arc<Shared>> {
    let connections = CONNECTIONS.lock().unwrap();
    connections.values().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, handles::Identity};

    /// Once the list kept an entry, and so the memory, of each connection that was gone until it grew.
    #[test]
    fn a_connection_that_is_gone_is_listed_no_more() {
        let shared = Shared::new(Options::default(), Identity::default());
        add(&shared);
        let id = shared.id;
        assert!(CONNECTIONS.lock().unwrap().contains_key(&id));
        drop(shared);
        assert!(!CONNECTIONS.lock().unwrap().contains_key(&id));
    }
}
