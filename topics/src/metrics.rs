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

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::Log;

/// Tells the recorder what each figure is. Call it once, after a recorder is installed.
pub fn describe() {
    use Unit::{Bytes, Count};
    let gauges: [(&'static str, Unit, &'static str); 4] = [
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
    let stats = log.stats();
    for (name, value) in [
        ("unstall_topics_log_first_offset", stats.first.get() as f64),
        ("unstall_topics_log_last_offset", stats.last.get() as f64),
        ("unstall_topics_waiting_bytes", stats.waiting_bytes as f64),
        ("unstall_topics_cached_bytes", stats.cached_bytes as f64),
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
