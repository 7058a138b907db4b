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
    let observed = last.at.saturating_sub(first.at);
    let here = Reading::of(samples.iter().map(|sample| &sample.account));
    // A socket that is not in every look has no history to go by.
    let there = if samples.iter().all(|sample| sample.other_end.is_some()) {
        Reading::of(
            samples
                .iter()
                .filter_map(|sample| sample.other_end.as_ref()),
        )
    } else {
        Reading::Unknown
    };
    let sending = Sending::of(samples, observed);
    let judgement = |verdict, since| Some(Judgement { verdict, since });

    if let Some(since) = last.account.peer_is_dead_since() {
        return match last.account.timer {
            TcpTimer::Retransmit { .. } => judgement(Verdict::Network, since),
            _ => judgement(Verdict::PeerGone, last.account.last_heard()),
        };
    }
    let here_stands = here.stands_for(&last.account, observed);
    let there_stands = match (there, &last.other_end) {
        (Reading::Unknown, _) | (_, None) => sending.closed_for(),
        (_, Some(other)) => there.stands_for(other, observed),
    };
    match (here_stands, there_stands) {
        (Some(here), Some(there)) => judgement(Verdict::BothNotReading, here.min(there)),
        (Some(here), None) => judgement(Verdict::NotReading, here),
        (None, Some(there)) => judgement(Verdict::PeerNotReading, there),
        (None, None) if here == Reading::Slow || sending.is_held_back(there) => {
            judgement(Verdict::SlowReader, observed)
        }
        (None, None) => rest(first, last, &sending, observed),
    }
}

/// The verdict on a connection on which nobody fails to read.
fn rest(
    first: &Sample,
    last: &Sample,
    sending: &Sending<'_>,
    observed: Duration,
) -> Option<Judgement> {
    let account = &last.account;
    let silent = account.last_heard();
    let verdict = |verdict, since| Some(Judgement { verdict, since });
    if !sending.moved && account.unacked > 0 && silent >= SILENCE.max(account.rto * 4) {
        return verdict(Verdict::Network, observed);
    }
    let received = account.bytes_received != first.account.bytes_received;
    if sending.moved || received || account.send_queue > 0 || account.unread() > 0 {
        return verdict(Verdict::Moving, observed);
    }
    verdict(
        Verdict::Idle,
        account.last_data_sent.min(account.last_data_received),
    )
}

/// What a program does about the bytes that its kernel received for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The socket could not be seen.
    Unknown,
    /// Nothing stands unread for long.
    Keeps,
    /// It reads, yet its window is closed or nearly so in every look.
    Slow,
    /// Bytes lay unread in every look, and none was taken.
    Stands,
}

impl Reading {
    fn of<'a>(accounts: impl Iterator<Item = &'a TcpAccount> + Clone) -> Reading {
        let mut looks = accounts.clone();
        let Some(first) = looks.next() else {
            return Reading::Unknown;
        };
        let last = looks.last().unwrap_or(first);
        if accounts.clone().any(|account| account.unread() == 0) {
            return Reading::Keeps;
        }
        if taken(last) == taken(first) {
            return Reading::Stands;
        }
        let full = |account: &TcpAccount| {
            account
                .own_window
                .is_some_and(|window| window < account.unread() / 2)
        };
        if accounts.clone().all(full) {
            Reading::Slow
        } else {
            Reading::Keeps
        }
    }

    /// How long the program has not read, at least, if that is long enough to
    /// say so.
    fn stands_for(self, account: &TcpAccount, observed: Duration) -> Option<Duration> {
        if self != Reading::Stands {
            return None;
        }
        // With its window closed a single read would have let new data in.
        let closed = account
            .own_window
            .is_some_and(|window| window < account.mss);
        let since = if closed {
            observed.max(account.last_data_received)
        } else {
            observed
        };
        (since >= STANDING).then_some(since)
    }
}

/// Bytes that the program has taken from the socket since the connection began.
pub(super) fn taken(account: &TcpAccount) -> u64 {
    account
        .bytes_received
        .saturating_sub(u64::from(account.receive_queue))
}

/// What became of the bytes that this side's program wrote.
struct Sending<'a> {
    last: &'a TcpAccount,
    /// The peer acknowledged some during the observation.
    moved: bool,
    /// Share of the observation, in percent, during which the peer's window
    /// was the limit.
    limited: u128,
    observed: Duration,
}

impl<'a> Sending<'a> {
    fn of(samples: &'a [Sample], observed: Duration) -> Sending<'a> {
        let (first, last) = (&samples[0].account, &samples[samples.len() - 1].account);
        let limited = last
            .limited_by_peer_window
            .saturating_sub(first.limited_by_peer_window);
        Sending {
            last,
            moved: last.bytes_acked != first.bytes_acked,
            limited: limited.as_micros() * 100 / observed.as_micros().max(1),
            observed,
        }
    }

    /// Bytes wait, and it is the peer's window that they wait for.
    fn waits_for_window(&self) -> bool {
        let persist = matches!(self.last.timer, TcpTimer::Persist { .. });
        self.last.send_queue > 0 && (persist || self.last.peer_window == Some(0))
    }

    /// How long nothing has gone through the peer's closed window.
    fn waited(&self) -> Duration {
        match self.last.timer {
            // Retransmissions into the closed window refresh the kernel's time.
            TcpTimer::Retransmit { .. } => self.observed,
            _ => self.last.last_data_sent,
        }
    }

    /// As [`Sending::waited`], once that is long enough to accuse a peer that
    /// cannot be seen.
    fn closed_for(&self) -> Option<Duration> {
        let waited = self.waited();
        (!self.moved && self.waits_for_window() && waited >= CLOSED_WINDOW).then_some(waited)
    }

    /// The peer reads, and this side could send more than it does.
    fn is_held_back(&self, there: Reading) -> bool {
        let limited = self.waits_for_window() || (self.moved && self.limited >= 80);
        limited && matches!(there, Reading::Unknown | Reading::Slow | Reading::Stands)
            || there == Reading::Slow && self.last.send_queue > 0
    }
}
