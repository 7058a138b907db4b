//! What a log needs of the place where its messages are kept.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use unstall_proto::{
    Kind,
    topics::{Durability, Filter, LogId, Offset, Publisher, Refusal, StoredAt, Topic},
};

/// Keeps the messages of one log.
///
/// [`Log`](crate::Log) does the rest: it gathers publications into batches, keeps what was published
/// last in memory, and serves subscriptions. So a store has few verbs, and each works on many
/// messages. A log calls [`append`](Store::append) from one place, one call at a time; the other
/// verbs may be called at any time and from anywhere.
///
/// # The contract
/// - **One order.** Offsets grow with each message and are never given out again, also after a
///   restart, and after everything was removed. They need not be contiguous.
/// - **Safe before told.** When [`append`](Store::append) says that a message is stored, it is as
///   safe as [`durability`](Store::durability) says. Messages are visible to readers no earlier than
///   that.
/// - **Once.** A message of a [`Publisher`] whose number is not above the highest stored one of its
///   epoch is not stored again (SPEC-TOPICS.md, "Publishing"). What is remembered of publishers
///   changes in the same commit as the messages, and outlives their removal for
///   [`once`](Store::once).
/// - **Removed from the front only.** Retention never makes holes.
/// - **A new id** when the log is made, and whenever it may have lost messages at its end. A store that
///   keeps its id then counts that ([`ends_lost`](Store::ends_lost)).
/// - **Bounded work.** A read takes memory for about what it returns, and does not hold up
///   [`append`](Store::append).
/// - **Nothing blocks the runtime.** A store that waits for a disk does so on threads of its own.
///
/// `unstall_topics::conformance` tests a store against this contract.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The log's id.
    fn id(&self) -> LogId;

    /// How safe a message is once [`append`](Store::append) has told its offset.
    fn durability(&self) -> Durability;

    /// How long a publisher's numbers are remembered after its last message. `None`: as long as the
    /// log lives.
    fn once(&self) -> Option<Duration>;

    /// The largest payload that the store takes, in bytes.
    fn max_message_bytes(&self) -> usize;

    /// Whether other processes append to the same log. If so, the log reads their messages, and its
    /// own, as [`changes`](Store::changes) tells of them. If not, it knows what it appended.
    fn is_shared(&self) -> bool;

    /// Stores messages, in this order, as one commit if the store can. The answer has one element
    /// for each message, in order. It comes when they are safe.
    ///
    /// If the future is dropped, the messages may be stored or not.
    ///
    /// # Errors
    /// When nothing is known of any of the messages beyond what the error says.
    fn append(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>>;

    /// The first and last message, as the store knows them now for sure: a store on several machines
    /// asks the one that decides.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, StoreError>>;

    /// The first and last message, as this process knows them. It changes after each append and
    /// after each removal. It may be behind what other processes did.
    ///
    /// It changes as well when the store [has ended](Store::ended). If its sender is dropped, the store
    /// has ended too.
    fn changes(&self) -> watch::Receiver<Bounds>;

    /// Why the store does nothing any more, for good: it was closed, or what it was made for is gone.
    /// A log then ends all subscriptions, so that clients go to another node. `None`, which is the
    /// default: it has not ended.
    fn ended(&self) -> Option<Arc<str>> {
        None
    }

    /// How often messages at the end of the log were lost while this store was open. It grows before
    /// anything can be read that is stored in their place, and [`changes`](Store::changes) changes
    /// after it. A log then closes its connections, so that clients come again and get the gap. 0,
    /// which is the default: never.
    fn ends_lost(&self) -> u64 {
        0
    }

    /// Reads messages in order, from behind an offset. See [`Read`] and [`Chunk`].
    ///
    /// The work grows with what the filter matches, not with the log, as far as the store can.
    ///
    /// # Errors
    /// When the store cannot be read. [`StoreError::Damaged`] says which messages are unreadable,
    /// and reading can go on behind them.
    fn read(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>>;

    /// Reads the latest message of each topic that matches, of those with offsets above
    /// `read.after` and up to `read.through`, in the order of their offsets. A topic whose latest
    /// message is not within these bounds is left out, unless it has an older one within them.
    ///
    /// # Errors
    /// As [`read`](Store::read).
    fn read_latest(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>>;

    /// Finds the offset after which the sought messages begin.
    ///
    /// # Errors
    /// As [`read`](Store::read).
    fn seek(&self, seek: Seek) -> BoxFuture<'_, Result<Offset, StoreError>>;

    /// Removes all messages up to this offset. It is there for applications that decide themselves
    /// what may go; the store's own retention needs no call.
    ///
    /// # Errors
    /// When the store cannot do it. A shared store may refuse it always.
    fn remove_through(&self, offset: Offset) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A message to be stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Publication {
    /// The topic.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes. Those of text are UTF-8.
    pub payload: Bytes,
    /// Who publishes it, and its number. Without, it is stored each time.
    pub publisher: Option<(Publisher, u64)>,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Appended {
    /// It is stored and safe.
    Stored {
        /// Its offset.
        offset: Offset,
        /// When it was stored. A shared store may not know it.
        time: StoredAt,
    },
    /// It was stored before. `None`: its offset is no longer known.
    Before(Option<Offset>),
    /// It is not stored, or for [`Refusal::Unknown`], it is not known whether it is.
    Refused(Refusal),
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Its place.
    pub offset: Offset,
    /// When it was stored.
    pub time: StoredAt,
    /// The topic.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes.
    pub payload: Bytes,
}

/// The first and last messages of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// The first message that is there. If there is none, one more than `last`.
    pub first: Offset,
    /// The last message that was ever there. [`Offset::START`] if there was none.
    pub last: Offset,
    /// When that message was stored, if it is known.
    pub last_time: StoredAt,
}

/// What to read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Read {
    /// Read what is behind this offset.
    pub after: Offset,
    /// Read no further than this offset.
    pub through: Offset,
    /// Read what matches this filter.
    pub filter: Filter,
    /// Stop when the payloads and topics read have this many bytes, with at least one message.
    pub max_bytes: usize,
}

/// What was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chunk {
    /// The messages, in order.
    pub messages: Vec<Stored>,
    /// Everything behind `Read::after` and up to this offset that is there and matches is in
    /// `messages`. It is at least the offset of the last message. A chunk without messages may have
    /// moved this far only, so that the work of one read is bounded.
    pub through: Offset,
    /// The first message that was there *after* the reading was done. If it is above
    /// `Read::after + 1`, retention may have removed messages that this chunk should have.
    pub first: Offset,
}

/// What to look for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seek {
    /// The last messages that match, this many or fewer.
    Last {
        /// The filter.
        filter: Filter,
        /// How many.
        count: u32,
    },
    /// The first message stored at this time or later. If there is none, the end.
    Since(StoredAt),
}

/// A store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It takes no more messages for now: a full disk, a limit. Nothing of the batch is stored.
    #[error("the store takes no more messages: {0}")]
    Full(Arc<str>),
    /// It cannot be reached or does not answer. For an append: nothing is stored.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// It did not answer in time or failed midway. For an append: each message may be stored.
    #[error("the store gave no answer: {0}")]
    Unknown(Arc<str>),
    /// Messages cannot be read.
    #[error("messages behind offset {after} and up to {through} cannot be read: {why}")]
    Damaged {
        /// The place before them.
        after: Offset,
        /// The last of them.
        through: Offset,
        /// What is wrong.
        why: Arc<str>,
    },
    /// The store does not do this.
    #[error("{0}")]
    Unsupported(Arc<str>),
}

impl Publication {
    /// A message without a publisher.
    pub fn new(topic: Topic, kind: Kind, payload: impl Into<Bytes>) -> Publication {
        Publication {
            topic,
            kind,
            is_final: false,
            payload: payload.into(),
            publisher: None,
        }
    }

    /// What the message costs against limits in bytes: payload, topic, and 64.
    pub fn cost(&self) -> u64 {
        cost(&self.topic, &self.payload)
    }
}

impl Stored {
    /// A stored message, as a store reads it.
    pub fn new(
        offset: Offset,
        time: StoredAt,
        topic: Topic,
        kind: Kind,
        is_final: bool,
        payload: Bytes,
    ) -> Stored {
        Stored {
            offset,
            time,
            topic,
            kind,
            is_final,
            payload,
        }
    }

    /// What the message costs against limits in bytes: payload, topic, and 64.
    pub fn cost(&self) -> u64 {
        cost(&self.topic, &self.payload)
    }
}

/// An empty message takes memory too: its place, its time, what points to it.
const MESSAGE_OVERHEAD_BYTES: u64 = 64;

pub(crate) fn cost(topic: &Topic, payload: &Bytes) -> u64 {
    (payload.len() + topic.as_str().len()) as u64 + MESSAGE_OVERHEAD_BYTES
}

impl Bounds {
    /// The bounds of a log.
    pub fn new(first: Offset, last: Offset, last_time: StoredAt) -> Bounds {
        Bounds {
            first,
            last,
            last_time,
        }
    }
}

impl Read {
    /// Everything behind an offset and up to another, about `max_bytes` of it.
    pub fn new(after: Offset, through: Offset, filter: Filter, max_bytes: usize) -> Read {
        Read {
            after,
            through,
            filter,
            max_bytes,
        }
    }
}

impl Chunk {
    /// What was read.
    pub fn new(messages: Vec<Stored>, through: Offset, first: Offset) -> Chunk {
        Chunk {
            messages,
            through,
            first,
        }
    }
}
