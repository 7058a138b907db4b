//! Memory that all clients of a relay share, beside that of their connections.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::limits;

/// The pools of a relay.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    /// For what is remembered of clients.
    pub(super) remembered: Pool,
    /// For what upstream sends before an answer that is waited for.
    pub(super) held: Pool,
}

/// Bytes of all clients together, up to a bound.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicUsize,
    most: usize,
}

/// What one client has of a pool. It goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    pool: Pool,
    bytes: usize,
}

impl Default for Pools {
    fn default() -> Pools {
        Pools {
            remembered: Pool::of(limits::REMEMBERED_TOTAL_BYTES),
            held: Pool::of(limits::HELD_TOTAL_BYTES),
        }
    }
}

impl Pool {
    pub(super) fn of(most: usize) -> Pool {
        let used = AtomicUsize::new(0);
        Pool(Arc::new(Shared { used, most }))
    }

    /// A share that has nothing yet.
    pub(super) fn share(&self) -> Share {
        Share {
            pool: self.clone(),
            bytes: 0,
        }
    }
}

impl Share {
    /// `false`: all clients together have too many.
    pub(super) fn draw(&mut self, bytes: usize) -> bool {
        let Shared { used, most } = &*self.pool.0;
        let sum = |used: usize| used.checked_add(bytes).filter(|sum| sum <= most);
        let drawn = used.fetch_update(Relaxed, Relaxed, sum).is_ok();
        if drawn {
            self.bytes += bytes;
        }
        drawn
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.pool.0.used.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_its_last_byte_and_takes_back_what_is_dropped() {
        let pool = Pool::of(10);
        let (mut one, mut other) = (pool.share(), pool.share());
        assert!(one.draw(4) && other.draw(6));
        assert!(!one.draw(1) && !one.draw(usize::MAX));
        other.give_back(1);
        assert!(one.draw(1));
        assert_eq!((one.bytes(), other.bytes()), (5, 5));
        drop(one);
        assert!(other.draw(5) && !other.draw(1));
    }
}
