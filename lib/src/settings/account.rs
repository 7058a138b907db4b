//! The bytes that are held for one connection or session, and drawn from its budget.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use super::{
    budget::{Budget, Level, Need},
    eviction::Evictable,
};
use crate::defaults::{
    BUDGET_FLOOR_BYTES, BUDGET_LARGEST_STEP_BYTES, BUDGET_SLACK_BYTES, BUDGET_SMALLEST_STEP_BYTES,
};

static NEXT_SHARE: AtomicU64 = AtomicU64::new(0);

/// The sum of the bytes that are held for one connection or session. A clone is another handle of the
/// same account.
#[derive(Clone, Default)]
pub(crate) struct Account(Arc<Sums>);

#[derive(Default)]
struct Sums {
    budget: Option<Budget>,
    /// Bytes that are given back when the connection, or session, ends.
    returnable: AtomicUsize,
    /// Bytes that the application keeps even then.
    lasting: AtomicUsize,
    /// The part of `returnable` that one share passed on and no other has taken over.
    passing: AtomicUsize,
}

impl Account {
    /// An account of this budget. Without a budget no draw is refused.
    pub(crate) fn new(budget: Option<Budget>) -> Account {
        Account(Arc::new(Sums {
            budget,
            ..Sums::default()
        }))
    }

    /// Whether a draw may be refused.
    pub(crate) fn is_bounded(&self) -> bool {
        self.0.budget.is_some()
    }

    /// All bytes that are held, as drawn by the shares.
    pub(crate) fn held(&self) -> usize {
        self.returnable() + self.0.lasting.load(Relaxed)
    }

    /// Those of them that are given back when the connection, or session, ends.
    pub(super) fn returnable(&self) -> usize {
        self.0.returnable.load(Relaxed)
    }

    /// A share whose bytes are given back when the connection, or session, ends.
    pub(crate) fn share(&self) -> Share {
        Share::of(self, false)
    }

    /// A share whose bytes outlast the connection, or session: the application still has to receive
    /// them, or wants the next connection to send them. They count in the budget, but not in the
    /// choice of what is ended, because ending it would not free them.
    pub(crate) fn lasting_share(&self) -> Share {
        Share::of(self, true)
    }

    /// Makes the owner of this account one that can be evicted. Without a budget that never happens.
    pub(crate) fn evictable(&self) -> Evictable {
        Evictable::new(self.clone())
    }

    pub(super) fn is(&self, other: &Account) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn levels(&self) -> impl Iterator<Item = &Arc<Level>> {
        self.0.budget.iter().flat_map(Budget::levels)
    }

    fn counter(&self, lasting: bool) -> &AtomicUsize {
        match lasting {
            true => &self.0.lasting,
            false => &self.0.returnable,
        }
    }

    fn draw(&self, bytes: usize, need: Need, lasting: bool) -> Result<(), &Arc<Level>> {
        if let Some(budget) = &self.0.budget {
            budget.draw(bytes, need)?;
        }
        self.counter(lasting).fetch_add(bytes, Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: usize, lasting: bool) {
        self.counter(lasting).fetch_sub(bytes, Relaxed);
        if let Some(budget) = &self.0.budget {
            budget.give_back(bytes);
        }
    }

    /// Takes over up to so many bytes that another share passed on.
    fn take_passing(&self, bytes: usize, lasting: bool) -> usize {
        let passing = &self.0.passing;
        if passing.load(Relaxed) == 0 {
            return 0;
        }
        let rest = |there: usize| Some(there - there.min(bytes));
        let there = passing.fetch_update(Relaxed, Relaxed, rest);
        let taken = there.unwrap_or_default().min(bytes);
        self.counter(false).fetch_sub(taken, Relaxed);
        self.counter(lasting).fetch_add(taken, Relaxed);
        taken
    }
}

/// The bytes that one part of a connection holds: a queue, a buffer, or a message of which only a part
/// has arrived. It draws from the budget in steps, so that steady small traffic draws nothing.
pub(crate) struct Share {
    id: u64,
    account: Account,
    lasting: bool,
    drawn: usize,
    /// How many bytes were refused last; zero after a draw that succeeded.
    refused: usize,
    waits_at: Option<Arc<Level>>,
}

impl Share {
    fn of(account: &Account, lasting: bool) -> Share {
        Share {
            id: NEXT_SHARE.fetch_add(1, Relaxed),
            account: account.clone(),
            lasting,
            drawn: 0,
            refused: 0,
            waits_at: None,
        }
    }

    /// Draws what so many held bytes need. `false` means that the budget is used up, and that nothing
    /// was drawn from it. [`poll_refused`](Share::poll_refused) then waits for it.
    #[inline]
    pub(crate) fn cover(&mut self, bytes: usize) -> bool {
        bytes <= self.drawn || self.draw(bytes, Need::CanWait).is_ok()
    }

    /// Draws what so many held bytes need, in any case.
    #[inline]
    pub(crate) fn cover_anyway(&mut self, bytes: usize) {
        if bytes > self.drawn {
            let _ = self.draw(bytes, Need::Certain);
        }
    }

    /// Draws what so many held bytes need. While the budget is used up, the account that holds most is
    /// evicted, which may be this one. The task is woken when bytes are given back.
    #[inline]
    pub(crate) fn poll_cover_urgently(&mut self, bytes: usize, cx: &Context<'_>) -> Poll<()> {
        if bytes <= self.drawn {
            return Poll::Ready(());
        }
        self.poll_draw(bytes, Need::Urgent, cx)
    }

    /// After [`cover`](Share::cover) was refused: ready when what it asked for is drawn. Until then
    /// an idle session is evicted, and the task is woken when bytes are given back. If nothing was
    /// refused, this stays pending, because the caller does not wait for the budget.
    pub(crate) fn poll_refused(&mut self, cx: &Context<'_>) -> Poll<()> {
        match self.refused {
            0 => Poll::Pending,
            bytes => self.poll_draw(bytes, Need::CanWait, cx),
        }
    }

    /// Gives back what so many held bytes do not need, if that is much.
    #[inline]
    pub(crate) fn relax(&mut self, bytes: usize) {
        if self.drawn > bytes + BUDGET_LARGEST_STEP_BYTES + BUDGET_SLACK_BYTES {
            self.settle(bytes);
        }
    }

    /// Gives back everything that so many held bytes do not need.
    pub(crate) fn settle(&mut self, bytes: usize) {
        let more = self.drawn.saturating_sub(in_steps(bytes));
        if more > 0 {
            self.drawn -= more;
            self.account.give_back(more, self.lasting);
        }
    }

    /// Leaves so many bytes to the account's next share that draws, which takes them over without
    /// drawing them from the budget. [`end_passing`](Share::end_passing) gives the rest back.
    pub(crate) fn pass_on(&mut self, bytes: usize) {
        debug_assert!(!self.lasting);
        let bytes = bytes.min(self.drawn);
        self.drawn -= bytes;
        self.account.0.passing.fetch_add(bytes, Relaxed);
    }

    /// Gives back what was passed on and not taken over.
    pub(crate) fn end_passing(&self) {
        let passing = &self.account.0.passing;
        if passing.load(Relaxed) > 0 {
            let left = passing.swap(0, Relaxed);
            self.account.give_back(left, false);
        }
    }

    fn draw(&mut self, bytes: usize, need: Need) -> Result<(), Arc<Level>> {
        let target = in_steps(bytes);
        let need = match target <= BUDGET_FLOOR_BYTES {
            true => Need::Certain,
            false => need,
        };
        let more = target - self.drawn;
        let passed = self.account.take_passing(more, self.lasting);
        self.drawn += passed;
        if more > passed {
            let drawn = self.account.draw(more - passed, need, self.lasting);
            if let Err(level) = drawn {
                self.refused = bytes;
                return Err(level.clone());
            }
        }
        self.drawn = target;
        self.refused = 0;
        self.stop_waiting();
        Ok(())
    }

    fn poll_draw(&mut self, bytes: usize, need: Need, cx: &Context<'_>) -> Poll<()> {
        let mut registered: Option<Arc<Level>> = None;
        loop {
            let Err(level) = self.draw(bytes, need) else {
                return Poll::Ready(());
            };
            if registered.is_some_and(|it| Arc::ptr_eq(&it, &level)) {
                match need {
                    Need::Urgent => level.candidates.make_room(&level, &self.account),
                    Need::CanWait => level.candidates.make_room_of_idle(&level),
                    Need::Certain => {}
                }
                return Poll::Pending;
            }
            // The waker is registered before the next attempt, so no bytes that are given back in
            // between are missed.
            self.stop_waiting();
            level.wait(self.id, cx.waker());
            self.waits_at = Some(level.clone());
            registered = Some(level);
        }
    }

    fn stop_waiting(&mut self) {
        if let Some(level) = self.waits_at.take() {
            level.forget(self.id);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stop_waiting();
        self.settle(0);
        if !self.lasting {
            self.end_passing();
        }
    }
}

/// Rounded up to a step: at most a quarter of what is held, between the smallest and the largest.
fn in_steps(bytes: usize) -> usize {
    let part = bytes.checked_next_power_of_two().unwrap_or(usize::MAX) / 8;
    let step = part.clamp(BUDGET_SMALLEST_STEP_BYTES, BUDGET_LARGEST_STEP_BYTES);
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}
