//! Journals that the database no longer needs, which are removed in small steps.
//!
//! A journal has 64 MiB. To remove it in one step took 50 ms, and every sync of the file system waited
//! for half of that. So each journal gets a second name while the database uses it. What the database
//! removes then is its own name, and the file is cut shorter here, step by step.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use crate::defaults::embedded::{SHORTEN_BYTES, SHORTEN_PAUSE};

#[derive(Debug)]
pub(super) struct Journals {
    database: PathBuf,
    /// The second names.
    held: PathBuf,
}

impl Journals {
    /// The journals of a database, of which the second names are in `held`. Second names of before are
    /// removed: nothing is lost with them.
    pub(super) fn new(database: PathBuf, held: PathBuf) -> Journals {
        // If it cannot be removed, new names cannot be given either, and that does no harm.
        let _ = fs::remove_dir_all(&held);
        Journals { database, held }
    }

    /// Gives new journals a second name, and removes those that have no other name any more. A file
    /// system without second names is no failure: then the database removes its journals itself.
    pub(super) fn look(&self) {
        if !cfg!(unix) {
            // It cannot be known how many names a file has.
            return;
        }
        if let Err(error) = self.hold().and_then(|()| self.remove()) {
            tracing::debug!(%error, "a journal of a log has no second name");
        }
    }

    fn hold(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.database)? {
            let path = entry?.path();
            let is_journal = path.extension().is_some_and(|it| it == "jnl");
            let Some(name) = path.file_name().filter(|_| is_journal) else {
                continue;
            };
            let held = self.held.join(name);
            if !held.try_exists()? {
                fs::create_dir_all(&self.held)?;
                match fs::hard_link(&path, &held) {
                    // The database may have removed it just now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    linked => linked?,
                }
            }
        }
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        if !self.held.try_exists()? {
            return Ok(());
        }
        for entry in fs::read_dir(&self.held)? {
            let path = entry?.path();
            if is_only_name(&path)? {
                shorten(&path)?;
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether a file has no other name. A name that is gone does not come back.
#[cfg(unix)]
fn is_only_name(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path)?.nlink() == 1)
}

#[cfg(not(unix))]
fn is_only_name(_: &Path) -> io::Result<bool> {
    Ok(false)
}

fn shorten(path: &Path) -> io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    let mut length = file.metadata()?.len();
    while length > SHORTEN_BYTES {
        length -= SHORTEN_BYTES;
        file.set_len(length)?;
        thread::sleep(SHORTEN_PAUSE);
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_kept_whole_until_the_database_has_removed_it() {
        let directory = tempfile::tempdir().unwrap();
        let (database, held) = (directory.path().join("db"), directory.path().join("held"));
        fs::create_dir(&database).unwrap();
        let journals = Journals::new(database.clone(), held.clone());
        let whole = vec![7; 3 * SHORTEN_BYTES as usize + 1];
        fs::write(database.join("0.jnl"), &whole).unwrap();
        fs::write(database.join("version"), "3").unwrap();
        for _ in 0..3 {
            journals.look();
            assert_eq!(fs::read(database.join("0.jnl")).unwrap(), whole);
        }
        assert_eq!(fs::read_dir(&held).unwrap().count(), 1);
        fs::write(database.join("1.jnl"), &whole).unwrap();
        fs::remove_file(database.join("0.jnl")).unwrap();
        journals.look();
        assert!(!held.join("0.jnl").exists() && held.join("1.jnl").exists());
        assert_eq!(fs::read(database.join("1.jnl")).unwrap(), whole);
        // When it is opened again, the database's own names are all that counts.
        Journals::new(database.clone(), held.clone());
        assert!(!held.exists());
        assert_eq!(fs::read(database.join("1.jnl")).unwrap(), whole);
    }
}
