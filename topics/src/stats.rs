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

/// The subscriptions of a node's clients. See [`Node::subscriptions`](crate::Node::subscriptions).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NodeSubscriptions {
    /// Some of them. Those that lag most come first.
    pub list: Vec<NodeSubscription>,
    /// How many there are.
    pub total: usize,
}

/// A subscription, as the node sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeSubscription {
    /// The connection, as in [`unstall::Stats::id`]. `None` within the process.
    pub connection: Option<u64>,
    /// What it subscribes to.
    pub filter: Filter,
    /// How far it is.
    pub stage: SubscriptionStage,
    /// Everything up to here is sent, left out, or in a gap.
    pub offset: Offset,
    /// How many offsets the end of the log is ahead of that.
    pub lag: u64,
    /// What the client still accepts, in bytes: each message costs its payload, its topic, and 64.
    pub credit_bytes: u64,
    /// There is more to send, and the client does not take it.
    pub waits_for_credit: bool,
}

impl NodeSubscriptions {
    /// Keeps the `count` that lag most, in this order.
    pub(crate) fn cut(&mut self, count: usize) {
        let order = |it: &NodeSubscription| std::cmp::Reverse((it.waits_for_credit, it.lag));
        self.list.sort_by_key(order);
        self.list.truncate(count);
    }
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
