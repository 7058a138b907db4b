//! When to connect again: how long to wait, and how often to try.

use std::time::Duration;

use crate::defaults;

/// When and how often to connect again.
///
/// A connection has proved itself if it lived long enough ([`proof`](Self::proof)) and received
/// something. In a session it has also done so if it moved messages that had not moved before. When
/// such a connection is lost after at least [100 ms](defaults::RECONNECT_AT_ONCE), the first
/// attempt does not wait: nothing indicates that the server is in trouble.
///
/// All other attempts wait. Each wait is random, evenly between zero and a bound that doubles from
/// [`first`](Reconnect::first) to [`max`](Reconnect::max) (full jitter). If a server asks for a
/// wait, it is added to the random one. It is cut to
/// [`RETRY_AFTER_MAX`](defaults::RETRY_AFTER_MAX).
///
/// If `n` clients lose their server at once, it gets at most `2 n / first` attempts a second on
/// average, after their first ones. Once the waits have reached `max`, it gets `3 n / max` (`2 n /
/// max` in the long run). For 1,000 clients with the defaults these are 8,000, 100 and 67.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `Client::reconnect`"]
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
    /// The bound of the first wait. It doubles with each further wait. If it is zero, attempts wait
    /// only when the server asks for it. Default 250 ms.
    pub fn first(mut self, wait: Duration) -> Reconnect {
        self.first = wait;
        self
    }

    /// The longest random wait. A wait that the server asks for is added to it. Default 30 s.
    pub fn max(mut self, wait: Duration) -> Reconnect {
        self.max = wait;
        self
    }

    /// A connection that lived this long and received something has proved itself. After its loss
    /// the waits start from the first one again. Default 10 s.
    pub fn proof(mut self, life: Duration) -> Reconnect {
        self.proof = life;
        self
    }

    /// Gives up after this many failed attempts in a row. By default the client never gives up.
    pub fn attempts(mut self, attempts: u32) -> Reconnect {
        self.attempts = Some(attempts);
        self
    }
}

/// The waits between attempts, as [`Reconnect`] describes them, for a client that connects by itself.
///
/// [`Client`](crate::Client) uses one. An application needs it only if it chooses anew for each
/// attempt where to connect to.
#[derive(Debug)]
pub struct Backoff {
    config: Reconnect,
    /// Waits since the last connection that proved itself.
    waits: u32,
    /// The next attempt need not wait.
    at_once: bool,
}

/// What a lost connection achieved, which decides the waits after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) lasted: Duration,
    pub(super) received_any: bool,
    /// A session moved messages that it had not moved before.
    pub(super) progressed: bool,
}

impl Backoff {
    /// The waits of a client that has not connected yet. The first one waits too: connect once before
    /// you ask for it.
    pub fn new(config: Reconnect) -> Backoff {
        Backoff {
            config,
            waits: 0,
            at_once: false,
        }
    }

    /// The next wait. A wait that the server asked for is added to the random one. So its clients
    /// do not all come back at the same moment.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        if std::mem::take(&mut self.at_once) && asked.is_none() {
            return Duration::ZERO;
        }
        let doubled = self.config.first.saturating_mul(1 << self.waits.min(20));
        self.waits += 1;
        let jitter = doubled.min(self.config.max).mul_f64(fastrand::f64());
        asked.unwrap_or_default().saturating_add(jitter)
    }

    /// Notes that a connection ended, how long it lasted, and whether it received anything.
    pub fn lived(&mut self, lasted: Duration, received_any: bool) {
        self.note(Life {
            lasted,
            received_any,
            progressed: false,
        });
    }

    /// Notes that a connection ended. If it had proved itself, the waits start from the first one
    /// again.
    pub(super) fn note(&mut self, life: Life) {
        if life.progressed || (life.received_any && life.lasted >= self.config.proof) {
            self.waits = 0;
            self.at_once = life.lasted >= defaults::RECONNECT_AT_ONCE;
        }
    }

    /// Whether another attempt may follow after this many failures in a row.
    pub fn allows(&self, failures: u32) -> bool {
        self.config
            .attempts
            .is_none_or(|attempts| failures < attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(millis: u64, received_any: bool, progressed: bool) -> Life {
        Life {
            lasted: Duration::from_millis(millis),
            received_any,
            progressed,
        }
    }

    #[test]
    fn waits_double_up_to_their_bound_and_start_anew_only_after_proof() {
        fastrand::seed(7);
        let mut backoff = Backoff::new(Reconnect::default());
        let mut bound = Duration::from_millis(250);
        for _ in 0..40 {
            assert!(backoff.next(None) <= bound);
            bound = (bound * 2).min(Duration::from_secs(30));
        }
        backoff.note(life(60_000, false, false));
        backoff.note(life(1_000, true, false));
        let longest = (0..5).map(|_| backoff.next(None)).max().unwrap();
        assert!(longest > Duration::from_secs(4), "{longest:?}");
        backoff.note(life(10_000, true, false));
        assert_eq!(backoff.next(None), Duration::ZERO);
        assert!(backoff.next(None) <= Duration::from_millis(250));
    }

    #[test]
    fn a_session_that_moved_on_is_tried_at_once_but_not_in_a_spin() {
        let mut backoff = Backoff::new(Reconnect::default());
        for _ in 0..20 {
            backoff.next(None);
        }
        backoff.note(life(100, true, true));
        assert_eq!(backoff.next(None), Duration::ZERO);
        let waits: Vec<_> = (0..20)
            .map(|_| {
                backoff.note(life(99, true, true));
                backoff.next(None)
            })
            .collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(250)));
        assert!(waits.iter().any(|wait| *wait > Duration::ZERO));
    }

    #[test]
    fn what_the_server_asks_for_is_never_undercut() {
        let mut backoff = Backoff::new(Reconnect::default());
        let asked = Duration::from_secs(7);
        assert!((0..100).all(|_| backoff.next(Some(asked)) >= asked));
        backoff.note(life(60_000, true, true));
        assert!(backoff.next(Some(asked)) >= asked, "the first one too");
    }
}
