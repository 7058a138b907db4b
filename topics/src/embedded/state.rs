//! The state of a log on a disk, as its writer has it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::Bound,
    path::Path,
    sync::Arc,
};

use fjall::{Database, Keyspace};
use unstall_proto::topics::{StoredAt, Topic};

use super::{
    generation::{Generation, pairs},
    layout::{
        self, Meta, PUBLISHERS, TOPICS, decode_publisher, log_key, offset_of_log_key,
        publisher_of_key, topic_of_key,
    },
    view::{Hole, View},
};
use crate::{
    clock::{Clock, earlier},
    defaults::embedded::{CACHE_BYTES, JOURNAL_BYTES, WORKERS},
    limits::Limits,
    publishers::Publishers,
};

/// Everything that is lost when the database is closed, and found again when it is opened.
pub(super) struct State {
    pub(super) database: Database,
    /// From the oldest. Messages are appended to the last. Invariant: at least one.
    pub(super) generations: Vec<Kept>,
    pub(super) holes: Arc<[Hole]>,
    pub(super) publishers: Publishers,
    /// In which generation each publisher was written last.
    pub(super) homes: HashMap<[u8; 16], u64>,
    /// The topics that have messages in the last generation.
    pub(super) topics: HashSet<Topic>,
    pub(super) last: u64,
    pub(super) last_time: StoredAt,
    /// Everything up to here is removed.
    pub(super) removed: u64,
}

/// A generation, and what is needed to decide when it goes.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) generation: Arc<Generation>,
    pub(super) cost: u64,
    /// Its last message.
    pub(super) last: u64,
    pub(super) last_time: StoredAt,
    /// When its first message was stored, or later.
    pub(super) begin_time: StoredAt,
}

/// Why a database cannot be opened.
#[derive(Debug)]
pub(super) enum LoadError {
    Database(fjall::Error),
    Damaged(String),
}

impl From<fjall::Error> for LoadError {
    fn from(error: fjall::Error) -> LoadError {
        LoadError::Database(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Database(error) => error.fmt(f),
            LoadError::Damaged(why) => f.write_str(why),
        }
    }
}

impl State {
    /// Opens a database, or makes one. What an interrupted process left half made or half deleted is
    /// removed.
    pub(super) fn load(path: &Path, limits: &Limits, clock: &Clock) -> Result<State, LoadError> {
        let database = Database::builder(path)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        let mut generations = sweep(&database)?;
        if generations.is_empty() {
            let meta = Meta::default();
            let first = Generation::create(&database, 1, &meta, limits)?;
            generations.push(Kept::new(first, &meta));
        }
        let newest = generations.last().map(|kept| kept.generation.meta());
        let newest = newest.transpose()?.flatten().unwrap_or_default();
        let holes = find_holes(&generations, newest.removed)?;
        let mut state = State {
            database,
            generations,
            holes: holes.into(),
            publishers: Publishers::new(limits),
            homes: HashMap::new(),
            topics: HashSet::new(),
            last: newest.last,
            last_time: newest.last_time,
            removed: newest.removed,
        };
        state.load_publishers(limits, clock.now(newest.last_time))?;
        state.load_topics()?;
        Ok(state)
    }

    fn load_publishers(&mut self, limits: &Limits, now: StoredAt) -> Result<(), LoadError> {
        let oldest = earlier(now, limits.once);
        for kept in &self.generations {
            let begin = kept.generation.begin;
            for entry in kept.generation.index.prefix([PUBLISHERS]) {
                let (key, value) = entry.into_inner()?;
                let publisher = publisher_of_key(&key).zip(decode_publisher(&value));
                let (id, known) = publisher.ok_or_else(|| {
                    LoadError::Damaged(format!("a publisher in index.{begin} cannot be decoded"))
                })?;
                if known.last >= oldest {
                    self.homes.insert(id, begin);
                    self.publishers.insert(id, known);
                }
            }
        }
        Ok(())
    }

    fn load_topics(&mut self) -> Result<(), LoadError> {
        let index = self.current().generation.index.clone();
        for entry in index.prefix([TOPICS]) {
            let key = entry.key()?;
            let topic = topic_of_key(&key).and_then(|topic| Topic::new(topic).ok());
            let topic = topic.ok_or_else(|| {
                LoadError::Damaged("a topic in the index is not a valid name".to_owned())
            })?;
            self.topics.insert(topic);
        }
        Ok(())
    }

    /// The generation that messages are appended to.
    pub(super) fn current(&self) -> &Kept {
        self.generations.last().expect("there is at least one")
    }

    pub(super) fn current_mut(&mut self) -> &mut Kept {
        self.generations.last_mut().expect("there is at least one")
    }

    /// What all messages cost.
    pub(super) fn cost(&self) -> u64 {
        self.generations.iter().map(|kept| kept.cost).sum()
    }

    /// The first offset that is there, or would be.
    pub(super) fn first(&self) -> u64 {
        let first = self.generations[0].generation.begin;
        first.max(self.removed + 1).min(self.last + 1)
    }

    /// What is written with each commit, if the current generation then costs this.
    pub(super) fn meta(&self, cost: u64) -> Meta {
        Meta {
            cost,
            last: self.last,
            last_time: self.last_time,
            removed: self.removed,
        }
    }

    pub(super) fn view(&self) -> View {
        let last = |kept: &Kept| (kept.generation.clone(), kept.last);
        View {
            generations: self.generations.iter().map(last).collect(),
            holes: self.holes.clone(),
            first: self.first(),
            last: self.last,
            last_time: self.last_time,
        }
    }
}

impl Kept {
    pub(super) fn new(generation: Arc<Generation>, meta: &Meta) -> Kept {
        Kept {
            generation,
            cost: meta.cost,
            last: meta.last,
            last_time: meta.last_time,
            begin_time: meta.last_time,
        }
    }
}

/// The generations that are whole, from the oldest. Others are deleted: at the front those that were
/// being deleted, at the end one that was being made.
fn sweep(database: &Database) -> Result<Vec<Kept>, LoadError> {
    let mut whole = Vec::new();
    for (begin, pair) in pairs(database)? {
        let kept = match pair {
            (Some(log), Some(index)) => load_generation(begin, log, index)?,
            (log, index) => Err([log, index]),
        };
        match kept {
            Ok(kept) => whole.push(kept),
            Err(left) if whole.is_empty() || is_last(database, begin)? => {
                for keyspace in left.into_iter().flatten() {
                    database.delete_keyspace(keyspace)?;
                }
            }
            Err(_) => {
                let why = format!("the keyspaces log.{begin} and index.{begin} are not whole");
                return Err(LoadError::Damaged(why));
            }
        }
    }
    // Removed as a whole, but the process ended before they were deleted.
    let removed = match whole.last() {
        Some(kept) => kept.generation.meta()?.map_or(0, |meta| meta.removed),
        None => 0,
    };
    while whole.len() > 1 && whole[0].last <= removed {
        whole.remove(0).generation.delete(database)?;
    }
    Ok(whole)
}

type Left = [Option<Keyspace>; 2];

/// A generation, or its keyspaces if it was never finished.
fn load_generation(
    begin: u64,
    log: Keyspace,
    index: Keyspace,
) -> Result<Result<Kept, Left>, LoadError> {
    let generation = Generation { begin, log, index };
    match generation.meta()? {
        Some(meta) => {
            let mut kept = Kept::new(Arc::new(generation), &meta);
            let first = kept.generation.log.first_key_value();
            if let Some(value) = first.map(|first| first.value()).transpose()? {
                kept.begin_time = layout::time_of_message(&value).unwrap_or(kept.last_time);
            }
            Ok(Ok(kept))
        }
        None if generation.log.is_empty()? => {
            let Generation { log, index, .. } = generation;
            Ok(Err([Some(log), Some(index)]))
        }
        None => Err(LoadError::Damaged(format!(
            "log.{begin} has messages, but index.{begin} does not know how many"
        ))),
    }
}

fn is_last(database: &Database, begin: u64) -> Result<bool, LoadError> {
    Ok(pairs(database)?
        .last_key_value()
        .is_none_or(|(last, _)| *last == begin))
}

/// The messages that should be there and are not. Counting them takes no time if none is missing.
fn find_holes(generations: &[Kept], removed: u64) -> Result<Vec<Hole>, LoadError> {
    let mut holes = Vec::new();
    for kept in generations {
        let generation = &kept.generation;
        let expected = (kept.last + 1).saturating_sub(generation.begin);
        if generation.log.approximate_len() as u64 == expected {
            continue;
        }
        let mut at = generation.begin - 1;
        let all = (Bound::Unbounded, Bound::Included(log_key(kept.last)));
        for entry in generation.log.range::<[u8; 8], _>(all) {
            // What cannot be read is found out by whoever reads it.
            let Ok(key) = entry.key() else { break };
            let Some(offset) = offset_of_log_key(&key) else {
                return Err(LoadError::Damaged(
                    "a key of the log is no offset".to_owned(),
                ));
            };
            if offset > at + 1 {
                holes.push((at, offset - 1));
            }
            at = offset;
        }
        if at < kept.last {
            holes.push((at, kept.last));
        }
    }
    holes.retain(|&(_, through)| through > removed);
    for (after, through) in &holes {
        tracing::error!(after, through, "messages of a log are missing on the disk");
    }
    Ok(holes)
}
