//! The log of a world: what it has now, and everything that was ever stored in it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use unstall_proto::Kind;
use unstall_proto::topics::{
    Block, BlockBuilder, Durability, LogBounds, LogId, LogInfo, Offset, Outcome, Position,
    PublishRequest, Publisher, ReadRequest, Refusal, StoredAt, StoredMessage,
};

use crate::random::Random;

pub fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

/// A message that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub offset: Offset,
    pub time: StoredAt,
    pub topic: String,
    pub kind: Kind,
    pub is_final: bool,
    pub payload: Bytes,
}

/// The time of a log's life between two losses of its end. A log that loses its end begins another
/// one with the same id.
#[derive(Debug)]
pub struct Incarnation {
    pub id: LogId,
    /// Everything that was ever stored in it, and what it had when it began.
    pub all: Vec<Entry>,
    /// The first message that is left.
    pub first: Offset,
    pub last: Offset,
    /// The end of what it had when it began.
    pub kept: Offset,
}

#[derive(Debug, Default)]
struct Numbers {
    epoch: u64,
    highest: u64,
    offsets: HashMap<u64, Offset>,
    last_at: u64,
}

/// The log, with its store.
#[derive(Debug)]
pub struct Ledger {
    /// All that there were. The last one is the log.
    pub lives: Vec<Incarnation>,
    publishers: HashMap<Publisher, Numbers>,
    ids: u8,
    /// The last time that was given.
    pub clock: u64,
    /// Offsets follow each other.
    pub dense: bool,
    /// For how long publishers are remembered.
    pub once: Option<u64>,
}

/// What is added to the time for which publishers are remembered: packets are on their way for less.
pub const ONCE_SLACK: u64 = 60_000;

const BEGIN: u64 = 1_700_000_000_000;

impl Ledger {
    pub fn new(dense: bool, once: Option<u64>) -> Ledger {
        let mut ledger = Ledger {
            lives: Vec::new(),
            publishers: HashMap::new(),
            ids: 0,
            clock: BEGIN,
            dense,
            once,
        };
        ledger.replace();
        ledger
    }

    /// Another log takes the place of this one.
    pub fn replace(&mut self) {
        self.ids += 1;
        self.publishers.clear();
        self.lives.push(Incarnation {
            id: LogId([self.ids; 16]),
            all: Vec::new(),
            first: offset(1),
            last: Offset::START,
            kept: Offset::START,
        });
    }

    /// The life that a position is of: the first one that it may be of. Later ones may have it too.
    pub fn life_of(&self, position: Position) -> usize {
        let life = self.lives.iter().position(|life| {
            let at = life
                .all
                .iter()
                .find(|entry| entry.offset == position.offset);
            life.id == position.log
                && position.offset <= life.last
                && at.is_none_or(|entry| !entry.time.contradicts(position.time))
        });
        // An application may name any position, also one that no log ever had.
        life.unwrap_or(0)
    }

    pub fn log(&self) -> &Incarnation {
        self.lives.last().unwrap()
    }

    fn log_mut(&mut self) -> &mut Incarnation {
        self.lives.last_mut().unwrap()
    }

    pub fn bounds(&self) -> LogBounds {
        let log = self.log();
        LogBounds {
            log: log.id,
            first: log.first,
            last: log.last,
            last_time: self.last_time(),
        }
    }

    pub fn last_time(&self) -> StoredAt {
        let last = self.log().all.last();
        last.map_or(StoredAt::UNKNOWN, |last| last.time)
    }

    pub fn info(&self) -> LogInfo {
        let log = self.log();
        let once = self.once.map(std::time::Duration::from_millis);
        LogInfo::new(log.id, log.first, log.last, Durability::Memory).once(once)
    }

    /// The messages that are left.
    pub fn left(&self) -> &[Entry] {
        let log = self.log();
        let gone = log.all.partition_point(|entry| entry.offset < log.first);
        &log.all[gone..]
    }

    /// The time of the message at an offset.
    pub fn found(&self, at: Offset) -> StoredAt {
        let found = self.left().iter().find(|entry| entry.offset == at);
        found.map_or(StoredAt::UNKNOWN, |entry| entry.time)
    }

    /// Retention removes this many messages from the front.
    pub fn remove(&mut self, count: usize) {
        let left = self.left();
        let first = match left.get(count) {
            Some(entry) => entry.offset,
            None => offset(self.log().last.get() + 1),
        };
        self.log_mut().first = first;
    }

    /// The log loses messages at its end, and gives their offsets out again.
    pub fn lose_end(&mut self, count: usize) -> bool {
        let left = self.left();
        if !self.dense || left.len() <= count || count == 0 {
            return false;
        }
        let keep = left[left.len() - count - 1].offset;
        let all: Vec<_> = self.log().all.clone();
        let kept = all
            .into_iter()
            .filter(|entry| entry.offset <= keep)
            .collect();
        let (id, first) = (self.log().id, self.log().first);
        self.lives.push(Incarnation {
            id,
            all: kept,
            first,
            last: keep,
            kept: keep,
        });
        // What is known of publishers is lost in the same way.
        for numbers in self.publishers.values_mut() {
            numbers.offsets.retain(|_, at| *at <= keep);
            numbers.highest = numbers.offsets.keys().copied().max().unwrap_or(0);
        }
        true
    }

    /// Stores a message, as a store of topics does.
    pub fn append(
        &mut self,
        publisher: Option<Publisher>,
        request: &PublishRequest,
        random: &mut Random,
    ) -> Outcome {
        self.clock += 1 + random.below(5);
        self.forget();
        if let Some(publisher) = publisher {
            let numbers = self.publishers.entry(publisher).or_insert_with(|| Numbers {
                epoch: publisher.epoch,
                ..Numbers::default()
            });
            if numbers.epoch > publisher.epoch {
                return Outcome::refused(Refusal::Fenced);
            }
            if request.number <= numbers.highest {
                // A store need not remember the offset.
                let known = numbers.offsets.get(&request.number).copied();
                return Outcome::Stored(known.filter(|_| random.chance(70)));
            }
        }
        let step = if self.dense { 1 } else { 1 + random.below(4) };
        let at = offset(self.log().last.get() + step);
        let time = StoredAt::new(self.clock).unwrap();
        let log = self.log_mut();
        if log.all.is_empty() {
            log.first = at;
        }
        log.last = at;
        log.all.push(Entry {
            offset: at,
            time,
            topic: request.topic.as_str().to_owned(),
            kind: request.kind,
            is_final: request.is_final,
            payload: request.payload.clone(),
        });
        if log.first > at {
            log.first = at;
        }
        if let Some(numbers) = publisher.and_then(|it| self.publishers.get_mut(&it)) {
            numbers.highest = request.number;
            numbers.last_at = self.clock;
            numbers.offsets.insert(request.number, at);
        }
        Outcome::Stored(Some(at))
    }

    fn forget(&mut self) {
        if let Some(once) = self.once {
            let now = self.clock;
            self.publishers
                .retain(|_, numbers| numbers.last_at + once + ONCE_SLACK > now);
        }
    }

    /// What a store reads: a block, and how far it is complete.
    pub fn read(&self, request: &ReadRequest, random: &mut Random) -> (Arc<Block>, Offset) {
        if request.latest {
            return self.read_latest(request);
        }
        let behind = self.left().iter().filter(|entry| {
            entry.offset > request.after
                && entry.offset <= request.through
                && request.filter.matches(&entry.topic)
        });
        // The work of one read is bounded, whatever matches.
        let bound = match random.chance(30) {
            true => offset((request.after.get() + 1 + random.below(20)).min(request.through.get())),
            false => request.through,
        };
        let messages = behind.take_while(|entry| entry.offset <= bound);
        chunk(messages, request, bound)
    }

    fn read_latest(&self, request: &ReadRequest) -> (Arc<Block>, Offset) {
        let mut latest: HashMap<&str, &Entry> = HashMap::new();
        for entry in self.left() {
            if entry.offset <= request.through && request.filter.matches(&entry.topic) {
                latest.insert(&entry.topic, entry);
            }
        }
        let mut latest: Vec<_> = latest.into_values().collect();
        latest.sort_by_key(|entry| entry.offset);
        let behind = latest
            .into_iter()
            .filter(|entry| entry.offset > request.after);
        chunk(behind, request, request.through)
    }

    /// Everything that was published last, whatever its topic, as a cache of the tail has it.
    pub fn tail(&self, request: &ReadRequest, random: &mut Random) -> Option<(Arc<Block>, Offset)> {
        let log = self.log();
        if request.latest || log.first.before() > request.after {
            return None;
        }
        let before = random.below(4) as usize;
        let left = self.left();
        let next = left.partition_point(|entry| entry.offset <= request.after);
        let count = 1 + random.below(30) as usize;
        let tail = &left[next.saturating_sub(before)..left.len().min(next + count)];
        let through = tail.last()?.offset;
        let through = if next + count >= left.len() {
            log.last.max(through)
        } else {
            through
        };
        Some((Arc::new(Block::new(tail.iter().map(stored))), through))
    }
}

fn stored(entry: &Entry) -> StoredMessage<'_> {
    StoredMessage {
        offset: entry.offset,
        time: entry.time,
        topic: &entry.topic,
        kind: entry.kind,
        is_final: entry.is_final,
        payload: &entry.payload,
    }
}

fn chunk<'a>(
    messages: impl Iterator<Item = &'a Entry>,
    request: &ReadRequest,
    through: Offset,
) -> (Arc<Block>, Offset) {
    let mut builder = BlockBuilder::default().matching(request.filter.clone());
    let mut bytes = 0;
    for entry in messages {
        if bytes >= request.max_bytes {
            let block = builder.finish();
            let last = block.offsets().map_or(request.after, |(_, last)| last);
            return (Arc::new(block), last);
        }
        bytes += entry.payload.len() + entry.topic.len();
        assert!(builder.push(stored(entry)));
    }
    (Arc::new(builder.finish()), through)
}
