//! Whether the peer is there: pings, silence, and a peer that takes nothing.

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
    /// When a byte was last received, or reading last paused.
    heard: Instant,
    bytes_read: u64,
    ping_at: Instant,
    pings: u64,
    /// When the last ping was sent, until its pong comes.
    last_ping: Option<Instant>,
    /// The first ping since a byte was last received: by then the peer was asked.
    asked: Option<Instant>,
    looks: KernelLooks,
    /// The last look found bytes that the peer's kernel has not taken, perhaps the ping.
    behind: bool,
}

/// When to ask the kernel about a peer that takes nothing: ever more rarely.
struct KernelLooks {
    /// Both ends of a TCP connection of our own.
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// The next look, after the first.
    at: Option<Instant>,
    /// How long until the look after that.
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

    /// The peer was heard: the next look is a first one.
    fn reset(&mut self) {
        *self = KernelLooks::new(self.addresses);
    }

    /// The kernel's account of the connection; `None` where it has none.
    fn look(&mut self, now: Instant) -> Option<TcpAccount> {
        self.at = Some(later(now, self.interval));
        let doubled = self.interval.saturating_mul(2);
        self.interval = doubled.min(KERNEL_CHECK_INTERVAL_MAX);
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

    /// Any received byte is life. While this side does not read, silence cannot be judged.
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

    /// The answer to the last ping gives the round trip.
    pub(super) fn pong(&mut self, payload: &Bytes, now: Instant) -> Option<Duration> {
        let sent = self
            .last_ping
            .take_if(|_| payload.as_ref() == self.pings.to_be_bytes())?;
        Some(now.saturating_duration_since(sent))
    }

    /// Sends a ping when one is due; while this side does not read, a pong that asks for nothing.
    /// Behind a socket that takes nothing because its peer does not read, neither would help.
    pub(super) fn heartbeat<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        writable: bool,
        traffic: &impl Traffic,
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

    /// Whether, by the clock, the connection is over. `peer_reads`: as
    /// [`Traffic::peer_always_reads`].
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

    /// What silence means, by the kernel's account of the connection.
    fn is_gone(
        &mut self,
        account: Option<&TcpAccount>,
        peer_reads: bool,
        blocked: bool,
        now: Instant,
    ) -> bool {
        match account {
            // What a kernel acknowledges, perhaps a proxy's, says nothing of a peer that would have
            // read and answered.
            _ if peer_reads => self.ping_is_unanswered(now),
            // The ping may wait with the rest in the kernel: what counts is who does not answer
            // there.
            Some(account) if account.send_queue > 0 => {
                self.behind = true;
                account.peer_is_dead_since().is_some()
            }
            // Its kernel has all of it since the last look: from now on it is the peer that is
            // asked.
            Some(_) if std::mem::take(&mut self.behind) => {
                self.asked = Some(now);
                false
            }
            None if blocked => false,
            _ => self.ping_is_unanswered(now),
        }
    }

    /// Whether the peer had its time to answer a ping. One that was held back by a full socket is
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

    /// When the silence has lasted too long, or the next look after that.
    fn look_at(&self) -> Instant {
        let silent_at = later(self.heard, self.silence_timeout);
        self.looks.at.map_or(silent_at, |at| at.max(silent_at))
    }

    /// When the clock has to be looked at next.
    pub(super) fn next(&self, flushing: &Flushing) -> Instant {
        let stalled = flushing.blocked_since().zip(self.write_timeout);
        let next = self.ping_at.min(self.look_at());
        stalled.map_or(next, |(since, limit)| next.min(later(since, limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its ping lay unread behind everything else. As soon as the last byte had left this side's
    /// kernel, the whole time until then counted as time to answer it, and it was cut.
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
        assert!(!gone(0, KERNEL_CHECK_INTERVAL), "it was not asked before");
        assert!(
            !gone(0, interval - KERNEL_CHECK_INTERVAL),
            "its time is not over"
        );
        assert!(gone(0, KERNEL_CHECK_INTERVAL));
    }
}
