//! What a log keeps, and for how long.

use std::time::Duration;

use crate::{defaults, store::Publication};

/// How much a log keeps, and what it takes.
///
/// The oldest messages are removed first. Each message costs its payload, its topic, and 64 bytes.
/// A value outside of a range that is given here counts as the nearest one inside.
///
/// The reason for each default stands in [`defaults`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing until a store is made with it"]
pub struct Limits {
    /// `None`: the default of the store.
    max_bytes: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_message_bytes: usize,
    pub(crate) once: Duration,
    pub(crate) max_publishers: usize,
    /// What a generation of the embedded store costs, if it is not its part of `max_bytes`.
    #[cfg(all(test, feature = "embedded"))]
    pub(crate) step: Option<u64>,
}

impl Default for Limits {
    /// As many bytes as the store has by default, and no limit by age.
    fn default() -> Limits {
        Limits {
            max_bytes: None,
            max_age: None,
            max_message_bytes: defaults::MAX_MESSAGE_BYTES,
            once: defaults::ONCE,
            max_publishers: defaults::MAX_PUBLISHERS,
            #[cfg(all(test, feature = "embedded"))]
            step: None,
        }
    }
}

impl Limits {
    /// The most that the messages cost together, in bytes. Default: 64 MiB in memory, and 1 GiB on a
    /// disk. At least 1 in memory, and 16 MiB on a disk.
    pub fn max_bytes(mut self, bytes: u64) -> Limits {
        self.max_bytes = Some(bytes);
        self
    }

    /// Messages older than this are removed. At least 1 ms. `None` keeps them as long as there is
    /// room. Default `None`.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Limits {
        self.max_age = age.into().map(|age| age.max(Duration::from_millis(1)));
        self
    }

    /// The largest payload, in bytes. Default 16 MiB. A message that costs more than
    /// [`max_bytes`](Limits::max_bytes) is too large as well.
    pub fn max_message_bytes(mut self, bytes: usize) -> Limits {
        self.max_message_bytes = bytes;
        self
    }

    /// How long a publisher's numbers are remembered after its last message. At least 1 ms. Default
    /// one hour.
    ///
    /// A message that is sent again within this time is stored once. The remembered numbers outlive
    /// the messages.
    pub fn once(mut self, duration: Duration) -> Limits {
        self.once = duration.max(Duration::from_millis(1));
        self
    }

    /// The limits with a value for the bytes: the one that was set, within a range, or the default.
    pub(crate) fn resolved(mut self, default: u64, least: u64) -> Limits {
        let bytes = self.max_bytes.unwrap_or(default).max(least);
        self.max_bytes = Some(bytes);
        self
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(u64::MAX)
    }

    /// Whether a message is small enough.
    pub(crate) fn takes(&self, publication: &Publication) -> bool {
        publication.payload.len() <= self.max_message_bytes && publication.cost() <= self.bytes()
    }

    /// How many publishers are remembered. At least 1. Default 100,000.
    ///
    /// If so many have published within [`once`](Limits::once), messages of another one are refused
    /// as [`Refusal::Full`](unstall_proto::topics::Refusal::Full). None of them is forgotten earlier,
    /// because its messages could then be stored twice.
    pub fn max_publishers(mut self, count: usize) -> Limits {
        self.max_publishers = count.max(1);
        self
    }
}
