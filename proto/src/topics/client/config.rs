//! What a client may hold, and who publishes.

use super::super::limits::MIN_WINDOW;
use super::super::terms::Publisher;
use crate::limits::{MAX_MAX_MESSAGE, MAX_WINDOW, MIN_MAX_MESSAGE};

/// What a [`Client`](super::Client) may hold, and who publishes.
///
/// A setter moves a value outside its range to the nearest end of the range.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) publisher: Option<Publisher>,
    pub(super) window: u64,
    pub(super) max_message: u64,
    pub(super) unanswered: u64,
}

impl ClientConfig {
    /// The defaults, which each setter names.
    pub fn new() -> ClientConfig {
        ClientConfig {
            publisher: None,
            window: 1 << 20,
            max_message: 64 << 20,
            unanswered: 4 << 20,
        }
    }

    /// Who publishes. Without one, which is the default, a message whose answer was lost with its
    /// connection is [unknown](super::ClientEvent::Unknown): it is not sent again.
    ///
    /// An id or an epoch of zero means none.
    #[must_use]
    pub fn publisher(mut self, publisher: Publisher) -> ClientConfig {
        let named = publisher.id != [0; 16] && publisher.epoch > 0;
        self.publisher = named.then_some(publisher);
        self
    }

    /// The cost of the messages that a subscription holds for the application, from 262,144 to
    /// 1 GiB. 1 MiB by default: it fills a line with 100 ms of delay at 10 MB/s. One message may be
    /// longer.
    #[must_use]
    pub fn window(mut self, bytes: u64) -> ClientConfig {
        self.window = bytes.clamp(MIN_WINDOW, MAX_WINDOW);
        self
    }

    /// The largest message that a subscription delivers, in bytes, from 65,536 to 1 GiB. 64 MiB by
    /// default. A longer one is a [gap](super::super::GapReason::TooLarge).
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> ClientConfig {
        self.max_message = bytes.clamp(MIN_MAX_MESSAGE, MAX_MAX_MESSAGE);
        self
    }

    /// The cost of the published messages that are held until they are answered, up to 1 GiB. 4 MiB
    /// by default. A single message may cost more.
    #[must_use]
    pub fn unanswered(mut self, bytes: u64) -> ClientConfig {
        self.unanswered = bytes.min(MAX_WINDOW);
        self
    }
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig::new()
    }
}
