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
    /// The first offset that can be in it.
    pub(super) begin: u64,
    pub(super) log: Keyspace,
    pub(super) index: Keyspace,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({})", self.begin)
    }
}

const LOG: &str = "log.";
const INDEX: &str = "index.";

impl Generation {
    /// Makes a generation, with the state that the log has now. It is safe when this returns.
    pub(super) fn create(
        database: &Database,
        begin: u64,
        meta: &Meta,
        limits: &Limits,
    ) -> fjall::Result<Arc<Generation>> {
        // What would be written out only after this generation is over is written at its end.
        let step = step(limits);
        let options = |memtable: u64| {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable.min(step))
                .data_block_compression_policy(CompressionPolicy::disabled())
                .index_block_compression_policy(CompressionPolicy::disabled())
        };
        let log = || {
            options(LOG_MEMTABLE_BYTES)
                .data_block_size_policy(BlockSizePolicy::all(LOG_BLOCK_BYTES))
                .expect_point_read_hits(true)
        };
        let generation = Generation {
            begin,
            log: database.keyspace(&format!("{LOG}{begin}"), log)?,
            index: database
                .keyspace(&format!("{INDEX}{begin}"), || options(INDEX_MEMTABLE_BYTES))?,
        };
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&generation.index, META, meta.encode());
        batch.commit()?;
        Ok(Arc::new(generation))
    }

    /// Nothing is appended to it any more: what it has in memory is written to the disk. Otherwise it
    /// would keep its memory, and the journals that hold the same.
    pub(super) fn finish(&self) -> fjall::Result<()> {
        self.log.rotate_memtable()?;
        self.index.rotate_memtable()?;
        Ok(())
    }

    /// Deletes it. Its files are removed when the last reader is done. The index goes first, so that
    /// a generation without one is known as deleted.
    pub(super) fn delete(&self, database: &Database) -> fjall::Result<()> {
        database.delete_keyspace(self.index.clone())?;
        database.delete_keyspace(self.log.clone())
    }

    pub(super) fn meta(&self) -> fjall::Result<Option<Meta>> {
        let value = self.index.get(META)?;
        Ok(value.and_then(|value| Meta::decode(&value)))
    }
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

/// The generations of a database, by the offset they begin with.
pub(super) fn pairs(database: &Database) -> fjall::Result<BTreeMap<u64, Pair>> {
    let mut pairs = BTreeMap::<u64, Pair>::new();
    for name in database.list_keyspace_names() {
        let open = || database.keyspace(&name, KeyspaceCreateOptions::default);
        if let Some(begin) = begin_of(&name, LOG) {
            pairs.entry(begin).or_default().0 = Some(open()?);
        } else if let Some(begin) = begin_of(&name, INDEX) {
            pairs.entry(begin).or_default().1 = Some(open()?);
        }
    }
    Ok(pairs)
}

fn begin_of(name: &str, kind: &str) -> Option<u64> {
    name.strip_prefix(kind)?.parse().ok()
}
