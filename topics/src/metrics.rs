//! What a log counts, told to the [`::metrics`] facade.
//!
//! As with `unstall::metrics`: call [`describe`] once, and [`update`] before each time that the recorder is
//! read. Nothing is counted a second time for this, so it costs nothing between two reads.
//!
//! | name | type | what it is |
//! | --- | --- | --- |
//! | `unstall_topics_log_first_offset` | gauge | the first message that is there |
//! | `unstall_topics_log_last_offset` | gauge | the last message that was ever there |
//! | `unstall_topics_stored_messages_total` | counter | messages that this process has stored |
//! | `unstall_topics_refused_messages_total` | counter | messages that the store refused, or gave no answer for |
//! | `unstall_topics_commits_total` | counter | commits that stored them |
//! | `unstall_topics_waiting_bytes` | gauge | messages that wait for their commit |
//! | `unstall_topics_cached_bytes` | gauge | the newest messages, kept in memory for subscribers |
//! | `unstall_topics_cache_hits_total` | counter | blocks of messages that subscriptions got from memory |
//! | `unstall_topics_store_reads_total` | counter | reads of the store, for subscriptions that lag further behind |
//! | `unstall_topics_subscriptions` | gauge | subscriptions that are served now |
//! | `unstall_topics_lagging_subscriptions` | gauge | those that have not been sent everything that concerns them |
//! | `unstall_topics_waiting_subscriptions` | gauge | those of them that wait for their clients |
//! | `unstall_topics_lag_messages`, `…_lag_bytes`, `…_lag_seconds` | gauge | the sum of their lags; see [`NodeSubscription`](crate::NodeSubscription) for what these are |
//! | `unstall_topics_max_lag_messages`, `…_max_lag_bytes`, `…_max_lag_seconds` | gauge | the largest of their lags |

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::Log;

/// Tells the recorder what each figure is. Call it once, after a recorder is installed.
pub fn describe() {
    use Unit::{Bytes, Count, Seconds};
    let gauges: [(&'static str, Unit, &'static str); 13] = [
        (
            "unstall_topics_log_first_offset",
            Count,
            "The first message that is there",
        ),
        (
            "unstall_topics_log_last_offset",
            Count,
            "The last message that was ever there",
        ),
        (
            "unstall_topics_waiting_bytes",
            Bytes,
            "Messages that wait for their commit",
        ),
        (
            "unstall_topics_cached_bytes",
            Bytes,
            "The newest messages, kept in memory",
        ),
        (
            "unstall_topics_subscriptions",
            Count,
            "Subscriptions that are served",
        ),
        (
            "unstall_topics_lagging_subscriptions",
            Count,
            "Subscriptions that have not been sent everything",
        ),
        (
            "unstall_topics_waiting_subscriptions",
            Count,
            "Lagging subscriptions that wait for their clients",
        ),
        (
            "unstall_topics_lag_messages",
            Count,
            "The sum of all lags, in offsets",
        ),
        ("unstall_topics_lag_bytes", Bytes, "The sum of all lags"),
        ("unstall_topics_lag_seconds", Seconds, "The sum of all lags"),
        (
            "unstall_topics_max_lag_messages",
            Count,
            "The largest lag, in offsets",
        ),
        ("unstall_topics_max_lag_bytes", Bytes, "The largest lag"),
        ("unstall_topics_max_lag_seconds", Seconds, "The longest lag"),
    ];
    for (name, unit, what) in gauges {
        describe_gauge!(name, unit, what);
    }
    let counters: [(&'static str, &'static str); 5] = [
        (
            "unstall_topics_stored_messages_total",
            "Messages that this process has stored",
        ),
        (
            "unstall_topics_refused_messages_total",
            "Messages that the store refused or did not answer",
        ),
        ("unstall_topics_commits_total", "Commits"),
        (
            "unstall_topics_cache_hits_total",
            "Blocks that subscriptions got from memory",
        ),
        ("unstall_topics_store_reads_total", "Reads of the store"),
    ];
    for (name, what) in counters {
        describe_counter!(name, Count, what);
    }
}

/// Tells the recorder the present figures of the log that this process serves. There are no labels: with
/// several logs in a process, call it for one of them.
pub fn update(log: &Log) {
    let (stats, lag) = (log.stats(), log.lag());
    for (name, value) in [
        ("unstall_topics_log_first_offset", stats.first.get() as f64),
        ("unstall_topics_log_last_offset", stats.last.get() as f64),
        ("unstall_topics_waiting_bytes", stats.waiting_bytes as f64),
        ("unstall_topics_cached_bytes", stats.cached_bytes as f64),
        ("unstall_topics_subscriptions", lag.subscriptions as f64),
        ("unstall_topics_lagging_subscriptions", lag.lagging as f64),
        ("unstall_topics_waiting_subscriptions", lag.waiting as f64),
        ("unstall_topics_lag_messages", lag.offsets as f64),
        ("unstall_topics_lag_bytes", lag.bytes as f64),
        ("unstall_topics_lag_seconds", lag.time.as_secs_f64()),
        ("unstall_topics_max_lag_messages", lag.max_offsets as f64),
        ("unstall_topics_max_lag_bytes", lag.max_bytes as f64),
        ("unstall_topics_max_lag_seconds", lag.max_time.as_secs_f64()),
    ] {
        gauge!(name).set(value);
    }
    for (name, value) in [
        ("unstall_topics_stored_messages_total", stats.stored),
        ("unstall_topics_refused_messages_total", stats.refused),
        ("unstall_topics_commits_total", stats.commits),
        ("unstall_topics_cache_hits_total", stats.cache_hits),
        ("unstall_topics_store_reads_total", stats.store_reads),
    ] {
        counter!(name).absolute(value);
    }
}
