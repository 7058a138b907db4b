//! What a run comes to.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::ledger::Account;

/// The names are those of the JSON.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) ok: bool,
    sent: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    reported_undelivered: u64,
    reconnects: u64,
    resumes: u64,
    longest_silence_ms: u64,
    recovery_ms_p50: Option<f64>,
    recovery_ms_p99: Option<f64>,
    client_peak_rss_bytes: Option<u64>,
    server_peak_rss_bytes: Option<u64>,
    seed: u64,
    #[serde(skip)]
    told: Told,
}

/// What the verdict is drawn from.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) accounts: Vec<Account>,
    pub(super) reconnects: u64,
    pub(super) resumes: u64,
    pub(super) sessions_lost: u64,
    pub(super) longest_silence: Duration,
    pub(super) recoveries: Vec<Duration>,
    pub(super) client_peak_rss_bytes: Option<u64>,
    pub(super) server_peak_rss_bytes: Option<u64>,
    pub(super) memory_limit_bytes: u64,
    pub(super) seed: u64,
    pub(super) plain: bool,
    pub(super) faults: u64,
    /// How often the server was killed.
    pub(super) kills: u64,
    pub(super) seconds: f64,
    /// Why the run ended before everything was sent and taken.
    pub(super) broken_off: Option<String>,
}

/// What only a reader is told.
#[derive(Debug)]
struct Told {
    faults: u64,
    seconds: f64,
    memory_limit_bytes: u64,
    broken: Vec<String>,
}

impl Verdict {
    pub(super) fn new(found: Found) -> Self {
        let sum = |of: fn(&Account) -> u64| found.accounts.iter().map(of).sum();
        let mut recoveries = found.recoveries.clone();
        recoveries.sort_unstable();
        let broken = broken_promises(&found);
        Self {
            ok: broken.is_empty(),
            sent: sum(|account| account.sent),
            delivered: sum(|account| account.delivered),
            lost: sum(|account| account.lost),
            duplicated: sum(|account| account.duplicated),
            reordered: sum(|account| account.reordered),
            corrupted: sum(|account| account.corrupted),
            reported_undelivered: sum(|account| account.reported_undelivered),
            reconnects: found.reconnects,
            resumes: found.resumes,
            longest_silence_ms: found.longest_silence.as_millis() as u64,
            recovery_ms_p50: percentile(&recoveries, 50),
            recovery_ms_p99: percentile(&recoveries, 99),
            client_peak_rss_bytes: found.client_peak_rss_bytes,
            server_peak_rss_bytes: found.server_peak_rss_bytes,
            seed: found.seed,
            told: Told {
                faults: found.faults,
                seconds: found.seconds,
                memory_limit_bytes: found.memory_limit_bytes,
                broken,
            },
        }
    }

    /// The promises that were broken, a sentence each.
    pub(super) fn broken(&self) -> &[String] {
        &self.told.broken
    }
}

/// The nearest-rank percentile, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let at = sorted.get(rank - 1)?;
    Some((at.as_secs_f64() * 1e6).round() / 1e3)
}

fn broken_promises(found: &Found) -> Vec<String> {
    let sum = |of: fn(&Account) -> u64| found.accounts.iter().map(of).sum::<u64>();
    let counted = [
        (sum(|account| account.lost), "were lost and nobody was told"),
        (sum(|account| account.duplicated), "came more than once"),
        (sum(|account| account.reordered), "came out of order"),
        (sum(|account| account.corrupted), "came with wrong bytes"),
    ];
    let mut broken: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} messages {what}", HumanCount(count)))
        .collect();
    if !found.plain && found.sessions_lost > found.kills {
        broken.push(format!(
            "sessions ended {} times, and the server was killed {} times",
            found.sessions_lost, found.kills
        ));
    }
    let undelivered = sum(|account| account.reported_undelivered);
    if !found.plain && found.kills == 0 && undelivered > 0 && found.broken_off.is_none() {
        broken.push(format!(
            "{} messages came back though no process was killed",
            HumanCount(undelivered)
        ));
    }
    for (side, peak) in [
        ("client", found.client_peak_rss_bytes),
        ("server", found.server_peak_rss_bytes),
    ] {
        if let Some(peak) = peak.filter(|peak| *peak > found.memory_limit_bytes) {
            broken.push(format!(
                "the {side} held {}, over its limit of {}",
                HumanBytes(peak),
                HumanBytes(found.memory_limit_bytes)
            ));
        }
    }
    broken.extend(found.broken_off.clone());
    broken
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: u64| HumanCount(n).to_string();
        let Told {
            faults, seconds, ..
        } = self.told;
        writeln!(
            f,
            "{} messages sent both ways in {seconds:.1} seconds, {} faults, seed {}\n",
            count(self.sent),
            count(faults),
            self.seed
        )?;
        for (name, value) in [
            ("delivered", self.delivered),
            ("lost in silence", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("reported as undelivered", self.reported_undelivered),
            ("reconnects", self.reconnects),
            ("resumes", self.resumes),
        ] {
            writeln!(f, "{name:<24} {:>12}", count(value))?;
        }
        writeln!(
            f,
            "{:<24} {:>12} ms",
            "longest silence", self.longest_silence_ms
        )?;
        if let (Some(p50), Some(p99)) = (self.recovery_ms_p50, self.recovery_ms_p99) {
            writeln!(f, "{:<24} {p50:>12.1} ms, p99 {p99:.1} ms", "recovery p50")?;
        }
        let limit = HumanBytes(self.told.memory_limit_bytes);
        for (side, peak) in [
            ("client", self.client_peak_rss_bytes),
            ("server", self.server_peak_rss_bytes),
        ] {
            if let Some(peak) = peak {
                let name = format!("peak memory, {side}");
                let peak = HumanBytes(peak).to_string();
                writeln!(f, "{name:<24} {peak:>12}, limit {limit}")?;
            }
        }
        if self.ok {
            write!(f, "\nverdict: every promise kept")
        } else {
            write!(f, "\nverdict: BROKEN: {}", self.told.broken.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(account: Account) -> Found {
        Found {
            accounts: vec![Account::default(), account],
            memory_limit_bytes: 100,
            client_peak_rss_bytes: Some(100),
            ..Found::default()
        }
    }

    #[test]
    fn each_broken_promise_makes_the_verdict() {
        assert!(Verdict::new(found(Account::default())).ok);
        let zero = Account::default();
        for account in [
            Account { lost: 1, ..zero },
            Account {
                duplicated: 1,
                ..zero
            },
            Account {
                reordered: 1,
                ..zero
            },
            Account {
                corrupted: 1,
                ..zero
            },
            // No process was killed.
            Account {
                reported_undelivered: 1,
                ..zero
            },
        ] {
            assert!(!Verdict::new(found(account)).ok, "{account:?}");
        }
        let over = Found {
            server_peak_rss_bytes: Some(101),
            ..found(zero)
        };
        assert!(!Verdict::new(over).ok);
        let broken_off = Found {
            broken_off: Some("interrupted".to_owned()),
            ..found(zero)
        };
        assert!(!Verdict::new(broken_off).ok);
        let session_lost = Found {
            sessions_lost: 2,
            kills: 1,
            ..found(zero)
        };
        assert!(!Verdict::new(session_lost).ok);
    }

    #[test]
    fn what_a_killed_server_took_with_it_is_no_broken_promise_when_it_was_reported() {
        let reported = Account {
            sent: 9,
            delivered: 5,
            reported_undelivered: 4,
            ..Account::default()
        };
        let killed = Found {
            kills: 1,
            sessions_lost: 1,
            ..found(reported)
        };
        assert!(Verdict::new(killed).ok);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let millis: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&millis, 50), Some(50.0));
        assert_eq!(percentile(&millis, 99), Some(99.0));
        assert_eq!(percentile(&millis[..1], 99), Some(1.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
