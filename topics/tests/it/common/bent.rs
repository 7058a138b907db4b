//! A store that does as tests want: it is late, refuses, or has another id.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use unstall_topics::{
    Durability, Limits, LogId, Memory, Offset, Publication,
    store::{Appended, Bounds, Chunk, Read, Seek, Store, StoreError},
};

#[derive(Debug)]
pub(crate) struct Bent {
    memory: Memory,
    bends: Arc<Bends>,
}

/// How a store is bent.
#[derive(Debug, Default)]
pub(crate) struct Bends {
    pub(crate) id: Mutex<Option<LogId>>,
    /// How late appends are, in milliseconds.
    pub(crate) append_late: AtomicU64,
    /// How late seeks are, in milliseconds.
    pub(crate) seek_late: AtomicU64,
    /// Appends fail with this, before or after they are stored.
    pub(crate) refuse: Mutex<Option<StoreError>>,
    pub(crate) fail_after: Mutex<Option<StoreError>>,
    /// Reads fail with this.
    pub(crate) unreadable: Mutex<Option<StoreError>>,
    /// It has ended, and why. The next change tells it.
    pub(crate) ended: Mutex<Option<Arc<str>>>,
    pub(crate) reads: AtomicUsize,
    pub(crate) seeks: AtomicUsize,
    pub(crate) appends: AtomicUsize,
}

impl Bent {
    pub(crate) fn new(limits: Limits) -> (Bent, Arc<Bends>) {
        let bends = Arc::<Bends>::default();
        let memory = Memory::new(limits);
        let bent = Bent {
            memory,
            bends: bends.clone(),
        };
        (bent, bends)
    }
}

async fn late(by: &AtomicU64) {
    match by.load(Relaxed) {
        0 => {}
        millis => tokio::time::sleep(Duration::from_millis(millis)).await,
    }
}

impl Store for Bent {
    fn id(&self) -> LogId {
        self.bends.id.lock().unwrap().unwrap_or(self.memory.id())
    }

    fn durability(&self) -> Durability {
        self.memory.durability()
    }

    fn once(&self) -> Option<Duration> {
        self.memory.once()
    }

    fn max_message_bytes(&self) -> usize {
        self.memory.max_message_bytes()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn append(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>> {
        async move {
            self.bends.appends.fetch_add(1, Relaxed);
            late(&self.bends.append_late).await;
            if let Some(error) = self.bends.refuse.lock().unwrap().clone() {
                return Err(error);
            }
            let stored = self.memory.append(batch).await;
            match self.bends.fail_after.lock().unwrap().clone() {
                Some(error) => Err(error),
                None => stored,
            }
        }
        .boxed()
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, StoreError>> {
        self.memory.bounds()
    }

    fn changes(&self) -> watch::Receiver<Bounds> {
        self.memory.changes()
    }

    fn ended(&self) -> Option<Arc<str>> {
        self.bends.ended.lock().unwrap().clone()
    }

    fn read(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        async move {
            self.bends.reads.fetch_add(1, Relaxed);
            if let Some(error) = self.bends.unreadable.lock().unwrap().clone() {
                return Err(error);
            }
            self.memory.read(read).await
        }
        .boxed()
    }

    fn read_latest(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        self.memory.read_latest(read)
    }

    fn seek(&self, seek: Seek) -> BoxFuture<'_, Result<Offset, StoreError>> {
        async move {
            self.bends.seeks.fetch_add(1, Relaxed);
            late(&self.bends.seek_late).await;
            self.memory.seek(seek).await
        }
        .boxed()
    }

    fn remove_through(&self, offset: Offset) -> BoxFuture<'_, Result<(), StoreError>> {
        self.memory.remove_through(offset)
    }
}
