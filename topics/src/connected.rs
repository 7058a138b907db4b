//! The connections of a node, so that they can be asked to go elsewhere.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc::UnboundedSender};

use crate::stats::NodeSubscriptions;

/// The connections of a node.
#[derive(Debug, Default)]
pub(crate) struct Connected {
    state: Mutex<State>,
    /// How often the connections were asked to go.
    asked: AtomicU64,
    /// How often they were asked how their subscriptions stand.
    surveys: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    members: HashMap<u64, Member>,
    /// What was said last.
    words: Option<(Duration, Arc<str>)>,
}

/// A connection, as the others see it.
#[derive(Debug)]
struct Member {
    news: Arc<Notify>,
    /// Somebody asks how its subscriptions stand.
    asks: Option<Asker>,
}

/// Waits for the answers of connections. An answer that does not come is known by the end of this.
pub(crate) type Asker = UnboundedSender<NodeSubscriptions>;

/// A place among [`Connected`], which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connected: Arc<Connected>,
    id: u64,
    told: u64,
    answered: u64,
}

impl Connected {
    /// Takes a place. `news` is woken when the connection is asked to go.
    pub(crate) fn enter(self: &Arc<Self>, news: &Arc<Notify>) -> Place {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let member = Member {
            news: news.clone(),
            asks: None,
        };
        state.members.insert(id, member);
        Place {
            connected: self.clone(),
            id,
            told: 0,
            answered: 0,
        }
    }

    /// Asks all to go, those too that come later.
    pub(crate) fn go_away(&self, within: Duration, reason: &str) {
        let mut state = self.lock();
        state.words = Some((within, reason.into()));
        self.asked.fetch_add(1, Relaxed);
        state.members.values().for_each(|it| it.news.notify_one());
    }

    /// Asks all how their subscriptions stand. Who asks again meanwhile takes the place of who asked before.
    pub(crate) fn ask(&self, asker: &Asker) {
        let mut state = self.lock();
        // Counted under the lock: who sees the count finds who asks.
        self.surveys.fetch_add(1, Relaxed);
        for member in state.members.values_mut() {
            member.asks = Some(asker.clone());
            member.news.notify_one();
        }
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

impl Place {
    /// Who asks how the subscriptions of this connection stand, once each time.
    pub(crate) fn asked_how_it_stands(&mut self) -> Option<Asker> {
        let surveys = self.connected.surveys.load(Relaxed);
        if surveys == self.answered {
            return None;
        }
        self.answered = surveys;
        self.connected.lock().members.get_mut(&self.id)?.asks.take()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connected.lock().members.remove(&self.id);
    }
}
