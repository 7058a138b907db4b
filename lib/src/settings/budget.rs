//! One bound over the queues of many connections.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::defaults::{BUDGET_FLOOR_BYTES, BUDGET_STEP_BYTES};

/// A bound in bytes shared by the queues of all connections that were given it, such as those of a
/// server.
///
/// Each queue's first 64 KiB are free, and an empty queue takes one message of any size, so that no
/// connection can starve another to a standstill. All queues together hold at most the budget, that
/// floor each, and what single messages are larger than it. A queue that finds the budget used up
/// behaves as if it were full.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    freed: Arc<Notify>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget {
            limit: bytes,
            used: AtomicUsize::new(0),
            freed: Arc::default(),
        })
    }

    /// The bound in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes drawn from it now; over the bound only for single messages larger than the floor.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Resolves when something was given back after this call.
    pub(crate) fn freed(&self) -> OwnedNotified {
        self.freed.clone().notified_owned()
    }

    /// Lets everyone who waits for it look again.
    pub(crate) fn wake(&self) {
        self.freed.notify_waiters();
    }

    fn draw(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
    }
}

/// What one queue has drawn from a budget, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Share {
    budget: Option<Arc<Budget>>,
    drawn: usize,
}

impl Share {
    pub(crate) fn of(budget: Option<Arc<Budget>>) -> Share {
        Share { budget, drawn: 0 }
    }

    /// Draws what a queue of so many bytes needs; `false` if the budget has not got it.
    pub(crate) fn cover(&mut self, bytes: usize) -> bool {
        let Some(budget) = &self.budget else {
            return true;
        };
        let need = need(bytes);
        if need > self.drawn {
            if !budget.draw(need - self.drawn) {
                return false;
            }
            self.drawn = need;
        }
        true
    }

    /// Draws what a queue of one message of so many bytes needs, in any case.
    pub(crate) fn cover_one(&mut self, bytes: usize) {
        if !self.cover(bytes)
            && let Some(budget) = &self.budget
        {
            let need = need(bytes);
            budget.used.fetch_add(need - self.drawn, Ordering::Relaxed);
            self.drawn = need;
        }
    }

    /// Gives back what a queue of so many bytes no longer needs.
    pub(crate) fn relax(&mut self, bytes: usize) {
        let Some(budget) = &self.budget else { return };
        let need = need(bytes);
        if need < self.drawn {
            budget.give_back(self.drawn - need);
            self.drawn = need;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.relax(0);
    }
}

fn need(bytes: usize) -> usize {
    bytes
        .saturating_sub(BUDGET_FLOOR_BYTES)
        .div_ceil(BUDGET_STEP_BYTES)
        * BUDGET_STEP_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_return_all_of_it() {
        let budget = Budget::new(4 * BUDGET_STEP_BYTES);
        let mut one = Share::of(Some(budget.clone()));
        let mut two = Share::of(Some(budget.clone()));
        assert!(one.cover(BUDGET_FLOOR_BYTES));
        assert_eq!(budget.used(), 0, "the floor is free");
        assert!(one.cover(BUDGET_FLOOR_BYTES + 3 * BUDGET_STEP_BYTES));
        assert!(two.cover(BUDGET_FLOOR_BYTES + BUDGET_STEP_BYTES));
        assert!(!two.cover(BUDGET_FLOOR_BYTES + BUDGET_STEP_BYTES + 1));
        one.relax(0);
        assert!(two.cover(BUDGET_FLOOR_BYTES + BUDGET_STEP_BYTES + 1));
        two.cover_one(10 * BUDGET_STEP_BYTES);
        assert_eq!(budget.used(), 9 * BUDGET_STEP_BYTES);
        assert!(!one.cover(BUDGET_FLOOR_BYTES + 1), "others see it");
        drop((one, two));
        assert_eq!(budget.used(), 0);
    }
}
