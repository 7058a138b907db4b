//! The verdict on one connection: a pure function of what was seen of it.

use std::time::Duration;

use crate::kernel::{TcpAccount, TcpTimer};

/// Nobody is accused of standing still on less evidence than this: a program
/// that is busy for a moment between two reads is healthy.
const STANDING: Duration = Duration::from_secs(1);

/// How long a far peer's window must have been closed before it counts as not
/// reading. A slow reader with a large buffer opens its window only now and
/// then, so a closed one proves little at first.
const CLOSED_WINDOW: Duration = Duration::from_secs(5);

/// The share of the time during which the peer's window must be the limit for
/// the peer to count as slow.
const LIMITED: f64 = 0.8;

/// Without any sign of life for this long while packets wait for an
/// acknowledgement, the network is at fault although the timer has not shown
/// it yet.
const SILENCE: Duration = Duration::from_secs(3);

/// What is wrong with a connection, or that nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The program on this side leaves received bytes unread.
    NotReading,
    /// The program on the other side does not read: its kernel is alive, its
    /// window is closed, and this side's bytes wait.
    PeerNotReading,
    /// Neither program reads what the other sent.
    BothNotReading,
    /// What is sent is not acknowledged, and sent again in vain.
    Network,
    /// The peer answers no keepalive and no probe.
    PeerGone,
    /// Bytes move, but only as fast as the reader lets them.
    SlowReader,
    /// Nothing waits anywhere: the application on one side sent nothing.
    Idle,
    /// Bytes move.
    Moving,
}

impl Verdict {
    /// The verdict's name in machine-readable output, for example
    /// `peer_not_reading`.
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

    /// Whether the connection stands still although something waits to move.
    #[must_use]
    pub fn is_stuck(self) -> bool {
        !matches!(self, Verdict::SlowReader | Verdict::Idle | Verdict::Moving)
    }
}

/// One look at a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it was taken, from an origin that all samples share.
    pub(super) at: Duration,
    pub(super) account: TcpAccount,
    /// The socket at the other end, where that is on this machine too.
    pub(super) other_end: Option<TcpAccount>,
}

/// What several looks at a connection amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// How long it has been so, at least.
    pub(super) since: Duration,
}

/// Judges a connection by two samples or more, oldest first; `None` for fewer.
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

/// The verdict on a connection on which nobody fails to read.
fn rest(end: &End<'_>) -> Option<Judgement> {
    let account = end.last();
    let judgement = |verdict, since| Some(Judgement { verdict, since });
    let silent = account.last_heard();
    if !end.acked() && account.unacked > 0 && silent >= SILENCE.max(account.rto * 4) {
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
    /// `None` for an end that was not there in every look: it has no history
    /// to judge by.
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

    /// How long its program has left bytes unread without taking any, at least,
    /// if that is long enough to say so.
    fn unread_for(&self) -> Option<Duration> {
        if self.read() || self.looks.iter().any(|account| account.unread() == 0) {
            return None;
        }
        let last = self.last();
        // Reading would have opened the window, and let new data in.
        let closed = last.own_window == Some(0);
        let since = if closed {
            self.observed.max(last.last_data_received)
        } else {
            self.observed
        };
        (since >= STANDING).then_some(since)
    }

    /// Its program reads, yet its window is nearly closed in every look.
    fn reads_slowly(&self) -> bool {
        let full = |account: &&TcpAccount| {
            account
                .own_window
                .is_some_and(|window| window < account.unread() / 2)
        };
        self.read() && self.looks.iter().all(full)
    }

    /// Bytes wait here, and it is the peer's window that they wait for.
    fn waits_for_window(&self) -> bool {
        let last = self.last();
        let persist = matches!(last.timer, TcpTimer::Persist { .. });
        last.send_queue > 0 && (persist || last.peer_window == Some(0))
    }

    /// How long nothing has gone through the peer's closed window, once that
    /// is long enough to accuse a peer that cannot be seen.
    fn kept_waiting_for(&self) -> Option<Duration> {
        let waited = match self.last().timer {
            // Retransmissions into the closed window refresh the kernel's time.
            TcpTimer::Retransmit { .. } => self.observed,
            _ => self.last().last_data_sent,
        };
        (!self.acked() && self.waits_for_window() && waited >= CLOSED_WINDOW).then_some(waited)
    }

    /// Whether the peer's window is what limits this end for now.
    fn is_kept_waiting(&self) -> bool {
        let (first, last) = (self.first(), self.last());
        let limited = last
            .limited_by_peer_window
            .saturating_sub(first.limited_by_peer_window);
        let mostly = limited >= self.observed.mul_f64(LIMITED) && limited > Duration::ZERO;
        if self.acked() {
            mostly
        } else {
            self.waits_for_window()
        }
    }
}

#[cfg(test)]
mod tests;
