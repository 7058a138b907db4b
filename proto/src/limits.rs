//! Every limit, with the reason for its value.

use std::time::Duration;

/// The subprotocol by which two endpoints agree on this protocol (RFC 6455, section 1.9).
pub const SUBPROTOCOL: &str = "unstall.v1";

/// What a record costs beside its payload, in bytes of credit and of replay.
///
/// It is what a message that travels alone takes from its receiver: the entry in the queue and
/// the handle of the shared buffer. So a flood of empty messages is bounded as well.
pub const RECORD_OVERHEAD: u64 = 64;

/// The largest payload of one record, in bytes; a larger message travels as several records.
///
/// 64 KiB is where a frame's own cost no longer shows, and a common size of large messages,
/// which then arrive as a slice of the received packet.
pub const MAX_RECORD: usize = 64 * 1024;

/// The largest packet, in bytes: a data packet with one record of [`MAX_RECORD`] and its headers.
pub const MAX_PACKET: usize = MAX_RECORD + 64;

/// The most that the records of one packet may cost.
///
/// A packet is sent when credit covers all of it, so it must never cost more than half the
/// smallest window, which is what is always renewed in the end.
pub const MAX_PACKET_COST: u64 = 128 * 1024;

/// The smallest receive window, in bytes: two packets of the highest cost.
pub const MIN_WINDOW: u64 = 2 * MAX_PACKET_COST;

/// The largest receive window, in bytes. Past 1 GiB it bounds nothing.
pub const MAX_WINDOW: u64 = 1 << 30;

/// The smallest value that a peer may announce as its largest message, in bytes: one record.
///
/// So a message up to this size can be accepted before the peer's limit is known.
pub const MIN_MAX_MESSAGE: u64 = MAX_RECORD as u64;

/// The largest value of the largest message, in bytes. Past 1 GiB a message is a file.
pub const MAX_MAX_MESSAGE: u64 = 1 << 30;

/// The longest reason text in a packet, in bytes, as in a WebSocket close frame
/// (RFC 6455, section 5.5).
pub const MAX_REASON: usize = 123;

/// The WebSocket close code of a connection that has done its work (RFC 6455, section 7.4.1).
pub(crate) const CLOSE_NORMAL: u16 = 1000;

/// The WebSocket close code of a connection whose peer broke the protocol.
pub(crate) const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// The longest wait before another attempt that a server's REJECT can cause: one day.
///
/// An operator may mean a day; a year is a mistake, or malice.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest window of a server's GOAWAY: one hour.
///
/// A window spreads clients, and an hour spreads 100,000 of them at 28 a second. Whoever is told
/// to move within years would stay with a server that is about to end.
pub const MAX_GO_AWAY: Duration = Duration::from_secs(60 * 60);

/// The longest time that a packet can name: ten years, so that no sum overflows.
///
/// It bounds the field. What a peer's time can cause is bounded by [`MAX_RETRY_AFTER`],
/// [`MAX_GO_AWAY`], [`Config::max_close`] and [`Config::session_life`].
pub(crate) const MAX_MILLIS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// The fill at which a data packet is sealed, in bytes.
///
/// A frame's fixed cost no longer shows at 32 KiB, and the packet still fits a core's cache.
pub const PACKET_FILL: usize = 32 * 1024;

/// The size of the blocks that packets are encoded into, in bytes: two filled packets, or one with
/// the largest record.
pub(crate) const BLOCK: usize = MAX_PACKET;

/// Blocks kept to be used again: those of one message of 1 MiB.
pub(crate) const SPARE_BLOCKS: usize = 16;

/// Places that an empty queue may keep. A session at rest keeps what its queues once grew to; this
/// bounds it.
pub(crate) const SPARE_PLACES: usize = 1024;

/// The memory that a received packet takes besides its bytes: its places in two queues, and the
/// handle that its slices share.
pub(crate) const RECEIVED_PACKET_MEMORY: u64 = 160;

/// The memory that a packet kept for replay takes besides its bytes: its place in the queue. Its
/// bytes share the handle of a block with others.
pub(crate) const SENT_PACKET_MEMORY: u64 = 112;

/// A time as a packet carries it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(MAX_MILLIS, |millis| millis.min(MAX_MILLIS))
}

/// When a received message counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When the application has taken it ([`Session::taken`](crate::Session::taken)).
    #[default]
    WhenTaken,
    /// When the application says so ([`Session::acknowledge`](crate::Session::acknowledge)),
    /// that is when it was processed. Taking still renews credit.
    ByHand,
}

/// When the peer's CLOSE is answered with this side's own, after which nothing more is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerClose {
    /// When everything accepted by the session was sent.
    #[default]
    WhenSent,
    /// When the application says so ([`Session::answer_close`](crate::Session::answer_close)): for
    /// one that has promised to deliver messages for which the session had no room yet.
    ByHand,
}

/// What a session may hold, and how long it waits.
///
/// Each setter moves a value outside its range to the nearest end of the range.
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
            // 1 MiB covers 100 Mbit/s over 80 ms without growing.
            window: 1 << 20,
            // 8 MiB covers 1 Gbit/s over 60 ms.
            max_window: 8 << 20,
            // Well above what feeds send, and still cheap to hold once.
            max_message: 8 << 20,
            // Two of the largest messages: one on its way, one being accepted.
            replay: 16 << 20,
            // An eighth of the first window: the sender's replay is freed in small steps, and an
            // acknowledgement is one packet for about four data packets.
            ack_bytes: 128 * 1024,
            // What a receiver of tiny messages reaches before the bytes.
            ack_records: 1024,
            // Long enough to gather, short against any wait that a person notices.
            ack_delay: Duration::from_millis(20),
            // The answer to HELLO takes one round trip and a lookup.
            handshake_timeout: Duration::from_secs(10),
            // Covers a deploy, a tunnel, a laptop carried to another room.
            session_life: Duration::from_secs(120),
            // The longest that load balancers give a connection to drain by default. A longer
            // close is a peer that keeps a session which may send nothing more.
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

    /// The first receive window, in bytes as credit counts them. Default 1 MiB, from
    /// [`MIN_WINDOW`] to [`MAX_WINDOW`].
    #[must_use]
    pub fn window(mut self, bytes: u64) -> Config {
        self.window = bytes.clamp(MIN_WINDOW, MAX_WINDOW);
        self
    }

    /// How far the receive window may grow, in bytes. Default 8 MiB, from the first window to
    /// [`MAX_WINDOW`]. What waits in the inbox never passes this and one largest message.
    #[must_use]
    pub fn max_window(mut self, bytes: u64) -> Config {
        self.max_window = bytes.clamp(MIN_WINDOW, MAX_WINDOW);
        self
    }

    /// The largest message, in bytes, that is accepted from the peer and from the application.
    /// Default 8 MiB, from [`MIN_MAX_MESSAGE`] to [`MAX_MAX_MESSAGE`]. Raises the replay limit
    /// to what one such message needs.
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> Config {
        self.max_message = bytes.clamp(MIN_MAX_MESSAGE, MAX_MAX_MESSAGE);
        self
    }

    /// The most that accepted and unacknowledged messages may cost, in bytes. Default 16 MiB; at
    /// least what one largest message and one packet cost.
    #[must_use]
    pub fn replay(mut self, bytes: u64) -> Config {
        self.replay = bytes;
        self
    }

    /// Acknowledge once taken messages cost this much, in bytes. Default 128 KiB.
    #[must_use]
    pub fn ack_bytes(mut self, bytes: u64) -> Config {
        self.ack_bytes = bytes.max(1);
        self
    }

    /// Acknowledge once this many records were taken. Default 1,024.
    #[must_use]
    pub fn ack_records(mut self, records: u64) -> Config {
        self.ack_records = records.max(1);
        self
    }

    /// Acknowledge a taken message after this time at the latest. Default 20 ms.
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

    /// How long a session lives without a connection. Default 120 s. A client gives up after the
    /// shorter one of its own and of what the server announces.
    #[must_use]
    pub fn session_life(mut self, life: Duration) -> Config {
        self.session_life = life.min(Duration::from_millis(MAX_MILLIS));
        self
    }

    /// The longest close that the peer can ask for. A deadline in its CLOSE that is later is cut
    /// to this. Default 300 s. The deadline that the application here gives to
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

    /// Raises what other values raise, in whatever order they were set.
    pub(crate) fn settled(mut self) -> Config {
        self.max_window = self.max_window.max(self.window);
        let least = message_cost(self.max_message) + MAX_PACKET_COST;
        self.replay = self.replay.max(least);
        self
    }
}

/// What a record with that payload costs.
#[inline]
pub const fn record_cost(payload: usize) -> u64 {
    payload as u64 + RECORD_OVERHEAD
}

/// What a message of that many bytes costs: its payload and the overhead of each of its records.
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
        assert_eq!(config.max_message, MIN_MAX_MESSAGE);
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
