//! A store in the memory of the process.

mod index;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, task::yield_now};
use unstall_proto::topics::{Durability, Filter, LogId, Offset};

use crate::{
    clock::Clock,
    defaults,
    limits::Limits,
    store::{Appended, Bounds, Chunk, Publication, Read, Seek, Store, StoreError},
};
use state::State;

/// Keeps a log in the memory of this process. The log is gone when the store is dropped.
///
/// Its memory is bounded by [`Limits::max_bytes`], and by what is remembered of publishers. For
/// short messages it is about what they cost. A message with a topic of its own takes about 200
/// bytes more.
///
/// A read that matches up to 1,024 topics takes as long as there are messages to return. One that
/// matches more looks through the log, in steps of 8,192 messages. Messages that are too old are
/// removed whenever the store is used.
pub struct Memory {
    id: LogId,
    once: Duration,
    max_message_bytes: usize,
    clock: Clock,
    state: RwLock<State>,
    /// Written under the lock of `state`, so that the bounds are told in order.
    bounds: watch::Sender<Bounds>,
}

impl Memory {
    /// An empty log with a new id.
    ///
    /// # Panics
    /// If the operating system has no random numbers to give.
    pub fn new(limits: Limits) -> Memory {
        Memory::with_clock(limits, Clock::system())
    }

    fn with_clock(limits: Limits, clock: Clock) -> Memory {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the operating system has random numbers");
        let limits = limits.resolved(defaults::MEMORY_BYTES, 1);
        let state = State::new(&limits);
        Memory {
            id: LogId(id),
            once: limits.once,
            max_message_bytes: limits.max_message_bytes,
            clock,
            bounds: watch::Sender::new(state.bounds()),
            state: RwLock::new(state),
        }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state when messages that are too old are removed. Long work is done in steps, so
    /// that no append waits for it, and nothing else on this thread.
    async fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        loop {
            {
                let state = self.read_state();
                if !state.has_expired(self.clock.now(state.last_time())) {
                    return look(&state);
                }
            }
            self.change(|state| {
                let now = self.clock.now(state.last_time());
                state.expire(now);
            });
            yield_now().await;
        }
    }

    async fn last_of(&self, filter: &Filter, count: u32) -> u64 {
        let mut search = self.look(|state| state.search(count)).await;
        while self
            .look(|state| state.search_on(filter, &mut search))
            .await
            .is_continue()
        {
            yield_now().await;
        }
        search.found
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.write_state();
        let result = change(&mut state);
        let bounds = state.bounds();
        self.bounds.send_if_modified(|told| {
            let changed = *told != bounds;
            *told = bounds;
            changed
        });
        result
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("id", &self.id)
            .field("bounds", &*self.bounds.borrow())
            .finish_non_exhaustive()
    }
}

impl Store for Memory {
    fn id(&self) -> LogId {
        self.id
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn once(&self) -> Option<Duration> {
        Some(self.once)
    }

    fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn append(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>> {
        async move {
            Ok(self.change(|state| {
                let now = self.clock.now(state.last_time());
                state.append(batch, now)
            }))
        }
        .boxed()
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, StoreError>> {
        async { Ok(self.look(State::bounds).await) }.boxed()
    }

    fn changes(&self) -> watch::Receiver<Bounds> {
        self.bounds.subscribe()
    }

    fn read(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        async move { Ok(self.look(|state| state.read(&read)).await) }.boxed()
    }

    fn read_latest(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        async move { Ok(self.look(|state| state.read_latest(&read)).await) }.boxed()
    }

    fn seek(&self, seek: Seek) -> BoxFuture<'_, Result<Offset, StoreError>> {
        async move {
            let sought = match seek {
                Seek::Last { filter, count } => self.last_of(&filter, count).await,
                Seek::Since(time) => self.look(|state| state.since(time)).await,
            };
            let sought = sought.max(self.read_state().first());
            Ok(Offset::new(sought).unwrap_or(Offset::MAX).before())
        }
        .boxed()
    }

    fn remove_through(&self, offset: Offset) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            while self
                .change(|state| state.remove_through(offset))
                .is_continue()
            {
                yield_now().await;
            }
            Ok(())
        }
        .boxed()
    }
}
