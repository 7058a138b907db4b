//! Says why a connection is stuck, of this program or of any other on this
//! machine, in any language.
//!
//! The doctor looks at the kernel's account of each TCP connection two times or
//! more and judges by what changed. It touches neither the programs nor their
//! sockets, and needs no rights but those that naming another user's processes
//! takes. It sees the connections of its own network namespace, so for a
//! container it runs inside of it.
//!
//! ```no_run
//! use std::{thread, time::Duration};
//! use unstall::doctor::Doctor;
//!
//! let mut doctor = Doctor::new();
//! for _ in 0..3 {
//!     doctor.look()?;
//!     thread::sleep(Duration::from_secs(1));
//! }
//! for finding in doctor.findings() {
//!     if finding.verdict.is_stuck() {
//!         println!("{}: {}", finding.account.peer, finding.sentence);
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) mod own;
mod owners;
mod sentence;
mod verdict;

pub use crate::kernel::{TcpAccount, TcpState, TcpTimer};
pub use own::{Diagnosis, doctor};
pub use owners::{Process, sockets_of};
pub use verdict::Verdict;

use crate::kernel;
use owners::Owners;
use verdict::{Judgement, Sample, judge, taken};

/// The time that a verdict rests on: its looks are the fewest that cover this.
/// More would keep a connection that has just got stuck from being seen, less
/// would accuse one that is busy for a moment.
const OBSERVED: Duration = Duration::from_secs(2);

/// Looks that follow each other faster than this replace one another, which
/// bounds the number that is kept to [`OBSERVED`] divided by this, and two.
const SPACING: Duration = Duration::from_millis(50);

/// Watches the TCP connections of this network namespace and judges them.
#[derive(Debug)]
pub struct Doctor {
    began: Instant,
    patients: HashMap<u64, Patient>,
}

/// One connection, seen from one of its ends.
#[derive(Debug, Default)]
struct Patient {
    /// Invariant: oldest first; without the first they cover less than
    /// [`OBSERVED`].
    samples: VecDeque<Sample>,
    /// The present verdict as it was first passed, and when.
    verdict: Option<(Judgement, Duration)>,
}

/// What the doctor found out about one connection, seen from one of its ends.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in a sentence, with its figures.
    pub sentence: String,
    /// What to do about it, in a line.
    pub advice: String,
    /// How long it has been so, at least.
    pub since: Duration,
    /// The kernel's account at the last look.
    pub account: TcpAccount,
    /// The account of the other end, where that is in the same network
    /// namespace.
    pub peer_account: Option<TcpAccount>,
    /// The process that holds the socket; `None` when nobody does (yet), or
    /// when this user may not see it.
    pub owner: Option<Process>,
    /// The process that holds the other end, where it can be seen.
    pub peer_owner: Option<Process>,
    /// The time from the first of the looks to the last.
    pub observed: Duration,
    /// Bytes received per second meanwhile.
    pub received_per_second: u64,
    /// Bytes that the program read per second meanwhile.
    pub read_per_second: u64,
    /// Bytes that the peer acknowledged per second meanwhile.
    pub acked_per_second: u64,
    /// Bytes sent again meanwhile.
    pub retransmitted: u64,
}

impl Default for Doctor {
    fn default() -> Doctor {
        Doctor::new()
    }
}

impl Doctor {
    /// A doctor that has seen nothing yet.
    #[must_use]
    pub fn new() -> Doctor {
        Doctor {
            began: Instant::now(),
            patients: HashMap::new(),
        }
    }

    /// Looks at every TCP connection once. Verdicts need two looks; a second
    /// or more between them, in all, is what accusations need.
    ///
    /// Blocks for as long as the kernel takes to list its sockets: one or two
    /// milliseconds for a hundred of them.
    ///
    /// # Errors
    /// What the netlink socket reports; [`io::ErrorKind::Unsupported`] on other
    /// systems than Linux. Looking again may succeed.
    pub fn look(&mut self) -> io::Result<()> {
        let accounts = kernel::tcp_accounts()?;
        self.note(self.began.elapsed(), &accounts);
        Ok(())
    }

    /// One more look, in which `accounts` was all there was.
    fn note(&mut self, at: Duration, accounts: &[TcpAccount]) {
        let ends: HashMap<(SocketAddr, SocketAddr), &TcpAccount> = accounts
            .iter()
            .map(|account| ((account.local, account.peer), account))
            .collect();
        let mut earlier = std::mem::take(&mut self.patients);
        for account in accounts {
            let mut patient = earlier.remove(&account.cookie).unwrap_or_default();
            let other_end = ends
                .get(&(account.peer, account.local))
                .map(|&other| other.clone());
            patient.keep(Sample {
                at,
                account: account.clone(),
                other_end,
            });
            patient.verdict =
                judge(patient.samples.make_contiguous()).map(|now| match patient.verdict {
                    Some((first, passed)) if first.verdict == now.verdict => (first, passed),
                    _ => (now, at),
                });
            self.patients.insert(account.cookie, patient);
        }
    }

    /// What is known of every connection that was there in the last two looks
    /// at least, ordered by address. Reads procfs for the owners.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let owners = Owners::read();
        let mut findings: Vec<Finding> = self
            .patients
            .values()
            .filter_map(|patient| patient.finding(&owners))
            .collect();
        findings.sort_by_key(|finding| (finding.account.local, finding.account.peer));
        findings
    }
}

impl Patient {
    fn keep(&mut self, sample: Sample) {
        let samples = &mut self.samples;
        let crowded =
            samples.len() >= 2 && samples[samples.len() - 2].at.saturating_add(SPACING) > sample.at;
        if crowded {
            samples.pop_back();
        }
        samples.push_back(sample);
        let enough = samples[samples.len() - 1].at.saturating_sub(OBSERVED);
        while samples.len() > 2 && samples[1].at <= enough {
            samples.pop_front();
        }
    }

    fn finding(&self, owners: &Owners) -> Option<Finding> {
        let (judgement, passed) = self.verdict?;
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let observed = last.at.saturating_sub(first.at);
        let (before, account) = (&first.account, last.account.clone());
        let per_second = |before: u64, after: u64| {
            let change = after.saturating_sub(before) as f64;
            (change / observed.as_secs_f64().max(0.001)) as u64
        };
        let mut finding = Finding {
            verdict: judgement.verdict,
            sentence: String::new(),
            advice: String::new(),
            since: judgement
                .since
                .saturating_add(last.at.saturating_sub(passed)),
            peer_account: last.other_end.clone(),
            owner: owners.of(account.inode).cloned(),
            peer_owner: last
                .other_end
                .as_ref()
                .and_then(|o| owners.of(o.inode))
                .cloned(),
            observed,
            received_per_second: per_second(before.bytes_received, account.bytes_received),
            read_per_second: per_second(taken(before), taken(&account)),
            acked_per_second: per_second(before.bytes_acked, account.bytes_acked),
            retransmitted: account
                .bytes_retransmitted
                .saturating_sub(before.bytes_retransmitted),
            account,
        };
        finding.sentence = sentence::sentence(&finding);
        finding.advice = sentence::advice(&finding);
        Some(finding)
    }
}
