//! The state of a log on a disk, as its writer has it.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs,
    ops::Bound,
    path::Path,
    sync::Arc,
};

use fjall::{Database, Keyspace, PersistMode};
use unstall_proto::topics::{Offset, StoredAt, Topic};

use super::{
    generation::{Generation, Pair, Prepared, meta_of, pairs},
    layout::{
        self, META, Meta, PUBLISHERS, TOPICS, decode_publisher, log_key, offset_of_log_key,
        publisher_of_key, topic_of_key,
    },
    manifests,
    unwritten::Unwritten,
    view::{Hole, View},
};
use crate::{
    clock::{Clock, earlier},
    defaults::embedded::{CACHE_BYTES, JOURNAL_BYTES, NUMBERS_SKIPPED, WORKERS},
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
    /// The same, as it is on the disk.
    pub(super) removed_safely: u64,
    pub(super) prepared: Prepared,
    pub(super) unwritten: Unwritten,
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
        let (database, mut generations) = open(path)?;
        if generations.is_empty() {
            let meta = Meta {
                begin: 1,
                ..Meta::default()
            };
            let first = Prepared::default().begin(&database, 1, limits, &meta)?;
            generations.push(Kept::new(first, &meta));
        }
        let newest = generations
            .last()
            .map(|kept| meta_of(&kept.generation.index));
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
            removed_safely: newest.removed,
            prepared: Prepared::default(),
            unwritten: Unwritten::default(),
        };
        let now = clock.now(newest.last_time);
        state.load_publishers(limits, now)?;
        state.read_publishers_again(limits, now, newest.unwritten)?;
        state.load_topics()?;
        Ok(state)
    }

    fn load_publishers(&mut self, limits: &Limits, now: StoredAt) -> Result<(), LoadError> {
        let oldest = earlier(now, limits.once);
        for kept in &self.generations {
            let number = kept.generation.number;
            for entry in kept.generation.index.prefix([PUBLISHERS]) {
                let (key, value) = entry.into_inner()?;
                let publisher = publisher_of_key(&key).zip(decode_publisher(&value));
                let (id, known) = publisher.ok_or_else(|| {
                    LoadError::Damaged(format!("a publisher in index.{number} cannot be decoded"))
                })?;
                if known.last >= oldest {
                    self.homes.insert(id, number);
                    self.publishers.insert(id, known);
                }
            }
        }
        Ok(())
    }

    /// Finds out from the messages what publishers' own places do not have.
    fn read_publishers_again(
        &mut self,
        limits: &Limits,
        now: StoredAt,
        from: u64,
    ) -> Result<(), LoadError> {
        let oldest = earlier(now, limits.once);
        for kept in &self.generations {
            let number = kept.generation.number;
            if kept.last < from.max(kept.generation.begin) {
                continue;
            }
            let range = log_key(from)..=log_key(kept.last);
            for entry in kept.generation.log.range(range) {
                let (key, value) = entry.into_inner()?;
                let offset = offset_of_log_key(&key).and_then(Offset::new);
                let (Some(offset), Some(message)) = (offset, layout::parts(&value)) else {
                    let why = format!("a message in log.{number} cannot be decoded");
                    return Err(LoadError::Damaged(why));
                };
                if let Some(numbered) = message.publisher
                    && message.time >= oldest
                    && self.publishers.found(numbered, offset, message.time)
                {
                    self.unwritten.push(numbered.0.id, offset.get());
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
            begin: self.current().generation.begin,
            cost,
            last: self.last,
            last_time: self.last_time,
            removed: self.removed,
            unwritten: self.unwritten.from(0).unwrap_or(self.last + 1),
        }
    }

    /// Begins a generation with the next offset. Returns the one before it, which is to be finished.
    pub(super) fn begin_generation(&mut self, limits: &Limits) -> fjall::Result<Arc<Generation>> {
        let number = self.current().generation.number + 1;
        let meta = Meta {
            begin: self.last + 1,
            ..self.meta(0)
        };
        let prepared = std::mem::take(&mut self.prepared);
        let generation = prepared.begin(&self.database, number, limits, &meta)?;
        self.removed_safely = self.removed;
        let over = self.current().generation.clone();
        self.generations.push(Kept::new(generation, &meta));
        self.topics.clear();
        Ok(over)
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

/// Opens the database, with the generations that are whole, from the oldest.
fn open(path: &Path) -> Result<(Database, Vec<Kept>), LoadError> {
    if let Some(why) = manifests::damage(path).map_err(fjall::Error::from)? {
        return Err(LoadError::Damaged(why));
    }
    let open = || {
        Database::builder(path)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
    };
    let database = open()?;
    let (whole, left) = whole_generations(&database)?;
    let Some((newest, meta)) = whole.last() else {
        for (number, pair) in left {
            check_left(number, &pair, 0)?;
        }
        // The process ended while it made the database. It is made anew, because what it numbered
        // cannot be known.
        drop(database);
        fs::remove_dir_all(path).map_err(fjall::Error::from)?;
        return Ok((open()?, Vec::new()));
    };
    number_on(&database, &newest.generation, meta)?;
    // What was being deleted when the process ended, or was being made.
    for (number, pair) in left {
        let is_old = number < newest.generation.number;
        check_left(number, &pair, if is_old { meta.removed } else { 0 })?;
        for keyspace in [pair.0, pair.1].into_iter().flatten() {
            database.delete_keyspace(keyspace)?;
        }
    }
    Ok((database, whole.into_iter().map(|(kept, _)| kept).collect()))
}

/// Makes the database number what it does from now on above all that it did before.
///
/// It numbers each write, and each change of its list of keyspaces. When it is opened it looks for
/// the highest number, but not in that list. So a deletion could get a lower number than what it
/// deletes, which then comes back in part, and the next opening panics.
fn number_on(database: &Database, newest: &Generation, meta: &Meta) -> Result<(), LoadError> {
    let next = database.seqno().saturating_add(NUMBERS_SKIPPED);
    database.supervisor.seqno.fetch_max(next);
    // And so that the next opening finds it.
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    batch.insert(&newest.index, META, meta.encode());
    Ok(batch.commit()?)
}

/// A generation that is not whole must not have messages that are not removed.
fn check_left(number: u64, pair: &Pair, removed: u64) -> Result<(), LoadError> {
    let last = pair.0.as_ref().map(last_offset).transpose()?;
    if last.is_some_and(|last| last > removed) {
        let why = format!("log.{number} has messages, and index.{number} is not whole");
        return Err(LoadError::Damaged(why));
    }
    Ok(())
}

type Whole = Vec<(Kept, Meta)>;

/// The generations that are whole, from the oldest, and those that are not.
fn whole_generations(database: &Database) -> Result<(Whole, Vec<(u64, Pair)>), LoadError> {
    let mut whole = Vec::new();
    let mut left = Vec::new();
    for (number, pair) in pairs(database)? {
        let meta = pair.1.as_ref().map(meta_of).transpose()?.flatten();
        match (pair, meta) {
            ((Some(log), Some(index)), Some(meta)) => {
                whole.push((load_generation(number, log, index, &meta)?, meta));
            }
            (pair, _) => left.push((number, pair)),
        }
    }
    Ok((whole, left))
}

fn last_offset(log: &Keyspace) -> Result<u64, LoadError> {
    let key = log.last_key_value().map(|last| last.key()).transpose()?;
    Ok(key.and_then(|key| offset_of_log_key(&key)).unwrap_or(0))
}

fn load_generation(
    number: u64,
    log: Keyspace,
    index: Keyspace,
    meta: &Meta,
) -> Result<Kept, LoadError> {
    let first = log
        .first_key_value()
        .map(|first| first.value())
        .transpose()?;
    let generation = Generation {
        number,
        begin: meta.begin,
        log,
        index,
    };
    let mut kept = Kept::new(Arc::new(generation), meta);
    if let Some(value) = first {
        kept.begin_time = layout::time_of_message(&value).unwrap_or(kept.last_time);
    }
    Ok(kept)
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
