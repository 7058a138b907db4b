//! What sessions hold in memory, together.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The bytes that a session holds, and those of all sessions of a server together.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    own: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
    limit: u64,
}

impl Default for Held {
    /// Of a session alone.
    fn default() -> Held {
        Held::among(&Arc::default(), u64::MAX)
    }
}

impl Held {
    /// Of one more session beside those that share `all`.
    pub(crate) fn among(all: &Arc<AtomicU64>, limit: u64) -> Held {
        Held {
            own: Arc::default(),
            all: all.clone(),
            limit,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over_limit(&self) -> bool {
        self.all.load(Ordering::Relaxed) >= self.limit
    }

    /// One task sets it: that of the session.
    pub(super) fn set(&self, bytes: u64) {
        let before = self.own.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.all.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_each_session() {
        let all = Arc::default();
        let (one, two) = (Held::among(&all, 8), Held::among(&all, 8));
        one.set(10);
        two.set(5);
        one.set(3);
        assert_eq!(all.load(Ordering::Relaxed), 8);
        assert!(one.is_over_limit());
        two.set(0);
        one.set(0);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
