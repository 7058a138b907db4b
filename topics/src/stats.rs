//! What logs, clients and subscriptions count.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use unstall_proto::topics::{Filter, LogId, Offset, Position, SubscriptionStage};

/// A log, as this process knows it. See [`Log::stats`](crate::Log::stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// The first message that is there. If there is none, one more than `last`.
    pub first: Offset,
    /// The last message that was ever there.
    pub last: Offset,
    /// Messages that this process has stored since it opened the log.
    pub stored: u64,
    /// Messages of this process that the store refused, or gave no answer for.
    pub refused: u64,
    /// Commits that stored them. A commit has many messages when many publish at once.
    pub commits: u64,
    /// Messages that wait for their commit, in bytes: each costs its payload, its topic, and 64.
    pub waiting_bytes: u64,
    /// What was published last and is kept in memory for subscribers, in bytes.
    pub cached_bytes: usize,
    /// Blocks of messages that subscriptions got from memory. All subscriptions share a block.
    pub cache_hits: u64,
    /// Reads of the store, for subscriptions that lag further behind.
    pub store_reads: u64,
}

/// A client. See [`Topics::stats`](crate::Topics::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicsStats {
    /// The log of the node that the client is connected to. `None` while there is no connection.
    pub log: Option<LogId>,
    /// The name of that node, in its own words, escaped.
    pub node: Option<String>,
    /// Connections that a node has welcomed.
    pub connections: u64,
    /// Subscriptions that are alive.
    pub subscriptions: usize,
    /// Published messages without an answer.
    pub unanswered: usize,
    /// What they cost, in bytes: payloads, topics, and 64 for each.
    pub unanswered_bytes: u64,
    /// Messages that the node has confirmed as stored.
    pub stored: u64,
    /// Messages that the node has refused.
    pub refused: u64,
}

/// A subscription. See [`Subscription::stats`](crate::Subscription::stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Where the application stands: behind what it has received last.
    pub position: Option<Position>,
    /// Where the client stands: everything up to here has arrived. It is at most the window ahead of
    /// the application.
    pub arrived: Option<Position>,
    /// Messages that the application has received.
    pub messages: u64,
    /// Messages that have arrived for the application and wait for it, in bytes.
    pub waiting_bytes: u64,
    /// What has arrived of a message that is not whole yet, in bytes.
    pub partial_bytes: u64,
    /// What the node may still send, in bytes. At 0 it waits for the application.
    pub credit_bytes: u64,
    /// The last message of the log, as far as the client knows: a node tells it when a connection
    /// begins, and with each message. `None` before the first connection.
    pub end: Option<Offset>,
    /// How far the application is behind that end, in offsets. Messages of other topics count as
    /// well.
    pub lag: Option<u64>,
    /// How old the message at the application's position is, if the application is behind the end,
    /// and zero if it is not. The clock is the store's on one side and this machine's on the other.
    pub lag_time: Option<Duration>,
}

/// A subscription as the node sees it. See [`Log::subscriptions`](crate::Log::subscriptions).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeSubscription {
    /// The connection that it came over, as in [`unstall::Stats::id`]. `None` within the process.
    pub connection: Option<u64>,
    /// What it asks for.
    pub filter: Filter,
    /// How far it is.
    pub stage: SubscriptionStage,
    /// Everything up to here is sent. Its client may not have received it yet.
    pub offset: Offset,
    /// How many offsets the last message that concerns it is ahead. Messages of other topics in between
    /// count as well. 0 if it has everything, or looks for its beginning.
    pub lag: u64,
    /// The payloads of all topics behind its offset, in bytes, if it lags. It is exact to 2 %, or a second of what is
    /// published, and has only what this process has seen published.
    pub lag_bytes: u64,
    /// How long ago the first message behind its offset was stored, if it lags. It is exact to 2 %, or
    /// a second, and no longer than this process has known the log.
    pub lag_time: Duration,
    /// What its client still accepts, in bytes.
    pub credit_bytes: u64,
    /// There is more to send, and its client does not accept it: its application is too slow.
    pub waits_for_credit: bool,
}

/// How far subscriptions lag behind. See [`Log::lag`](crate::Log::lag), and [`NodeSubscription`] for what
/// is summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// How many subscriptions there are.
    pub subscriptions: usize,
    /// How many of them lag.
    pub lagging: usize,
    /// How many of them wait for their clients.
    pub waiting: usize,
    /// The sum of their lags, in offsets.
    pub offsets: u64,
    /// The sum of their lags, in bytes.
    pub bytes: u64,
    /// The sum of their lags in time.
    pub time: Duration,
    /// The largest lag, in offsets.
    pub max_offsets: u64,
    /// The largest lag, in bytes.
    pub max_bytes: u64,
    /// The longest lag in time.
    pub max_time: Duration,
}

impl Lag {
    pub(crate) fn of(all: &[NodeSubscription]) -> Lag {
        let mut lag = Lag {
            subscriptions: all.len(),
            ..Lag::default()
        };
        for one in all.iter().filter(|one| one.lag > 0) {
            lag.lagging += 1;
            lag.waiting += usize::from(one.waits_for_credit);
            lag.offsets = lag.offsets.saturating_add(one.lag);
            lag.bytes = lag.bytes.saturating_add(one.lag_bytes);
            lag.time = lag.time.saturating_add(one.lag_time);
            lag.max_offsets = lag.max_offsets.max(one.lag);
            lag.max_bytes = lag.max_bytes.max(one.lag_bytes);
            lag.max_time = lag.max_time.max(one.lag_time);
        }
        lag
    }
}

/// What a log counts, once for each block, read or commit.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    stored: AtomicU64,
    refused: AtomicU64,
    commits: AtomicU64,
    cache_hits: AtomicU64,
    store_reads: AtomicU64,
}

impl LogCounters {
    pub(crate) fn commit(&self, stored: usize, refused: usize) {
        self.commits.fetch_add(1, Relaxed);
        self.stored.fetch_add(stored as u64, Relaxed);
        self.refused.fetch_add(refused as u64, Relaxed);
    }

    pub(crate) fn cache_hit(&self) {
        self.cache_hits.fetch_add(1, Relaxed);
    }

    pub(crate) fn store_read(&self) {
        self.store_reads.fetch_add(1, Relaxed);
    }

    /// The counters, with what else a log knows.
    pub(crate) fn stats(
        &self,
        (first, last): (Offset, Offset),
        waiting_bytes: u64,
        cached_bytes: usize,
    ) -> LogStats {
        LogStats {
            first,
            last,
            stored: self.stored.load(Relaxed),
            refused: self.refused.load(Relaxed),
            commits: self.commits.load(Relaxed),
            waiting_bytes,
            cached_bytes,
            cache_hits: self.cache_hits.load(Relaxed),
            store_reads: self.store_reads.load(Relaxed),
        }
    }
}
