//! The defaults and fixed limits of logs, each with its reason.

use std::time::Duration;

/// What the messages of a log in memory may cost, in bytes. A log lives beside the application, so
/// it takes little enough to go unnoticed, and holds a minute of 5,000 messages of 200 bytes a second.
pub const MEMORY_BYTES: u64 = 64 << 20;

/// The largest message that a log takes, in bytes. It is the largest message of a connection by
/// default (`unstall::defaults::MAX_MESSAGE_BYTES`), so that whoever can receive can subscribe.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long a publisher's numbers are remembered after its last message. A client that comes back
/// after a restart, a deployment or an outage of the network does so within the hour. A day would
/// need 24 times the publishers to be remembered.
pub const ONCE: Duration = Duration::from_secs(3600);

/// How many publishers are remembered. With [`ONCE`], 27 new ones can come each second. Each takes
/// about 150 bytes, and at most 600.
pub const MAX_PUBLISHERS: usize = 100_000;

/// How many runs of consecutive numbers with consecutive offsets are remembered of a publisher. They
/// tell the offset of a message that is sent again. Those are what was under way when a connection
/// broke, which is a few batches.
pub(crate) const RUNS: usize = 16;

/// The part of [`ONCE`] by which a publisher may be remembered longer, so that its place in the order
/// of forgetting does not change with each message.
pub(crate) const ONCE_STEPS: u64 = 64;

/// A payload below this size is copied when it is kept in memory. A longer one may keep its packet,
/// which is at most 66,560 bytes, and so at most eight times as large.
pub(crate) const COPIED_BYTES: usize = 8 << 10;

/// How many topics a read follows through the index. If a filter matches more, the log is read
/// through, because it takes longer to find the next message among so many.
pub(crate) const FOLLOWED_TOPICS: usize = 1024;

/// How many topics a read looks at to find those that its filter matches. It takes about 1 ms.
pub(crate) const MATCHED_TOPICS: usize = 8 * 1024;

/// If at least one in this many messages matches, the log is read through, which takes no longer
/// than the index.
pub(crate) const DENSE: u64 = 8;

/// How many messages a read looks at when it reads the log through. It takes about 1 ms, for which
/// an append may have to wait.
pub(crate) const SCANNED_MESSAGES: usize = 8 * 1024;
