//! A log over NATS JetStream, for several machines.
//!
//! One stream of JetStream is the log. Its sequence is the offset. A topic is a subject: the log's
//! prefix, a dot, and the topic. Any number of processes may open the same stream and publish to it;
//! each has one reader of the whole log, which feeds all its subscriptions.
//!
//! ```no_run
//! use unstall_topics::jetstream::JetStream;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = JetStream::builder(["nats://a:4222", "nats://b:4222"], "PRICES")
//!     .replicas(3)
//!     .max_bytes(10 << 30)
//!     .open()
//!     .await?;
//! # let _ = store;
//! # Ok(())
//! # }
//! ```
//!
//! # The stream
//! It needs nats-server 2.10 or newer. If it is not there it is made. If it is, its settings are
//! checked: limits by bytes and age only, old messages go first, and nothing that makes holes
//! (`deny_delete` and `deny_purge` are set; no roll-ups, no limit per subject, no time to live of
//! messages). Otherwise [`OpenError::NotALog`] names each setting that is wrong. The settings are
//! checked while the log is open, too. If they change, the store ends: everything answers
//! [`StoreError::Unavailable`] with the reason.
//!
//! The log's id is made of an id in the stream's metadata (`unstall-log`) and of the time when the
//! stream was made. A stream that is deleted and made anew is another log. A store that was open
//! meanwhile ends within some seconds, and reads nothing of the new stream. But what is published
//! through it until then may be stored there.
//!
//! # Safe
//! A message is confirmed when JetStream confirms it. What that survives is up to the servers:
//!
//! | stream | a crash of a process | a machine without power | [`durability`](Store::durability) |
//! | --- | --- | --- | --- |
//! | one replica | yes | loses up to two minutes | [`DiskLater`](Durability::DiskLater) |
//! | one replica, `sync_interval: always` | yes | yes | [`Disk`](Durability::Disk) |
//! | three replicas | yes | yes, if one of them has power | [`Quorum`](Durability::Quorum) |
//! | three replicas, `sync_interval: always` | yes | yes, all of them too | [`QuorumDisk`](Durability::QuorumDisk) |
//!
//! Clients cannot ask a server how often it syncs, so [`Builder::servers_sync`] says it.
//!
//! If the stream loses its end, the offsets of what is lost are given out again. The store counts that
//! ([`ends_lost`](Store::ends_lost)), and the time in a position shows it, so subscribers get a gap.
//!
//! # Once
//! JetStream remembers message ids for the stream's duplicate window. The id is the publisher, its
//! epoch and the number, not the topic. So numbers have to be given out over all topics. If an id
//! comes again on another subject, JetStream drops the message.
//! - [`once`](Store::once) is the window less half a minute, because the store itself sends a message
//!   again for up to 20 seconds, while the servers elect a leader.
//! - Epochs do not fence: JetStream keeps no highest number. A message of an older epoch is stored.
//! - The ids of messages that retention has removed are forgotten when the servers restart.
//!
//! Messages are sent in order. After a leader is lost they are sent again in order. But if a new
//! leader takes over in an instant, it may take messages that were sent later than lost ones. The lost
//! ones are then stored behind them, once.
//!
//! # What other programs publish
//! Programs that know nothing of this library may publish to the subjects of the stream and read them.
//! Payloads are carried as they are. The header `Unstall` says `text`, `final` or both; without it a
//! message is binary. A message whose subject is no topic (for example `prices.a*b`) cannot be given to
//! anybody. It is told as [`StoreError::Damaged`] in its place.
//!
//! Every valid topic can be a subject. JetStream does not take the header and the payload of a message
//! together above the server's `max_payload`, 1 MiB by default.

mod api;
mod builder;
mod consumer;
mod following;
mod kept;
mod latest;
mod limits;
mod link;
mod message;
mod publishing;
mod reading;
mod seeking;
mod settings;
mod shared;
mod subjects;
mod tail;
mod window;

use std::{
    sync::{Arc, atomic::Ordering::Acquire},
    time::Duration,
};

/// The client library, for [`Builder::connect_options`].
pub use async_nats;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use unstall_proto::topics::{Durability, LogId, Offset, Refusal};

pub use self::builder::{Builder, OpenError};
use self::{
    limits::{LOST_END_AFTER, VERB_RETRY},
    publishing::Batch,
    shared::Shared,
};
use crate::store::{Appended, Bounds, Chunk, Publication, Read, Seek, Store, StoreError};

/// A log in a stream of NATS JetStream. See the [module](self).
#[derive(Debug)]
pub struct JetStream {
    id: LogId,
    durability: Durability,
    once: Duration,
    max_message_bytes: usize,
    shared: Arc<Shared>,
    batches: mpsc::UnboundedSender<Batch>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl JetStream {
    /// Opens the stream of this name at servers of NATS, or makes it. An address is
    /// `nats://HOST:PORT`, `tls://HOST:PORT`, with `USER:PASSWORD@` or `TOKEN@` in front of the host
    /// if the server asks for it. One server of a cluster is enough to find the others, if it is up.
    pub fn builder<S: Into<String>>(
        servers: impl IntoIterator<Item = S>,
        stream: impl Into<String>,
    ) -> Builder {
        Builder::new(servers.into_iter().map(Into::into).collect(), stream.into())
    }

    /// The name of the stream.
    pub fn stream(&self) -> &str {
        &self.shared.api.stream
    }

    /// What stands in front of each topic in its subject, without the dot.
    pub fn prefix(&self) -> &str {
        self.shared.subjects.prefix()
    }

    /// The bounds that the leader knows. A leader that was just elected may not yet know all that it
    /// has, and one that was stopped does not know that it is none. So if it knows less than this
    /// process does, it is asked again for a while.
    async fn ask_bounds(&self) -> Result<Bounds, StoreError> {
        let deadline = Instant::now() + LOST_END_AFTER + Duration::from_secs(2);
        loop {
            let bounds = self.shared.insist(|| self.shared.ask_bounds()).await?;
            let known = self.shared.bounds.borrow().last;
            if bounds.last >= known || Instant::now() >= deadline {
                return Ok(bounds);
            }
            sleep(VERB_RETRY).await;
        }
    }
}

impl Store for JetStream {
    fn id(&self) -> LogId {
        self.id
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn once(&self) -> Option<Duration> {
        Some(self.once)
    }

    fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// The messages are on their way when this returns, in the order of the calls. So further batches
    /// may be appended before the first has its answer: this keeps the servers busy. An answer that is
    /// [`Refusal::Unavailable`] or [`Refusal::Unknown`] comes after 20 seconds at the latest.
    fn append(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>> {
        if let Err(error) = self.shared.check() {
            return std::future::ready(Err(error)).boxed();
        }
        let (answer, appended) = oneshot::channel();
        let count = batch.len();
        let batch = Batch {
            publications: batch,
            answer,
        };
        let taken = self.batches.send(batch);
        async move {
            match taken {
                Ok(()) => {}
                Err(_) => return Err(StoreError::Unavailable("the store has ended".into())),
            }
            let unknown = || vec![Appended::Refused(Refusal::Unknown); count];
            Ok(appended.await.unwrap_or_else(|_| unknown()))
        }
        .boxed()
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, StoreError>> {
        self.ask_bounds().boxed()
    }

    fn changes(&self) -> watch::Receiver<Bounds> {
        self.shared.bounds.subscribe()
    }

    fn ended(&self) -> Option<Arc<str>> {
        self.shared.over()
    }

    fn ends_lost(&self) -> u64 {
        self.shared.ends_lost.load(Acquire)
    }

    fn read(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        async move { self.shared.read(&read).await }.boxed()
    }

    fn read_latest(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        async move { self.shared.read_latest(&read).await }.boxed()
    }

    fn seek(&self, seek: Seek) -> BoxFuture<'_, Result<Offset, StoreError>> {
        async move {
            match seek {
                Seek::Last { filter, count } => self.shared.seek_last(&filter, count).await,
                Seek::Since(time) => self.shared.seek_time(time).await,
            }
        }
        .boxed()
    }

    /// Always refused: a stream that is a log denies purging. Its limits do this.
    fn remove_through(&self, _: Offset) -> BoxFuture<'_, Result<(), StoreError>> {
        let why =
            "a stream of JetStream that is a log cannot be purged; set its limits in bytes or age";
        std::future::ready(Err(StoreError::Unsupported(why.into()))).boxed()
    }
}
