//! The connections of a node, so that they can be asked to go elsewhere.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// The connections of a node.
#[derive(Debug, Default)]
pub(crate) struct Connected {
    state: Mutex<State>,
    /// How often the connections were asked to go.
    asked: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    news: HashMap<u64, Arc<Notify>>,
    /// What was said last.
    words: Option<(Duration, Arc<str>)>,
}

/// A place among [`Connected`], which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connected: Arc<Connected>,
    id: u64,
    told: u64,
}

impl Connected {
    /// Takes a place. `news` is woken when the connection is asked to go.
    pub(crate) fn enter(self: &Arc<Self>, news: &Arc<Notify>) -> Place {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.news.insert(id, news.clone());
        Place {
            connected: self.clone(),
            id,
            told: 0,
        }
    }

    /// Asks all to go, those too that come later.
    pub(crate) fn go_away(&self, within: Duration, reason: &str) {
        let mut state = self.lock();
        state.words = Some((within, reason.into()));
        self.asked.fetch_add(1, Relaxed);
        state.news.values().for_each(|news| news.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What the client is to be told: within which time it is asked to go, and why. It comes once
    /// each time.
    pub(crate) fn asked_to_go(&mut self) -> Option<(Duration, Arc<str>)> {
        let asked = self.connected.asked.load(Relaxed);
        if asked == self.told {
            return None;
        }
        self.told = asked;
        self.connected.lock().words.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connected.lock().news.remove(&self.id);
    }
}
