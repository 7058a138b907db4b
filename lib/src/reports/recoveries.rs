//! The last connections of the process that were lost and made again.

use std::{
    collections::VecDeque,
    sync::{LazyLock, Mutex},
    time::{Duration, SystemTime},
};

use crate::defaults::RECOVERIES_KEPT;

/// A connection that was lost is there again: a client has connected once more, or a session has a new
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Counts the recoveries of the process, from 1.
    pub number: u64,
    /// The connection, as in [`Stats::id`](crate::Stats::id).
    pub connection: u64,
    /// When it was there again.
    pub at: SystemTime,
    /// How long there was no connection.
    pub after: Duration,
}

#[derive(Debug, Default)]
struct Recoveries {
    count: u64,
    last: VecDeque<Recovery>,
}

static RECOVERIES: LazyLock<Mutex<Recoveries>> = LazyLock::new(Mutex::default);

pub(super) fn add(connection: u64, at: SystemTime, after: Duration) {
    let mut all = RECOVERIES.lock().unwrap();
    all.count = all.count.saturating_add(1);
    if all.last.len() >= RECOVERIES_KEPT {
        all.last.pop_front();
    }
    let number = all.count;
    all.last.push_back(Recovery {
        number,
        connection,
        at,
        after,
    });
}

/// The kept ones behind this number, the oldest first.
pub(crate) fn behind(number: u64) -> Vec<Recovery> {
    let all = RECOVERIES.lock().unwrap();
    let new = all.last.iter().filter(|it| it.number > number);
    new.copied().collect()
}
