//! The verdict on a run.

use std::fmt;

use indicatif::HumanCount;
use serde::Serialize;

use super::account::{Counts, Published};

/// The names are those of the JSON.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) ok: bool,
    /// Messages that were given to publish, and have an answer.
    published: u64,
    /// Confirmed.
    stored: u64,
    /// Refused.
    not_stored: u64,
    /// No answer came, so they may be stored.
    unknown: u64,
    /// Different messages that each subscriber received.
    delivered: Vec<u64>,
    /// The sums of all subscribers.
    #[serde(flatten)]
    counts: Counts,
    kills: u64,
    restarts: u64,
    faults: u64,
    seed: u64,
    #[serde(skip)]
    seconds: f64,
    #[serde(skip)]
    broken: Vec<String>,
}

/// The facts of a run, from which the verdict follows.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) published: Published,
    /// One for each subscriber.
    pub(super) delivered: Vec<u64>,
    pub(super) counts: Vec<Counts>,
    pub(super) kills: u64,
    pub(super) restarts: u64,
    pub(super) faults: u64,
    /// Whether retention may remove what was not read.
    pub(super) may_remove: bool,
    pub(super) seed: u64,
    pub(super) seconds: f64,
    /// Why the run ended early.
    pub(super) broken_off: Option<String>,
}

impl Verdict {
    pub(super) fn new(found: Found) -> Verdict {
        let counts = found
            .counts
            .iter()
            .copied()
            .fold(Counts::default(), Counts::and);
        let broken = broken_promises(&found, counts);
        Verdict {
            ok: broken.is_empty(),
            published: found.published.answered(),
            stored: found.published.stored,
            not_stored: found.published.not_stored,
            unknown: found.published.unknown,
            delivered: found.delivered,
            counts,
            kills: found.kills,
            restarts: found.restarts,
            faults: found.faults,
            seed: found.seed,
            seconds: found.seconds,
            broken,
        }
    }

    /// The broken promises, one sentence each.
    pub(super) fn broken(&self) -> &[String] {
        &self.broken
    }
}

fn broken_promises(found: &Found, counts: Counts) -> Vec<String> {
    let gaps = if found.may_remove {
        0
    } else {
        counts.gaps_reported
    };
    let counted = [
        (counts.lost, "messages were lost and not reported"),
        (counts.duplicated, "messages arrived more than once"),
        (counts.reordered, "messages arrived out of order"),
        (counts.corrupted, "messages arrived with wrong bytes"),
        (
            counts.false_messages,
            "messages arrived that were not published, or were refused",
        ),
        (gaps, "gaps were reported, but nothing was removed"),
    ];
    let mut broken: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", HumanCount(count)))
        .collect();
    broken.extend(found.broken_off.clone());
    broken
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: u64| HumanCount(n).to_string();
        writeln!(
            f,
            "{} messages published in {:.1} seconds, {} faults, seed {}\n",
            count(self.published),
            self.seconds,
            count(self.faults),
            self.seed
        )?;
        let subscribers = self.delivered.iter().enumerate();
        let delivered = subscribers.map(|(at, n)| (format!("delivered to subscriber {at}"), *n));
        let named = |(name, n): (&str, u64)| (name.to_owned(), n);
        let rows = [
            ("stored", self.stored),
            ("not stored", self.not_stored),
            ("unknown", self.unknown),
        ]
        .map(named)
        .into_iter()
        .chain(delivered)
        .chain(
            [
                ("lost, not reported", self.counts.lost),
                ("duplicated", self.counts.duplicated),
                ("reordered", self.counts.reordered),
                ("corrupted", self.counts.corrupted),
                ("false", self.counts.false_messages),
                ("gaps reported", self.counts.gaps_reported),
                ("missing in gaps", self.counts.reported_missing),
                ("hubs killed", self.kills),
                ("hubs restarted", self.restarts),
            ]
            .map(named),
        );
        for (name, value) in rows {
            writeln!(f, "{name:<28} {:>12}", count(value))?;
        }
        match self.ok {
            true => write!(f, "\nverdict: every promise kept"),
            false => write!(f, "\nverdict: BROKEN: {}", self.broken.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(counts: Counts) -> Found {
        Found {
            published: Published::new(1, 1),
            delivered: vec![0, 0],
            counts: vec![Counts::default(), counts],
            kills: 0,
            restarts: 0,
            faults: 0,
            may_remove: false,
            seed: 0,
            seconds: 1.0,
            broken_off: None,
        }
    }

    #[test]
    fn each_broken_promise_makes_the_verdict() {
        let zero = Counts::default();
        assert!(Verdict::new(found(zero)).ok);
        for counts in [
            Counts { lost: 1, ..zero },
            Counts {
                duplicated: 1,
                ..zero
            },
            Counts {
                reordered: 1,
                ..zero
            },
            Counts {
                corrupted: 1,
                ..zero
            },
            Counts {
                false_messages: 1,
                ..zero
            },
            Counts {
                gaps_reported: 1,
                ..zero
            },
        ] {
            assert!(!Verdict::new(found(counts)).ok, "{counts:?}");
        }
        let interrupted = Found {
            broken_off: Some("interrupted".to_owned()),
            ..found(zero)
        };
        assert!(!Verdict::new(interrupted).ok);
        let removed = Found {
            may_remove: true,
            ..found(Counts {
                gaps_reported: 1,
                reported_missing: 5,
                ..zero
            })
        };
        assert!(
            Verdict::new(removed).ok,
            "a gap that tells of what was removed breaks nothing"
        );
    }
}
