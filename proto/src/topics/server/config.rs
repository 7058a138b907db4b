//! What a server's side of a connection may hold.

use super::super::limits::MIN_PUBLISH_WINDOW;
use crate::limits::{MAX_MAX_MESSAGE, MAX_WINDOW, MIN_MAX_MESSAGE};
use crate::util::cut_reason;

/// What the server's side of a connection may hold. All connections share one, by `Arc`.
///
/// A setter moves a value outside its range to the nearest end of the range.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub(super) name: String,
    pub(super) subscriptions: u32,
    pub(super) max_message: u64,
    pub(super) publish_window: u64,
    pub(super) read_bytes: usize,
    pub(super) hand_bytes: u64,
    pub(super) reads: u32,
}

impl ServerConfig {
    /// The defaults, which each setter names.
    pub fn new() -> ServerConfig {
        ServerConfig {
            name: String::new(),
            subscriptions: 1_000,
            max_message: 64 << 20,
            publish_window: 1 << 20,
            read_bytes: 256 << 10,
            hand_bytes: 1 << 20,
            reads: 4,
        }
    }

    /// The name of the node, for people who look for a fault. At most 123 bytes; the default is
    /// none.
    #[must_use]
    pub fn name(mut self, name: &str) -> ServerConfig {
        self.name = cut_reason(name).to_owned();
        self
    }

    /// How many subscriptions a connection may have, at least 1. 1,000 by default: an idle one takes
    /// some hundred bytes.
    #[must_use]
    pub fn subscriptions(mut self, count: u32) -> ServerConfig {
        self.subscriptions = count.max(1);
        self
    }

    /// The largest message that a client may publish, in bytes, from 65,536 to 1 GiB. 64 MiB by
    /// default.
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> ServerConfig {
        self.max_message = bytes.clamp(MIN_MAX_MESSAGE, MAX_MAX_MESSAGE);
        self
    }

    /// The cost of the messages that a client may have published without an answer, from 262,144
    /// to 1 GiB. 1 MiB by default: it bounds what a connection holds, and fills a line with 100 ms
    /// of delay at 10 MB/s.
    #[must_use]
    pub fn publish_window(mut self, bytes: u64) -> ServerConfig {
        self.publish_window = bytes.clamp(MIN_PUBLISH_WINDOW, MAX_WINDOW);
        self
    }

    /// The most bytes of one read, if no single message is longer. At least 1,024; 256 KiB by
    /// default.
    #[must_use]
    pub fn read_bytes(mut self, bytes: usize) -> ServerConfig {
        self.read_bytes = bytes.max(1024);
        self
    }

    /// The bytes of blocks that a connection may have in hand before it reads no more. At least
    /// 1,024; 1 MiB by default. Each read under way may pass it by one block.
    #[must_use]
    pub fn hand_bytes(mut self, bytes: u64) -> ServerConfig {
        self.hand_bytes = bytes.max(1024);
        self
    }

    /// How many reads of a connection may be under way at a time, at least 1. 4 by default.
    #[must_use]
    pub fn reads(mut self, count: u32) -> ServerConfig {
        self.reads = count.max(1);
        self
    }
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig::new()
    }
}
