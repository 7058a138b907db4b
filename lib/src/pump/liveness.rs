//! Whether the peer is alive: pings, silence, and peers that do not read.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Traffic, TurnContext, flushing::Flushing};
use crate::{
    defaults::{KERNEL_CHECK_INTERVAL, KERNEL_CHECK_INTERVAL_MAX, WRITE_TIMEOUT_BLIND},
    handles::Shared,
    kernel::{self, TcpAccount},
    reports::{ConnectionError, Report, StallCause},
    time::later,
    ws::{Failure, WebSocket},
};

pub(super) struct Liveness {
    ping_interval: Duration,
    silence_timeout: Duration,
    write_timeout: Option<Duration>,
    /// When a byte was last received, or reading was last paused.
    heard: Instant,
    bytes_read: u64,
    ping_at: Instant,
    pings: u64,
    /// When the last ping was sent, until its pong comes.
    last_ping: Option<Instant>,
    /// Since when the peer has had a ping to answer, without a byte from it.
    asked: Option<Instant>,
    looks: KernelLooks,
    /// At the last check the peer's kernel had not acknowledged everything. The ping may not have
    /// arrived.
    behind: bool,
}

/// When to ask the kernel about a silent peer: less and less often.
struct KernelLooks {
    /// Both ends of the TCP connection. `None` if they are not known.
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// When to ask next. `None`: it was not asked yet.
    at: Option<Instant>,
    /// The time from that question to the one after it.
    interval: Duration,
}

impl KernelLooks {
    fn new(addresses: Option<(SocketAddr, SocketAddr)>) -> KernelLooks {
        KernelLooks {
            addresses,
            at: None,
            interval: KERNEL_CHECK_INTERVAL,
        }
    }

    /// The peer was heard: begins anew.
    fn reset(&mut self) {
        *self = KernelLooks::new(self.addresses);
    }

    /// Asks the kernel for its account of the connection. `None` where it cannot be asked.
    fn look(&mut self, now: Instant) -> Option<TcpAccount> {
        self.at = Some(later(now, self.interval));
        let doubled = self.interval.saturating_mul(2);
        self.interval = doubled.min(KERNEL_CHECK_INTERVAL_MAX);
        self.account()
    }

    fn account(&self) -> Option<TcpAccount> {
        let (local, peer) = self.addresses?;
        kernel::tcp_account(local, peer).ok()?
    }
}

impl Liveness {
    pub(super) fn new(shared: &Shared, now: Instant) -> Liveness {
        let options = &shared.options;
        let identity = shared.identity();
        Liveness {
            ping_interval: options.ping_interval,
            silence_timeout: options.silence_timeout,
            write_timeout: options.write_timeout,
            heard: now,
            bytes_read: 0,
            ping_at: later(now, options.ping_interval),
            pings: 0,
            last_ping: None,
            asked: None,
            looks: KernelLooks::new(identity.local.zip(identity.peer)),
            behind: false,
        }
    }

    /// Called after each turn of reading. Any received byte shows that the peer is alive. While
    /// reading is `paused`, silence means nothing.
    pub(super) fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &WebSocket<S>,
        paused: bool,
        report: &mut Report,
        now: Instant,
    ) {
        if ws.bytes_read() != self.bytes_read || paused {
            self.bytes_read = ws.bytes_read();
            self.heard = now;
            self.looks.reset();
            self.behind = false;
            if self.asked.take().is_some() {
                report.wait(StallCause::PeerSilent, false);
            }
        }
    }

    pub(super) fn received_any(&self) -> bool {
        self.bytes_read > 0
    }

    /// The round trip, if this pong answers the last ping.
    pub(super) fn pong(&mut self, payload: &Bytes, now: Instant) -> Option<Duration> {
        let sent = self
            .last_ping
            .take_if(|_| payload.as_ref() == self.pings.to_be_bytes())?;
        Some(now.saturating_duration_since(sent))
    }

    /// Sends a ping if one is due. While reading is paused it sends an unsolicited pong instead,
    /// because the answer would not be read. If the socket is full because the peer does not read,
    /// it sends nothing.
    ///
    /// This is also the moment to free memory that recent traffic did not need.
    ///
    /// # Errors
    /// The peer has vanished while reading is paused. What it had sent can still be read.
    pub(super) fn heartbeat<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        writable: bool,
        traffic: &mut impl Traffic,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), Failure> {
        let now = turn.now;
        if now < self.ping_at {
            return Ok(());
        }
        self.ping_at = later(now, self.ping_interval);
        ws.shrink();
        turn.shared.outbox.shrink();
        turn.shared.inbox.shrink();
        traffic.shrink();
        if traffic.is_paused() && self.has_vanished() {
            return Err(Failure::Broken(ConnectionError::PeerSilent(
                self.silence_timeout,
            )));
        }
        if !writable && !traffic.peer_always_reads() {
            return Ok(());
        }
        if traffic.is_paused() {
            return ws.pong();
        }
        self.pings += 1;
        self.last_ping = Some(now);
        self.asked.get_or_insert(now);
        turn.report.wait(StallCause::PeerSilent, true);
        ws.ping(self.pings.to_be_bytes())
    }

    /// Whether the peer's kernel has answered nothing for the silence timeout. It has the pongs of the
    /// last heartbeats to answer.
    fn has_vanished(&self) -> bool {
        self.looks.account().is_some_and(|account| {
            account.peer_is_dead_since().is_some() && account.last_heard() >= self.silence_timeout
        })
    }

    /// Why the connection is over, by the clock. `peer_reads` is [`Traffic::peer_always_reads`].
    pub(super) fn verdict(
        &mut self,
        flushing: &Flushing,
        peer_reads: bool,
        now: Instant,
    ) -> Option<ConnectionError> {
        let blocked = flushing.blocked_since();
        if let (Some(since), Some(limit)) = (blocked, self.write_timeout)
            && now >= later(since, limit)
        {
            return Some(ConnectionError::WriteStalled(limit));
        }
        if now < self.look_at() {
            return None;
        }
        let account = self.looks.look(now);
        if self.is_gone(account.as_ref(), peer_reads, blocked.is_some(), now) {
            return Some(ConnectionError::PeerSilent(self.silence_timeout));
        }
        let blind = self.write_timeout.is_none() && account.is_none();
        let blind_since = blocked.filter(|_| blind)?;
        (now >= later(blind_since, WRITE_TIMEOUT_BLIND))
            .then_some(ConnectionError::WriteStalled(WRITE_TIMEOUT_BLIND))
    }

    /// Whether a silent peer is gone, by the kernel's account of the connection.
    fn is_gone(
        &mut self,
        account: Option<&TcpAccount>,
        peer_reads: bool,
        blocked: bool,
        now: Instant,
    ) -> bool {
        match account {
            // The peer of a session always reads, so only a pong proves that it is alive. A TCP
            // acknowledgement may come from a proxy.
            _ if peer_reads => self.ping_is_unanswered(now),
            // The ping may still wait in this side's kernel. So the question is whether the peer's
            // kernel answers.
            Some(account) if account.send_queue > 0 => {
                self.behind = true;
                account.peer_is_dead_since().is_some()
            }
            // Since the last check the peer's kernel has acknowledged everything, so the ping has
            // arrived. The peer's time to answer starts now.
            Some(_) if std::mem::take(&mut self.behind) => {
                self.asked = Some(now);
                false
            }
            None if blocked => false,
            _ => self.ping_is_unanswered(now),
        }
    }

    /// Whether the peer's time to answer a ping is over. If the full socket held the ping back, it is
    /// sent now.
    fn ping_is_unanswered(&mut self, now: Instant) -> bool {
        match self.asked {
            Some(asked) => now >= later(asked, self.ping_interval),
            None => {
                self.ping_at = now;
                false
            }
        }
    }

    /// When the silence will have lasted too long, or when to ask the kernel again after that.
    fn look_at(&self) -> Instant {
        let silent_at = later(self.heard, self.silence_timeout);
        self.looks.at.map_or(silent_at, |at| at.max(silent_at))
    }

    /// When [`verdict`](Self::verdict) and [`heartbeat`](Self::heartbeat) have to be called next.
    pub(super) fn next(&self, flushing: &Flushing) -> Instant {
        let stalled = flushing.blocked_since().zip(self.write_timeout);
        let next = self.ping_at.min(self.look_at());
        stalled.map_or(next, |(since, limit)| next.min(later(since, limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once a slow peer was cut as soon as it had caught up. Its ping had waited behind other bytes,
    /// and that wait counted as the peer's time to answer.
    #[tokio::test(start_paused = true)]
    async fn peer_that_has_caught_up_gets_its_time_to_answer() {
        let mut now = Instant::now();
        let shared = Shared::new(
            crate::Options::default(),
            crate::handles::Identity::default(),
        );
        let mut liveness = Liveness::new(&shared, now);
        liveness.asked = Some(now);
        let end = "127.0.0.1:1".parse().unwrap();
        let mut account = TcpAccount::quiet(end, end);
        let mut gone = |send_queue, passed| {
            now += passed;
            account.send_queue = send_queue;
            liveness.is_gone(Some(&account), false, false, now)
        };
        let interval = shared.options.ping_interval;
        assert!(!gone(1, interval * 10), "its kernel answers");
        assert!(!gone(0, KERNEL_CHECK_INTERVAL), "the ping arrives only now");
        assert!(
            !gone(0, interval - KERNEL_CHECK_INTERVAL),
            "its time is not over"
        );
        assert!(gone(0, KERNEL_CHECK_INTERVAL));
    }
    /// Once each silent peer cost two questions to the kernel a second, for as long as it lived.
    #[test]
    fn kernel_is_asked_ever_more_rarely_until_the_peer_is_heard() {
        let mut now = Instant::now();
        let mut looks = KernelLooks::new(None);
        let mut next = |looks: &mut KernelLooks| {
            looks.look(now);
            let wait = looks.at.unwrap() - now;
            now += wait;
            wait
        };
        let waits: Vec<_> = (0..20).map(|_| next(&mut looks)).collect();
        assert_eq!(waits[0], KERNEL_CHECK_INTERVAL);
        for pair in waits.windows(2) {
            assert_eq!(pair[1], (2 * pair[0]).min(KERNEL_CHECK_INTERVAL_MAX));
        }
        assert_eq!(waits[19], KERNEL_CHECK_INTERVAL_MAX);
        looks.reset();
        assert!(looks.at.is_none());
        assert_eq!(next(&mut looks), KERNEL_CHECK_INTERVAL);
    }
}
