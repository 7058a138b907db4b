//! A bound on the bytes that many connections hold together.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Waker,
};

use super::eviction::Candidates;

/// A bound in bytes on what many connections hold together, such as all those of a server.
///
/// Everything that is held for a connection's peer counts: received messages that wait for the
/// application, sent messages that wait for the socket, messages of which only a part has arrived,
/// read buffers, and what a session keeps to send again.
///
/// When the budget is used up:
/// - A queue behaves as if it were full. Queues get three quarters of the budget. The last quarter
///   is kept for messages of which only a part has arrived, because those cannot wait.
/// - When even that is used up, the connection that holds most of such bytes is ended, one at a
///   time, with [`ConnectionError::Evicted`](crate::ConnectionError::Evicted). If there are budgets
///   within this one, it is a connection of the fullest of them. So nobody who holds little pays for
///   somebody who spreads much over many connections.
/// - The first 64 KiB of each queue are never refused, and an empty queue takes one message of any
///   size. Both count. So [`used`](Budget::used) can exceed the bound by that much per queue.
///
/// A budget can lie [`within`](Budget::within) another: what is drawn from it is drawn from both.
/// A clone is another handle of the same budget.
///
/// ```
/// use unstall::{Budget, Options};
///
/// let process = Budget::new(1 << 30);
/// let tenant = Budget::within(&process, 64 << 20);
/// let options = Options::default().budget(tenant.clone());
/// assert_eq!((tenant.used(), process.used()), (0, 0));
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Budget(pub(super) Arc<Level>);

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Budget {
        Budget(Level::new(bytes, Vec::new()))
    }

    /// A budget of so many bytes that are also drawn from `parent`, such as that of one address
    /// within that of the process.
    pub fn within(parent: &Budget, bytes: usize) -> Budget {
        Budget(Level::new(bytes, parent.levels().cloned().collect()))
    }

    /// A budget that lies within several, such as that of an address and that of a principal, and
    /// has no bound of its own. What these have in common is drawn from once.
    pub(crate) fn within_all(parents: &[Budget]) -> Budget {
        let mut within: Vec<Arc<Level>> = Vec::new();
        for level in parents.iter().flat_map(Budget::levels) {
            if !within.iter().any(|known| Arc::ptr_eq(known, level)) {
                within.push(level.clone());
            }
        }
        Budget(Level::new(usize::MAX, within))
    }

    #[cfg(test)]
    pub(crate) fn is(&self, other: &Budget) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A handle that does not keep it alive.
    pub(crate) fn downgrade(&self) -> WeakBudget {
        WeakBudget(Arc::downgrade(&self.0))
    }

    /// The bound in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes that are held now, rounded up by at most a quarter or 4 KiB for each queue.
    pub fn used(&self) -> usize {
        self.0.used.load(SeqCst)
    }

    /// This budget, and those that it lies within.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Arc<Level>> {
        std::iter::once(&self.0).chain(&self.0.within)
    }

    /// Draws from every level or from none. Returns the level that is used up.
    pub(super) fn draw(&self, bytes: usize, need: Need) -> Result<(), &Arc<Level>> {
        for (height, level) in self.levels().enumerate() {
            if !level.draw(bytes, need) {
                self.levels()
                    .take(height)
                    .for_each(|lower| lower.give_back(bytes));
                return Err(level);
            }
        }
        Ok(())
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.levels().for_each(|level| level.give_back(bytes));
    }
}

/// A budget that lives as long as somebody else has it.
#[derive(Debug)]
pub(crate) struct WeakBudget(Weak<Level>);

impl WeakBudget {
    pub(crate) fn upgrade(&self) -> Option<Budget> {
        self.0.upgrade().map(Budget)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// How urgent a draw is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It can wait: it leaves the last quarter alone.
    CanWait,
    /// It cannot wait: it may use the budget up.
    Urgent,
    /// It is never refused.
    Certain,
}

/// One budget of a chain.
pub(super) struct Level {
    limit: usize,
    used: AtomicUsize,
    /// All that it lies within, each once.
    within: Vec<Arc<Level>>,
    /// A task waits for bytes. This is set before the attempt that decides to wait, and read after
    /// bytes are given back. So one of both sides sees the other.
    short: AtomicBool,
    /// The tasks that wait, each under the number of its share.
    waiting: Mutex<HashMap<u64, Waker>>,
    pub(super) candidates: Candidates,
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Level").finish_non_exhaustive()
    }
}

impl Level {
    fn new(limit: usize, within: Vec<Arc<Level>>) -> Arc<Level> {
        Arc::new(Level {
            limit,
            used: AtomicUsize::new(0),
            within,
            short: AtomicBool::new(false),
            waiting: Mutex::default(),
            candidates: Candidates::default(),
        })
    }

    /// Bytes that are held now, if this lies within `other`.
    pub(super) fn used_within(&self, other: &Level) -> Option<usize> {
        let mut within = self.within.iter();
        let lies_within = within.any(|level| std::ptr::eq(Arc::as_ptr(level), other));
        lies_within.then(|| self.used.load(SeqCst))
    }

    fn draw(&self, bytes: usize, need: Need) -> bool {
        let limit = match need {
            Need::CanWait => self.limit - self.limit / 4,
            Need::Urgent => self.limit,
            Need::Certain => usize::MAX,
        };
        let sum = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(SeqCst, SeqCst, sum).is_ok()
    }

    /// Whether somebody waits for bytes.
    pub(super) fn is_awaited(&self) -> bool {
        self.short.load(SeqCst)
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        self.wake();
    }

    /// Wakes every task that waits, to try again.
    pub(super) fn wake(&self) {
        if self.short.load(SeqCst) {
            let waiting = {
                let mut waiting = self.waiting.lock().unwrap();
                self.short.store(false, SeqCst);
                std::mem::take(&mut *waiting)
            };
            waiting.into_values().for_each(Waker::wake);
        }
    }

    /// Wakes this task when bytes are given back. The caller tries again after this call.
    pub(super) fn wait(&self, share: u64, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap();
        waiting.insert(share, waker.clone());
        self.short.store(true, SeqCst);
    }

    pub(super) fn forget(&self, share: u64) {
        self.waiting.lock().unwrap().remove(&share);
    }
}
