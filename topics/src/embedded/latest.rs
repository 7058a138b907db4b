//! Snapshots: the latest message of each topic.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use unstall_proto::topics::Filter;

use super::{
    cursor::{last_in, matching_topics},
    layout::log_key,
    reading::{Failed, Reading, Step},
    view::View,
};
use crate::{
    defaults::embedded::{SNAPSHOT_SCANNED, SNAPSHOT_TOPICS, SNAPSHOTS_KEPT},
    store::{Chunk, Read, StoreError},
};

/// The offsets of the latest messages of a filter up to an offset, in order.
type Offsets = Arc<[u64]>;

/// Snapshots that were looked up, so that their next chunks need not look them up again. They change
/// only by removal.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<VecDeque<(Filter, u64, Offsets)>>);

impl Snapshots {
    /// Forgets all: offsets may mean other messages now.
    pub(super) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(super) fn read(&self, view: &View, read: &Read) -> Result<Chunk, StoreError> {
        let mut reading = Reading::new(view, read)?;
        let through = read.through.get().min(view.last);
        let result = match self.offsets(view, &read.filter, through) {
            Ok(Some(offsets)) => take(&mut reading, &offsets),
            Ok(None) => scan(&mut reading, through),
            Err(error) => Err(error),
        };
        reading.finish(result)
    }

    /// The offsets of a snapshot. `None` if it has too many topics.
    fn offsets(
        &self,
        view: &View,
        filter: &Filter,
        through: u64,
    ) -> Result<Option<Offsets>, Failed> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |it: &&(Filter, u64, Offsets)| it.0 == *filter && it.1 == through;
        if let Some((_, _, offsets)) = kept().iter().find(is_it) {
            return Ok(Some(offsets.clone()));
        }
        let Some(offsets) = look_up(view, filter, through)? else {
            return Ok(None);
        };
        let mut kept = kept();
        kept.truncate(SNAPSHOTS_KEPT - 1);
        kept.push_front((filter.clone(), through, offsets.clone()));
        Ok(Some(offsets))
    }
}

fn look_up(view: &View, filter: &Filter, through: u64) -> Result<Option<Offsets>, Failed> {
    let mut seen = HashSet::new();
    let mut offsets = Vec::new();
    for span in view.spans(0, through).rev() {
        let Some(topics) = matching_topics(span.generation, filter, SNAPSHOT_TOPICS)? else {
            return Ok(None);
        };
        for topic in topics {
            if seen.contains(&topic) {
                continue;
            }
            if let Some(last) = last_in(span.generation, &topic, (span.from, span.through))? {
                offsets.push(last);
                seen.insert(topic);
            }
        }
        if seen.len() > SNAPSHOT_TOPICS {
            return Ok(None);
        }
    }
    offsets.sort_unstable();
    Ok(Some(offsets.into()))
}

fn take(reading: &mut Reading<'_>, offsets: &[u64]) -> Result<(), Failed> {
    let view = reading.view;
    let after = reading.reached.max(view.first - 1);
    let begin = offsets.partition_point(|&offset| offset <= after);
    for &at in &offsets[begin..] {
        if at > reading.through {
            break;
        }
        let span = view.spans(at - 1, at).next().ok_or(Failed::Message)?;
        let value = span.generation.log.get(log_key(at))?;
        reading.reached = at - 1;
        let value = Bytes::from(value.ok_or(Failed::Message)?);
        if reading.take_matching(at, &value)? == Step::Full {
            return Ok(());
        }
    }
    reading.reached = reading.through;
    Ok(())
}

/// Looks at some messages in order, and takes those that no later one of their topic follows.
fn scan(reading: &mut Reading<'_>, through: u64) -> Result<(), Failed> {
    let view = reading.view;
    let mut left = SNAPSHOT_SCANNED;
    for span in view.spans(reading.reached, reading.through) {
        reading.reached = reading.reached.max(span.from - 1);
        let before = reading.reached;
        let is_latest = |topic: &str, at: u64| {
            for later in view.spans(at, through) {
                if last_in(later.generation, topic, (later.from, later.through))?.is_some() {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if reading.scan(span, left, Some(&is_latest))? == Step::Full
            || reading.reached < span.through
        {
            return Ok(());
        }
        left = left.saturating_sub((reading.reached - before) as usize);
    }
    reading.reached = reading.through;
    Ok(())
}
