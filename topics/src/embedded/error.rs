//! Why a directory cannot be opened.

use std::{io, path::PathBuf, sync::Arc};

/// Why a log cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory open, or this one has. Try again when it is closed.
    #[error("{0} is in use; a log can be open only once, so close the other one first")]
    InUse(PathBuf),
    /// A newer version of this library wrote the directory.
    #[error("{directory} has format {found}, and this version reads {known}; use a newer one")]
    FutureVersion {
        /// The directory.
        directory: PathBuf,
        /// Its format.
        found: String,
        /// The format that this version reads and writes.
        known: u32,
    },
    /// The directory's files are not those of a log, or cannot be read. Restore it from a copy, or
    /// use an empty directory.
    #[error(
        "{directory} cannot be opened: {why}; restore it from a copy, or use an empty directory"
    )]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What is wrong.
        why: Arc<str>,
    },
    /// The operating system refused something: no permission, a full disk.
    #[error("{directory} cannot be opened: {why}")]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        why: Arc<io::Error>,
    },
}
