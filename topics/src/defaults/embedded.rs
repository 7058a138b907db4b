//! The fixed limits of a log on a disk, each with its reason.

use std::time::Duration;

/// The least that a log on a disk is bounded to. With less, the directory's own files would be most
/// of it.
pub(crate) const LEAST_BYTES: u64 = 16 << 20;

/// In how many steps a log on a disk is removed. Each step is a pair of keyspaces. More of them keep
/// more of what the limit allows, and cost more files and more time for a read of a filter.
pub(crate) const GENERATIONS: u32 = 16;

/// The shortest time between two steps of retention by age. Making a pair of keyspaces takes some
/// syncs.
pub(crate) const GENERATION_LEAST_AGE: Duration = Duration::from_secs(1);

/// How much a log on a disk keeps in memory before it is written to a table, in bytes: of messages,
/// and of the index by topic. Up to three more are being written. Whatever is synced meanwhile waits for
/// a table, so an append takes the longer the larger these are; smaller ones are synced more often, and
/// long messages are stored more slowly.
pub(crate) const LOG_MEMTABLE_BYTES: u64 = 4 << 20;
pub(crate) const INDEX_MEMTABLE_BYTES: u64 = 2 << 20;

/// The size of a block of messages on the disk. A read of one message reads one block, and a read
/// of many takes a look-up for each.
pub(crate) const LOG_BLOCK_BYTES: u32 = 8 << 10;

/// The cache of blocks. What is read often comes from the system's cache as well.
pub(crate) const CACHE_BYTES: u64 = 32 << 20;

/// How large the journals of a log on a disk may grow, in bytes, before what holds them is written to
/// tables. A restart reads them.
pub(crate) const JOURNAL_BYTES: u64 = 256 << 20;

/// Threads that write tables and merge them. One of them always writes.
pub(crate) const WORKERS: usize = 2;

/// How many bytes of the disk stay free. Tables are written from what is in the journal already, so
/// a log that fills its disk to the last byte could not go on. A smaller log keeps a quarter of its
/// size free.
pub(crate) const RESERVED_BYTES: u64 = 64 << 20;

/// How many tables of a keyspace may wait for being written, or merged, before an append waits. The
/// library beneath halts at 4 and 30, and does not look whether its threads have failed.
pub(crate) const WAITING_MEMTABLES: usize = 3;
pub(crate) const WAITING_TABLES: usize = 20;

/// How often a log on a disk looks for messages that are too old, and whether a disk that failed
/// works again.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// How long opening waits for another process, or a handle of this one, to close the directory.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// For how many messages of a commit one publisher gets its own place written. After a restart at
/// most this many messages are read again for each publisher, which is half a second for 100,000 of
/// them.
pub(crate) const MESSAGES_PER_PLACE: usize = 8;

/// How many messages a read of a filter looks at in order before it asks the index. That takes as
/// long as about 50 look-ups in it.
pub(crate) const SAMPLED_MESSAGES: usize = 512;

/// If at least one in this many of the sampled messages matches, the read goes on in order. A look-up
/// takes about eight times as long as the next message.
pub(crate) const SAMPLE_DENSE: usize = 8;

/// How many offsets of a topic are read from the index at a time.
pub(crate) const INDEX_READ: usize = 32;

/// How many messages are tried one by one to find the end of what cannot be read.
pub(crate) const DAMAGE_PROBED: u64 = 4096;

/// How many topics a snapshot looks up through the index. Beyond, it looks at messages one by one.
pub(crate) const SNAPSHOT_TOPICS: usize = 1 << 18;

/// How many messages a snapshot of more topics looks at in one read.
pub(crate) const SNAPSHOT_SCANNED: usize = 512;

/// How many snapshots are kept for their next chunk.
pub(crate) const SNAPSHOTS_KEPT: usize = 4;

/// How many numbers of the database are skipped when it is opened. It is more than a process can use
/// between two of its commits, and there are 2^63.
pub(crate) const NUMBERS_SKIPPED: u64 = 1 << 32;

/// How many topics a read remembers, so that it checks each name once. Each takes about 100 bytes.
pub(crate) const NAMES_KEPT: usize = 1024;

/// How many bytes of short payloads share a piece of memory when they are read. Whoever keeps one of
/// them keeps the piece, which is as large as a packet.
pub(crate) const TOGETHER_BYTES: usize = 32 << 10;

/// How many chores may be left before whoever has another one waits. A chore that finishes a generation
/// holds what that has in memory, so these are about [`LOG_MEMTABLE_BYTES`] each.
pub(crate) const CHORES: usize = 3;

/// By how many bytes a journal that is not needed is cut shorter at a time, and how long the thread that
/// does it then waits. Each step holds up the syncs of the file system for 2 ms. A journal of 64 MiB is
/// gone in 0.2 s, and a new one comes after as many bytes.
pub(crate) const SHORTEN_BYTES: u64 = 4 << 20;
pub(crate) const SHORTEN_PAUSE: Duration = Duration::from_millis(10);
