//! The defaults and fixed limits of logs, each with its reason.

#[cfg(feature = "embedded")]
pub(crate) mod embedded;

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

/// The part of what a store remembers that clients are not told: one in so many. They measure by their
/// own clock, a message is on its way for a while, and the clock of the machine may be corrected.
pub(crate) const ONCE_MARGIN: u32 = 64;

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

/// What may wait to be appended, in bytes: payloads, topics, and 64 a message. Publishers wait when
/// it is used up. Sixteen commits.
pub const APPEND_QUEUE_BYTES: u64 = 16 << 20;

/// The most bytes of one commit. A disk writes this in about a millisecond, so a commit that syncs
/// costs hardly more than a smaller one.
pub const COMMIT_BYTES: u64 = 1 << 20;

/// The most messages of one commit: 4,096 of 200 bytes are about a commit of bytes.
pub const COMMIT_MESSAGES: usize = 4_096;

/// The packets that may wait between a log and a subscription in the same process. Credit bounds
/// their bytes.
pub const LOCAL_LINK_PACKETS: usize = 16;

/// What was published last and is kept in memory, encoded, for the subscribers of a node: a second
/// of 80,000 messages of 200 bytes. Who lags further behind reads from the store.
pub const TAIL_BYTES: usize = 16 << 20;

/// How far apart in time are the moments by which a log tells how far a subscription lags behind, in
/// bytes and seconds. Whoever looks at a lag looks at seconds.
pub(crate) const MARK_EVERY: Duration = Duration::from_secs(1);

/// How many such moments are kept, of 24 bytes each. That is room for years, because older ones get fewer.
pub(crate) const MARKS: usize = 1024;

/// Moments of the past are as far apart as this part of their age. So a lag is exact to 2 %.
pub(crate) const MARK_PART: u64 = 64;

/// How much is encoded together, at most, unless it is one message. A block fills a packet.
pub(crate) const BLOCK_BYTES: usize = 48 << 10;

/// How much of a store is read at a time.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// How long a log waits before it asks a store again that others append to, and that failed.
pub(crate) const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// How often subscriptions whose topics are quiet take notice of where the log ends. 10,000 of them
/// then cost a thousand short wake-ups a second, and what retention keeps is longer than this.
pub(crate) const NUDGE_EVERY: Duration = Duration::from_secs(10);

/// How many reads of the store a node has under way. With [`READ_BYTES`] each, that is 16 MiB.
pub(crate) const NODE_READS: usize = 64;

/// For how many connections a node reads ahead, while they send what was read before. With
/// [`AHEAD_BYTES`] each, that is 16 MiB, however many subscribers read the log. Two cores are busy with
/// fewer, and whoever finds no room reads when it has sent.
pub(crate) const NODE_AHEADS: usize = 16;

/// The largest block that waits to be asked for: what is read at a time, encoded, if messages have at
/// least 20 bytes. Beyond, it is a long message, or many tiny ones.
pub(crate) const AHEAD_BYTES: usize = 1 << 20;

/// How long what was read ahead waits to be asked for. A line that takes longer for what was read
/// before is not slowed down by a read, and others need the room.
pub(crate) const AHEAD_KEPT: Duration = Duration::from_secs(1);

/// How many packets a connection sends before others have their turn: about 1 MiB.
pub(crate) const PACKETS_A_TURN: usize = 16;

/// How long a hook may take to decide who may enter. Clients wait as long for a handshake
/// (`unstall::defaults::CONNECT_TIMEOUT`).
pub(crate) const ENTER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the application's function may take to give a token: as long as a hook of a node.
pub(crate) const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send its first packet. It needs no answer for that, so a slow line
/// needs a round trip at most. Until then nobody knows who it is.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node tries to tell a client why its connection ends. As long as closing may take
/// (`unstall::defaults::CLOSE_TIMEOUT`).
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How many subscriptions of a connection look for their beginning at a time. Some beginnings are a
/// search in the store.
pub(crate) const OPENINGS: usize = 64;

/// How often a message that was refused because the token had expired is published again, each time
/// on a new connection. A token that does not live for one round trip is of no use.
pub(crate) const EXPIRED_AGAIN: usize = 3;

/// How long a subscription waits before it is told that the store cannot be read, so that clients
/// that come back at once do not make it worse.
pub(crate) const READ_LATER: Duration = Duration::from_millis(500);

/// How many packets a client sends before it looks at what has arrived: about 1 MiB.
pub(crate) const CLIENT_PACKETS_A_TURN: usize = 32;

/// How many events of a client wait for who reads them.
pub(crate) const EVENT_BACKLOG: usize = 64;

/// How much of a subscription the application takes before the node is told, at most. It is told
/// earlier when nothing more is there.
pub(crate) const TAKEN_STEP: u64 = 64 << 10;
/// What the messages of a log on a disk may cost, in bytes. It fits on any server, and holds a day
/// of 45 messages of 200 bytes a second.
pub const EMBEDDED_BYTES: u64 = 1 << 30;
