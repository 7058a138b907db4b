//! Publications on their way to the store, in groups: while one commit is on its way, the next one
//! gathers.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use unstall_proto::topics::Refusal;

use crate::{
    defaults::{APPEND_QUEUE_BYTES, COMMIT_BYTES, COMMIT_MESSAGES},
    store::{Appended, Publication, Store, StoreError},
};

/// Hands publications to the task that appends them.
#[derive(Clone, Debug)]
pub(crate) struct Appender {
    jobs: mpsc::UnboundedSender<Job>,
    /// Bounds the bytes that wait, in units of [`ROOM_UNIT`].
    room: Arc<Semaphore>,
}

/// Publications whose answers go to one place.
struct Job {
    batch: Vec<Publication>,
    answer: oneshot::Sender<Vec<Appended>>,
    _room: OwnedSemaphorePermit,
}

/// What will have happened to a batch, one element for each message.
pub(crate) struct Answer(oneshot::Receiver<Vec<Appended>>, usize);

const ROOM_UNIT: u64 = 64;

impl Appender {
    /// An appender, and the work that its owner has to run in a task. It ends when the last appender
    /// is dropped. `appended` is told of each commit before the publishers are.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        appended: impl FnMut(&[Publication], &[Appended]) + Send,
    ) -> (Appender, impl Future<Output = ()> + Send) {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new((APPEND_QUEUE_BYTES / ROOM_UNIT) as usize));
        (Appender { jobs, room }, run(store, waiting, appended))
    }

    /// The bytes that wait, to within [`ROOM_UNIT`] a batch.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        APPEND_QUEUE_BYTES - self.room.available_permits() as u64 * ROOM_UNIT
    }

    /// Waits for room, and queues a batch. Batches are appended in the order of these calls.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is queued.
    pub(crate) async fn submit(&self, batch: Vec<Publication>) -> Answer {
        let units = (cost(&batch) / ROOM_UNIT).min(APPEND_QUEUE_BYTES / ROOM_UNIT);
        let (answer, answered) = oneshot::channel();
        let expected = batch.len();
        // Neither the semaphore nor the queue closes while an appender lives.
        if let Ok(room) = self.room.clone().acquire_many_owned(units as u32).await {
            let job = Job {
                batch,
                answer,
                _room: room,
            };
            let _ = self.jobs.send(job);
        }
        Answer(answered, expected)
    }
}

impl Answer {
    /// What happened to each message, when it is known.
    ///
    /// Cancel safety: if dropped, the batch is stored all the same.
    pub(crate) async fn outcome(self) -> Vec<Appended> {
        match self.0.await {
            Ok(outcomes) => outcomes,
            // The task is gone with its runtime, and what it did last is not known.
            Err(_) => vec![Appended::Refused(Refusal::Unknown); self.1],
        }
    }
}

async fn run(
    store: Arc<dyn Store>,
    mut waiting: mpsc::UnboundedReceiver<Job>,
    mut appended: impl FnMut(&[Publication], &[Appended]) + Send,
) {
    let mut jobs = VecDeque::new();
    let mut arrived = Vec::new();
    loop {
        if jobs.is_empty() && waiting.recv_many(&mut arrived, COMMIT_MESSAGES).await == 0 {
            return;
        }
        while arrived.len() < COMMIT_MESSAGES
            && let Ok(job) = waiting.try_recv()
        {
            arrived.push(job);
        }
        jobs.extend(arrived.drain(..));
        let group = next_commit(&mut jobs);
        commit(&*store, group, &mut appended).await;
    }
}

/// As many jobs as make one commit, and at least one.
fn next_commit(jobs: &mut VecDeque<Job>) -> Vec<Job> {
    let (mut bytes, mut messages) = (0, 0);
    let fits = |job: &&Job| {
        let first = messages == 0;
        bytes += cost(&job.batch);
        messages += job.batch.len();
        first || (bytes <= COMMIT_BYTES && messages <= COMMIT_MESSAGES)
    };
    let count = jobs.iter().take_while(fits).count();
    jobs.drain(..count).collect()
}

async fn commit(
    store: &dyn Store,
    mut group: Vec<Job>,
    appended: &mut (impl FnMut(&[Publication], &[Appended]) + Send),
) {
    let sizes: Vec<usize> = group.iter().map(|job| job.batch.len()).collect();
    let batch: Vec<Publication> = group
        .iter_mut()
        .flat_map(|job| std::mem::take(&mut job.batch))
        .collect();
    let mut outcomes = match store.append(batch.clone()).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            tracing::warn!(%error, messages = batch.len(), "messages were not appended");
            vec![Appended::Refused(refusal(&error)); batch.len()]
        }
    };
    // A store that breaks its contract must not mix up whose answer is whose.
    outcomes.resize(batch.len(), Appended::Refused(Refusal::Unknown));
    appended(&batch, &outcomes);
    let mut outcomes = outcomes.into_iter();
    for (job, size) in group.into_iter().zip(sizes) {
        // Who published may be gone.
        let _ = job.answer.send(outcomes.by_ref().take(size).collect());
    }
}

/// What a publisher is told when the store could not append.
fn refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::Full(_) => Refusal::Full,
        StoreError::Unknown(_) => Refusal::Unknown,
        StoreError::Unavailable(_) | StoreError::Damaged { .. } | StoreError::Unsupported(_) => {
            Refusal::Unavailable
        }
    }
}

fn cost(batch: &[Publication]) -> u64 {
    batch.iter().map(Publication::cost).sum()
}
