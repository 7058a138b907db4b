//! The directory of a log: its lock, its format and id, and the last offset that was told as safe.
//!
//! | file | what it is |
//! | --- | --- |
//! | `lock` | locked while the log is open |
//! | `log` | two lines: `unstall-topics 1`, the format's version, and the log's id |
//! | `last` | the last offset that was told, and its complement, 8 bytes each. It is written after each commit, and synced from time to time |
//! | `messages/` | the database |
//! | `journals/` | second names of its journals ([`super::journals`]) |

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use unstall_proto::topics::LogId;

use super::error::OpenError;
use crate::defaults::embedded::LOCK_TIMEOUT;

/// The format that is written.
const FORMAT: u32 = 1;
const NAME: &str = "unstall-topics ";

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The file system's name of the directory, where it has one.
    place: Option<(u64, u64)>,
    /// `None` until the log was made.
    id: Option<LogId>,
    last: File,
    /// Released when it is closed.
    _lock: File,
}

impl Directory {
    /// Locks a directory, which is made if it is not there, and reads its format and id.
    pub(super) fn open(path: &Path) -> Result<Directory, OpenError> {
        let refused = |why| io_error(path, why);
        fs::create_dir_all(path).map_err(refused)?;
        let lock = lock(path)?;
        let id = match fs::read_to_string(path.join("log")) {
            Ok(text) => Some(parse(path, &text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(path, "its file `log` is not text"));
            }
            Err(error) => return Err(refused(error)),
        };
        let mut last = File::options();
        let last = last.read(true).write(true).create(true).truncate(false);
        Ok(Directory {
            path: path.to_owned(),
            place: place(path).map_err(refused)?,
            id,
            last: last.open(path.join("last")).map_err(refused)?,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why this is not the directory any more, if it is not: what is written would be lost with the
    /// process, and another process may have another log there.
    pub(super) fn gone(&self) -> Option<String> {
        let path = self.path.display();
        match place(&self.path) {
            Ok(place) if place != self.place => Some(format!(
                "another directory is in the place of {path}; open the log again"
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!(
                "the directory {path} is no longer there; open another log"
            )),
            // What is wrong with it shows when it is used.
            _ => None,
        }
    }

    pub(super) fn messages(&self) -> PathBuf {
        self.path.join("messages")
    }

    pub(super) fn journals(&self) -> PathBuf {
        self.path.join("journals")
    }

    pub(super) fn id(&self) -> Option<LogId> {
        self.id
    }

    /// Gives the log a new id. It is safe when this returns.
    pub(super) fn renew_id(&mut self) -> Result<LogId, OpenError> {
        let refused = |why| io_error(&self.path, why);
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| refused(io::Error::other(error)))?;
        let id = LogId(id);
        let temporary = self.path.join("log.new");
        let write = || {
            let mut file = File::create(&temporary)?;
            writeln!(file, "{NAME}{FORMAT}\n{id}")?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join("log"))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(refused)?;
        self.id = Some(id);
        Ok(id)
    }

    /// The last offset that was told as safe, as far as it is known. `Err` if the file is damaged.
    pub(super) fn last(&mut self) -> Result<u64, OpenError> {
        let mut bytes = Vec::new();
        let read = self
            .last
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.last.read_to_end(&mut bytes));
        read.map_err(|why| io_error(&self.path, why))?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        match (number(0), number(8)) {
            (Some(last), Some(complement)) if last == !complement => Ok(last),
            _ => Err(damaged(&self.path, "its file `last` is damaged")),
        }
    }

    /// Notes the last offset that is told as safe. It outlives the process at once, and the machine
    /// once it is synced.
    pub(super) fn note_last(&mut self, last: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&last.to_be_bytes());
        bytes[8..].copy_from_slice(&(!last).to_be_bytes());
        let written = self
            .last
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.last.write_all(&bytes));
        // The messages are safe. What suffers is the chance to find out that files were damaged.
        if let Err(error) = written {
            tracing::warn!(%error, "the file `last` of a log cannot be written");
        }
    }

    pub(super) fn sync_last(&self) {
        if let Err(error) = self.last.sync_data() {
            tracing::warn!(%error, "the file `last` of a log cannot be synced");
        }
    }
}

#[cfg(unix)]
fn place(path: &Path) -> io::Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;

    let found = fs::metadata(path)?;
    Ok(Some((found.dev(), found.ino())))
}

/// A directory in which files are open cannot be removed.
#[cfg(not(unix))]
fn place(path: &Path) -> io::Result<Option<(u64, u64)>> {
    fs::metadata(path).map(|_| None)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(false);
    let file = options.open(path.join("lock"));
    let file = file.map_err(|why| io_error(path, why))?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(why)) => return Err(io_error(path, why)),
            Err(TryLockError::WouldBlock) if begin.elapsed() >= LOCK_TIMEOUT => {
                return Err(OpenError::InUse(path.to_owned()));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_TIMEOUT / 50),
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<LogId, OpenError> {
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(NAME));
    let version = version.ok_or_else(|| damaged(path, "its file `log` is not that of a log"))?;
    match version.parse() {
        Ok(FORMAT) => {}
        Ok(0) => return Err(damaged(path, "its file `log` names format 0")),
        // Whatever a later version writes there.
        _ => {
            return Err(OpenError::FutureVersion {
                directory: path.to_owned(),
                found: version
                    .chars()
                    .filter(|c| c.is_ascii_graphic())
                    .take(20)
                    .collect(),
                known: FORMAT,
            });
        }
    }
    let id = lines.next().and_then(|line| line.parse().ok());
    id.ok_or_else(|| damaged(path, "its file `log` has no id"))
}

pub(super) fn damaged(path: &Path, why: impl Into<Arc<str>>) -> OpenError {
    OpenError::Damaged {
        directory: path.to_owned(),
        why: why.into(),
    }
}

pub(super) fn io_error(path: &Path, why: io::Error) -> OpenError {
    OpenError::Io {
        directory: path.to_owned(),
        why: Arc::new(why),
    }
}
