//! Which messages each topic has.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use unstall_proto::topics::{Filter, Topic};

use crate::defaults::{DENSE, FOLLOWED_TOPICS, MATCHED_TOPICS};

/// The number of a topic while it has messages.
pub(super) type TopicId = u32;

/// The topics that have messages, and the offsets of these.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_name: BTreeMap<Topic, TopicId>,
    /// By number. One without messages is in `free`.
    topics: Vec<Entry>,
    free: Vec<TopicId>,
}

#[derive(Debug)]
struct Entry {
    /// `None` while the number is free.
    name: Option<Topic>,
    /// Invariant: growing.
    offsets: VecDeque<u64>,
}

/// How to find the messages that a filter matches.
#[derive(Debug)]
pub(super) enum Way {
    /// By the offsets of these topics.
    Follow(Vec<TopicId>),
    /// By looking at each message of the log.
    Scan,
}

impl Index {
    /// Adds a message, and returns the number of its topic.
    pub(super) fn push(&mut self, topic: &Topic, offset: u64) -> TopicId {
        let id = match self.by_name.get(topic) {
            Some(&id) => id,
            None => self.add(topic),
        };
        self.topics[id as usize].offsets.push_back(offset);
        id
    }

    fn add(&mut self, topic: &Topic) -> TopicId {
        let entry = Entry {
            name: Some(topic.clone()),
            offsets: VecDeque::with_capacity(1),
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.topics[id as usize] = entry;
                id
            }
            None => {
                let id = TopicId::try_from(self.topics.len());
                self.topics.push(entry);
                id.expect("each topic takes memory, so there are fewer than 2^32")
            }
        };
        self.by_name.insert(topic.clone(), id);
        id
    }

    /// Removes the first message of a topic.
    pub(super) fn pop(&mut self, id: TopicId) {
        let entry = &mut self.topics[id as usize];
        entry.offsets.pop_front();
        if entry.offsets.is_empty() {
            entry.offsets = VecDeque::new();
            if let Some(name) = entry.name.take() {
                self.by_name.remove(&name);
            }
            self.free.push(id);
        } else if entry.offsets.len() < entry.offsets.capacity() / 4 {
            entry.offsets.shrink_to(2 * entry.offsets.len());
        }
    }

    pub(super) fn name(&self, id: TopicId) -> &Topic {
        let name = self.topics[id as usize].name.as_ref();
        name.expect("a topic with messages has a name")
    }

    /// The offsets of a topic, growing.
    pub(super) fn offsets(&self, id: TopicId) -> &VecDeque<u64> {
        &self.topics[id as usize].offsets
    }

    /// The place of the first offset above `after` among those of a topic.
    pub(super) fn place_after(&self, id: TopicId, after: u64) -> usize {
        self.offsets(id).partition_point(|&offset| offset <= after)
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.by_name.len(), self.topics.len())
    }

    /// How to find what a filter matches, in a log of this many messages.
    pub(super) fn way(&self, filter: &Filter, messages: usize) -> Way {
        if let Some(topic) = filter.as_topic() {
            return Way::Follow(self.by_name.get(&topic).copied().into_iter().collect());
        }
        if filter.is_all() {
            return Way::Scan;
        }
        let mut found = Vec::new();
        let mut matches = 0;
        for (looked_at, (name, &id)) in self.candidates(filter).enumerate() {
            if looked_at == MATCHED_TOPICS || found.len() == FOLLOWED_TOPICS {
                return Way::Scan;
            }
            if filter.matches(name.as_str()) {
                found.push(id);
                matches += self.offsets(id).len();
            }
        }
        // A single topic is followed however dense it is: that finds its messages without comparing.
        match found.len() > 1 && matches as u64 * DENSE >= messages as u64 {
            true => Way::Scan,
            false => Way::Follow(found),
        }
    }

    /// The topics that begin as the filter does before its first wildcard.
    fn candidates(&self, filter: &Filter) -> impl Iterator<Item = (&Topic, &TopicId)> {
        let text = filter.as_str();
        let prefix = text[..text.find(['*', '>']).unwrap_or(text.len())].to_owned();
        self.by_name
            .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(&prefix))
    }
}
