//! The clock of a store.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use unstall_proto::topics::StoredAt;

/// Tells the time. Tests turn it by hand.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> StoredAt + Send + Sync>);

impl Clock {
    /// The clock of the system.
    pub(crate) fn system() -> Clock {
        Clock(Arc::new(now))
    }

    /// The time, and at least `last`: the times of a log never go back, even if the system's clock
    /// does.
    pub(crate) fn now(&self, last: StoredAt) -> StoredAt {
        (self.0)().max(last)
    }

    #[cfg(test)]
    pub(crate) fn by_hand(millis: Arc<std::sync::atomic::AtomicU64>) -> Clock {
        use std::sync::atomic::Ordering::Relaxed;
        Clock(Arc::new(move || {
            StoredAt::new(millis.load(Relaxed)).unwrap()
        }))
    }
}

/// The time by the clock of the system.
pub(crate) fn now() -> StoredAt {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    // 0 means that a time is not known.
    let millis = u64::try_from(millis).unwrap_or(u64::MAX).max(1);
    StoredAt::new(millis).unwrap_or(StoredAt::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A duration in milliseconds, and never more than a time can be.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(StoredAt::MAX.millis(), |millis| {
        millis.min(StoredAt::MAX.millis())
    })
}

/// The time that is earlier by `duration`, and at least 0.
pub(crate) fn earlier(time: StoredAt, duration: Duration) -> StoredAt {
    let earlier = time.millis().saturating_sub(millis(duration));
    StoredAt::new(earlier).unwrap_or_default()
}
