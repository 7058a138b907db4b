//! What upstream sends, written into a log as it passes: `--record`.
//!
//! Each connection upstream has a topic of its own, so that what two clients get is not mixed. A
//! recording fails closed: if the log takes no more, its client is closed, because a recording with a
//! silent gap is worth less than none.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use futures_util::future::{BoxFuture, ready};
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet},
};
use unstall::{Message, Server};
use unstall_proto::Kind;
use unstall_topics::{
    Access, Denied, Filter, Grants, Limits, Log, Node, Permit, SUBPROTOCOL, Topic, Visitor,
    store::Publication,
};

use super::limits;
use crate::{failure::Failure, topics::store::parse_bytes};

/// What is recorded, and where
#[derive(Clone, Debug, Args)]
pub(crate) struct Record {
    /// Write what upstream sends into the log in this directory. Each connection has a topic of its
    /// own: TOPIC and the milliseconds since 1970, as in data/feed and feed.1764453600000. If it
    /// cannot be written, the client is closed with 1011
    #[arg(long, value_name = "DIR/TOPIC", help_heading = "Recording")]
    record: Option<Place>,

    /// Let `unstall subscribe` read the log at this address, which must be on loopback
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "record",
        help_heading = "Recording"
    )]
    record_listen: Option<SocketAddr>,

    /// Remove the oldest messages of the log above so many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = "record",
          default_value = limits::RECORD_BYTES, help_heading = "Recording")]
    record_bytes: u64,
}

/// The directory of a log, and a topic or a filter in it: `DIR/TOPIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) topic: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let parts = text.rsplit_once('/');
        let parts = parts.filter(|(directory, topic)| !directory.is_empty() && !topic.is_empty());
        let (directory, topic) = parts.ok_or("write DIR/TOPIC, such as data/feed")?;
        Filter::new(topic).map_err(|error| format!("the topic: {error}"))?;
        Ok(Place {
            directory: directory.into(),
            topic: topic.to_owned(),
        })
    }
}

/// Records connections under one topic.
pub(super) struct Recorder {
    open: Arc<Open>,
    topic: String,
}

/// A log that is open, once for all routes that record into it.
struct Open {
    log: Log,
    /// The number of the topic that was made last.
    last: AtomicU64,
    /// What the log was opened with.
    bytes: u64,
    listen: Option<SocketAddr>,
    /// Where it is served, and the task that does so.
    address: Option<SocketAddr>,
    _serving: JoinSet<()>,
}

/// The logs that are open, by their directories. Each is closed when the last of its recorders is dropped.
#[derive(Default)]
pub(super) struct Recorders(Mutex<HashMap<PathBuf, Weak<Open>>>);

impl fmt::Debug for Recorders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorders(…)")
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Readers may read everything, and nobody may publish.
#[derive(Debug)]
struct ReadOnly;

impl Access for ReadOnly {
    fn enter<'a>(&'a self, _: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
        let grants: Arc<dyn Permit> = Arc::new(Grants::none().subscribe(Filter::all()));
        Box::pin(ready(Ok(grants)))
    }
}

impl Record {
    /// What cannot be done.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let topic = self.record.as_ref().map(|place| place.topic.as_str());
        if topic.is_some_and(|topic| Topic::new(topic).is_err()) {
            return Err(Failure::usage("--record needs a topic without * and >"));
        }
        match self.record_listen {
            Some(address) if !address.ip().is_loopback() => Err(Failure::usage(
                "--record-listen lets everybody read, so it takes an address of loopback only",
            )),
            _ => Ok(()),
        }
    }

    async fn open(&self, directory: &Path) -> Result<Open, Failure> {
        let limits = Limits::default().max_bytes(self.record_bytes);
        let log = Log::open(directory, limits)
            .await
            .map_err(Failure::because)?;
        let mut serving = JoinSet::new();
        Ok(Open {
            address: self.serve(&log, &mut serving).await?,
            log,
            last: AtomicU64::new(0),
            bytes: self.record_bytes,
            listen: self.record_listen,
            _serving: serving,
        })
    }

    async fn serve(
        &self,
        log: &Log,
        serving: &mut JoinSet<()>,
    ) -> Result<Option<SocketAddr>, Failure> {
        let Some(address) = self.record_listen else {
            return Ok(None);
        };
        let builder = Server::builder().plain().subprotocols([SUBPROTOCOL]);
        let server = builder.options(Node::options()).bind(address).await;
        let server = server.map_err(Failure::work)?;
        let (address, node) = (server.local_addr(), Node::new(log).access(ReadOnly));
        serving.spawn(async move {
            let handler = move |connection| node.serve(connection);
            server.serve(handler).await;
        });
        Ok(Some(address))
    }
}

impl Recorders {
    /// Opens the log of a route and serves it, unless it is open already.
    pub(super) async fn recorder(&self, record: &Record) -> Result<Option<Arc<Recorder>>, Failure> {
        let Some(Place { directory, topic }) = &record.record else {
            return Ok(None);
        };
        let open = match self.find(directory) {
            Some(open) => open,
            None => {
                let open = Arc::new(record.open(directory).await?);
                self.lock().insert(directory.clone(), Arc::downgrade(&open));
                open
            }
        };
        if open.bytes != record.record_bytes || open.listen != record.record_listen {
            return Err(Failure::usage(format_args!(
                "the log in {} is open with another --record-bytes or --record-listen: give all routes that \
                 record there the same ones, and restart the relay to change them",
                directory.display()
            )));
        }
        let topic = topic.clone();
        Ok(Some(Arc::new(Recorder { open, topic })))
    }

    fn find(&self, directory: &Path) -> Option<Arc<Open>> {
        self.lock().get(directory).and_then(Weak::upgrade)
    }

    /// Where logs are served.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.lock();
        let open = open.values().filter_map(Weak::upgrade);
        open.filter_map(|open| open.address).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<Open>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Begins to record a connection, under a topic that no other one has.
    pub(super) fn begin(&self) -> Result<Recording, Failure> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self
            .open
            .last
            .fetch_update(SeqCst, SeqCst, next)
            .unwrap_or_default();
        let name = format!("{}.{}", self.topic, next(last).unwrap_or_default());
        let topic = Topic::new(&name).map_err(Failure::work)?;
        tracing::info!("recording under the topic {topic}");
        let (to, batches) = mpsc::channel(limits::RECORD_BATCHES);
        let failed = Arc::new(Notify::new());
        let writing = tokio::spawn(write(self.open.log.clone(), batches, failed.clone()));
        Ok(Recording {
            topic,
            to,
            writing,
            failed,
        })
    }
}

/// The recording of one connection.
#[derive(Debug)]
pub(super) struct Recording {
    topic: Topic,
    to: mpsc::Sender<Vec<Publication>>,
    writing: JoinHandle<bool>,
    /// Told when the log takes no more.
    failed: Arc<Notify>,
}

impl Recording {
    /// What is told when the log takes no more.
    pub(super) fn failed(&self) -> Arc<Notify> {
        self.failed.clone()
    }

    /// Records messages, and waits if the log is behind. `false`: the log takes no more.
    pub(super) async fn append(&self, messages: Vec<Message>) -> bool {
        let publication = |message: Message| {
            let kind = if message.is_text() {
                Kind::Text
            } else {
                Kind::Binary
            };
            Publication::new(self.topic.clone(), kind, message.into_bytes())
        };
        let batch = messages.into_iter().map(publication).collect();
        self.to.send(batch).await.is_ok()
    }

    /// Waits until everything is safe. `false`: it is not.
    pub(super) async fn end(self) -> bool {
        drop(self.to);
        self.writing.await.unwrap_or(false)
    }
}

/// Writes batches until there are no more, or the log takes no more.
async fn write(
    log: Log,
    mut batches: mpsc::Receiver<Vec<Publication>>,
    failed: Arc<Notify>,
) -> bool {
    while let Some(batch) = batches.recv().await {
        let results = log.publish_many(batch).await;
        if let Some(error) = results.into_iter().find_map(Result::err) {
            tracing::error!("the recording has failed, and its client is closed: {error}");
            failed.notify_one();
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_and_a_topic() {
        let place = Place::from_str("/var/lib/relay/feed.a").unwrap();
        assert_eq!(place.directory, PathBuf::from("/var/lib/relay"));
        assert_eq!(place.topic, "feed.a");
        for wrong in ["feed", "/", "data/", "/feed", "data/a..b"] {
            assert!(Place::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
