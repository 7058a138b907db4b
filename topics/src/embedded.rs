//! A store in a directory of one machine.

mod chores;
mod cursor;
mod directory;
mod error;
mod generation;
mod journals;
mod latest;
mod layout;
mod manifests;
mod names;
mod places;
mod plan;
mod reading;
mod retention;
mod state;
#[cfg(test)]
mod tests;
mod unwritten;
mod view;
mod writer;

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{oneshot, watch},
    task::spawn_blocking,
};
use unstall_proto::topics::{Durability, LogId, Offset};

pub use error::OpenError;

use crate::{
    clock::Clock,
    defaults,
    limits::Limits,
    store::{Appended, Bounds, Chunk, Publication, Read, Seek, Store, StoreError},
};
use chores::Chores;
use directory::{Directory, damaged, io_error};
use journals::Journals;
use latest::Snapshots;
use state::{LoadError, State};
use view::{Shared, View};
use writer::{Command, Writer};

/// Keeps a log in a directory of this machine. A message is safe once it is synced to the disk.
///
/// # What it survives
/// - **The process ends**, however it ends: every message that was told as stored is there, and none
///   in part.
/// - **The machine ends**: the same, if the disk keeps what it has synced.
/// - **The disk is full.** Appends fail with [`StoreError::Full`] while less than 64 MiB are free (a
///   quarter of [`Limits::max_bytes`], if that is less). Nothing of them is stored. Reading goes on,
///   and so do appends once there is room.
/// - **A file is damaged.** Either opening fails, or reading what is damaged does, with
///   [`StoreError::Damaged`]. If the log has lost messages at its end, it gets a new id when it is
///   opened. It notes how far it got in a file that it writes after each commit, and syncs from time
///   to time. So a loss goes unnoticed only if the machine ended, its disk did not keep what it had
///   synced, and the note was lost as well.
/// - **The directory is removed**, or another one takes its place: the store ends
///   ([`ended`](Store::ended)) within a second, and before it appends anything more. (On Windows this
///   cannot happen, because its files are open.)
///
/// # Size
/// The oldest messages are removed in steps of a sixteenth of the limits. So what is left is at least
/// 15/16 of [`Limits::max_bytes`], and a message may stay for up to 1/16 of [`Limits::max_age`]
/// longer, and for at least a second. The directory takes up to 0.4 GiB more than the messages, for
/// journals and for what was removed while somebody reads it. It takes about 100 MB of memory, and
/// some for each remembered publisher, and for each topic in the last sixteenth.
///
/// # Reads
/// A read that matches up to 1,024 topics finds its messages through an index. One that matches more,
/// or most of what it looks at, looks through the log.
///
/// Work on the disk is done on two threads of the store, and on tokio's blocking threads.
pub struct Embedded {
    id: LogId,
    directory: PathBuf,
    limits: Limits,
    shared: Arc<Shared>,
    snapshots: Arc<Snapshots>,
    writer: mpsc::Sender<Command>,
}

impl Embedded {
    /// Opens the log in a directory. Makes the directory, and a log in it, if there is none.
    ///
    /// It reads the journal, which takes up to some seconds after a process was killed. It waits for
    /// up to two seconds if the directory is in use.
    ///
    /// # Errors
    /// [`OpenError`] says why, and what to do. Nothing was changed then, except for what an
    /// interrupted process had left half done.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    pub async fn open(directory: impl AsRef<Path>, limits: Limits) -> Result<Embedded, OpenError> {
        Embedded::start(directory.as_ref(), limits, Clock::system(), false).await
    }

    /// Opens a log that was restored from a copy, and gives it a new id. The log may have gone on
    /// since the copy was made, so readers must not take its positions for those of the original.
    ///
    /// # Errors
    /// As [`open`](Embedded::open).
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    pub async fn open_copy(
        directory: impl AsRef<Path>,
        limits: Limits,
    ) -> Result<Embedded, OpenError> {
        Embedded::start(directory.as_ref(), limits, Clock::system(), true).await
    }

    async fn start(
        path: &Path,
        limits: Limits,
        clock: Clock,
        is_copy: bool,
    ) -> Result<Embedded, OpenError> {
        let limits = limits.resolved(defaults::EMBEDDED_BYTES, defaults::embedded::LEAST_BYTES);
        let directory = path.to_owned();
        let open = move || {
            let (writer, id) = open(&directory, limits, clock, is_copy)?;
            let run = Embedded::run(writer, id, directory.clone());
            run.map_err(|error| io_error(&directory, error))
        };
        match spawn_blocking(open).await {
            Ok(opened) => opened,
            Err(error) => Err(io_error(path, std::io::Error::other(error))),
        }
    }

    fn run(writer: Writer, id: LogId, directory: PathBuf) -> std::io::Result<Embedded> {
        let (sender, commands) = mpsc::channel();
        let embedded = Embedded {
            id,
            directory,
            limits: writer.limits.clone(),
            shared: writer.shared.clone(),
            snapshots: writer.snapshots.clone(),
            writer: sender,
        };
        let thread = thread::Builder::new().name("unstall-topics".to_owned());
        thread.spawn(move || writer.run(commands))?;
        Ok(embedded)
    }

    /// Closes the log, and waits until another process can open it. What was asked before is done
    /// first. Every later use of the store fails.
    ///
    /// A store that is dropped closes by itself, a little later.
    pub async fn close(&self) {
        let (told, closed) = oneshot::channel();
        if self.writer.send(Command::Close(told)).is_ok() {
            let _ = closed.await;
        }
    }

    /// Asks the writing thread.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        // If it fails, so does the answer.
        let _ = self.writer.send(command(sender));
        match (answer.await, self.shared.closed()) {
            (Ok(answer), _) => answer,
            (Err(_), Some(why)) => Err(StoreError::Unavailable(why)),
            (Err(_), None) => Err(StoreError::Unknown("the log's thread has ended".into())),
        }
    }

    /// Reads on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View, &Snapshots) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (shared, snapshots) = (self.shared.clone(), self.snapshots.clone());
        let read = move || {
            let view = shared.view()?;
            read(&view, &snapshots)
        };
        match spawn_blocking(read).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Unavailable(
                format!("a read failed: {error}").into(),
            )),
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("id", &self.id)
            .field("directory", &self.directory)
            .field("bounds", &*self.shared.bounds().borrow())
            .finish_non_exhaustive()
    }
}

impl Store for Embedded {
    fn id(&self) -> LogId {
        self.id
    }

    fn durability(&self) -> Durability {
        Durability::Disk
    }

    fn once(&self) -> Option<Duration> {
        Some(self.limits.once)
    }

    fn max_message_bytes(&self) -> usize {
        self.limits.max_message_bytes
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn append(&self, batch: Vec<Publication>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>> {
        self.ask(|answer| Command::Append(batch, answer)).boxed()
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, StoreError>> {
        async { Ok(*self.shared.bounds().borrow()) }.boxed()
    }

    fn changes(&self) -> watch::Receiver<Bounds> {
        self.shared.bounds()
    }

    fn ended(&self) -> Option<Arc<str>> {
        self.shared.closed()
    }

    fn read(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        self.on_disk(move |view, _| reading::read(view, &read))
            .boxed()
    }

    fn read_latest(&self, read: Read) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        self.on_disk(move |view, snapshots| snapshots.read(view, &read))
            .boxed()
    }

    fn seek(&self, seek: Seek) -> BoxFuture<'_, Result<Offset, StoreError>> {
        self.on_disk(move |view, _| Ok(view::offset(places::seek(view, &seek)?)))
            .boxed()
    }

    fn remove_through(&self, offset: Offset) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(move |answer| Command::Remove(offset, answer))
            .boxed()
    }
}

/// Opens a directory, and finds out whether the log in it is whole.
fn open(
    path: &Path,
    limits: Limits,
    clock: Clock,
    is_copy: bool,
) -> Result<(Writer, LogId), OpenError> {
    let mut directory = Directory::open(path)?;
    let journals = Journals::new(directory.messages(), directory.journals());
    // The library beneath panics at some damaged files.
    let load = || State::load(&directory.messages(), &limits, &clock);
    let mut state = match catch_unwind(AssertUnwindSafe(load)) {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => return Err(refused(path, error)),
        Err(_) => return Err(damaged(path, "the database panicked while it was opened")),
    };
    let told = directory.last();
    let id = match (directory.id(), told) {
        (None, _) if state.last > 0 => {
            return Err(damaged(
                path,
                "it has messages, but its file `log` is missing",
            ));
        }
        (Some(id), Ok(told)) if told <= state.last && !is_copy => id,
        (_, told) => {
            if let Some(lost) = directory.id() {
                let told = told.unwrap_or(state.last);
                skip_lost(&mut state, told, &limits).map_err(|error| refused(path, error))?;
                tracing::warn!(%lost, "a log was copied or may have lost its end, and gets a new id");
            }
            directory.renew_id()?
        }
    };
    directory.note_last(state.last);
    directory.sync_last();
    let shared = Arc::new(Shared::new(state.view()));
    let chores = Chores::start(journals).map_err(|error| io_error(path, error))?;
    let writer = Writer {
        directory,
        chores,
        limits,
        clock,
        shared,
        snapshots: Arc::default(),
        state: Some(state),
        deleted: VecDeque::new(),
        failure: None,
        gone: None,
    };
    Ok((writer, id))
}

/// Offsets that were told are not given out again, though their messages are lost.
fn skip_lost(state: &mut State, told: u64, limits: &Limits) -> Result<(), LoadError> {
    if told <= state.last {
        return Ok(());
    }
    if state.first() > state.last {
        state.removed = told;
    }
    state.last = told;
    Ok(state.begin_generation(limits)?.finish()?)
}

fn refused(path: &Path, error: LoadError) -> OpenError {
    match error {
        LoadError::Database(fjall::Error::Locked) => OpenError::InUse(path.to_owned()),
        LoadError::Database(fjall::Error::Io(error)) => io_error(path, error),
        LoadError::Database(error) => damaged(path, error.to_string()),
        LoadError::Damaged(why) => damaged(path, why),
    }
}
