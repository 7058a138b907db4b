//! The options of compression (permessage-deflate, RFC 7692).

use crate::defaults;

/// How messages are compressed, if the peer agrees: permessage-deflate (RFC 7692).
///
/// Give it to [`Options::compression`](crate::Options::compression). A client then offers it, and a
/// server agrees to a client's offer. Without an agreement the connection is not compressed.
/// `is_compressed` of each handle says what came of it.
///
/// # Memory
/// A connection keeps the last `2^window_bits` bytes that each side compressed, 4 KiB each by
/// default, while messages come. They count in its [budget](crate::Budget). An idle connection keeps
/// only what the peer compressed, and keeps that compressed itself. The working memory of the
/// compressor, about 300 KiB, is lent to one connection after the other. The process has about one
/// for each processor.
///
/// # Security
/// Where one connection carries a secret together with data that an attacker chooses, the length of
/// compressed messages can tell the attacker the secret (as CRIME and BREACH do). Do not compress
/// there, or turn [`context_takeover`](Compression::context_takeover) off and keep both in different
/// messages.
///
/// ```
/// use unstall::{Compression, Options};
///
/// let options = Options::default().compression(Compression::default().level(6));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it does nothing until it is given to `Options::compression`"]
pub struct Compression {
    pub(crate) level: u32,
    pub(crate) window_bits: u8,
    pub(crate) context_takeover: bool,
    pub(crate) smallest: usize,
}

impl Default for Compression {
    fn default() -> Compression {
        Compression {
            level: defaults::COMPRESSION_LEVEL,
            window_bits: defaults::COMPRESSION_WINDOW_BITS,
            context_takeover: true,
            smallest: defaults::COMPRESSION_SMALLEST_BYTES,
        }
    }
}

impl Compression {
    /// How hard this side compresses: from 1, the fastest, to 9, the smallest. Default 1. The peer
    /// chooses its own level.
    pub fn level(mut self, level: u32) -> Compression {
        self.level = level.clamp(1, 9);
        self
    }

    /// The largest window of both directions, as a power of two: 8 (256 bytes) to 15 (32 KiB).
    /// Default 12 (4 KiB). The smaller window of both sides counts.
    ///
    /// If the peer cannot bound its own window, it is asked not to use the context of earlier
    /// messages. So the memory of this side stays bounded.
    pub fn window_bits(mut self, bits: u8) -> Compression {
        self.window_bits = bits.clamp(8, 15);
        self
    }

    /// Whether a message may refer to the messages before it. Default `true`: messages that are like
    /// each other then become far smaller. With `false` in either direction, each message is
    /// compressed by itself, and no memory is kept between messages.
    pub fn context_takeover(mut self, takeover: bool) -> Compression {
        self.context_takeover = takeover;
        self
    }

    /// Shorter messages, in bytes, are sent as they are. Default 128. In a session it is the size of
    /// a packet, which holds many short messages.
    pub fn smallest(mut self, bytes: usize) -> Compression {
        self.smallest = bytes;
        self
    }
}
