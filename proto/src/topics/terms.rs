//! Words that client and server exchange (SPEC-TOPICS.md, "Packets"), with their numbers on the wire.

use super::position::{Offset, Position, StoredAt};

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first message that the log has.
    Beginning,
    /// Behind the last message that the log has.
    Now,
    /// Behind a position.
    After(Position),
    /// With the last messages of the filter, this many or fewer. At least 1.
    Last(u32),
    /// With the latest message of each topic, then what follows. A snapshot that was cut off goes on
    /// where it was.
    Latest(Option<Snapshot>),
    /// With the first message that was stored at this time or later.
    Since(StoredAt),
}

/// A snapshot of the latest messages that was cut off before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a place in a snapshot is just these two"
)]
pub struct Snapshot {
    /// The last message that the log had when the snapshot was made. If the log has lost it, the
    /// latest messages are others, also of topics that are behind `through`.
    pub end: Position,
    /// The latest messages up to this offset have come.
    pub through: Offset,
}

/// How safe a message is once it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In the memory of one process.
    Memory = 0,
    /// On the disk of one machine, synced.
    Disk = 1,
    /// In the memory of a quorum of machines. They sync later.
    Quorum = 2,
    /// On the disks of a quorum of machines, synced.
    QuorumDisk = 3,
    /// On one machine, which syncs later.
    DiskLater = 4,
}

/// Why a message was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The publisher may not publish to this topic.
    #[error("publishing to this topic is not allowed; use another topic or another token")]
    NotAllowed = 1,
    /// The topic is not a valid name.
    #[error("the topic is not a valid name")]
    InvalidTopic = 2,
    /// The message is larger than the log takes.
    #[error("the message is larger than the log takes")]
    TooLarge = 3,
    /// The store takes no more for now.
    #[error("the store is full; try again when it has room")]
    Full = 4,
    /// A newer epoch of this publisher has published.
    #[error("another process publishes under the same id, with a higher epoch")]
    Fenced = 5,
    /// The token has expired.
    #[error("the token has expired; try again with a new one")]
    Expired = 6,
    /// The store gave no answer. The message may be stored.
    #[error("the store gave no answer, so the message may be stored or not")]
    Unknown = 7,
    /// The store cannot be reached. The message is not stored.
    #[error("the store cannot be reached; try again later")]
    Unavailable = 8,
}

/// Why messages are not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// Retention removed them before they were read.
    Removed = 1,
    /// The address serves another log than the position names.
    AnotherLog = 2,
    /// The log lost its end.
    Diverged = 3,
    /// The subscription asked to be moved ahead when it lags.
    MovedAhead = 4,
    /// A message is larger than the client accepts.
    TooLarge = 5,
    /// The store cannot read them.
    Damaged = 6,
}

/// A place in a subscription where messages are or may be missing: those with offsets above `after`
/// and up to `through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gap {
    /// Why they are missing.
    pub reason: GapReason,
    /// Whether messages of the filter are missing for sure. If not, there may have been none.
    pub certain: bool,
    /// The place before the gap.
    pub after: Offset,
    /// The place after the gap.
    pub through: Offset,
}

impl Gap {
    /// A gap.
    pub fn new(reason: GapReason, certain: bool, after: Offset, through: Offset) -> Gap {
        Gap {
            reason,
            certain,
            after,
            through,
        }
    }
}

/// Why a subscription is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// The client ended it.
    Unsubscribed = 1,
    /// The topic's final message was delivered.
    Final = 2,
    /// The client may not subscribe to this filter.
    NotAllowed = 3,
    /// The token has expired.
    Expired = 4,
    /// The filter is not a valid one.
    InvalidFilter = 5,
    /// The connection has too many subscriptions.
    TooMany = 6,
    /// The store cannot be read.
    Unavailable = 7,
}

/// Who publishes: an id, and the epoch of its numbers. Whatever is published again with the same
/// number is stored once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a publisher is just these two")]
pub struct Publisher {
    /// 128 random bits, or bits made from something else that is unique. Never all zero.
    pub id: [u8; 16],
    /// Higher each time that the publisher has lost its numbers. At least 1.
    pub epoch: u64,
}

impl std::fmt::Debug for Publisher {
    // Who knows an id can fence its publisher, so it is not printed whole.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, ..] = self.id;
        write!(f, "Publisher({a:02x}{b:02x}…, epoch {})", self.epoch)
    }
}
