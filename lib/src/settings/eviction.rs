//! Which connection, or session, is ended when a budget is used up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use super::{account::Account, budget::Level};
use crate::defaults::BUDGET_FLOOR_BYTES;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The connections and sessions of a budget that can be evicted: each is told to go, and then ends.
#[derive(Default)]
pub(super) struct Candidates(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    all: HashMap<u64, Arc<Candidate>>,
    /// The one that was told to go last. No other is chosen until its bytes are given back.
    leaving: Option<u64>,
    /// How many of them are idle.
    idle: usize,
}

impl Listed {
    /// Whether one that was told to go still holds its bytes.
    fn has_leaving(&mut self) -> bool {
        let leaving = self.leaving.and_then(|id| self.all.get(&id));
        if leaving.is_some_and(|it| it.is_leaving()) {
            return true;
        }
        // One may be leaving because another budget is used up.
        let leaving = self.all.iter().find(|(_, it)| it.is_leaving());
        self.leaving = leaving.map(|(id, _)| *id);
        self.leaving.is_some()
    }

    /// The candidate to evict, of those that `may` go. It is one of the fullest budget within `level`,
    /// and of these the one that would give back most. Nobody goes for the floor that everybody may
    /// hold.
    fn holds_most(
        &self,
        level: &Level,
        may: impl Fn(&Candidate) -> bool,
    ) -> Option<(u64, Arc<Candidate>)> {
        let untold = self.all.iter().filter(|(_, it)| !it.is_told() && may(it));
        untold
            .filter(|(_, it)| it.account.returnable() > BUDGET_FLOOR_BYTES)
            .max_by_key(|(_, it)| it.weight(level))
            .map(|(id, it)| (*id, it.clone()))
    }
}

struct Candidate {
    account: Account,
    /// How many bytes it held when it was told to go. Zero until then.
    told: AtomicUsize,
    /// It is a session without a connection.
    idle: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Candidate {
    fn is_told(&self) -> bool {
        self.told.load(SeqCst) > 0
    }

    /// How much its fullest budget has of `level`, and how much the candidate would give back.
    fn weight(&self, level: &Level) -> (usize, usize) {
        let returnable = self.account.returnable();
        let budgets = self.account.levels();
        let fullest = budgets.filter_map(|it| it.used_within(level)).max();
        (fullest.unwrap_or(returnable), returnable)
    }

    /// Whether it was told to go and has not given its bytes back.
    fn is_leaving(&self) -> bool {
        self.is_told() && self.account.returnable() > BUDGET_FLOOR_BYTES
    }

    fn tell(&self) {
        self.told.store(self.account.held().max(1), SeqCst);
        let waker = self.waker.lock().unwrap().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Candidates {
    /// Tells one candidate of `level` to go, unless another is still leaving. It is one of the fullest
    /// budget within `level`, and of these the one that would give back most. If nobody holds more
    /// than everybody may, it is the one that asks for more.
    pub(super) fn make_room(&self, level: &Level, asking: &Account) {
        let chosen = {
            let mut listed = self.0.lock().unwrap();
            if listed.has_leaving() {
                return;
            }
            let asks = |it: &&Arc<Candidate>| !it.is_told() && it.account.is(asking);
            let most = listed.holds_most(level, |_| true).or_else(|| {
                let asking = listed.all.iter().find(|(_, it)| asks(it));
                asking.map(|(id, it)| (*id, it.clone()))
            });
            listed.leaving = most.as_ref().map(|(id, _)| *id);
            most
        };
        chosen.into_iter().for_each(|(_, chosen)| chosen.tell());
    }

    /// Does the same among idle candidates only, for a draw that can wait.
    pub(super) fn make_room_of_idle(&self, level: &Level) {
        let chosen = {
            let mut listed = self.0.lock().unwrap();
            if listed.idle == 0 || listed.has_leaving() {
                return;
            }
            let most = listed.holds_most(level, |it| it.idle.load(SeqCst));
            listed.leaving = most.as_ref().map(|(id, _)| *id);
            most
        };
        chosen.into_iter().for_each(|(_, chosen)| chosen.tell());
    }
}

/// A connection or session, for as long as it can be told to go. Its owner polls it. Once told to go,
/// the owner gives back what the account holds, and then drops this.
pub(crate) struct Evictable {
    id: u64,
    candidate: Arc<Candidate>,
    /// The waker that was registered last.
    registered: Option<Waker>,
}

impl Evictable {
    pub(super) fn new(account: Account) -> Evictable {
        let evictable = Evictable {
            id: NEXT.fetch_add(1, Relaxed),
            candidate: Arc::new(Candidate {
                account,
                told: AtomicUsize::new(0),
                idle: AtomicBool::new(false),
                waker: Mutex::default(),
            }),
            registered: None,
        };
        for level in evictable.candidate.account.levels() {
            let mut listed = level.candidates.0.lock().unwrap();
            listed.all.insert(evictable.id, evictable.candidate.clone());
        }
        evictable
    }

    /// Says whether it is idle: a session without a connection. Idle ones go before others have to
    /// wait.
    pub(crate) fn set_idle(&self, idle: bool) {
        if self.candidate.idle.swap(idle, SeqCst) == idle {
            return;
        }
        for level in self.candidate.account.levels() {
            {
                let mut listed = level.candidates.0.lock().unwrap();
                match idle {
                    true => listed.idle += 1,
                    false => listed.idle -= 1,
                }
            }
            // Tasks may be waiting already.
            if idle && level.is_awaited() {
                level.candidates.make_room_of_idle(level);
            }
        }
    }

    /// Ready once it was told to go, with the bytes that its account held then. The task is woken for
    /// it.
    pub(crate) fn poll_evicted(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let registered = self.registered.as_ref();
        if !registered.is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.registered = Some(cx.waker().clone());
            *self.candidate.waker.lock().unwrap() = Some(cx.waker().clone());
        }
        match self.candidate.told.load(SeqCst) {
            0 => Poll::Pending,
            held => Poll::Ready(held),
        }
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        self.set_idle(false);
        for level in self.candidate.account.levels() {
            level.candidates.0.lock().unwrap().all.remove(&self.id);
            // Tasks that wait for its bytes may have to choose another.
            level.wake();
        }
    }
}
