//! A sixteenth of the retention: a pair of keyspaces, which is deleted as a whole.

use std::{collections::BTreeMap, fmt, sync::Arc};

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    config::{BlockSizePolicy, CompressionPolicy},
};

use super::layout::{META, Meta};
use crate::{
    defaults::embedded::{GENERATIONS, INDEX_MEMTABLE_BYTES, LOG_BLOCK_BYTES, LOG_MEMTABLE_BYTES},
    limits::Limits,
};

/// The messages from one offset on, up to the next generation.
pub(super) struct Generation {
    /// Generations are numbered as they are made.
    pub(super) number: u64,
    /// The first offset that can be in it.
    pub(super) begin: u64,
    pub(super) log: Keyspace,
    pub(super) index: Keyspace,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({})", self.number)
    }
}

const LOG: &str = "log.";
const INDEX: &str = "index.";

/// The keyspaces of the next generation. Making each takes a dozen syncs, so they are made one by
/// one, before they are needed.
#[derive(Default)]
pub(super) struct Prepared {
    log: Option<Keyspace>,
    index: Option<Keyspace>,
}

impl Prepared {
    pub(super) fn is_ready(&self) -> bool {
        self.log.is_some() && self.index.is_some()
    }

    /// Makes one of the keyspaces, if one is missing.
    pub(super) fn make_one(
        &mut self,
        database: &Database,
        number: u64,
        limits: &Limits,
    ) -> fjall::Result<()> {
        // What would be written out only after this generation is over is written at its end.
        let step = step(limits);
        let options = |memtable: u64| {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable.min(step))
                .data_block_compression_policy(CompressionPolicy::disabled())
                .index_block_compression_policy(CompressionPolicy::disabled())
        };
        if self.log.is_none() {
            let log = || {
                options(LOG_MEMTABLE_BYTES)
                    .data_block_size_policy(BlockSizePolicy::all(LOG_BLOCK_BYTES))
                    .expect_point_read_hits(true)
            };
            self.log = Some(database.keyspace(&format!("{LOG}{number}"), log)?);
        } else if self.index.is_none() {
            let index = || options(INDEX_MEMTABLE_BYTES);
            self.index = Some(database.keyspace(&format!("{INDEX}{number}"), index)?);
        }
        Ok(())
    }

    /// Begins the generation, with the state that the log has now. It is safe when this returns.
    pub(super) fn begin(
        mut self,
        database: &Database,
        number: u64,
        limits: &Limits,
        meta: &Meta,
    ) -> fjall::Result<Arc<Generation>> {
        let (log, index) = loop {
            match (self.log.take(), self.index.take()) {
                (Some(log), Some(index)) => break (log, index),
                (log, index) => (self.log, self.index) = (log, index),
            }
            self.make_one(database, number, limits)?;
        };
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&index, META, meta.encode());
        batch.commit()?;
        Ok(Arc::new(Generation {
            number,
            begin: meta.begin,
            log,
            index,
        }))
    }
}

impl Generation {
    /// Nothing is appended to it any more: what it has in memory is written to the disk. Otherwise it
    /// would keep its memory, and the journals that hold the same.
    pub(super) fn finish(&self) -> fjall::Result<()> {
        self.log.rotate_memtable()?;
        self.index.rotate_memtable()?;
        Ok(())
    }
}

/// The state that a generation has noted.
pub(super) fn meta_of(index: &Keyspace) -> fjall::Result<Option<Meta>> {
    let value = index.get(META)?;
    Ok(value.and_then(|value| Meta::decode(&value)))
}

/// What the messages of a generation may cost.
pub(super) fn step(limits: &Limits) -> u64 {
    #[cfg(test)]
    if let Some(step) = limits.step {
        return step;
    }
    limits.bytes() / u64::from(GENERATIONS)
}

/// The keyspaces of a generation, the log and the index. One is missing if the process ended while
/// the generation was made or deleted.
pub(super) type Pair = (Option<Keyspace>, Option<Keyspace>);

/// The generations of a database, by their numbers.
pub(super) fn pairs(database: &Database) -> fjall::Result<BTreeMap<u64, Pair>> {
    let mut pairs = BTreeMap::<u64, Pair>::new();
    for name in database.list_keyspace_names() {
        let open = || database.keyspace(&name, KeyspaceCreateOptions::default);
        if let Some(number) = number_of(&name, LOG) {
            pairs.entry(number).or_default().0 = Some(open()?);
        } else if let Some(number) = number_of(&name, INDEX) {
            pairs.entry(number).or_default().1 = Some(open()?);
        }
    }
    Ok(pairs)
}

fn number_of(name: &str, kind: &str) -> Option<u64> {
    name.strip_prefix(kind)?.parse().ok()
}
