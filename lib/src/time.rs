//! Arithmetic on [`Instant`] that cannot panic.
//!
//! `Duration::MAX` is the usual way to say "never", and `Instant + Duration::MAX` panics. So every
//! `Instant` in this crate is computed by [`later`] or [`earlier`]. clippy forbids `+` and `-` on
//! them (see `clippy.toml`).

use std::time::Duration;

use tokio::time::Instant;

use crate::defaults::{FOREVER, RETRY_AFTER_MAX};

/// `from` plus `wait`, or plus [`FOREVER`] if `wait` is longer.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "thirty years more fit in any clock"
)]
pub(crate) fn later(from: Instant, wait: Duration) -> Instant {
    from + wait.min(FOREVER)
}

/// `at` minus `by`; `at` itself if the clock does not go back that far.
pub(crate) fn earlier(at: Instant, by: Duration) -> Instant {
    at.checked_sub(by).unwrap_or(at)
}

/// The wait that a server asks for, cut to [`RETRY_AFTER_MAX`].
pub(crate) fn granted(asked: Duration) -> Duration {
    asked.min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_instead_of_panicking() {
        let now = Instant::now();
        assert!(later(now, Duration::MAX) > later(now, Duration::from_secs(86_400 * 365)));
        assert!(later(later(now, Duration::MAX), Duration::MAX) > now);
        assert_eq!(later(now, Duration::ZERO), now);
        assert_eq!(earlier(now, Duration::MAX), now);
        let second = Duration::from_secs(1);
        assert_eq!(earlier(later(now, second), second), now);
    }
}
