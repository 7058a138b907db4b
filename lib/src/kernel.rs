//! The kernel's own account of TCP sockets.
//!
//! On Linux it is read over netlink sock_diag (see sock_diag(7)), without touching the program that
//! owns the socket. On other systems every call fails with [`io::ErrorKind::Unsupported`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod tcp_info;

#[cfg(not(target_os = "linux"))]
#[path = "kernel/unsupported.rs"]
mod netlink;

/// The state of a TCP connection, named as in RFC 9293 section 3.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TcpState {
    /// Both sides may send.
    Established,
    /// This side sent a request to connect and waits for the answer.
    SynSent,
    /// This side answered a request to connect and waits for the acknowledgement.
    SynReceived,
    /// This side closed and waits for the peer to acknowledge it.
    FinWait1,
    /// This side closed, and the peer acknowledged it. The peer may still send.
    FinWait2,
    /// Both sides closed; the socket waits for late packets.
    TimeWait,
    /// No connection.
    Closed,
    /// The peer closed; this side has not.
    CloseWait,
    /// Both sides closed; the peer has not acknowledged this side's closing yet.
    LastAck,
    /// Waits for connections.
    Listen,
    /// Both sides closed at the same time.
    Closing,
    /// A state that this version does not know.
    Unknown(u8),
}

/// The timer that the kernel runs for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TcpTimer {
    /// No timer runs.
    Off,
    /// Sent data is not acknowledged; it is sent again after `expires`.
    Retransmit {
        /// Time until the timer fires.
        expires: Duration,
    },
    /// Nothing is in flight; a keepalive probe is sent after `expires`.
    KeepAlive {
        /// Time until the timer fires.
        expires: Duration,
    },
    /// The closed connection is removed when it fires.
    TimeWait,
    /// The persist timer: the peer's window is closed and data waits. The window is probed after
    /// `expires` (RFC 9293 section 3.8.6.1).
    Persist {
        /// Time until the timer fires.
        expires: Duration,
    },
}

/// The kernel's account of one TCP socket.
///
/// Durations that start with `last_` are the time since the event. A figure that an older kernel
/// does not report is zero, or `None` if zero would mislead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpAccount {
    /// The kernel's number for the socket, unique until the next boot.
    pub cookie: u64,
    /// This side's address.
    pub local: SocketAddr,
    /// The other side's address.
    pub peer: SocketAddr,
    /// The socket's inode, by which `/proc` names its owner. It is 0 before a process accepts the
    /// socket, and after the process closes it.
    pub inode: u32,
    /// The user that owns the socket.
    pub uid: u32,
    /// The state of the connection.
    pub state: TcpState,
    /// The timer that runs for the socket.
    pub timer: TcpTimer,
    /// Timeouts of the retransmission timer in a row, without progress.
    pub retransmits: u8,
    /// Window or keepalive probes that were sent and not answered.
    pub probes: u8,
    /// How often the running timer has doubled its interval.
    pub backoff: u8,
    /// Bytes that were received and that this side's program has not read.
    pub receive_queue: u32,
    /// Bytes that this side's program wrote and the peer has not acknowledged, sent or not.
    pub send_queue: u32,
    /// Bytes in the send queue that have not been sent.
    pub not_sent: u32,
    /// Packets sent and not acknowledged.
    pub unacked: u32,
    /// Packets believed lost.
    pub lost: u32,
    /// Congestion window in packets.
    pub congestion_window: u32,
    /// Memory that the socket may use for received data, in bytes, including the kernel's overhead.
    pub receive_buffer: u32,
    /// Memory that the socket may use for data to send, in bytes, including the kernel's overhead.
    pub send_buffer: u32,
    /// The receive window the peer last advertised, in bytes; `None` before
    /// Linux 5.4.
    pub peer_window: Option<u32>,
    /// The receive window this side last advertised, in bytes; `None` before
    /// Linux 6.2.
    pub own_window: Option<u32>,
    /// Current retransmission timeout.
    pub rto: Duration,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Largest segment that may be sent, in bytes.
    pub mss: u32,
    /// Time since data was last sent, retransmissions included.
    pub last_data_sent: Duration,
    /// Time since data last arrived.
    pub last_data_received: Duration,
    /// Time since an acknowledgement last arrived.
    pub last_ack_received: Duration,
    /// Total time during which there was data to send.
    pub busy: Duration,
    /// Part of `busy` during which the peer's window was the limit.
    pub limited_by_peer_window: Duration,
    /// Part of `busy` during which this side's send buffer was the limit.
    pub limited_by_send_buffer: Duration,
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Payload bytes the peer acknowledged.
    pub bytes_acked: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Payload bytes sent again.
    pub bytes_retransmitted: u64,
    /// Packets sent again since the connection began.
    pub total_retransmits: u32,
}

/// The kernel's longest interval between two attempts (`TCP_RTO_MAX`).
const RTO_MAX: Duration = Duration::from_secs(120);

impl TcpAccount {
    /// Payload bytes that were received and that this side's program has not read.
    #[must_use]
    pub fn unread(&self) -> u32 {
        // The peer's FIN counts as one byte of the receive queue until it is read.
        let closing = matches!(
            self.state,
            TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait
        );
        self.receive_queue.saturating_sub(u32::from(closing))
    }

    /// Whether the kernel has opened the connection, but the listening program has not accepted it
    /// yet.
    #[must_use]
    pub fn is_unaccepted(&self) -> bool {
        // A connection that a program closed is in a later state.
        self.inode == 0 && matches!(self.state, TcpState::Established | TcpState::CloseWait)
    }

    /// Time since anything arrived from the peer's kernel.
    #[must_use]
    pub fn last_heard(&self) -> Duration {
        // Data that acknowledges nothing new does not reset the kernel's time of the last
        // acknowledgement.
        self.last_ack_received.min(self.last_data_received)
    }

    /// How long the peer's kernel has not answered retransmissions or probes. `None` while it
    /// answers, or while there are none.
    ///
    /// It is `None` for a live peer that does not read: its window is closed, but its kernel
    /// acknowledges every probe of the persist timer. It is `Some` for a dead peer or a dead path,
    /// from the second unanswered retransmission or probe on. The duration is a lower bound.
    #[must_use]
    pub fn peer_is_dead_since(&self) -> Option<Duration> {
        let (running, earlier) = match self.timer {
            // An interval has passed after the first transmission, and after each retransmission
            // but the last.
            TcpTimer::Retransmit { expires } if self.retransmits >= 2 => {
                let interval = self.rto.min(RTO_MAX);
                let earlier = halves(interval, u32::from(self.retransmits));
                (interval.saturating_sub(expires), earlier)
            }
            TcpTimer::Persist { expires } if self.probes >= 2 => {
                let doubled = 1_u32 << self.backoff.min(10);
                let interval = self.rto.saturating_mul(doubled).min(RTO_MAX);
                let earlier = halves(interval, u32::from(self.probes) - 1);
                (interval.saturating_sub(expires), earlier)
            }
            // The interval is the socket's own setting, at least a second.
            TcpTimer::KeepAlive { .. } if self.probes >= 2 => {
                let passed = Duration::from_secs(u64::from(self.probes) - 1);
                (Duration::ZERO, passed)
            }
            _ => return None,
        };
        // If the peer was heard since the attempt before the last, the path is slow or lossy, not
        // dead.
        let last_interval = earlier.min(self.rto / 2);
        let heard = self.last_heard();
        (heard >= running.saturating_add(last_interval))
            .then(|| heard.min(running.saturating_add(earlier)))
    }
}

/// The sum of the `count` intervals before one of length `interval`. Each is half as long as the
/// next.
fn halves(interval: Duration, count: u32) -> Duration {
    let mut step = interval;
    let mut sum = Duration::ZERO;
    for _ in 0..count.min(32) {
        step /= 2;
        sum = sum.saturating_add(step);
    }
    sum
}

/// The account of the socket of this network namespace that connects `local` to `peer`. `None` if
/// there is no such socket.
///
/// Asks the kernel once, which takes a few tens of microseconds. A task may call it now and then.
///
/// # Errors
/// What the netlink socket reports; [`io::ErrorKind::Unsupported`] on other
/// systems than Linux.
pub(crate) fn tcp_account(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<TcpAccount>> {
    netlink::tcp_account(local, peer)
}

/// The listening TCP sockets of this network namespace.
pub(crate) fn tcp_listeners() -> io::Result<Vec<TcpAccount>> {
    netlink::tcp_listeners()
}

/// The accounts of all TCP connections (IPv4 and IPv6) of this network namespace, except listeners
/// and those in TIME_WAIT.
///
/// # Errors
/// As [`tcp_account`].
pub(crate) fn tcp_accounts() -> io::Result<Vec<TcpAccount>> {
    netlink::tcp_accounts()
}

#[cfg(test)]
impl TcpAccount {
    /// A connection on which nothing has happened for ten seconds.
    pub(crate) fn quiet(local: SocketAddr, peer: SocketAddr) -> TcpAccount {
        let ago = Duration::from_secs(10);
        TcpAccount {
            cookie: 1,
            local,
            peer,
            inode: 4711,
            uid: 1000,
            state: TcpState::Established,
            timer: TcpTimer::Off,
            retransmits: 0,
            probes: 0,
            backoff: 0,
            receive_queue: 0,
            send_queue: 0,
            not_sent: 0,
            unacked: 0,
            lost: 0,
            congestion_window: 10,
            receive_buffer: 131_072,
            send_buffer: 2_626_560,
            peer_window: Some(65_536),
            own_window: Some(65_536),
            rto: Duration::from_millis(204),
            rtt: Duration::from_micros(40),
            mss: 1448,
            last_data_sent: ago,
            last_data_received: ago,
            last_ack_received: ago,
            busy: Duration::ZERO,
            limited_by_peer_window: Duration::ZERO,
            limited_by_send_buffer: Duration::ZERO,
            bytes_sent: 1000,
            bytes_acked: 1000,
            bytes_received: 1000,
            bytes_retransmitted: 0,
            total_retransmits: 0,
        }
    }
}

#[cfg(test)]
mod judgement_tests;
#[cfg(all(test, target_os = "linux"))]
mod tests;
