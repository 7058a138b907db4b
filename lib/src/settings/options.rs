//! What can be set on a connection.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{defaults, messages::Message, settings::Budget};

/// The key of a message for [`Overflow::Conflate`]; `None` for one that must not be replaced.
pub type KeyFn = Arc<dyn Fn(&Message) -> Option<Vec<u8>> + Send + Sync>;

/// What gives way when received messages fill the inbox.
///
/// Each overflow is an [`Event::Overflow`](crate::Event::Overflow), counted in
/// [`Stats`](crate::Stats), and what went missing is marked in the stream by a
/// [`Gap`](crate::Gap) at its place.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Stop reading until the application took something: TCP carries the backpressure to the
    /// peer, nothing is lost. While paused, unsolicited pongs keep the peer's idle timer fed. The
    /// default, because it alone loses nothing.
    #[default]
    Pause,
    /// Drop the oldest queued message for the new one: the freshest data, gaps in the past.
    DropOldest,
    /// Drop the new message: what was queued is delivered, then a gap.
    DropNewest,
    /// Replace the queued message that has the same key, in its place: the latest value of each
    /// key. A quarter of the inbox is left for values that grow. A message without a queued twin,
    /// or too large for its place, waits as under `Pause`.
    Conflate(KeyFn),
    /// Write to a bounded temporary file and read it back in order.
    Spill(Spill),
    /// End the connection with [`ConnectionError::InboxFull`](crate::ConnectionError::InboxFull).
    Disconnect,
}

impl fmt::Debug for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Overflow::Pause => f.write_str("Pause"),
            Overflow::DropOldest => f.write_str("DropOldest"),
            Overflow::DropNewest => f.write_str("DropNewest"),
            Overflow::Conflate(_) => f.write_str("Conflate(…)"),
            Overflow::Spill(spill) => spill.fmt(f),
            Overflow::Disconnect => f.write_str("Disconnect"),
        }
    }
}

/// The file of [`Overflow::Spill`]: nameless, so that it is gone when the process is, however it
/// ended.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `Overflow::Spill`"]
pub struct Spill {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) max_bytes: u64,
    pub(crate) then: SpillFallback,
}

impl Default for Spill {
    /// 1 GiB in the system's temporary directory, then `Pause`.
    fn default() -> Spill {
        Spill {
            directory: None,
            max_bytes: defaults::SPILL_BYTES,
            then: SpillFallback::Pause,
        }
    }
}

impl Spill {
    /// In which directory. Default: the system's temporary directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Spill {
        self.directory = Some(directory.into());
        self
    }

    /// How many bytes the file may have, default 1 GiB. The file counts each message with a header
    /// of 9 bytes.
    pub fn max_bytes(mut self, bytes: u64) -> Spill {
        self.max_bytes = bytes;
        self
    }

    /// What gives way when the file is full or the disk refuses; either is an
    /// [`Event::SpillFailed`](crate::Event::SpillFailed). A full file is used again as soon as it
    /// has room, a disk that refused is not. Default `Pause`.
    pub fn then(mut self, fallback: SpillFallback) -> Spill {
        self.then = fallback;
        self
    }
}

/// What gives way when a spill file cannot take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpillFallback {
    /// As [`Overflow::Pause`].
    #[default]
    Pause,
    /// As [`Overflow::DropNewest`].
    DropNewest,
    /// As [`Overflow::Disconnect`].
    Disconnect,
}

/// Limits, policies and deadlines of a connection.
///
/// Every default stands in [`defaults`] with its reason. A connection's memory is bounded by
/// `inbox_bytes + outbox_bytes`, one message of `max_message_bytes` each way, and 1 MiB of read
/// window, write buffer and messages on their way between them and the queues. A received
/// message of more than 8 KiB may pin more than itself: half as much again in a stream of equals, up
/// to four times its size where a peer mixes long ones with short ones.
///
/// ```
/// # use std::time::Duration;
/// # use unstall::{Options, Overflow};
/// let options = Options::default()
///     .inbox_bytes(1 << 20)
///     .overflow(Overflow::DropOldest)
///     .silence_timeout(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "options do nothing until they are given to a client or a server"]
pub struct Options {
    pub(crate) inbox_bytes: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) fragment_bytes: usize,
    pub(crate) overflow: Overflow,
    pub(crate) connect_timeout: Duration,
    pub(crate) setup_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) silence_timeout: Duration,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) stall_after: Duration,
    pub(crate) pack_delay: Duration,
    pub(crate) budget: Option<Budget>,
    pub(crate) replay_bytes: usize,
    pub(crate) window_bytes: usize,
    pub(crate) session_life: Duration,
    pub(crate) acknowledge_by_hand: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            inbox_bytes: defaults::INBOX_BYTES,
            outbox_bytes: defaults::OUTBOX_BYTES,
            max_message_bytes: defaults::MAX_MESSAGE_BYTES,
            fragment_bytes: defaults::FRAGMENT_BYTES,
            overflow: Overflow::Pause,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            setup_timeout: defaults::SETUP_TIMEOUT,
            ping_interval: defaults::PING_INTERVAL,
            silence_timeout: defaults::SILENCE_TIMEOUT,
            write_timeout: None,
            close_timeout: defaults::CLOSE_TIMEOUT,
            stall_after: defaults::STALL_AFTER,
            pack_delay: Duration::ZERO,
            budget: None,
            replay_bytes: defaults::REPLAY_BYTES,
            window_bytes: defaults::WINDOW_BYTES,
            session_life: defaults::SESSION_LIFE,
            acknowledge_by_hand: false,
        }
    }
}

impl Options {
    /// How many bytes of received messages may wait for the application, each counted with its
    /// payload and [`MESSAGE_OVERHEAD_BYTES`](defaults::MESSAGE_OVERHEAD_BYTES). One message is
    /// always taken, whatever its size. Default 4 MiB; at most 4 GiB.
    pub fn inbox_bytes(mut self, bytes: usize) -> Options {
        self.inbox_bytes = bytes;
        self
    }

    /// How many bytes of sent messages may wait for the socket, counted as in the inbox. One
    /// message is always taken. Default 512 KiB; 1 byte to 4 GiB.
    pub fn outbox_bytes(mut self, bytes: usize) -> Options {
        self.outbox_bytes = bytes.clamp(1, u32::MAX as usize);
        self
    }

    /// The largest message, in bytes of payload. Default 16 MiB; from 0 to `usize::MAX`, which is no
    /// limit.
    ///
    /// - Received: a longer message ends the connection, with close code 1009 and
    ///   [`ConnectionError::MessageTooLarge`](crate::ConnectionError::MessageTooLarge), as soon as
    ///   the length in a frame's header shows it. Messages before it are delivered.
    /// - Sent: a longer message comes back from `send` with
    ///   [`SendRefusal::TooLarge`](crate::SendRefusal::TooLarge), and the connection goes on. In a
    ///   session the smaller limit of both sides counts.
    ///
    /// Memory is taken as the bytes of a message arrive, at most twice as much (1 MiB once 64 KiB
    /// have come), and counts in the [budget](Options::budget). A high limit does not let a peer
    /// reserve memory by announcing a length.
    pub fn max_message_bytes(mut self, bytes: usize) -> Options {
        self.max_message_bytes = bytes;
        self
    }

    /// Longer messages travel as several frames of this size (RFC 6455 §5.4). Default 256 KiB; at
    /// least 1 KiB.
    pub fn fragment_bytes(mut self, bytes: usize) -> Options {
        self.fragment_bytes = bytes.max(1024);
        self
    }

    /// What gives way when the inbox is full. Default [`Overflow::Pause`].
    pub fn overflow(mut self, overflow: Overflow) -> Options {
        self.overflow = overflow;
        self
    }

    /// One deadline over name resolution, TCP, proxy, TLS and upgrade. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = timeout;
        self
    }

    /// How long the `on_connect` hook may take. Default 60 s.
    pub fn setup_timeout(mut self, timeout: Duration) -> Options {
        self.setup_timeout = timeout;
        self
    }

    /// How often a ping is sent; it measures the round trip and keeps proxies from idling out.
    /// Default 10 s.
    pub fn ping_interval(mut self, interval: Duration) -> Options {
        self.ping_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// A peer from which not one byte came for this long is gone. Any byte is life, so a long
    /// transfer is not silence; a peer that has nothing to say answers pings. Time in which this
    /// side does not read does not count. Keep it above two ping intervals. Default 30 s.
    ///
    /// On an adopted `WebSocketStream` only whole messages can be seen: set it above the longest
    /// transfer of one message.
    pub fn silence_timeout(mut self, timeout: Duration) -> Options {
        self.silence_timeout = timeout;
        self
    }

    /// End the connection when the peer takes no byte for this long while data waits, though it
    /// is alive. Default `None`: a live peer that does not read is reported as stalled, never cut.
    ///
    /// Whether it is alive the kernel tells on Linux. Where nothing can tell (other systems, adopted
    /// streams over something else than TCP or its TLS by tokio-rustls), `None` means 60 s.
    pub fn write_timeout(mut self, timeout: Option<Duration>) -> Options {
        self.write_timeout = timeout;
        self
    }

    /// From `close` to the end of the connection, whatever the peer does. Default 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Options {
        self.close_timeout = timeout;
        self
    }

    /// A wait is an [`Event::Stalled`](crate::Event::Stalled) after this long. Default 1 s.
    pub fn stall_after(mut self, after: Duration) -> Options {
        self.stall_after = after;
        self
    }

    /// Hold a small batch back for at most this long so that more messages share its write.
    /// Default zero: what is queued when the socket is ready goes out at once.
    pub fn pack_delay(mut self, delay: Duration) -> Options {
        self.pack_delay = delay;
        self
    }

    /// Shares a bound on the bytes of many connections. Default: none, except on a server, whose
    /// connections share one of 768 MiB.
    pub fn budget(mut self, budget: Budget) -> Options {
        self.budget = Some(budget);
        self
    }

    /// Of a session: how many bytes of sent messages are kept until the peer's application has
    /// taken them. Full means that sending waits. Default 32 MiB.
    pub fn replay_bytes(mut self, bytes: usize) -> Options {
        self.replay_bytes = bytes;
        self
    }

    /// Of a session: how many bytes the peer may send ahead of this application, at most. The
    /// window grows up to it while it is what limits the stream. Default 8 MiB; at least 256 KiB.
    pub fn window_bytes(mut self, bytes: usize) -> Options {
        self.window_bytes = bytes;
        self
    }

    /// How long a session lives without a connection; the shorter time of both sides counts.
    /// Default 2 min.
    pub fn session_life(mut self, life: Duration) -> Options {
        self.session_life = life;
        self
    }

    /// Of a session: a received message counts as delivered when the application says so with
    /// [`Receiver::acknowledge`](crate::Receiver::acknowledge), not already when it is handed
    /// out. Default off.
    pub fn acknowledge_by_hand(mut self, by_hand: bool) -> Options {
        self.acknowledge_by_hand = by_hand;
        self
    }

    /// What the session protocol is told of all this.
    pub(crate) fn session_config(&self) -> unstall_proto::Config {
        let acknowledge = match self.acknowledge_by_hand {
            true => unstall_proto::Acknowledge::ByHand,
            false => unstall_proto::Acknowledge::WhenTaken,
        };
        let window = self.window_bytes as u64;
        unstall_proto::Config::new()
            .window(window.min(defaults::FIRST_WINDOW_BYTES))
            .max_window(window)
            .max_message(self.max_message_bytes as u64)
            .replay(self.replay_bytes as u64)
            .handshake_timeout(self.connect_timeout)
            .session_life(self.session_life)
            .acknowledge(acknowledge)
            // What waits in the outbox was accepted as well.
            .answer_close(unstall_proto::AnswerClose::ByHand)
    }
}
