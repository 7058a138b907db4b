//! What readers see: the state after the last commit that is safe.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use tokio::sync::watch;
use unstall_proto::topics::{Offset, StoredAt};

use super::generation::Generation;
use crate::store::{Bounds, StoreError};

/// A range of offsets: those above the first, up to the second.
pub(super) type Hole = (u64, u64);

/// Which messages there are.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// In order, each with the last offset that it has. Invariant: at least one.
    pub(super) generations: Arc<[(Arc<Generation>, u64)]>,
    /// Messages that should be there and are not.
    pub(super) holes: Arc<[Hole]>,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) last_time: StoredAt,
}

impl View {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds::new(offset(self.first), offset(self.last), self.last_time)
    }

    /// The generations with offsets above `after` and up to `through`, from the oldest, each with the
    /// range of its own.
    pub(super) fn spans(
        &self,
        after: u64,
        through: u64,
    ) -> impl DoubleEndedIterator<Item = Span<'_>> {
        let after = after.max(self.first - 1);
        let through = through.min(self.last);
        self.generations
            .iter()
            .filter_map(move |(generation, last)| {
                let from = generation.begin.max(after + 1);
                let through = through.min(*last);
                (from <= through).then_some(Span {
                    generation,
                    from,
                    through,
                })
            })
    }
}

/// A part of a generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    pub(super) generation: &'a Generation,
    pub(super) from: u64,
    pub(super) through: u64,
}

/// The view that readers share. While the database is closed it is the reason.
#[derive(Debug)]
pub(super) struct Shared {
    view: RwLock<Result<View, Arc<str>>>,
    /// Readers of this wait for nothing. Written after `view`.
    bounds: watch::Sender<Bounds>,
    /// The log is closed, and why.
    closed: OnceLock<Arc<str>>,
}

impl Shared {
    pub(super) fn new(view: View) -> Shared {
        Shared {
            bounds: watch::Sender::new(view.bounds()),
            view: RwLock::new(Ok(view)),
            closed: OnceLock::new(),
        }
    }

    /// The view. Waits while the database is closed and opened again, so no task may call it.
    pub(super) fn view(&self) -> Result<View, StoreError> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.clone().map_err(StoreError::Unavailable)
    }

    /// Holds up readers until it is dropped.
    pub(super) fn hold(&self) -> RwLockWriteGuard<'_, Result<View, Arc<str>>> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no view from now on.
    pub(super) fn close(&self, why: &str) {
        *self.hold() = Err(why.into());
        let _ = self.closed.set(why.into());
        self.bounds.send_modify(|_| {});
    }

    /// Why it is closed, if it is.
    pub(super) fn closed(&self) -> Option<Arc<str>> {
        self.closed.get().cloned()
    }

    pub(super) fn publish(&self, view: View) {
        let bounds = view.bounds();
        *self.hold() = Ok(view);
        self.bounds.send_if_modified(|told| {
            let changed = *told != bounds;
            *told = bounds;
            changed
        });
    }

    pub(super) fn bounds(&self) -> watch::Receiver<Bounds> {
        self.bounds.subscribe()
    }
}

/// A number that is an offset. One beyond the last offset is named as the last.
pub(super) fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap_or(Offset::MAX)
}
