//! Finds out why a TCP connection of any program on this machine is stuck.
//!
//! The doctor reads the kernel's account of each TCP connection twice or more, and judges by what
//! changed. It does not touch the programs or their sockets. It needs rights only to name the
//! processes of other users. It sees the connections of its own network namespace: to diagnose a
//! container, run it inside the container.
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
pub use owners::{Process, listeners_of, sockets_of};
pub use verdict::Verdict;

use crate::defaults::{DOCTOR_OBSERVED, DOCTOR_SPACING};
use crate::kernel;
use owners::Owners;
use verdict::{Judgement, Sample, judge, taken};

/// Watches the TCP connections of this network namespace and gives a verdict on each.
#[derive(Debug)]
pub struct Doctor {
    began: Instant,
    patients: HashMap<u64, Patient>,
}

/// One end of a connection.
#[derive(Debug, Default)]
struct Patient {
    /// Invariant: oldest first. Without the first one they cover less than [`DOCTOR_OBSERVED`].
    samples: VecDeque<Sample>,
    /// The current verdict as it was first given, and when.
    verdict: Option<(Judgement, Duration)>,
}

/// The doctor's finding about one end of a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in a sentence, with its figures.
    pub sentence: String,
    /// What to do about it, in one line.
    pub advice: String,
    /// How long the verdict has held, at least.
    pub since: Duration,
    /// The kernel's account at the last look.
    pub account: TcpAccount,
    /// The account of the other end, if it is in the same network namespace.
    pub peer_account: Option<TcpAccount>,
    /// The process that holds the socket. `None` if no process does, or if this user may not see
    /// it.
    pub owner: Option<Process>,
    /// The process that holds the other end, if it can be seen.
    pub peer_owner: Option<Process>,
    /// The time between the first look and the last.
    pub observed: Duration,
    /// Bytes received per second in that time.
    pub received_per_second: u64,
    /// Bytes that the program read per second in that time.
    pub read_per_second: u64,
    /// Bytes that the peer acknowledged per second in that time.
    pub acked_per_second: u64,
    /// Bytes sent again in that time.
    pub retransmitted: u64,
}

impl Default for Doctor {
    fn default() -> Doctor {
        Doctor::new()
    }
}

impl Doctor {
    /// Makes a doctor that has not looked yet.
    #[must_use]
    pub fn new() -> Doctor {
        Doctor {
            began: Instant::now(),
            patients: HashMap::new(),
        }
    }

    /// Looks at every TCP connection once. A verdict needs two looks. A verdict that a program does
    /// not read needs a second or more between the first and the last.
    ///
    /// Blocks while the kernel lists its sockets: one or two milliseconds for a hundred of them.
    ///
    /// # Errors
    /// What the netlink socket reports; [`io::ErrorKind::Unsupported`] on other
    /// systems than Linux. Looking again may succeed.
    pub fn look(&mut self) -> io::Result<()> {
        let accounts = kernel::tcp_accounts()?;
        self.note(self.began.elapsed(), &accounts);
        Ok(())
    }

    /// Adds a look, which saw exactly these `accounts`.
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

    /// The findings about every connection that was seen in at least the last two looks, ordered by
    /// address. Reads procfs to name the owners.
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
        let crowded = samples.len() >= 2
            && samples[samples.len() - 2].at.saturating_add(DOCTOR_SPACING) > sample.at;
        if crowded {
            samples.pop_back();
        }
        samples.push_back(sample);
        let enough = samples[samples.len() - 1]
            .at
            .saturating_sub(DOCTOR_OBSERVED);
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
