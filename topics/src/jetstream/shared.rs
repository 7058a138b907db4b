//! What the store's verbs and its tasks share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Release},
    },
    time::Instant,
};

use tokio::{sync::watch, time::sleep};
use unstall_proto::topics::{Offset, StoredAt};

use super::{
    api::{Api, Failure, Get, Info},
    consumer::{Broken, Consumer, Deliver},
    kept::Kept,
    latest::Snapshots,
    limits::{VERB_RETRY, VERB_TIMEOUT},
    message::Received,
    subjects::Subjects,
    tail::Tail,
};
use crate::store::{Bounds, StoreError};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) api: Api,
    pub(super) subjects: Subjects,
    /// Which stream this is.
    pub(super) created: String,
    tail: Mutex<Tail>,
    /// Consumers for the next reads.
    pub(super) kept: Kept,
    /// Reads of the latest messages that may go on.
    pub(super) snapshots: Snapshots,
    pub(super) bounds: watch::Sender<Bounds>,
    /// Counts how often the reader of the log has to begin anew.
    pub(super) anew: watch::Sender<u64>,
    /// How often the stream has lost its end.
    pub(super) ends_lost: AtomicU64,
    /// Why the store does nothing any more.
    over: OnceLock<Arc<str>>,
}

/// Why a verb did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may succeed in a moment.
    Passing(Arc<str>),
    Lasting(StoreError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        match &failure {
            Failure::Away(why) => Trouble::Passing(why.clone()),
            // No leader, not the leader, a consumer or a stream that moves.
            Failure::Refused {
                code: 10_004..=10_009 | 10_014 | 10_048 | 10_118 | 10_119 | 10_167 | 10_194 | 10_195,
                ..
            } => Trouble::Passing(failure.to_string().into()),
            Failure::Refused { .. } => Trouble::Lasting(failure.into()),
        }
    }
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Trouble {
        Trouble::Passing(format!("a consumer broke: {broken}").into())
    }
}

impl Shared {
    pub(super) fn new(api: Api, subjects: Subjects, info: &Info) -> Shared {
        let bounds = info.bounds();
        Shared {
            api,
            subjects,
            created: info.created.clone(),
            tail: Mutex::new(Tail::new(bounds.last, bounds.last_time)),
            kept: Kept::default(),
            snapshots: Snapshots::default(),
            bounds: watch::Sender::new(bounds),
            anew: watch::Sender::new(0),
            ends_lost: AtomicU64::new(0),
            over: OnceLock::new(),
        }
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store does nothing from now on.
    pub(super) fn end(&self, why: String) {
        if self.over.set(why.as_str().into()).is_ok() {
            tracing::error!(why, "the log over JetStream has ended");
            self.bounds.send_modify(|_| {});
        }
    }

    /// Why it has ended, if it has.
    pub(super) fn over(&self) -> Option<Arc<str>> {
        self.over.get().cloned()
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.over.get() {
            Some(why) => Err(StoreError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// The stream, as its leader knows it. The store ends if it is not the one that it was opened for.
    /// So what was asked before this is of the same stream.
    pub(super) async fn info(&self) -> Result<Info, Failure> {
        let info = self.api.info().await?;
        if info.created == self.created {
            return Ok(info);
        }
        let why = format!(
            "the stream {} was made anew; open the log again",
            self.api.stream
        );
        self.end(why.clone());
        Err(Failure::Away(why.into()))
    }

    /// Makes a consumer of this stream.
    pub(super) async fn consumer(
        &self,
        filter: Option<String>,
        deliver: Deliver,
    ) -> Result<Consumer, Failure> {
        let consumer = Consumer::create(&self.api, &self.subjects, filter, deliver).await?;
        self.info().await?;
        Ok(consumer)
    }

    /// Does something, and tries again while the trouble is passing.
    pub(super) async fn insist<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let deadline = Instant::now() + VERB_TIMEOUT;
        loop {
            self.check()?;
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) if Instant::now() >= deadline => {
                    return Err(StoreError::Unavailable(why));
                }
                Err(Trouble::Passing(why)) => tracing::debug!(%why, "trying again"),
            }
            sleep(VERB_RETRY).await;
        }
    }

    /// Keeps messages that the reader of the log received.
    pub(super) fn received(&self, messages: &mut Vec<Received>) {
        let (Some(oldest), Some(newest)) = (messages.first(), messages.last()) else {
            return;
        };
        let oldest = oldest.offset();
        let (last, last_time) = (newest.offset(), newest.time());
        let mut tail = self.tail();
        let jumped = Some(oldest) > tail.last().0.checked_add(1);
        messages.drain(..).for_each(|received| tail.push(received));
        drop(tail);
        self.bounds.send_modify(|bounds| {
            if jumped {
                bounds.first = bounds.first.max(oldest);
            }
            bounds.last = last;
            bounds.last_time = last_time;
        });
    }

    /// The leader says which message is the first.
    pub(super) fn first_is(&self, first: Offset) {
        self.bounds.send_if_modified(|bounds| {
            let behind = bounds.last.checked_add(1).unwrap_or(Offset::MAX);
            let first = first.min(behind);
            let changed = first > bounds.first;
            bounds.first = bounds.first.max(first);
            changed
        });
    }

    /// The stream has lost messages at its end: goes back to the newest one that it still has, which
    /// is not above `through`.
    pub(super) async fn go_back(&self, through: Offset) -> Result<(), Failure> {
        let known: Vec<(Offset, StoredAt)> = {
            let tail = self.tail();
            let kept = (0..tail.kept_count()).filter_map(|at| tail.kept(at));
            kept.take_while(|(offset, _)| *offset <= through).collect()
        };
        // All that the stream still has are before all that it has not.
        let (mut same, mut other) = (0, known.len());
        while same < other {
            let middle = (same + other) / 2;
            let (offset, time) = known[middle];
            let found = self.api.get(Get::At(offset.get())).await?;
            match found.is_none_or(|found| !found.time.contradicts(time)) {
                true => same = middle + 1,
                false => other = middle,
            }
        }
        let (last, last_time) = match (same.checked_sub(1), known.first()) {
            (Some(at), _) => known[at],
            (None, Some((first, _))) => (first.before(), StoredAt::UNKNOWN),
            (None, None) => (through, StoredAt::UNKNOWN),
        };
        self.info().await?;
        tracing::warn!(%last, "the stream has lost messages at its end");
        // Before anything is read that is stored in their place.
        self.ends_lost.fetch_add(1, Release);
        self.tail().go_back(last, last_time);
        self.bounds.send_modify(|bounds| {
            bounds.last = last;
            bounds.last_time = last_time;
            bounds.first = bounds.first.min(last.checked_add(1).unwrap_or(Offset::MAX));
        });
        self.anew.send_modify(|anew| *anew += 1);
        Ok(())
    }
}
