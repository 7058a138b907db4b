//! Reads the latest message of each topic: by a consumer that delivers the last message per subject.
//!
//! It knows the topics as they are when it is made. Topics that were published to since the end of
//! the read have an older message within it, which is looked for beforehand. If the consumer's server
//! lags behind the leader, what it lacks follows at the end of its deliveries; a topic may then come
//! twice, the older message first.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use unstall_proto::topics::{Filter, Offset, Topic};

use super::{
    consumer::{Consumer, Deliver},
    limits::{CONSUMER_IDLE, KEPT_CONSUMERS},
    reading::{Brought, End, What},
    shared::{Shared, Trouble},
    tail::unreadable,
};
use crate::store::{Chunk, Read, StoreError, Stored};

/// Bytes that are read at a time to look for older messages.
const LOOK_BYTES: usize = 1 << 20;

/// How far back an older message is looked for at first.
const FIRST_LOOK: u64 = 1_024;

/// A read of the latest messages that goes on chunk by chunk.
#[derive(Debug)]
struct Snapshot {
    filter: Filter,
    through: Offset,
    after: Offset,
    since: Instant,
    consumer: Consumer,
    /// The messages that the consumer does not deliver, because a newer one is behind `through`.
    older: VecDeque<Stored>,
}

impl Snapshot {
    fn goes_on(&self, read: &Read) -> bool {
        (&self.filter, self.through, self.after) == (&read.filter, read.through, read.after)
    }
}

/// Those that may go on.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<VecDeque<Snapshot>>);

impl Snapshots {
    fn take(&self, read: &Read) -> Option<Snapshot> {
        let mut snapshots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.retain(|snapshot| snapshot.since.elapsed() < CONSUMER_IDLE / 2);
        let at = snapshots
            .iter()
            .position(|snapshot| snapshot.goes_on(read))?;
        snapshots.remove(at)
    }

    fn keep(&self, snapshot: Snapshot) {
        let mut snapshots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        snapshots.push_back(snapshot);
        if snapshots.len() > KEPT_CONSUMERS {
            snapshots.pop_front();
        }
    }
}

impl Shared {
    pub(super) async fn read_latest(&self, read: &Read) -> Result<Chunk, StoreError> {
        self.check()?;
        if read.after >= read.through {
            return Ok(Chunk::new(
                Vec::new(),
                read.after,
                self.bounds.borrow().first,
            ));
        }
        let snapshot = match self.snapshots.take(read) {
            Some(snapshot) => snapshot,
            None => self.snapshot(read).await?,
        };
        match self.go_on(read, snapshot).await {
            Ok(chunk) => Ok(chunk),
            Err(Trouble::Lasting(error)) => Err(error),
            Err(Trouble::Passing(why)) => {
                tracing::debug!(%why, "the latest messages are read anew");
                let anew = async || {
                    let snapshot = self.snapshot(read).await.map_err(Trouble::Lasting)?;
                    self.go_on(read, snapshot).await
                };
                self.insist(anew).await
            }
        }
    }

    async fn snapshot(&self, read: &Read) -> Result<Snapshot, StoreError> {
        // This policy needs a filter, also one that matches everything.
        let filter = self.subjects.filter(&read.filter);
        let create = || async {
            let filter = Some(filter.clone());
            Ok(self.consumer(filter, Deliver::Latest).await?)
        };
        let consumer = self.insist(create).await?;
        let end = self.insist(|| self.ask_bounds()).await?.last;
        let mut older = Vec::new();
        for topic in self.topics_behind(read, end).await? {
            older.extend(self.latest_of(&topic, read.after, read.through).await?);
        }
        older.sort_unstable_by_key(|stored| stored.offset);
        Ok(Snapshot {
            filter: read.filter.clone(),
            through: read.through,
            after: read.after,
            since: Instant::now(),
            consumer,
            older: older.into(),
        })
    }

    /// The topics that were published to behind the read.
    async fn topics_behind(&self, read: &Read, end: Offset) -> Result<HashSet<Topic>, StoreError> {
        let mut topics = HashSet::new();
        let mut behind = Read::new(read.through, end, read.filter.clone(), LOOK_BYTES);
        while behind.after < end {
            let chunk = self.read_over_odd(&behind).await?;
            topics.extend(chunk.messages.into_iter().map(|stored| stored.topic));
            behind.after = chunk.through;
        }
        Ok(topics)
    }

    /// The latest message of a topic within these bounds. Looks farther back each time, because the
    /// topic may have many messages there.
    async fn latest_of(
        &self,
        topic: &Topic,
        after: Offset,
        through: Offset,
    ) -> Result<Option<Stored>, StoreError> {
        let mut look = FIRST_LOOK;
        let mut end = through;
        while end > after {
            let from = Offset::new(end.get().saturating_sub(look))
                .unwrap_or(after)
                .max(after);
            let mut latest = None;
            let mut read = Read::new(from, end, topic.clone().into(), LOOK_BYTES);
            while read.after < end {
                let chunk = self.read(&read).await?;
                latest = chunk.messages.into_iter().next_back().or(latest);
                read.after = chunk.through;
            }
            if latest.is_some() {
                return Ok(latest);
            }
            end = from;
            look = look.saturating_mul(16);
        }
        Ok(None)
    }

    /// Reads, and leaves out what is not readable.
    async fn read_over_odd(&self, read: &Read) -> Result<Chunk, StoreError> {
        match self.read(read).await {
            Err(StoreError::Damaged { through, .. }) => {
                let first = self.bounds.borrow().first;
                Ok(Chunk::new(Vec::new(), through, first))
            }
            other => other,
        }
    }

    async fn go_on(&self, read: &Read, snapshot: Snapshot) -> Result<Chunk, Trouble> {
        let Snapshot {
            consumer,
            mut older,
            ..
        } = snapshot;
        let Brought { messages, odd, end } = self.bring(read, What::Latest, consumer).await?;
        let last = messages.last().map(|stored| stored.offset);
        let (mut chunk, consumer) = match (last, odd, end) {
            (None, Some(odd), _) => return Err(Trouble::Lasting(unreadable(&odd))),
            (Some(last), None, End::Full(consumer) | End::Over(consumer)) => {
                (Chunk::new(messages, last, last), Some(consumer))
            }
            // What is beyond is behind all that is asked for.
            (_, None, End::Beyond(_)) => (Chunk::new(messages, read.through, read.through), None),
            (Some(last), _, _) => (Chunk::new(messages, last, last), None),
            // The last message that matches is the latest of its topic. So if the leader knows of
            // another one, this server lags.
            (None, None, End::Over(_)) => (self.nothing(read).await?, None),
            (None, None, End::Full(_) | End::Cut) => {
                return Err(Trouble::Passing("a consumer brought nothing".into()));
            }
        };
        let within = older
            .iter()
            .take_while(|stored| stored.offset <= chunk.through)
            .count();
        if within > 0 {
            chunk.messages.extend(older.drain(..within));
            chunk.messages.sort_unstable_by_key(|stored| stored.offset);
            // A server that lags delivers the older one as the latest.
            chunk.messages.dedup_by_key(|stored| stored.offset);
        }
        if let Some(consumer) = consumer {
            self.snapshots.keep(Snapshot {
                filter: read.filter.clone(),
                through: read.through,
                after: chunk.through,
                since: Instant::now(),
                consumer,
                older,
            });
        }
        chunk.first = self.ask_bounds().await?.first;
        Ok(chunk)
    }
}
