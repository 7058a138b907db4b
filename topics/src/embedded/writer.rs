//! The thread that writes: appends, retention, and what is done when the disk fails.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use fjall::{Keyspace, PersistMode};
use tokio::sync::oneshot;
use unstall_proto::topics::{Offset, Refusal};

use super::{
    chores::Chores,
    directory::Directory,
    latest::Snapshots,
    plan::{Plan, answer_without},
    state::State,
    view::Shared,
};
use crate::{
    clock::Clock,
    defaults::embedded::{RESERVED_BYTES, TICK, WAITING_MEMTABLES, WAITING_TABLES},
    limits::Limits,
    store::{Appended, Publication, StoreError},
};

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Append(
        Vec<Publication>,
        oneshot::Sender<Result<Vec<Appended>, StoreError>>,
    ),
    Remove(Offset, oneshot::Sender<Result<(), StoreError>>),
    /// Close the database, and tell when it is closed.
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    pub(super) directory: Directory,
    pub(super) chores: Chores,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) snapshots: Arc<Snapshots>,
    /// `None` while the database is closed because it could not be opened again.
    pub(super) state: Option<State>,
    /// Keyspaces that are to be deleted.
    pub(super) deleted: VecDeque<Keyspace>,
    /// The last failure, and when. What comes soon after fails the same way.
    pub(super) failure: Option<(Instant, StoreError)>,
    /// The directory is no longer there, or another one is. Then the log is closed.
    pub(super) gone: Option<Arc<str>>,
}

/// A commit failed, or what led to it.
#[derive(Debug)]
pub(super) struct Failure {
    error: String,
    is_full: bool,
    /// Whether the state has what may not be on the disk.
    is_stale: bool,
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Failure {
        let io = match &error {
            fjall::Error::Io(error) => Some(error),
            fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error),
            _ => None,
        };
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let is_full = io.is_some_and(|why| full.contains(&why.kind()));
        Failure {
            is_full,
            error: match io {
                Some(why) if is_full => why.to_string(),
                Some(why) => format!("the disk refused: {why}"),
                None => format!("the database failed: {error}"),
            },
            is_stale: false,
        }
    }
}

impl Failure {
    fn into_store_error(self) -> StoreError {
        match self.is_full {
            true => StoreError::Full(format!("the disk is full ({})", self.error).into()),
            false => StoreError::Unavailable(self.error.into()),
        }
    }
}

impl Writer {
    pub(super) fn run(mut self, commands: Receiver<Command>) {
        let mut closed = None;
        while self.gone.is_none() {
            match commands.recv_timeout(TICK) {
                Ok(Command::Append(batch, answer)) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.append(&batch));
                    self.between();
                }
                Ok(Command::Remove(through, answer)) => {
                    let _ = answer.send(self.remove_through(through));
                }
                Ok(Command::Close(told)) => {
                    closed = Some(told);
                    break;
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Whoever asks from now on is told so. What waits is not done.
        self.shared
            .close(self.gone.as_deref().unwrap_or("the log is closed"));
        drop(commands);
        self.directory.sync_last();
        self.close();
        drop(self);
        if let Some(told) = closed {
            let _ = told.send(());
        }
    }

    fn append(&mut self, batch: &[Publication]) -> Result<Vec<Appended>, StoreError> {
        if let Some((when, error)) = &self.failure
            && when.elapsed() < TICK
        {
            return self.refuse(batch, error.clone());
        }
        let result = self.append_or_retry(batch);
        // What comes soon after is not tried, so nothing of it is stored.
        let known = |error: &StoreError| match error {
            StoreError::Unknown(why) => StoreError::Unavailable(why.clone()),
            error => error.clone(),
        };
        let failure = result.as_ref().err().map(known);
        self.failure = failure.map(|error| (Instant::now(), error));
        result.or_else(|error| self.refuse(batch, error))
    }

    /// Refuses a batch of which nothing is stored. A message that was stored before is told so all the
    /// same.
    fn refuse(
        &self,
        batch: &[Publication],
        error: StoreError,
    ) -> Result<Vec<Appended>, StoreError> {
        let refusal = match &error {
            StoreError::Full(_) => Refusal::Full,
            StoreError::Unavailable(_) => Refusal::Unavailable,
            _ => return Err(error),
        };
        let Some(state) = &self.state else {
            return Err(error);
        };
        let answer = |publication| answer_without(state, &self.limits, publication);
        let answers: Vec<_> = batch.iter().map(answer).collect();
        if answers.iter().all(Option::is_none) {
            return Err(error);
        }
        let refused = |answer: Option<_>| answer.unwrap_or(Appended::Refused(refusal));
        Ok(answers.into_iter().map(refused).collect())
    }

    /// A failed commit may have reached the disk all the same, or may reach it when the database is
    /// closed. So the database is opened again, and then it is known. If nothing was stored, it is
    /// tried once more.
    fn append_or_retry(&mut self, batch: &[Publication]) -> Result<Vec<Appended>, StoreError> {
        self.revive()?;
        let cost = batch.iter().map(Publication::cost).sum();
        let mut tried = false;
        loop {
            let (failed, answers) = match self.try_append(batch, cost) {
                Ok(answers) => return Ok(answers),
                Err(failed) => failed,
            };
            let failed = self.reopen_after(failed)?;
            if let Some((last, answers)) = answers
                && self.state.as_ref().is_some_and(|state| state.last >= last)
            {
                self.publish();
                return Ok(answers);
            }
            // If it was opened again, there may be room now.
            if tried || (failed.is_full && !failed.is_stale) {
                return Err(failed.into_store_error());
            }
            tried = true;
        }
    }

    /// If it fails, it says what the answers and the last offset are in case the batch is stored.
    #[expect(clippy::type_complexity, reason = "it has one caller")]
    fn try_append(
        &mut self,
        batch: &[Publication],
        cost: u64,
    ) -> Result<Vec<Appended>, (Failure, Option<(u64, Vec<Appended>)>)> {
        let room = self.make_room(cost).and_then(|()| self.check_room(cost));
        room.map_err(|failed| (failed, None))?;
        let Some(state) = self.state.as_mut() else {
            return Err((Failure::from(fjall::Error::Poisoned), None));
        };
        let now = self.clock.now(state.last_time);
        let plan = Plan::new(state, &self.limits, batch, now);
        let (last, answers) = (plan.last, plan.answers.clone());
        if plan.is_empty() {
            return Ok(answers);
        }
        match self.commit(plan) {
            Ok(()) => Ok(answers),
            Err(mut failed) => {
                failed.is_stale = true;
                Err((failed, Some((last, answers))))
            }
        }
    }

    /// Whether the disk has room for a batch. What is left has to be enough for writing tables.
    fn check_room(&self, cost: u64) -> Result<(), Failure> {
        let reserved = RESERVED_BYTES.min(self.limits.bytes() / 4);
        // The journal, and later a table.
        let needed = reserved + 2 * cost;
        match fs4::available_space(self.directory.path()) {
            Ok(free) if free < needed => Err(Failure {
                error: format!("{free} bytes are free, and {needed} are needed"),
                is_full: true,
                is_stale: false,
            }),
            // If it cannot be known, the commit shows it.
            _ => Ok(()),
        }
    }

    fn commit(&mut self, plan: Plan) -> Result<(), Failure> {
        self.wait_for_tables()?;
        if let Some(state) = &mut self.state {
            plan.commit(state)?;
            self.publish();
        }
        Ok(())
    }

    /// Readers see what is safe now.
    pub(super) fn publish(&mut self) {
        if let Some(state) = &self.state {
            self.directory.note_last(state.last);
            self.shared.publish(state.view());
        }
    }

    /// Waits until the threads of the database have written enough tables. It would wait for that
    /// itself, but for ever if they have failed.
    fn wait_for_tables(&self) -> Result<(), Failure> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let generation = &state.current().generation;
        let behind = || {
            [&generation.log, &generation.index].iter().any(|keyspace| {
                keyspace.sealed_memtable_count() >= WAITING_MEMTABLES
                    || keyspace.l0_table_count() >= WAITING_TABLES
            })
        };
        while behind() {
            // It fails if the threads have.
            state.database.persist(PersistMode::Buffer)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn remove_through(&mut self, through: Offset) -> Result<(), StoreError> {
        self.revive()?;
        match self.remove_all_through(through.get()) {
            Ok(()) => Ok(()),
            Err(failed) => {
                let failed = self.reopen_after(failed)?;
                // It may have been removed all the same.
                self.publish();
                Err(failed.into_store_error())
            }
        }
    }

    /// What is done when nothing was asked for a while.
    fn tick(&mut self) {
        if self.revive().is_ok() {
            let result = self.make_room(0);
            self.mend(result);
            self.between();
        }
    }

    /// What is done between two commands.
    fn between(&mut self) {
        let result = self.chore();
        self.mend(result);
    }

    fn mend(&mut self, result: Result<(), Failure>) {
        if let Err(failed) = result {
            tracing::warn!(error = failed.error, "retention of a log failed");
            let _ = self.reopen_after(failed);
        }
    }

    /// Opens the database if it is closed, or no longer takes anything.
    ///
    /// # Errors
    /// If it cannot be opened, or its directory is gone.
    fn revive(&mut self) -> Result<(), StoreError> {
        if let Some(why) = self.directory.gone() {
            tracing::error!(why, "a log is closed");
            self.gone = Some(why.as_str().into());
            return Err(StoreError::Unavailable(why.into()));
        }
        let works = |state: &State| state.database.persist(PersistMode::Buffer);
        match self.state.as_ref().map(works) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => self.reopen_after(error.into()).map(drop),
            None => self.reopen(),
        }
    }

    /// Closes and opens the database after a failure, which it gives back.
    ///
    /// # Errors
    /// If it cannot be opened: then it is not known what was stored.
    fn reopen_after(&mut self, failure: Failure) -> Result<Failure, StoreError> {
        // A full disk that was seen before anything was written needs no mending.
        let works = |state: &State| state.database.persist(PersistMode::Buffer).is_ok();
        let is_usable = failure.is_full && !failure.is_stale;
        if is_usable && self.state.as_ref().is_some_and(works) {
            return Ok(failure);
        }
        tracing::warn!(
            error = failure.error,
            "a log's database failed; it is opened again"
        );
        match self.reopen() {
            Ok(()) => Ok(failure),
            Err(error) => Err(StoreError::Unknown(
                format!("{}; then: {error}", failure.error).into(),
            )),
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let mut view = shared.hold();
        *view = Err("the database is being opened again".into());
        self.snapshots.clear();
        self.close();
        let opened = State::load(&self.directory.messages(), &self.limits, &self.clock);
        let told = self.directory.last().unwrap_or(0);
        let why: Arc<str> = match opened {
            Ok(state) if state.last >= told => {
                *view = Ok(state.view());
                drop(view);
                shared.publish(state.view());
                self.state = Some(state);
                self.deleted.clear();
                return Ok(());
            }
            Ok(state) => {
                let last = state.last;
                format!("messages behind offset {last} were lost; restart to go on").into()
            }
            Err(error) => error.to_string().into(),
        };
        *view = Err(why.clone());
        Err(StoreError::Unavailable(why))
    }

    /// Closes the database. Waits for the readers of before.
    fn close(&mut self) {
        self.deleted.clear();
        self.chores.wait();
        // What failed was of this database.
        let _ = self.chores.take_failure();
        let Some(state) = self.state.take() else {
            return;
        };
        for kept in &state.generations {
            while Arc::strong_count(&kept.generation) > 1 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
