//! Every limit, with its reason.

use std::time::Duration;

/// How often the process is looked at. People see a change within two.
pub(crate) const STEP: Duration = Duration::from_secs(1);

/// While nobody watches, a look at the sums takes at most one part in this many of a processor's time: with 10,000
/// connections the history has a point for every few seconds instead of each.
pub(crate) const IDLE_SHARE: u32 = 250;

/// The longest time between two points.
pub(crate) const IDLE_STEP: Duration = Duration::from_secs(5);

/// How much time the history covers.
pub(crate) const HISTORY: Duration = Duration::from_secs(15 * 60);

/// How many points the history has: 15 minutes, in about 100 KiB.
pub(crate) const POINTS: usize = 900;

/// How many connections one answer lists. A page or a terminal can still sort and draw so many, and they
/// take about 5 MB of JSON.
pub(crate) const ROWS: usize = 10_000;

/// Connections of one message of `status.rows`: some 200 KB, so that what a page holds at once is bounded by
/// the window of its subscription.
pub(crate) const ROWS_A_MESSAGE: usize = 400;

/// Subscriptions of one message of `status.subscriptions`: those that lag most are looked at.
pub(crate) const SUBSCRIPTIONS_A_MESSAGE: usize = 100;

/// How long connections are looked at after somebody has asked, so that a page has the time to subscribe
/// behind the answer, and `unstall top` can ask every few seconds.
pub(crate) const AWAKE: Duration = Duration::from_secs(10);

/// What the log of live messages keeps. A page on a bad link may be so far behind, and else asks anew.
pub(crate) const LOG_BYTES: u64 = 32 << 20;

/// Nothing in the log is worth more after this time.
pub(crate) const LOG_AGE: Duration = Duration::from_secs(30);

/// A wait counts as a stall in the sums from this time on. Shorter ones come and go all the time.
pub(crate) const STALLED_AFTER: Duration = Duration::from_millis(500);

/// Two looks see the beginning of one wait at moments that differ by less than this.
pub(crate) const SAME_WAIT: u64 = 100;

/// The doctor looks at all sockets of the machine, so its findings are used again for so long.
pub(crate) const DOCTOR_AGAIN: Duration = Duration::from_secs(2);

/// How many pages may be connected. A forgotten tab must not cost much, and hundreds of them neither.
pub(crate) const VIEWERS: usize = 64;

/// The characters of a name or filter that are shown. Peers choose how long these are.
pub(crate) const NAME_CHARS: usize = 100;

/// The characters of an event that are shown.
pub(crate) const EVENT_CHARS: usize = 500;
