//! Publications on their way to the store, in groups: while one commit is on its way, the next one
//! gathers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

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
    halt: Halt,
    answer: oneshot::Sender<Vec<Appended>>,
    _room: OwnedSemaphorePermit,
}

/// Stops what a connection has handed over behind a message that is not stored and may be sent again.
/// A store that remembers the highest number of a publisher would take that message for one that it
/// has (SPEC-TOPICS.md, "Publishing"). Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Halt(Arc<AtomicBool>);

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
    pub(crate) async fn submit(&self, batch: Vec<Publication>, halt: Halt) -> Answer {
        let units = (cost(&batch) / ROOM_UNIT).min(APPEND_QUEUE_BYTES / ROOM_UNIT);
        let (answer, answered) = oneshot::channel();
        let expected = batch.len();
        // Neither the semaphore nor the queue closes while an appender lives.
        if let Ok(room) = self.room.clone().acquire_many_owned(units as u32).await {
            let job = Job {
                batch,
                halt,
                answer,
                _room: room,
            };
            let _ = self.jobs.send(job);
        }
        Answer(answered, expected)
    }
}

impl Halt {
    fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Looks at what happened to messages.
    fn see(&self, outcomes: &[Appended]) {
        if outcomes.iter().any(may_come_again) {
            self.0.store(true, Relaxed);
        }
    }
}

/// Whether a message is not stored, or perhaps not, and its publisher may send it again.
pub(crate) fn may_come_again(outcome: &Appended) -> bool {
    matches!(
        outcome,
        Appended::Refused(Refusal::Full | Refusal::Unknown | Refusal::Unavailable)
    )
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
    group: Vec<Job>,
    appended: &mut (impl FnMut(&[Publication], &[Appended]) + Send),
) {
    let (halted, mut group): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|job| job.halt.is_set());
    for job in halted {
        let outcomes = vec![Appended::Refused(Refusal::Unavailable); job.batch.len()];
        let _ = job.answer.send(outcomes);
    }
    if group.is_empty() {
        return;
    }
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
        let outcomes: Vec<_> = outcomes.by_ref().take(size).collect();
        job.halt.see(&outcomes);
        // Who published may be gone.
        let _ = job.answer.send(outcomes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Memory};
    use unstall_proto::{
        Kind,
        topics::{Publisher, Topic},
    };

    fn message(publisher: Publisher, number: u64) -> Publication {
        let topic = Topic::new("a").unwrap();
        let mut message = Publication::new(topic, Kind::Text, "x");
        message.publisher = Some((publisher, number));
        message
    }

    /// Once a message was stored behind one that was refused for now. When the answer to the first
    /// was lost, it was sent again, taken for stored, and missing.
    #[tokio::test]
    async fn nothing_is_stored_behind_a_message_that_may_come_again() {
        // It has room for one publisher.
        let store = Arc::new(Memory::new(Limits::default().max_publishers(1)));
        let (appender, work) = Appender::new(store, |_, _| {});
        tokio::spawn(work);
        let publisher = |id| Publisher {
            id: [id; 16],
            epoch: 1,
        };
        let (first, second) = (publisher(1), publisher(2));
        let halt = Halt::default();
        let mut answers = Vec::new();
        for (publisher, number) in [(first, 1), (second, 1), (first, 2)] {
            let batch = vec![message(publisher, number)];
            let answer = appender.submit(batch, halt.clone()).await;
            // One commit each.
            answers.push(answer.outcome().await[0]);
        }
        assert!(matches!(answers[0], Appended::Stored { .. }), "{answers:?}");
        assert_eq!(answers[1], Appended::Refused(Refusal::Full));
        assert_eq!(answers[2], Appended::Refused(Refusal::Unavailable));
        let another = appender.submit(vec![message(first, 2)], Halt::default());
        let outcome = another.await.outcome().await;
        assert!(matches!(outcome[0], Appended::Stored { .. }), "{outcome:?}");
    }
}
