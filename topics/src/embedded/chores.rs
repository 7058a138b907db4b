//! A thread that does what takes long and is not needed for an append: it frees memory and files.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
};

use fjall::{Database, Keyspace};

use super::{generation::Generation, journals::Journals};
use crate::defaults::embedded::{CHORES, TICK};

/// What there is to do.
pub(super) enum Chore {
    /// Nothing is appended to this generation any more. What the generation before it had in memory is
    /// freed by this too, which is tens of thousands of pieces.
    Finish(Arc<Generation>),
    /// The keyspace is removed from the database. Its files go when the last reader is done.
    Delete(Database, Keyspace),
}

enum Job {
    Do(Chore),
    /// Tell that everything before it is done.
    Tell(mpsc::Sender<()>),
}

/// Hands chores to the thread, which ends when this is dropped.
pub(super) struct Chores {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How many chores are not done yet.
    left: AtomicUsize,
    failure: Mutex<Option<fjall::Error>>,
}

impl Chores {
    pub(super) fn start(journals: Journals) -> std::io::Result<Chores> {
        let (sender, jobs) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let here = shared.clone();
        let thread = thread::Builder::new().name("unstall-chores".to_owned());
        thread.spawn(move || run(&jobs, &here, &journals))?;
        Ok(Chores {
            jobs: sender,
            shared,
        })
    }

    /// Whether everything is done.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.left.load(Acquire) == 0
    }

    /// Waits only if much is left: what is not done keeps its memory.
    pub(super) fn begin(&self, chore: Chore) {
        if self.shared.left.load(Acquire) >= CHORES {
            self.wait();
        }
        self.shared.left.fetch_add(1, AcqRel);
        // The thread lives as long as this.
        let _ = self.jobs.send(Job::Do(chore));
    }

    /// Waits until everything is done. Nothing of the database is held then.
    pub(super) fn wait(&self) {
        let (sender, told) = mpsc::channel();
        if self.jobs.send(Job::Tell(sender)).is_ok() {
            let _ = told.recv();
        }
    }

    /// Why a chore failed, once.
    pub(super) fn take_failure(&self) -> Option<fjall::Error> {
        self.shared.failure().take()
    }
}

impl Shared {
    fn failure(&self) -> std::sync::MutexGuard<'_, Option<fjall::Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(jobs: &Receiver<Job>, shared: &Shared, journals: &Journals) {
    loop {
        match jobs.recv_timeout(TICK) {
            Ok(Job::Do(chore)) => {
                // The library beneath panics at some damaged files.
                let done = catch_unwind(AssertUnwindSafe(|| chore.run()));
                if let Err(error) = done.unwrap_or(Err(fjall::Error::Poisoned)) {
                    *shared.failure() = Some(error);
                }
                shared.left.fetch_sub(1, AcqRel);
                journals.look();
            }
            Ok(Job::Tell(told)) => {
                let _ = told.send(());
            }
            Err(RecvTimeoutError::Timeout) => journals.look(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Chore {
    fn run(self) -> fjall::Result<()> {
        match self {
            Chore::Finish(generation) => generation.finish(),
            Chore::Delete(database, keyspace) => database.delete_keyspace(keyspace),
        }
    }
}
