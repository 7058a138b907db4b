//! When to connect again: how long to wait, and how often to try.

use std::time::Duration;

use crate::defaults;

/// When and how often to connect again.
///
/// Each wait is drawn evenly between zero and a bound that doubles from
/// [`first`](Reconnect::first) to [`max`](Reconnect::max) (full jitter). A server that `n` clients
/// lost at once therefore sees on average at most `2 n / first` attempts a second at any time, and
/// `3 n / max` once the waits have reached their longest (`2 n / max` in the long run): for 1,000
/// clients with the defaults 100, and 67.
#[derive(Clone, Debug)]
pub struct Reconnect {
    first: Duration,
    max: Duration,
    proof: Duration,
    attempts: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Reconnect {
        Reconnect {
            first: defaults::RECONNECT_FIRST,
            max: defaults::RECONNECT_MAX,
            proof: defaults::RECONNECT_PROOF,
            attempts: None,
        }
    }
}

impl Reconnect {
    /// The first wait is drawn between zero and this, the next from twice as much, and so on.
    /// Default 250 ms.
    pub fn first(mut self, wait: Duration) -> Reconnect {
        self.first = wait;
        self
    }

    /// No wait is longer, but for a server's `Retry-After`. Default 30 s.
    pub fn max(mut self, wait: Duration) -> Reconnect {
        self.max = wait;
        self
    }

    /// A connection that lived this long and received something starts the waits anew. Default
    /// 10 s.
    pub fn proof(mut self, life: Duration) -> Reconnect {
        self.proof = life;
        self
    }

    /// Give up after so many failed attempts in a row. Default: never.
    pub fn attempts(mut self, attempts: u32) -> Reconnect {
        self.attempts = Some(attempts);
        self
    }
}

/// Exponential waits with full jitter: drawn evenly between zero and a bound that doubles.
pub(super) struct Backoff {
    config: Reconnect,
    /// Waits since the last connection that proved itself.
    waits: u32,
}

impl Backoff {
    pub(super) fn new(config: Reconnect) -> Backoff {
        Backoff { config, waits: 0 }
    }

    /// The next wait. What the server asked for comes on top of the jitter, so that its clients do
    /// not all come back in the same moment.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.config.first.saturating_mul(1 << self.waits.min(20));
        self.waits += 1;
        let jitter = doubled.min(self.config.max).mul_f64(fastrand::f64());
        asked.unwrap_or_default() + jitter
    }

    /// A connection ended: it starts the waits anew if it had proved itself.
    pub(super) fn lived(&mut self, life: Duration, received_any: bool) {
        if received_any && life >= self.config.proof {
            self.waits = 0;
        }
    }

    /// Whether another attempt may follow after so many failures.
    pub(super) fn allows(&self, failures: u32) -> bool {
        self.config
            .attempts
            .is_none_or(|attempts| failures < attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_start_anew_only_after_proof() {
        fastrand::seed(7);
        let mut backoff = Backoff::new(Reconnect::default());
        let mut bound = Duration::from_millis(250);
        for _ in 0..40 {
            assert!(backoff.next(None) <= bound);
            bound = (bound * 2).min(Duration::from_secs(30));
        }
        backoff.lived(Duration::from_secs(60), false);
        backoff.lived(Duration::from_secs(1), true);
        let longest = (0..50).map(|_| backoff.next(None)).max().unwrap();
        assert!(longest > Duration::from_secs(10), "{longest:?}");
        backoff.lived(Duration::from_secs(10), true);
        assert!(backoff.next(None) <= Duration::from_millis(250));
    }

    #[test]
    fn what_the_server_asks_for_is_never_undercut() {
        let mut backoff = Backoff::new(Reconnect::default());
        let asked = Duration::from_secs(7);
        assert!((0..100).all(|_| backoff.next(Some(asked)) >= asked));
    }
}
