//! Searches for places in the log.

use std::collections::BinaryHeap;

use unstall_proto::topics::{Filter, StoredAt};

use super::{
    cursor::{Cursor, Direction, matching_topics},
    layout::{log_key, offset_of_log_key, time_of_message, topic_of_message},
    reading::{Failed, damaged},
    view::{Span, View},
};
use crate::{
    defaults::FOLLOWED_TOPICS,
    store::{Seek, StoreError},
};

/// The offset after which the sought messages begin.
pub(super) fn seek(view: &View, seek: &Seek) -> Result<u64, StoreError> {
    let sought = match seek {
        Seek::Last { filter, count } => last_of(view, filter, u64::from(*count)),
        Seek::Since(time) => since(view, *time),
    };
    match sought {
        Ok(sought) => Ok(sought.max(view.first) - 1),
        Err(Failed::Database(error)) => Err(damaged(view.first - 1, view.last, &error.to_string())),
        Err(Failed::Message) => {
            let why = "a message or the index is missing or damaged";
            Err(damaged(view.first - 1, view.last, why))
        }
    }
}

/// The offset of the last message but `count - 1` that matches, or of the first. If there is none,
/// the one behind the end.
fn last_of(view: &View, filter: &Filter, count: u64) -> Result<u64, Failed> {
    let mut search = Search {
        found: view.last + 1,
        missing: count,
    };
    for span in view.spans(0, view.last).rev() {
        if search.missing == 0 {
            break;
        }
        if filter.is_all() {
            let there = span.through - span.from + 1;
            search.found = span.through + 1 - there.min(search.missing);
            search.missing -= there.min(search.missing);
            continue;
        }
        match matching_topics(span.generation, filter, FOLLOWED_TOPICS)? {
            Some(topics) => search.follow(span, topics)?,
            None => search.scan(span, filter)?,
        }
    }
    Ok(search.found)
}

struct Search {
    found: u64,
    missing: u64,
}

impl Search {
    fn follow(&mut self, span: Span<'_>, topics: Vec<Box<str>>) -> Result<(), Failed> {
        let bounds = (span.from, span.through);
        let mut cursors: Vec<_> = topics
            .into_iter()
            .map(|topic| Cursor::new(span.generation, topic, bounds, Direction::Backward))
            .collect();
        let mut last = BinaryHeap::new();
        for (place, cursor) in cursors.iter_mut().enumerate() {
            last.extend(cursor.next()?.map(|offset| (offset, place)));
        }
        while self.missing > 0
            && let Some((offset, place)) = last.pop()
        {
            self.found = offset;
            self.missing -= 1;
            last.extend(cursors[place].next()?.map(|offset| (offset, place)));
        }
        Ok(())
    }

    fn scan(&mut self, span: Span<'_>, filter: &Filter) -> Result<(), Failed> {
        let range = log_key(span.from)..=log_key(span.through);
        for entry in span.generation.log.range(range).rev() {
            if self.missing == 0 {
                break;
            }
            let (key, value) = entry.into_inner()?;
            let topic = topic_of_message(&value).ok_or(Failed::Message)?;
            if filter.matches(topic) {
                self.found = offset_of_log_key(&key).ok_or(Failed::Message)?;
                self.missing -= 1;
            }
        }
        Ok(())
    }
}

/// The first message of a time or later, or the offset behind the end. Times never go back, so it is
/// a binary search.
fn since(view: &View, time: StoredAt) -> Result<u64, Failed> {
    let (mut from, mut end) = (view.first, view.last + 1);
    while from < end {
        let middle = from + (end - from) / 2;
        match at_or_behind(view, middle)? {
            Some((_, found)) if found < time => from = middle + 1,
            _ => end = middle,
        }
    }
    Ok(from)
}

/// The first message that is there at an offset or behind it, and its time.
fn at_or_behind(view: &View, offset: u64) -> Result<Option<(u64, StoredAt)>, Failed> {
    for span in view.spans(offset - 1, view.last) {
        let range = log_key(span.from)..=log_key(span.through);
        if let Some(entry) = span.generation.log.range(range).next() {
            let (key, value) = entry.into_inner()?;
            let found = offset_of_log_key(&key).zip(time_of_message(&value));
            return found.map(Some).ok_or(Failed::Message);
        }
    }
    Ok(None)
}
