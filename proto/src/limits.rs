//! Every limit, with the reason for its value, and what can be configured.

use std::time::Duration;

/// The WebSocket subprotocol with which two endpoints agree on this protocol (RFC 6455, section
/// 1.9).
pub const SUBPROTOCOL: &str = "unstall.v1";

/// A subprotocol that begins with this is the bearer token of a page, which cannot set headers: what
/// follows is the token in base64url without padding (SPEC.md, section 2). No server agrees to it.
pub const BEARER_PREFIX: &str = "unstall.bearer.";

/// The longest bearer token, in bytes. Servers take headers of 8 to 16 KiB; a signed token with many
/// claims has 2.
pub const MAX_BEARER_BYTES: usize = 8_192;

/// What a record costs besides its payload, in bytes of credit and of replay.
///
/// It stands for the places in queues that a message takes, so that a flood of empty messages is
/// bounded as well.
pub const RECORD_OVERHEAD: u64 = 64;

/// The largest payload of one record, in bytes. A larger message travels as several records.
///
/// At 64 KiB the fixed cost of a frame no longer shows. Many large messages have this size, and
/// then arrive as a slice of the received packet.
pub const MAX_RECORD: usize = 64 * 1024;

/// The largest packet, in bytes: a DATA packet with one record of [`MAX_RECORD`] and its headers.
pub const MAX_PACKET: usize = MAX_RECORD + 64;

/// The most that the records of one packet may cost.
///
/// A packet is sent when credit covers all of it. When everything is taken, more than half the
/// window is open, so no packet may cost more than half the smallest window.
pub const MAX_PACKET_COST: u64 = 128 * 1024;

/// The smallest receive window, in bytes: two packets of the highest cost.
pub const MIN_WINDOW: u64 = 2 * MAX_PACKET_COST;

/// The largest receive window, in bytes. A window of more than 1 GiB would bound nothing.
pub const MAX_WINDOW: u64 = 1 << 30;

/// The smallest value that a peer may announce as its largest message, in bytes: one record.
///
/// So a message of up to this size can be accepted before the peer's limit is known.
pub const MIN_MAX_MESSAGE: u64 = MAX_RECORD as u64;

/// The largest value that a peer may announce as its largest message, in bytes. Something larger
/// than 1 GiB is a file, not a message.
pub const MAX_MAX_MESSAGE: u64 = 1 << 30;

/// The longest reason text in a packet, in bytes: the same as in a WebSocket close frame (RFC 6455,
/// section 5.5).
pub const MAX_REASON: usize = 123;

/// The WebSocket close code of a connection that is not needed any more (RFC 6455, section 7.4.1).
pub(crate) const CLOSE_NORMAL: u16 = 1000;

/// The WebSocket close code of a connection whose peer broke the protocol.
pub(crate) const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// The longest time for which a server's REJECT keeps a client away: one day.
///
/// An operator may mean a day. A year is a mistake, or malice.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest window of a server's GOAWAY that is reported: one hour.
///
/// The window spreads the clients over time; an hour spreads 100,000 of them at 28 per second. A
/// client that believed a window of years would stay with a server that is about to end.
pub const MAX_GO_AWAY: Duration = Duration::from_secs(60 * 60);

/// The longest time that a packet can name, in milliseconds: ten years, so that no sum overflows.
///
/// This bounds the field only. [`MAX_RETRY_AFTER`], [`MAX_GO_AWAY`], [`Config::max_close`] and
/// [`Config::session_life`] bound what the times of a peer can cause.
pub(crate) const MAX_MILLIS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// The size up to which a DATA packet is filled, in bytes.
///
/// At 32 KiB the fixed cost of a frame no longer shows, and the packet still fits into the cache of
/// a core.
pub const PACKET_FILL: usize = 32 * 1024;

/// The size of the blocks into which packets are encoded, in bytes: two filled packets, or one with
/// the largest record.
pub(crate) const BLOCK: usize = MAX_PACKET;

/// The size of the blocks into which control packets are encoded, in bytes. Many packets share one
/// allocation, and an idle session keeps one block.
pub(crate) const CONTROL_BLOCK: usize = 128;

/// The size of the pieces in which long payloads are copied, in bytes.
///
/// The C library copies more than this by `rep movsb`. On common processors that takes several
/// times as long when source and target are not aligned alike, and here they never are.
pub const COPY_PIECE: usize = 2 * 1024;

/// The most blocks that are kept to be used again: as many full packets as a first window of 1 MiB lets
/// be under way. With fewer of them, acknowledgements that come together free blocks to the allocator,
/// and the next packets allocate them anew, which costs page faults.
pub(crate) const SPARE_BLOCKS: usize = 32;

/// The most places that an empty queue keeps. It bounds what an idle session keeps after a burst.
pub const SPARE_PLACES: usize = 1024;

/// The memory that a received packet takes besides its bytes: its places in two queues, and the
/// handle that its slices share.
pub(crate) const RECEIVED_PACKET_MEMORY: u64 = 160;

/// The memory that a packet kept for replay takes besides its bytes: its place in the queue. Its
/// bytes share the handle of a block with others.
pub(crate) const SENT_PACKET_MEMORY: u64 = 112;

/// The number that stands for a time in a packet.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(MAX_MILLIS, |millis| millis.min(MAX_MILLIS))
}

/// When a received message counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acknowledge {
    /// When the application has taken it ([`Session::taken`](crate::Session::taken)).
    #[default]
    WhenTaken,
    /// When the application says that it has processed it
    /// ([`Session::acknowledge`](crate::Session::acknowledge)). Taking still renews credit.
    ByHand,
}

/// When the peer's CLOSE is answered with this side's CLOSE. Nothing is accepted for sending after
/// that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerClose {
    /// When everything accepted was sent.
    #[default]
    WhenSent,
    /// When the application says so ([`Session::answer_close`](crate::Session::answer_close)). This
    /// is for an application that still has messages for which the session had no room.
    ByHand,
}

/// What a session may hold, and how long it waits.
///
/// A setter moves a value outside its range to the nearest end of the range.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) window: u64,
    pub(crate) max_window: u64,
    pub(crate) max_message: u64,
    pub(crate) replay: u64,
    pub(crate) ack_bytes: u64,
    pub(crate) ack_records: u64,
    pub(crate) ack_delay: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) session_life: Duration,
    pub(crate) max_close: Duration,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) answer_close: AnswerClose,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            // 100 Mbit/s over 80 ms need no more than 1 MiB.
            window: 1 << 20,
            // 1 Gbit/s over 60 ms needs no more than 8 MiB.
            max_window: 8 << 20,
            // Feeds send much smaller messages, and one of this size is cheap to hold.
            max_message: 8 << 20,
            // Two of the largest messages: one is acknowledged while the next is accepted.
            replay: 16 << 20,
            // An eighth of the first window: the sender's replay buffer is freed in small steps,
            // and there is one ACK for about four DATA packets.
            ack_bytes: 128 * 1024,
            // Tiny messages reach this number before they reach the bytes.
            ack_records: 1024,
            // Long enough to gather messages, and much shorter than what a person notices.
            ack_delay: Duration::from_millis(20),
            // The answer to HELLO takes one round trip and a lookup.
            handshake_timeout: Duration::from_secs(10),
            // Long enough for a deploy, a tunnel, a laptop carried to another room.
            session_life: Duration::from_secs(120),
            // Load balancers give a connection no more than this to drain, by default. A peer whose
            // close takes longer only keeps a session on which nothing more is sent.
            max_close: Duration::from_secs(300),
            acknowledge: Acknowledge::WhenTaken,
            answer_close: AnswerClose::WhenSent,
        }
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Config {
        Config::default()
    }

    /// The first receive window, in bytes of credit. Default 1 MiB; from [`MIN_WINDOW`] to
    /// [`MAX_WINDOW`].
    #[must_use]
    pub fn window(mut self, bytes: u64) -> Config {
        self.window = bytes.clamp(MIN_WINDOW, MAX_WINDOW);
        self
    }

    /// The size up to which the receive window grows, in bytes of credit. Default 8 MiB; from the
    /// first window to [`MAX_WINDOW`]. What was received and not taken never costs more than this
    /// and the records of one largest message.
    #[must_use]
    pub fn max_window(mut self, bytes: u64) -> Config {
        self.max_window = bytes.clamp(MIN_WINDOW, MAX_WINDOW);
        self
    }

    /// The largest message that is accepted from the peer and from the application, in bytes.
    /// Default 8 MiB; up to [`MAX_MAX_MESSAGE`]. It raises the replay limit to what one such message
    /// needs.
    ///
    /// Below [`MIN_MAX_MESSAGE`] the peer is told that value, because it cannot be told less. A
    /// message over the limit then ends the session with `MESSAGE_TOO_LARGE`. What the application
    /// sends is not checked against such a limit.
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> Config {
        self.max_message = bytes.min(MAX_MAX_MESSAGE);
        self
    }

    /// The largest message that the peer is told.
    pub(crate) fn announced_max_message(&self) -> u64 {
        self.max_message.max(MIN_MAX_MESSAGE)
    }

    /// The replay limit: the most that accepted and unacknowledged messages may cost, in bytes of
    /// credit. Default 16 MiB; at least the cost of one largest message and one packet.
    #[must_use]
    pub fn replay(mut self, bytes: u64) -> Config {
        self.replay = bytes;
        self
    }

    /// Acknowledge once the taken messages cost this much, in bytes of credit. Default 128 KiB; at
    /// least 1.
    #[must_use]
    pub fn ack_bytes(mut self, bytes: u64) -> Config {
        self.ack_bytes = bytes.max(1);
        self
    }

    /// Acknowledge once this many records were taken. Default 1,024; at least 1.
    #[must_use]
    pub fn ack_records(mut self, records: u64) -> Config {
        self.ack_records = records.max(1);
        self
    }

    /// Acknowledge a message at the latest this long after it was taken. Default 20 ms.
    #[must_use]
    pub fn ack_delay(mut self, delay: Duration) -> Config {
        self.ack_delay = delay;
        self
    }

    /// How long a client waits for the answer to HELLO. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Config {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a session lives without a connection. Default 120 s; at most ten years. A server
    /// announces it. A client gives up after the shorter one of its own and of what the server
    /// announces.
    #[must_use]
    pub fn session_life(mut self, life: Duration) -> Config {
        self.session_life = life.min(Duration::from_millis(MAX_MILLIS));
        self
    }

    /// The longest close that the peer can ask for: the deadline in its CLOSE is cut to this.
    /// Default 300 s. A deadline that the application on this side gives to
    /// [`close`](crate::Session::close) is not cut.
    #[must_use]
    pub fn max_close(mut self, within: Duration) -> Config {
        self.max_close = within;
        self
    }

    /// When a message counts as acknowledged. Default: when taken.
    #[must_use]
    pub fn acknowledge(mut self, when: Acknowledge) -> Config {
        self.acknowledge = when;
        self
    }

    /// When the peer's CLOSE is answered. Default: when everything accepted was sent.
    #[must_use]
    pub fn answer_close(mut self, when: AnswerClose) -> Config {
        self.answer_close = when;
        self
    }

    /// Raises the limits that others require, in whatever order they were set.
    pub(crate) fn settled(mut self) -> Config {
        self.max_window = self.max_window.max(self.window);
        let least = message_cost(self.announced_max_message()) + MAX_PACKET_COST;
        self.replay = self.replay.max(least);
        self
    }
}

/// The cost of a record with a payload of that length.
#[inline]
pub const fn record_cost(payload: usize) -> u64 {
    payload as u64 + RECORD_OVERHEAD
}

/// The cost of a message of that many bytes: its payload, and the overhead of each of its records.
pub const fn message_cost(bytes: u64) -> u64 {
    let records = if bytes == 0 {
        1
    } else {
        bytes.div_ceil(MAX_RECORD as u64)
    };
    bytes.saturating_add(records.saturating_mul(RECORD_OVERHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_its_range_moves_to_the_nearest_end() {
        let config = Config::new()
            .window(1)
            .max_window(1)
            .max_message(0)
            .replay(0)
            .settled();
        assert_eq!(config.window, MIN_WINDOW);
        assert_eq!(config.max_window, MIN_WINDOW);
        assert_eq!(config.announced_max_message(), MIN_MAX_MESSAGE);
        assert_eq!(
            config.replay,
            MIN_MAX_MESSAGE + RECORD_OVERHEAD + MAX_PACKET_COST
        );
        let config = Config::new().window(u64::MAX).settled();
        assert_eq!((config.window, config.max_window), (MAX_WINDOW, MAX_WINDOW));
    }

    #[test]
    fn the_order_of_setting_does_not_matter() {
        // Seen: the largest window was raised to the first window of before, 1 MiB, when it was
        // set first. A wire vector that asked for 256 KiB showed a window growing past it.
        let one = Config::new()
            .max_window(MIN_WINDOW)
            .window(MIN_WINDOW)
            .replay(0)
            .max_message(MIN_MAX_MESSAGE)
            .settled();
        let other = Config::new()
            .max_message(MIN_MAX_MESSAGE)
            .replay(0)
            .window(MIN_WINDOW)
            .max_window(MIN_WINDOW)
            .settled();
        assert_eq!(one.max_window, MIN_WINDOW);
        assert_eq!(one.replay, message_cost(MIN_MAX_MESSAGE) + MAX_PACKET_COST);
        assert_eq!(
            (one.max_window, one.replay),
            (other.max_window, other.replay)
        );
    }

    #[test]
    fn an_empty_message_costs_one_record() {
        assert_eq!(message_cost(0), 64);
        assert_eq!(message_cost(1), 65);
        assert_eq!(message_cost(64 * 1024), 64 * 1024 + 64);
        assert_eq!(message_cost(64 * 1024 + 1), 64 * 1024 + 1 + 128);
    }
}
