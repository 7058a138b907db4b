//! The caller's clock.

use std::time::Duration;

/// A moment on the caller's clock: the time since an origin of the caller's choice.
///
/// The caller tells the session the time with each call that needs it. The time must not go
/// backwards from call to call. If it does, timers fire late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The origin of the clock.
    pub const ORIGIN: Time = Time(Duration::ZERO);

    /// The moment `since_origin` after the origin.
    pub const fn new(since_origin: Duration) -> Time {
        Time(since_origin)
    }

    /// The moment that many milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Time {
        Time(Duration::from_millis(millis))
    }

    /// The time since the origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The moment that much later, or the last moment there is.
    #[must_use]
    pub const fn after(self, later: Duration) -> Time {
        Time(self.0.saturating_add(later))
    }

    /// The time from `earlier` to this moment. Zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
