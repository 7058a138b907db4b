//! The index: which messages a topic has, and which topics there are.

use std::{collections::VecDeque, ops::Bound};

use unstall_proto::topics::Filter;

use super::{
    generation::Generation,
    layout::{index_key, offset_of_index_key, topic_key, topic_of_key},
    reading::Failed,
};
use crate::defaults::{MATCHED_TOPICS, embedded::INDEX_READ};

/// In which order offsets come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// The offsets of one topic in one generation. It reads some at a time, so that many can be open.
pub(super) struct Cursor<'a> {
    generation: &'a Generation,
    topic: Box<str>,
    /// What is left: from the first, up to the second.
    left: (u64, u64),
    direction: Direction,
    read: VecDeque<u64>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        generation: &'a Generation,
        topic: Box<str>,
        left: (u64, u64),
        direction: Direction,
    ) -> Cursor<'a> {
        Cursor {
            generation,
            topic,
            left,
            direction,
            read: VecDeque::new(),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<u64>, Failed> {
        if self.read.is_empty() && self.left.0 <= self.left.1 {
            self.fill()?;
        }
        Ok(self.read.pop_front())
    }

    fn fill(&mut self) -> Result<(), Failed> {
        let (from, through) = self.left;
        let key = |offset| index_key(&self.topic, offset);
        let range = self.generation.index.range(key(from)..=key(through));
        let mut read = |entry: fjall::Guard| -> Result<(), Failed> {
            let offset = offset_of_index_key(&entry.key()?).ok_or(Failed::Message)?;
            self.read.push_back(offset);
            Ok(())
        };
        match self.direction {
            Direction::Forward => range.take(INDEX_READ).try_for_each(&mut read)?,
            Direction::Backward => range.rev().take(INDEX_READ).try_for_each(&mut read)?,
        }
        match (self.direction, self.read.back()) {
            (Direction::Forward, Some(last)) => self.left.0 = last + 1,
            (Direction::Backward, Some(last)) => self.left.1 = last - 1,
            (_, None) => self.left = (1, 0),
        }
        Ok(())
    }
}

/// The last message of a topic in a range of offsets of a generation.
pub(super) fn last_in(
    generation: &Generation,
    topic: &str,
    (from, through): (u64, u64),
) -> Result<Option<u64>, Failed> {
    let mut range = generation
        .index
        .range(index_key(topic, from)..=index_key(topic, through));
    match range.next_back() {
        Some(entry) => Ok(offset_of_index_key(&entry.key()?)),
        None => Ok(None),
    }
}

/// The topics of a generation that a filter matches. `None` if there are more than `most`, or if too
/// many others have to be looked at to find them.
pub(super) fn matching_topics(
    generation: &Generation,
    filter: &Filter,
    most: usize,
) -> Result<Option<Vec<Box<str>>>, Failed> {
    if let Some(topic) = filter.as_topic() {
        return Ok(Some(vec![topic.as_str().into()]));
    }
    let text = filter.as_str();
    let prefix = topic_key(&text[..text.find(['*', '>']).unwrap_or(text.len())]);
    let mut found = Vec::new();
    let range = (Bound::Included(&prefix), Bound::Unbounded);
    for (looked_at, entry) in generation.index.range::<&Vec<u8>, _>(range).enumerate() {
        let key = entry.key()?;
        if !key.starts_with(&prefix) {
            break;
        }
        let topic = topic_of_key(&key).ok_or(Failed::Message)?;
        if filter.matches(topic) {
            found.push(topic.into());
        }
        if found.len() > most || looked_at > most.max(MATCHED_TOPICS) {
            return Ok(None);
        }
    }
    Ok(Some(found))
}
