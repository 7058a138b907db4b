//! The verdict on one connection: a pure function of the looks at it.

use std::time::Duration;

use crate::defaults::{DOCTOR_CLOSED_WINDOW, DOCTOR_LIMITED_SHARE, DOCTOR_SILENCE, DOCTOR_STILL};
use crate::kernel::{TcpAccount, TcpTimer};

/// What is wrong with a connection, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The program on this side leaves received bytes unread.
    NotReading,
    /// The program on the other side does not read. Its kernel is alive, its window is closed, and
    /// bytes wait on this side.
    PeerNotReading,
    /// Neither program reads what the other sent.
    BothNotReading,
    /// The network or the peer's machine has failed: sent bytes are not acknowledged, though they
    /// are sent again.
    Network,
    /// The peer answers no keepalive and no probe.
    PeerGone,
    /// Bytes move, but only as fast as the reader lets them.
    SlowReader,
    /// No bytes wait on either side: no application has sent anything.
    Idle,
    /// Bytes move.
    Moving,
}

impl Verdict {
    /// The name of the verdict in machine-readable output, for example `peer_not_reading`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Verdict::NotReading => "not_reading",
            Verdict::PeerNotReading => "peer_not_reading",
            Verdict::BothNotReading => "both_not_reading",
            Verdict::Network => "network",
            Verdict::PeerGone => "peer_gone",
            Verdict::SlowReader => "slow_reader",
            Verdict::Idle => "idle",
            Verdict::Moving => "moving",
        }
    }

    /// Whether the connection does not move although bytes wait.
    #[must_use]
    pub fn is_stuck(self) -> bool {
        !matches!(self, Verdict::SlowReader | Verdict::Idle | Verdict::Moving)
    }
}

/// One look at a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it was taken, counted from an origin that all samples share.
    pub(super) at: Duration,
    pub(super) account: TcpAccount,
    /// The account of the other end, if it is in the same network namespace.
    pub(super) other_end: Option<TcpAccount>,
}

/// A verdict with its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// How long the verdict has held, at least.
    pub(super) since: Duration,
}

/// Judges a connection by two or more samples, oldest first. `None` for fewer.
pub(super) fn judge(samples: &[Sample]) -> Option<Judgement> {
    let [first, .., last] = samples else {
        return None;
    };
    let account = &last.account;
    let observed = last.at.saturating_sub(first.at);
    let judgement = |verdict, since| Some(Judgement { verdict, since });

    if let Some(since) = account.peer_is_dead_since() {
        return match account.timer {
            TcpTimer::Retransmit { .. } => judgement(Verdict::Network, since),
            _ => judgement(Verdict::PeerGone, account.last_heard()),
        };
    }
    let here = End::seen(samples.iter().map(|sample| Some(&sample.account)), observed);
    let there = End::seen(
        samples.iter().map(|sample| sample.other_end.as_ref()),
        observed,
    );
    let sending = here.as_ref()?;
    let here_stands = sending.unread_for();
    let there_stands = match &there {
        Some(there) => there.unread_for(),
        None => sending.kept_waiting_for(),
    };
    let slow = |end: &Option<End<'_>>| {
        end.as_ref()
            .is_some_and(|end| end.reads_slowly() || end.is_kept_waiting())
    };
    match (here_stands, there_stands) {
        (Some(here), Some(there)) => judgement(Verdict::BothNotReading, here.min(there)),
        (Some(here), None) => judgement(Verdict::NotReading, here),
        (None, Some(there)) => judgement(Verdict::PeerNotReading, there),
        (None, None) if slow(&here) || slow(&there) => judgement(Verdict::SlowReader, observed),
        (None, None) => rest(sending),
    }
}

/// The verdict on a connection on which both programs read.
fn rest(end: &End<'_>) -> Option<Judgement> {
    let account = end.last();
    let judgement = |verdict, since| Some(Judgement { verdict, since });
    let silent = account.last_heard();
    if !end.acked() && account.unacked > 0 && silent >= DOCTOR_SILENCE.max(account.rto * 4) {
        return judgement(Verdict::Network, end.observed);
    }
    let waiting = account.send_queue > 0 || account.unread() > 0;
    if end.acked() || end.received() || waiting {
        return judgement(Verdict::Moving, end.observed);
    }
    judgement(
        Verdict::Idle,
        account.last_data_sent.min(account.last_data_received),
    )
}

/// Bytes that the program has taken from the socket since the connection began.
pub(super) fn taken(account: &TcpAccount) -> u64 {
    account
        .bytes_received
        .saturating_sub(u64::from(account.receive_queue))
}

/// One end of the connection over all looks.
struct End<'a> {
    /// Invariant: not empty.
    looks: Vec<&'a TcpAccount>,
    observed: Duration,
}

impl<'a> End<'a> {
    /// `None` if a look has not seen this end: there is no history to judge by.
    fn seen(
        looks: impl Iterator<Item = Option<&'a TcpAccount>>,
        observed: Duration,
    ) -> Option<End<'a>> {
        let looks = looks
            .collect::<Option<Vec<_>>>()
            .filter(|looks| !looks.is_empty())?;
        Some(End { looks, observed })
    }

    fn first(&self) -> &'a TcpAccount {
        self.looks[0]
    }

    fn last(&self) -> &'a TcpAccount {
        self.looks[self.looks.len() - 1]
    }

    fn received(&self) -> bool {
        self.last().bytes_received != self.first().bytes_received
    }

    fn acked(&self) -> bool {
        self.last().bytes_acked != self.first().bytes_acked
    }

    fn read(&self) -> bool {
        taken(self.last()) != taken(self.first())
    }

    /// How long, at least, its program has left bytes unread without reading any. `None` if that is
    /// not long enough for a verdict.
    fn unread_for(&self) -> Option<Duration> {
        if self.read() || self.looks.iter().any(|account| account.unread() == 0) {
            return None;
        }
        let last = self.last();
        // If the program had read, the window would have opened and new data would have arrived.
        let closed = last.own_window == Some(0);
        let since = if closed {
            self.observed.max(last.last_data_received)
        } else {
            self.observed
        };
        (since >= DOCTOR_STILL).then_some(since)
    }

    /// Whether its program reads, but its window is nearly closed in every look.
    fn reads_slowly(&self) -> bool {
        let full = |account: &&TcpAccount| {
            account
                .own_window
                .is_some_and(|window| window < account.unread() / 2)
        };
        self.read() && self.looks.iter().all(full)
    }

    /// Whether bytes wait here for the peer's window to open.
    fn waits_for_window(&self) -> bool {
        let last = self.last();
        let persist = matches!(last.timer, TcpTimer::Persist { .. });
        last.send_queue > 0 && (persist || last.peer_window == Some(0))
    }

    /// How long the peer's window has been closed without an acknowledgement. `None` if that is not
    /// long enough for a verdict on a peer that cannot be seen.
    fn kept_waiting_for(&self) -> Option<Duration> {
        let waited = match self.last().timer {
            // Retransmissions into the closed window reset the kernel's time.
            TcpTimer::Retransmit { .. } => self.observed,
            _ => self.last().last_data_sent,
        };
        (!self.acked() && self.waits_for_window() && waited >= DOCTOR_CLOSED_WINDOW)
            .then_some(waited)
    }

    /// Whether the peer's window limits this end now.
    fn is_kept_waiting(&self) -> bool {
        let (first, last) = (self.first(), self.last());
        let limited = last
            .limited_by_peer_window
            .saturating_sub(first.limited_by_peer_window);
        let mostly =
            limited >= self.observed.mul_f64(DOCTOR_LIMITED_SHARE) && limited > Duration::ZERO;
        if self.acked() {
            mostly
        } else {
            self.waits_for_window()
        }
    }
}

#[cfg(test)]
mod tests;
