//! The messages of a log in memory.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    ops::ControlFlow,
};

use bytes::Bytes;
use unstall_proto::{
    Kind,
    topics::{Filter, Offset, Refusal, StoredAt, Topic},
};

use super::index::{Index, TopicId, Way};
use crate::{
    clock::earlier,
    defaults::{COPIED_BYTES, SCANNED_MESSAGES},
    limits::Limits,
    publishers::{Publishers, Verdict},
    store::{Appended, Bounds, Chunk, Publication, Read, Stored},
};

#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    publishers: Publishers,
    index: Index,
    /// Invariant: their offsets follow each other without holes, and the last is `last`.
    messages: VecDeque<Kept>,
    /// What `messages` cost.
    cost: u64,
    last: u64,
    last_time: StoredAt,
}

#[derive(Debug)]
struct Kept {
    time: StoredAt,
    topic: TopicId,
    kind: Kind,
    is_final: bool,
    payload: Bytes,
}

impl State {
    pub(super) fn new(limits: &Limits) -> State {
        State {
            limits: limits.clone(),
            publishers: Publishers::new(limits),
            index: Index::default(),
            messages: VecDeque::new(),
            cost: 0,
            last: 0,
            last_time: StoredAt::UNKNOWN,
        }
    }

    pub(super) fn last_time(&self) -> StoredAt {
        self.last_time
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds::new(offset(self.first()), offset(self.last), self.last_time)
    }

    /// The first offset that is there, or would be.
    pub(super) fn first(&self) -> u64 {
        self.last + 1 - self.messages.len() as u64
    }

    pub(super) fn append(&mut self, batch: Vec<Publication>, now: StoredAt) -> Vec<Appended> {
        self.publishers.forget(now);
        let append = |publication| self.append_one(publication, now);
        let answers = batch.into_iter().map(append).collect();
        self.expire(now);
        answers
    }

    fn append_one(&mut self, publication: Publication, now: StoredAt) -> Appended {
        if let Some((publisher, number)) = publication.publisher {
            match self.publishers.judge(publisher, number) {
                Verdict::Store => {}
                Verdict::Before(offset) => return Appended::Before(offset),
                Verdict::Fenced => return Appended::Refused(Refusal::Fenced),
                Verdict::Full => return Appended::Refused(Refusal::Full),
            }
        }
        if !self.limits.takes(&publication) {
            return Appended::Refused(Refusal::TooLarge);
        }
        let Some(offset) = offset(self.last).checked_add(1) else {
            return Appended::Refused(Refusal::Full);
        };
        if let Some(numbered) = publication.publisher {
            self.publishers.stored(numbered, offset, now);
        }
        self.cost += publication.cost();
        self.last = offset.get();
        self.last_time = now;
        self.messages.push_back(Kept {
            time: now,
            topic: self.index.push(&publication.topic, self.last),
            kind: publication.kind,
            is_final: publication.is_final,
            payload: keepable(publication.payload),
        });
        Appended::Stored { offset, time: now }
    }

    /// Whether the first message is too old.
    pub(super) fn has_expired(&self, now: StoredAt) -> bool {
        match (self.messages.front(), self.limits.max_age) {
            (Some(front), Some(age)) => front.time < earlier(now, age),
            _ => false,
        }
    }

    /// Removes what is beyond the limit in bytes, and some of what is too old.
    pub(super) fn expire(&mut self, now: StoredAt) {
        while self.cost > self.limits.bytes() {
            self.pop();
        }
        for _ in 0..SCANNED_MESSAGES {
            if !self.has_expired(now) {
                break;
            }
            self.pop();
        }
        self.shrink();
    }

    /// Removes some of the messages up to an offset. Breaks when there are no more.
    pub(super) fn remove_through(&mut self, through: Offset) -> ControlFlow<()> {
        let mut more = ControlFlow::Continue(());
        for _ in 0..SCANNED_MESSAGES {
            if self.messages.is_empty() || self.first() > through.get() {
                more = ControlFlow::Break(());
                break;
            }
            self.pop();
        }
        self.shrink();
        more
    }

    fn pop(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            let name = self.index.name(message.topic);
            self.cost -= crate::store::cost(name, &message.payload);
            self.index.pop(message.topic);
        }
    }

    fn shrink(&mut self) {
        if self.messages.len() < self.messages.capacity() / 4 {
            self.messages.shrink_to(2 * self.messages.len());
        }
    }

    pub(super) fn read(&self, read: &Read) -> Chunk {
        let mut reading = Reading::new(self, read);
        match self.index.way(&read.filter, self.messages.len()) {
            Way::Follow(topics) => self.follow(&topics, &mut reading),
            Way::Scan => reading.scan(|message| read.filter.matches(message.topic.as_str())),
        }
        reading.into_chunk()
    }

    /// Takes the messages of some topics in order.
    fn follow(&self, topics: &[TopicId], reading: &mut Reading<'_>) {
        if let &[topic] = topics {
            let place = self.index.place_after(topic, reading.after);
            let mut offsets = self.index.offsets(topic).range(place..).copied();
            let _ = offsets.try_for_each(|offset| reading.take(offset));
            return;
        }
        let mut next: BinaryHeap<_> = topics
            .iter()
            .filter_map(|&topic| {
                let place = self.index.place_after(topic, reading.after);
                let offset = *self.index.offsets(topic).get(place)?;
                Some(Reverse((offset, topic, place)))
            })
            .collect();
        while let Some(Reverse((offset, topic, place))) = next.pop() {
            if reading.take(offset).is_break() {
                break;
            }
            if let Some(&offset) = self.index.offsets(topic).get(place + 1) {
                next.push(Reverse((offset, topic, place + 1)));
            }
        }
    }

    pub(super) fn read_latest(&self, read: &Read) -> Chunk {
        let mut reading = Reading::new(self, read);
        let through = reading.through;
        match self.index.way(&read.filter, self.messages.len()) {
            Way::Follow(topics) => {
                let latest = topics.iter().filter_map(|&topic| {
                    let behind = self.index.place_after(topic, through);
                    self.index
                        .offsets(topic)
                        .get(behind.checked_sub(1)?)
                        .copied()
                });
                let mut latest: Vec<_> = latest.filter(|&it| it > reading.after).collect();
                latest.sort_unstable();
                let _ = latest.into_iter().try_for_each(|it| reading.take(it));
            }
            Way::Scan => reading.scan(|message| {
                read.filter.matches(message.topic.as_str()) && {
                    let behind = self.index.place_after(message.id, through);
                    self.index.offsets(message.id)[behind - 1] == message.offset
                }
            }),
        }
        reading.into_chunk()
    }

    /// The offset of the first message of a time or later. If there is none, the one behind the end.
    pub(super) fn since(&self, time: StoredAt) -> u64 {
        self.first() + self.messages.partition_point(|it| it.time < time) as u64
    }

    /// Where the search for the last messages of a filter begins.
    pub(super) fn search(&self, count: u32) -> Search {
        Search {
            found: self.last + 1,
            below: self.last + 1,
            missing: count as usize,
        }
    }

    /// Goes on with a search for a bounded time. Breaks when it is over.
    pub(super) fn search_on(&self, filter: &Filter, search: &mut Search) -> ControlFlow<()> {
        let first = self.first();
        if search.missing == 0 || search.below <= first {
            return ControlFlow::Break(());
        }
        match self.index.way(filter, self.messages.len()) {
            _ if filter.is_all() => {
                let there = usize::try_from(search.below - first).unwrap_or(usize::MAX);
                search.found = search.below - search.missing.min(there) as u64;
                ControlFlow::Break(())
            }
            Way::Follow(topics) => self.follow_back(&topics, search),
            Way::Scan => {
                let end = search
                    .below
                    .saturating_sub(SCANNED_MESSAGES as u64)
                    .max(first);
                for offset in (end..search.below).rev() {
                    let message = &self.messages[self.place(offset)];
                    if filter.matches(self.index.name(message.topic).as_str()) {
                        search.find(offset)?;
                    }
                }
                search.below = end;
                ControlFlow::Continue(())
            }
        }
    }

    fn follow_back(&self, topics: &[TopicId], search: &mut Search) -> ControlFlow<()> {
        let below = |&topic: &TopicId| {
            let place = self
                .index
                .place_after(topic, search.below - 1)
                .checked_sub(1)?;
            Some((self.index.offsets(topic)[place], topic, place))
        };
        let mut last: BinaryHeap<_> = topics.iter().filter_map(below).collect();
        for _ in 0..SCANNED_MESSAGES {
            let Some((offset, topic, place)) = last.pop() else {
                return ControlFlow::Break(());
            };
            search.find(offset)?;
            if let Some(place) = place.checked_sub(1) {
                last.push((self.index.offsets(topic)[place], topic, place));
            }
        }
        ControlFlow::Continue(())
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let (names, numbers) = self.index.sizes();
        (self.messages.len(), names, numbers)
    }

    /// The place in `messages` of a message that is there.
    fn place(&self, offset: u64) -> usize {
        usize::try_from(offset - self.first()).unwrap_or(usize::MAX)
    }
}

/// A search for the last messages of a filter.
#[derive(Debug)]
pub(super) struct Search {
    /// The first of those found.
    pub(super) found: u64,
    /// The search goes on below this offset.
    below: u64,
    missing: usize,
}

impl Search {
    fn find(&mut self, offset: u64) -> ControlFlow<()> {
        self.found = offset;
        self.below = offset;
        self.missing -= 1;
        match self.missing {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A read under way.
struct Reading<'a> {
    state: &'a State,
    after: u64,
    through: u64,
    room: usize,
    messages: Vec<Stored>,
    /// All that is sought up to here is in `messages`.
    reached: u64,
}

/// A message that is looked at.
struct Candidate<'a> {
    offset: u64,
    id: TopicId,
    topic: &'a Topic,
}

impl<'a> Reading<'a> {
    fn new(state: &'a State, read: &Read) -> Reading<'a> {
        let after = read.after.get();
        let through = read.through.get().min(state.last).max(after);
        Reading {
            state,
            after,
            through,
            room: read.max_bytes,
            messages: Vec::new(),
            reached: through,
        }
    }

    /// Takes a message, unless it is beyond the bounds. Breaks when there is no more to be taken.
    fn take(&mut self, at: u64) -> ControlFlow<()> {
        if at > self.through {
            return ControlFlow::Break(());
        }
        let state = self.state;
        let kept = &state.messages[state.place(at)];
        let topic = state.index.name(kept.topic);
        let bytes = kept.payload.len() + topic.as_str().len();
        self.messages.push(Stored::new(
            offset(at),
            kept.time,
            topic.clone(),
            kept.kind,
            kept.is_final,
            kept.payload.clone(),
        ));
        self.room = self.room.saturating_sub(bytes);
        if self.room == 0 {
            self.reached = at;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Looks at the messages one after another, as many as one read may, and takes those wanted.
    fn scan(&mut self, wanted: impl Fn(&Candidate<'_>) -> bool) {
        let state = self.state;
        let begin = (self.after + 1).max(state.first());
        let end = self.through.min(begin - 1 + SCANNED_MESSAGES as u64);
        self.reached = end.max(self.after);
        for offset in begin..=end {
            let id = state.messages[state.place(offset)].topic;
            let topic = state.index.name(id);
            if wanted(&Candidate { offset, id, topic }) && self.take(offset).is_break() {
                return;
            }
        }
    }

    fn into_chunk(self) -> Chunk {
        Chunk::new(
            self.messages,
            offset(self.reached),
            offset(self.state.first()),
        )
    }
}

/// A number that is an offset. One beyond the last offset is named as the last.
fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap_or(Offset::MAX)
}

/// A payload that does not keep much more memory than its own.
fn keepable(payload: Bytes) -> Bytes {
    match payload.len() < COPIED_BYTES {
        true => Bytes::copy_from_slice(&payload),
        false => payload,
    }
}
