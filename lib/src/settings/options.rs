//! The options of a connection.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::{Budget, Compression};
use crate::{defaults, messages::Message};

/// Returns the key of a message for [`Overflow::Conflate`], or `None` for a message that must not be
/// replaced.
pub type KeyFn = Arc<dyn Fn(&Message) -> Option<Vec<u8>> + Send + Sync>;

/// What happens when received messages fill the inbox.
///
/// Each overflow is told as an [`Event::Overflow`](crate::Event::Overflow) and counted in
/// [`Stats`](crate::Stats). Messages that are dropped are marked in the received stream by a
/// [`Gap`](crate::Gap) at their place.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Stops reading until the application receives messages. TCP then slows the peer down. While
    /// reading is paused, pongs that nobody asked for keep the peer from closing an idle connection.
    /// This is the default, because it alone loses nothing.
    #[default]
    Pause,
    /// Drops the oldest queued message to make room for the new one.
    DropOldest,
    /// Drops the new message. The application receives what was queued, and then a gap.
    DropNewest,
    /// Keeps the latest message of each key: a new message takes the place of the queued one with the
    /// same key. A quarter of the inbox is kept free for messages that are larger than those they
    /// replace. A message that replaces none, or is too large for its place, waits as under `Pause`.
    Conflate(KeyFn),
    /// Writes messages to a temporary file of bounded size, and reads them back in order.
    #[cfg(feature = "spill")]
    Spill(Spill),
    /// Ends the connection with [`ConnectionError::InboxFull`](crate::ConnectionError::InboxFull).
    Disconnect,
}

impl fmt::Debug for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Overflow::Pause => f.write_str("Pause"),
            Overflow::DropOldest => f.write_str("DropOldest"),
            Overflow::DropNewest => f.write_str("DropNewest"),
            Overflow::Conflate(_) => f.write_str("Conflate(…)"),
            #[cfg(feature = "spill")]
            Overflow::Spill(spill) => spill.fmt(f),
            Overflow::Disconnect => f.write_str("Disconnect"),
        }
    }
}

/// The file of [`Overflow::Spill`]. It has no name, so the system removes it when the process ends,
/// however it ends.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `Overflow::Spill`"]
pub struct Spill {
    pub(crate) directory: Option<PathBuf>,
    pub(crate) max_bytes: u64,
    pub(crate) then: SpillFallback,
}

impl Default for Spill {
    /// A file of 1 GiB in the system's temporary directory. When it is full, reading pauses.
    fn default() -> Spill {
        Spill {
            directory: None,
            max_bytes: defaults::SPILL_BYTES,
            then: SpillFallback::Pause,
        }
    }
}

impl Spill {
    /// The directory of the file. Default: the system's temporary directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Spill {
        self.directory = Some(directory.into());
        self
    }

    /// The largest size of the file, in bytes. Default 1 GiB. Each message takes 9 bytes more than
    /// its payload.
    pub fn max_bytes(mut self, bytes: u64) -> Spill {
        self.max_bytes = bytes;
        self
    }

    /// What happens when the file is full or the disk fails. Default `Pause`.
    ///
    /// Both are told as an [`Event::SpillFailed`](crate::Event::SpillFailed). A full file is used
    /// again as soon as it has room. A disk that failed is not used again.
    pub fn then(mut self, fallback: SpillFallback) -> Spill {
        self.then = fallback;
        self
    }
}

/// What happens when a spill file cannot take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpillFallback {
    /// The same as [`Overflow::Pause`].
    #[default]
    Pause,
    /// The same as [`Overflow::DropNewest`].
    DropNewest,
    /// The same as [`Overflow::Disconnect`].
    Disconnect,
}

/// Limits, policies and timeouts of a connection.
///
/// The reason for each default stands in [`defaults`]. A value outside of a range that is given here
/// counts as the nearest one inside. `Duration::MAX` means forever.
///
/// # Memory
/// A connection takes at most `inbox_bytes + outbox_bytes`, twice one message of
/// `max_message_bytes` that is being received and one that is being sent, and 1 MiB for its read
/// window, its write buffer, and messages between these and the queues. A
/// [budget](Options::budget) bounds many connections together.
///
/// A received message of more than 8 KiB keeps the buffer that it was read into. That is one and a
/// half times its size where messages are of one length, and at most four times where a peer mixes
/// long messages with short ones.
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
    pub(crate) compression: Option<Compression>,
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
    /// On a server, connections whose request has this path are listed nowhere.
    #[cfg(feature = "status")]
    pub(crate) unlisted: Option<&'static str>,
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
            compression: None,
            overflow: Overflow::Pause,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            setup_timeout: defaults::SETUP_TIMEOUT,
            ping_interval: defaults::PING_INTERVAL,
            silence_timeout: defaults::SILENCE_TIMEOUT,
            write_timeout: Some(defaults::WRITE_TIMEOUT),
            close_timeout: defaults::CLOSE_TIMEOUT,
            stall_after: defaults::STALL_AFTER,
            pack_delay: Duration::ZERO,
            budget: None,
            #[cfg(feature = "status")]
            unlisted: None,
            replay_bytes: defaults::REPLAY_BYTES,
            window_bytes: defaults::WINDOW_BYTES,
            session_life: defaults::SESSION_LIFE,
            acknowledge_by_hand: false,
        }
    }
}

impl Options {
    /// How many bytes of received messages may wait for the application. Default 4 MiB.
    ///
    /// Each message counts with its payload and
    /// [`MESSAGE_OVERHEAD_BYTES`](defaults::MESSAGE_OVERHEAD_BYTES). An empty inbox takes one message
    /// of any size.
    pub fn inbox_bytes(mut self, bytes: usize) -> Options {
        self.inbox_bytes = bytes;
        self
    }

    /// How many bytes of sent messages may wait for the socket. Default 512 KiB; 1 byte to 4 GiB.
    ///
    /// Messages count as in the inbox. An empty outbox takes one message of any size.
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

    /// Longer messages are sent as several frames of this size (RFC 6455 section 5.4). Default
    /// 256 KiB; at least 1 KiB.
    pub fn fragment_bytes(mut self, bytes: usize) -> Options {
        self.fragment_bytes = bytes.max(1024);
        self
    }

    /// Compresses messages (permessage-deflate, RFC 7692) if the peer agrees. Default off; `None`
    /// turns it off again.
    ///
    /// All limits and counters go on counting the bytes of messages as the application sees them. A
    /// compressed message that is longer than [`max_message_bytes`](Options::max_message_bytes) is
    /// refused as soon as so many bytes were inflated.
    ///
    /// It has no effect on [`Connection::from_websocket`](crate::Connection::from_websocket):
    /// tungstenite, which goes on reading such a stream, refuses compressed frames.
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Options {
        self.compression = compression.into();
        self
    }

    /// What happens when the inbox is full. Default [`Overflow::Pause`].
    pub fn overflow(mut self, overflow: Overflow) -> Options {
        self.overflow = overflow;
        self
    }

    /// The timeout of each attempt to connect: headers, name resolution, TCP, proxy, TLS and upgrade
    /// together. Default 10 s. Then the attempt fails with
    /// [`ConnectError::Timeout`](crate::ConnectError::Timeout), which names the step.
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = timeout;
        self
    }

    /// The timeout of the [`on_connect`](crate::Client::on_connect) hook. Default 60 s. Then the
    /// connection is closed, and counts as lost.
    pub fn setup_timeout(mut self, timeout: Duration) -> Options {
        self.setup_timeout = timeout;
        self
    }

    /// The time between two pings. Default 10 s; at least 1 ms.
    ///
    /// A ping measures the round trip, and keeps proxies from closing an idle connection.
    pub fn ping_interval(mut self, interval: Duration) -> Options {
        self.ping_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// The connection is lost when not one byte is received for this long. Default 30 s; keep it above
    /// two ping intervals.
    ///
    /// Every byte counts, so a long message is not silence. A peer that sends no messages answers
    /// pings. Time in which this side does not read does not count. On Linux the kernel is asked then: if
    /// the peer's kernel has acknowledged nothing for this long, the connection is lost as well.
    ///
    /// It also bounds how long a broken connection waits for the application. If the inbox is full when
    /// the connection breaks, what the peer had sent before is read as the application makes room. If
    /// it receives nothing for this long, the rest is lost, and the connection ends with
    /// [`ConnectionError::NotReceived`](crate::ConnectionError::NotReceived).
    ///
    /// An adopted `WebSocketStream` shows whole messages only. Set a time above the longest transfer
    /// of one message there.
    pub fn silence_timeout(mut self, timeout: Duration) -> Options {
        self.silence_timeout = timeout;
        self
    }

    /// Ends the connection when data waits and the peer takes no byte of it for this long, even if the
    /// peer is alive. Default 2 minutes: a peer that asks for much and never reads would hold memory for
    /// ever. Until then it is reported as stalled. With `None` a live peer may take as long as it likes.
    ///
    /// On Linux the kernel tells whether the peer is alive. On other systems, and for adopted streams
    /// over anything but TCP or tokio-rustls, nothing can tell. There `None` means 60 s.
    pub fn write_timeout(mut self, timeout: Option<Duration>) -> Options {
        self.write_timeout = timeout;
        self
    }

    /// The longest time from `close` to the end of the connection, whatever the peer does. Default
    /// 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Options {
        self.close_timeout = timeout;
        self
    }

    /// A wait that lasts this long is reported as an [`Event::Stalled`](crate::Event::Stalled).
    /// Default 1 s.
    pub fn stall_after(mut self, after: Duration) -> Options {
        self.stall_after = after;
        self
    }

    /// Holds a small batch of messages back for at most this long, so that more messages share one
    /// write. Default zero: what is queued is written as soon as the socket is ready.
    pub fn pack_delay(mut self, delay: Duration) -> Options {
        self.pack_delay = delay;
        self
    }

    /// Bounds the bytes of many connections together: see [`Budget`]. Default: none for a client. A
    /// server gives its connections one of 768 MiB.
    pub fn budget(mut self, budget: Budget) -> Options {
        self.budget = Some(budget);
        self
    }

    /// How many bytes of sent messages a session keeps until they are acknowledged. Default 32 MiB;
    /// at least what one message of `max_message_bytes` needs. When they are full, sending waits.
    pub fn replay_bytes(mut self, bytes: usize) -> Options {
        self.replay_bytes = bytes;
        self
    }

    /// How many bytes a session's peer may send ahead of this application, at most. Default 8 MiB; at
    /// least 256 KiB.
    ///
    /// The window begins at 1 MiB, and grows while it is what limits the stream.
    pub fn window_bytes(mut self, bytes: usize) -> Options {
        self.window_bytes = bytes;
        self
    }

    /// How long a session lives without a connection. Default 2 minutes. The shorter time of both
    /// sides counts.
    pub fn session_life(mut self, life: Duration) -> Options {
        self.session_life = life;
        self
    }

    /// In a session, a received message counts as delivered once the application calls
    /// [`Receiver::acknowledge`](crate::Receiver::acknowledge), and not as soon as the application
    /// receives it. Default off.
    pub fn acknowledge_by_hand(mut self, by_hand: bool) -> Options {
        self.acknowledge_by_hand = by_hand;
        self
    }

    /// The options of the session protocol.
    pub(crate) fn session_config(&self) -> unstall_proto::Config {
        let acknowledge = match self.acknowledge_by_hand {
            true => unstall_proto::Acknowledge::ByHand,
            false => unstall_proto::Acknowledge::WhenTaken,
        };
        let acknowledge_bytes = match self.compression {
            Some(_) => defaults::ACKNOWLEDGE_COMPRESSED_BYTES,
            None => defaults::ACKNOWLEDGE_BYTES,
        };
        let window = self.window_bytes as u64;
        unstall_proto::Config::new()
            .window(window.min(defaults::FIRST_WINDOW_BYTES))
            .max_window(window)
            .max_message(self.max_message_bytes as u64)
            .replay(self.replay_bytes as u64)
            .ack_bytes(acknowledge_bytes)
            .handshake_timeout(self.connect_timeout)
            .session_life(self.session_life)
            .acknowledge(acknowledge)
            // The outbox may hold messages that the session has not accepted yet.
            .answer_close(unstall_proto::AnswerClose::ByHand)
    }
}
