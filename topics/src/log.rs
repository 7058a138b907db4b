//! A log: its store, the end of it in memory, and who appends.

use std::sync::{
    Arc, Weak,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use tokio::sync::{SetOnce, watch};
use unstall::IntoMessage;
use unstall_proto::topics::{
    Block, BlockBuilder, Durability, Filter, LogId, Offset, Refusal, StoredMessage, Topic,
};

#[cfg(feature = "embedded")]
use crate::embedded::{Embedded, OpenError};
use crate::{
    appender::{Answer, Appender, Halt},
    clock::now,
    defaults::{BLOCK_BYTES, FOLLOW_AGAIN, NUDGE_EVERY, READ_BYTES, TAIL_BYTES},
    interest::Interests,
    limits::Limits,
    marks::Marks,
    memory::Memory,
    message::publication,
    publish_error::{PublishError, is_no_text},
    spans,
    stats::{Lag, LogCounters, LogStats, NodeSubscription},
    store::{Appended, Bounds, Publication, Read, Store, StoreError, Stored},
    tail::Tail,
};

/// Messages in one order, under topics, with positions that outlive the process.
///
/// Clones share the log. Open a log only once in a process: what is published through another
/// [`Log`] over the same store is not seen.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use unstall_topics::{Delivery, Limits, Log, Start};
///
/// let log = Log::memory(Limits::default()).await?;
/// let offset = log.publish("prices.EURUSD", "1.0842").await?;
/// let mut feed = log.subscribe("prices.>", Start::Beginning)?;
/// while let Some(delivery) = feed.recv().await? {
///     if let Delivery::Message(message) = delivery {
///         assert_eq!(message.offset(), offset);
///         assert_eq!(message.as_text(), Some("1.0842"));
///         break;
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    appender: Appender,
}

/// What the handles of a log and its nodes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tail: Tail,
    pub(crate) interests: Arc<Interests>,
    pub(crate) counters: LogCounters,
    marks: Marks,
    /// How often the tail has begun anew.
    begun_anew: AtomicU64,
    /// The store has ended, and why.
    ended: SetOnce<Arc<str>>,
}

impl Log {
    /// A log in memory. It ends with the process.
    ///
    /// # Errors
    /// None: a log in memory can always be made.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn memory(limits: Limits) -> Result<Log, StoreError> {
        Log::with_store(Memory::new(limits)).await
    }

    /// A log in a directory of this machine's disk, which is made if it is not there. See
    /// [`Embedded`] for what it promises.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[cfg(feature = "embedded")]
    pub async fn open(
        directory: impl AsRef<std::path::Path>,
        limits: Limits,
    ) -> Result<Log, OpenError> {
        let directory = directory.as_ref();
        let store = Embedded::open(directory, limits).await?;
        let log = Log::with_store(store).await;
        log.map_err(|error| OpenError::Damaged {
            directory: directory.to_owned(),
            why: error.to_string().into(),
        })
    }

    /// A log over a store of the application's own.
    ///
    /// It starts a task on the current Tokio runtime, which ends when the last handle is dropped.
    ///
    /// # Errors
    /// When the store cannot be asked for its first and last message.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn with_store(store: impl Store) -> Result<Log, StoreError> {
        Log::over(Arc::new(store)).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>) -> Result<Log, StoreError> {
        let ends_lost = store.ends_lost();
        let bounds = store.bounds().await?;
        let shared = Arc::new(Shared {
            tail: Tail::new(bounds, TAIL_BYTES),
            interests: Arc::default(),
            counters: LogCounters::default(),
            marks: Marks::default(),
            begun_anew: AtomicU64::new(0),
            ended: SetOnce::new(),
            store: store.clone(),
        });
        let here = shared.clone();
        let appended = move |batch: &[Publication], outcomes: &[Appended]| {
            let is_refused = |it: &&Appended| matches!(it, Appended::Refused(_));
            let refused = outcomes.iter().filter(is_refused).count();
            here.counters.commit(outcomes.len() - refused, refused);
            if !here.store.is_shared() {
                here.publish_appended(batch, outcomes);
            }
        };
        let (appender, appending) = Appender::new(store.clone(), appended);
        tokio::spawn(appending);
        tokio::spawn(follow(Arc::downgrade(&shared), store.changes(), ends_lost));
        Ok(Log { shared, appender })
    }

    /// The log's id.
    pub fn id(&self) -> LogId {
        self.shared.store.id()
    }

    /// How safe a published message is.
    pub fn durability(&self) -> Durability {
        self.shared.store.durability()
    }

    /// The first and last message, as this process knows them.
    pub fn bounds(&self) -> Bounds {
        self.shared.tail.bounds()
    }

    /// What the log counts, and how it stands.
    pub fn stats(&self) -> LogStats {
        let (bounds, cached) = (self.bounds(), self.shared.tail.bytes());
        let range = (bounds.first, bounds.last);
        let waiting = self.appender.waiting_bytes();
        self.shared.counters.stats(range, waiting, cached)
    }

    /// The subscriptions to the log that this process serves now, in no order: those of all its nodes,
    /// and those within the process. It visits each once.
    pub fn subscriptions(&self) -> Vec<NodeSubscription> {
        let (marks, now) = (&self.shared.marks, now());
        let mut all = self.shared.interests.all();
        for subscription in &mut all {
            if subscription.lag > 0 {
                let behind = marks.behind(subscription.offset, now);
                (subscription.lag_bytes, subscription.lag_time) = behind;
            }
        }
        all
    }

    /// How far these subscriptions lag behind, all together and the one that lags most.
    pub fn lag(&self) -> Lag {
        Lag::of(&self.subscriptions())
    }

    /// Waits until the store does nothing any more, for good, and says why: its directory or its stream
    /// is no longer there, or another one is in its place. The nodes of the log have closed their
    /// connections then, and let nobody in. To go on, open the log again, or end the process.
    ///
    /// Cancel safety: if dropped, nothing is lost.
    pub async fn ended(&self) -> Arc<str> {
        self.shared.ended.wait().await.clone()
    }

    /// The largest payload that the log takes, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.shared.store.max_message_bytes()
    }

    /// Publishes a message, and waits until it is safe.
    ///
    /// Cancel safety: if dropped before it resolves, the message may be published or not.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        topic: impl AsRef<str>,
        message: impl IntoMessage,
    ) -> Result<Offset, PublishError> {
        self.publish_one(publication(topic.as_ref(), message, false)?)
            .await
    }

    /// Publishes the last message of a topic. Subscriptions to exactly this topic end behind it.
    ///
    /// Cancel safety and errors: as [`publish`](Log::publish).
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish_final(
        &self,
        topic: impl AsRef<str>,
        message: impl IntoMessage,
    ) -> Result<Offset, PublishError> {
        self.publish_one(publication(topic.as_ref(), message, true)?)
            .await
    }

    /// Publishes messages in order, as one batch, and waits until all are safe. The results are in
    /// the same order.
    ///
    /// Cancel safety: if dropped before it resolves, each message may be published or not.
    pub async fn publish_many(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let span = spans::publish(&batch);
        spans::published(span, self.append(batch)).await
    }

    async fn append(&self, mut batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
        let bad: Vec<usize> = (0..batch.len())
            .filter(|nth| is_no_text(&batch[*nth]))
            .collect();
        for nth in bad.iter().rev() {
            batch.remove(*nth);
        }
        let outcomes = self.submit(batch, Halt::default()).await.outcome().await;
        let mut results: Vec<_> = outcomes.into_iter().map(offset).collect();
        for nth in bad {
            results.insert(nth, Err(PublishError::InvalidText));
        }
        results
    }

    async fn publish_one(&self, publication: Publication) -> Result<Offset, PublishError> {
        let results = self.publish_many(vec![publication]).await;
        let unknown = Err(PublishError::Refused(Refusal::Unknown));
        results.into_iter().next().unwrap_or(unknown)
    }

    /// Queues a batch behind those before it.
    pub(crate) async fn submit(&self, batch: Vec<Publication>, halt: Halt) -> Answer {
        self.appender.submit(batch, halt).await
    }
}

/// What a publisher learns of one message.
pub(crate) fn offset(outcome: Appended) -> Result<Offset, PublishError> {
    match outcome {
        Appended::Stored { offset, .. } => Ok(offset),
        Appended::Before(Some(offset)) => Ok(offset),
        Appended::Before(None) => Err(PublishError::StoredBefore),
        Appended::Refused(refusal) => Err(PublishError::Refused(refusal)),
    }
}

impl Shared {
    /// What was appended goes into the tail, and those who wait for it are woken.
    fn publish_appended(&self, batch: &[Publication], outcomes: &[Appended]) {
        let stored = batch.iter().zip(outcomes).filter_map(|(it, outcome)| {
            let Appended::Stored { offset, time } = *outcome else {
                return None;
            };
            let (topic, payload) = (it.topic.clone(), it.payload.clone());
            Some(Stored::new(
                offset,
                time,
                topic,
                it.kind,
                it.is_final,
                payload,
            ))
        });
        self.extend_tail(stored.collect());
    }

    fn extend_tail(&self, messages: Vec<Stored>) {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return;
        };
        let range = (first.offset, last.offset);
        let bytes = messages.iter().map(|it| it.payload.len()).sum();
        self.marks.add(bytes, last.offset, last.time);
        self.tail.push(blocks(&messages));
        let mut topics: Vec<&Topic> = messages.iter().map(|it| &it.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        self.interests.wake(&topics, range);
    }

    /// Why the store has ended, if it has.
    pub(crate) fn ended(&self) -> Option<&Arc<str>> {
        self.ended.get()
    }

    /// Grows when the store ends or has lost an end, and again when the tail has begun anew. A connection
    /// closes when it is no longer as it was when the connection began.
    pub(crate) fn era(&self) -> u64 {
        let is_over = self.ended().is_some();
        self.store.ends_lost() + self.begun_anew.load(Acquire) + u64::from(is_over)
    }

    /// Everybody who waits for messages is told that none will come.
    fn end(&self, why: Arc<str>) {
        tracing::error!(%why, "the store of a log has ended");
        let _ = self.ended.set(why);
        self.interests.nudge_all();
    }

    /// Lets subscriptions whose topics are quiet know where the log ends. Their clients then know a
    /// place that retention has not passed, should they have to connect again.
    fn nudge(&self, nudged: &mut Offset) {
        let last = self.tail.bounds().last;
        if last > *nudged {
            self.interests.nudge_all();
            *nudged = last;
        }
    }

    /// The log has lost its end, and what is stored there now is not what it was.
    fn begin_anew(&self, bounds: Bounds) {
        tracing::warn!(last = %bounds.last, "a log has lost its end; its clients connect anew");
        self.interests.begin_anew(bounds.last);
        self.tail.begin_anew(bounds);
        self.begun_anew.fetch_add(1, Release);
        self.interests.nudge_all();
    }

    /// Reads what other processes have appended, up to what the store knows. Ends when the store has
    /// lost an end more than so many.
    async fn catch_up(&self, through: Offset, ends_lost: u64) -> Result<(), StoreError> {
        loop {
            let after = self.tail.bounds().last;
            if after >= through {
                return Ok(());
            }
            let read = Read::new(after, through, Filter::all(), READ_BYTES);
            let chunk = self.store.read(read).await?;
            if self.store.ends_lost() != ends_lost {
                return Ok(());
            }
            if chunk.first.before() > after {
                self.tail.skip_through(chunk.first.before());
                let first = after.checked_add(1).unwrap_or(after);
                self.interests.wake_all((first, chunk.first.before()));
                continue;
            }
            if chunk.messages.is_empty() && chunk.through <= after {
                return Ok(());
            }
            self.extend_tail(chunk.messages);
        }
    }
}

/// Messages in blocks of about a packet each.
fn blocks(messages: &[Stored]) -> impl Iterator<Item = Block> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let (block, taken) = block(rest, &Filter::all(), BLOCK_BYTES)?;
        rest = &rest[taken..];
        Some(block)
    })
}

/// The first messages as a block of about so many bytes, and how many they are. All match the filter.
pub(crate) fn block(
    messages: &[Stored],
    filter: &Filter,
    max_bytes: usize,
) -> Option<(Block, usize)> {
    let mut bytes: usize = 0;
    let more = |message: &&Stored| {
        let begins = bytes == 0;
        bytes += message.cost() as usize;
        begins || bytes <= max_bytes
    };
    let count = messages.iter().take_while(more).count();
    let mut builder = BlockBuilder::with_capacity(count, bytes).matching(filter.clone());
    let taken = messages[..count]
        .iter()
        .take_while(|it| builder.push(borrowed(it)))
        .count();
    // An empty builder takes every message that a log may have. Whatever it does not take would be
    // asked for again without end.
    (taken > 0).then(|| (builder.finish(), taken))
}

fn borrowed(message: &Stored) -> StoredMessage<'_> {
    StoredMessage {
        offset: message.offset,
        time: message.time,
        topic: message.topic.as_str(),
        kind: message.kind,
        is_final: message.is_final,
        payload: &message.payload,
    }
}

/// Why a store has ended that does not say it.
const GONE: &str = "the store tells of no more changes";

/// Follows what happens to the store besides this log's own appends: retention, and what other
/// processes append.
async fn follow(shared: Weak<Shared>, mut changes: watch::Receiver<Bounds>, mut ends_lost: u64) {
    let mut nudging = tokio::time::interval(NUDGE_EVERY);
    let mut nudged = Offset::START;
    loop {
        let is_change = tokio::select! {
            changed = changes.changed() => Some(changed),
            _ = nudging.tick() => None,
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let gone = || matches!(is_change, Some(Err(_))).then(|| GONE.into());
        if let Some(why) = shared.store.ended().or_else(gone) {
            return shared.end(why);
        }
        let now = shared.store.ends_lost();
        if now != std::mem::replace(&mut ends_lost, now) {
            nudged = Offset::START;
            shared.begin_anew(*changes.borrow_and_update());
            continue;
        }
        if is_change.is_none() {
            shared.nudge(&mut nudged);
            continue;
        }
        let bounds = *changes.borrow_and_update();
        shared.tail.set_first(bounds.first);
        if !shared.store.is_shared() {
            continue;
        }
        if let Err(error) = shared.catch_up(bounds.last, ends_lost).await {
            tracing::warn!(%error, "the log cannot be followed; trying again");
            drop(shared);
            tokio::time::sleep(FOLLOW_AGAIN).await;
            changes.mark_changed();
        }
    }
}
