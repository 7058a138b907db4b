//! Arithmetic on [`Instant`] that cannot panic, as in the library.

use std::time::Duration;

use tokio::time::Instant;

/// A longer wait counts as this one: thirty years.
pub(crate) const FOREVER: Duration = Duration::from_secs(86_400 * 365 * 30);

/// `from` plus `wait`, or plus [`FOREVER`] if `wait` is longer.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "thirty years more fit in any clock"
)]
pub(crate) fn later(from: Instant, wait: Duration) -> Instant {
    from + wait.min(FOREVER)
}
