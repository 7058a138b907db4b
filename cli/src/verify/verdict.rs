//! The verdict on a run.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::ledger::Account;
use super::talk::Connections;

/// The names are those of the JSON.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) ok: bool,
    /// The sums of both directions.
    #[serde(flatten)]
    account: Account,
    reconnects: u64,
    resumes: u64,
    longest_silence_ms: u64,
    recovery_ms_p50: Option<f64>,
    recovery_ms_p99: Option<f64>,
    #[serde(flatten)]
    memory: Peaks,
    seed: u64,
    #[serde(flatten)]
    foreign: Option<Foreign>,
    #[serde(skip)]
    told: Told,
}

/// The peak memory of each process. The fields are those of the JSON object.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Peaks {
    pub(super) client_peak_rss_bytes: Option<u64>,
    pub(super) server_peak_rss_bytes: Option<u64>,
}

impl Peaks {
    fn of_each_side(self) -> impl Iterator<Item = (&'static str, u64)> {
        let client = self.client_peak_rss_bytes.map(|peak| ("client", peak));
        let server = self.server_peak_rss_bytes.map(|peak| ("server", peak));
        client.into_iter().chain(server)
    }
}

/// What is counted of a client in any language. The fields are those of the JSON object.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Foreign {
    /// How often it was killed.
    #[serde(rename = "client_kills")]
    pub(super) kills: u64,
    /// Messages that came back once more, because its process was killed before it had acknowledged
    /// them.
    pub(super) repeated: u64,
    pub(super) sessions: u64,
    /// The most sessions that it has reason to begin.
    #[serde(skip)]
    pub(super) sessions_expected: u64,
}

/// The facts of a run, from which the verdict follows.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// One for each direction.
    pub(super) accounts: Vec<Account>,
    pub(super) connections: Connections,
    pub(super) longest_silence: Duration,
    /// From each cut to the first message over the new connection.
    pub(super) recoveries: Vec<Duration>,
    pub(super) memory: Peaks,
    pub(super) memory_limit_bytes: u64,
    pub(super) seed: u64,
    pub(super) plain: bool,
    pub(super) faults: u64,
    /// How often the server was killed.
    pub(super) kills: u64,
    /// If the client is a program in any language.
    pub(super) foreign: Option<Foreign>,
    pub(super) seconds: f64,
    /// Why the run ended before every message was sent and received.
    pub(super) broken_off: Option<String>,
}

/// Figures that are printed, but are not in the JSON object.
#[derive(Debug)]
struct Told {
    faults: u64,
    seconds: f64,
    memory_limit_bytes: u64,
    broken: Vec<String>,
}

impl Verdict {
    pub(super) fn new(found: Found) -> Self {
        let account = found.accounts.iter().copied().sum();
        let broken = broken_promises(&found, account);
        let mut recoveries = found.recoveries;
        recoveries.sort_unstable();
        Self {
            ok: broken.is_empty(),
            account,
            reconnects: found.connections.reconnects,
            resumes: found.connections.resumes,
            longest_silence_ms: found.longest_silence.as_millis() as u64,
            recovery_ms_p50: percentile(&recoveries, 50),
            recovery_ms_p99: percentile(&recoveries, 99),
            memory: found.memory,
            seed: found.seed,
            foreign: found.foreign,
            told: Told {
                faults: found.faults,
                seconds: found.seconds,
                memory_limit_bytes: found.memory_limit_bytes,
                broken,
            },
        }
    }

    /// The broken promises, one sentence each.
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

fn broken_promises(found: &Found, account: Account) -> Vec<String> {
    let counted = [
        (account.lost, "were lost and not reported"),
        (account.duplicated, "arrived more than once"),
        (account.reordered, "arrived out of order"),
        (account.corrupted, "arrived with wrong bytes"),
    ];
    let mut broken: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} messages {what}", HumanCount(count)))
        .collect();
    let sessions_lost = found.connections.sessions_lost;
    if !found.plain && sessions_lost > found.kills {
        broken.push(format!(
            "sessions were lost {sessions_lost} times, but the server was killed {} times",
            found.kills
        ));
    }
    let undelivered = account.reported_undelivered;
    if !found.plain && found.kills == 0 && undelivered > 0 && found.broken_off.is_none() {
        broken.push(format!(
            "{} messages came back undelivered, but no process was killed",
            HumanCount(undelivered)
        ));
    }
    if let Some(foreign) = found
        .foreign
        .filter(|it| it.sessions > it.sessions_expected)
    {
        broken.push(format!(
            "the client has begun {} sessions, and had reason to begin {}: it does not resume them",
            foreign.sessions, foreign.sessions_expected
        ));
    }
    let over = found.memory.of_each_side();
    // The runtime of another language has a size of its own.
    let over = over.filter(|(side, _)| found.foreign.is_none() || *side != "client");
    let over = over.filter(|(_, peak)| *peak > found.memory_limit_bytes);
    broken.extend(over.map(|(side, peak)| {
        let limit = HumanBytes(found.memory_limit_bytes);
        format!(
            "the {side} used {} of memory, over its limit of {limit}",
            HumanBytes(peak)
        )
    }));
    broken.extend(found.broken_off.clone());
    broken
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: u64| HumanCount(n).to_string();
        let Told {
            faults, seconds, ..
        } = self.told;
        let account = &self.account;
        writeln!(
            f,
            "{} messages sent both ways in {seconds:.1} seconds, {} faults, seed {}\n",
            count(account.sent),
            count(faults),
            self.seed
        )?;
        for (name, value) in [
            ("delivered", account.delivered),
            ("lost, not reported", account.lost),
            ("duplicated", account.duplicated),
            ("reordered", account.reordered),
            ("corrupted", account.corrupted),
            ("reported as undelivered", account.reported_undelivered),
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
        if let Some(foreign) = self.foreign {
            for (name, value) in [
                ("sessions", foreign.sessions),
                ("client killed", foreign.kills),
                ("came back once more", foreign.repeated),
            ] {
                writeln!(f, "{name:<24} {:>12}", count(value))?;
            }
        }
        let limit = HumanBytes(self.told.memory_limit_bytes);
        for (side, peak) in self.memory.of_each_side() {
            let name = format!("peak memory, {side}");
            let peak = HumanBytes(peak).to_string();
            match self.foreign.is_some() && side == "client" {
                true => writeln!(f, "{name:<24} {peak:>12}")?,
                false => writeln!(f, "{name:<24} {peak:>12}, limit {limit}")?,
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
            memory: Peaks {
                client_peak_rss_bytes: Some(100),
                server_peak_rss_bytes: None,
            },
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
            memory: Peaks {
                client_peak_rss_bytes: None,
                server_peak_rss_bytes: Some(101),
            },
            ..found(zero)
        };
        assert!(!Verdict::new(over).ok);
        let broken_off = Found {
            broken_off: Some("interrupted".to_owned()),
            ..found(zero)
        };
        assert!(!Verdict::new(broken_off).ok);
        let lost = |sessions_lost| Connections {
            sessions_lost,
            ..Connections::default()
        };
        let without_resuming = Found {
            foreign: Some(Foreign {
                sessions: 3,
                sessions_expected: 2,
                ..Foreign::default()
            }),
            ..found(zero)
        };
        assert!(!Verdict::new(without_resuming).ok);
        let session_lost = Found {
            connections: lost(2),
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
            connections: Connections {
                sessions_lost: 1,
                ..Connections::default()
            },
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
