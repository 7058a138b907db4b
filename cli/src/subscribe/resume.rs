//! The file in which a position is kept.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use unstall_topics::Position;

use crate::failure::Failure;

/// The position is saved this often, at most. Each time costs a sync of the disk.
const INTERVAL: Duration = Duration::from_millis(200);

/// A position in a file. Each save replaces the file, so it always has one whole position.
pub(super) struct Resume {
    file: PathBuf,
    saved: Option<Position>,
    when: Option<Instant>,
}

impl Resume {
    /// Reads the position, if the file exists.
    pub(super) fn open(file: PathBuf) -> Result<Resume, Failure> {
        let saved = match fs::read_to_string(&file) {
            Ok(text) => Some(text.trim().parse().map_err(|error| {
                Failure::work(format_args!(
                    "{}: {error}; remove the file to begin at --from",
                    file.display()
                ))
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(Failure::work(format_args!("{}: {error}", file.display())));
            }
        };
        Ok(Resume {
            file,
            saved,
            when: None,
        })
    }

    /// The position that the file has.
    pub(super) fn position(&self) -> Option<Position> {
        self.saved
    }

    /// How long until a position is to be saved. `None`: the file has it already.
    pub(super) fn due(&self, position: Position) -> Option<Duration> {
        let since = self.when.map_or(INTERVAL, |when| when.elapsed());
        (self.saved != Some(position)).then(|| INTERVAL.saturating_sub(since))
    }

    /// Saves a position, if that is due or it is the last one.
    pub(super) fn save(&mut self, position: Position, last: bool) -> Result<(), Failure> {
        match self.due(position) {
            Some(due) if last || due.is_zero() => {}
            _ => return Ok(()),
        }
        self.write(position).map_err(|error| {
            let file = self.file.display();
            Failure::work(format_args!(
                "the position cannot be kept in {file}: {error}"
            ))
        })?;
        self.saved = Some(position);
        self.when = Some(Instant::now());
        Ok(())
    }

    fn write(&self, position: Position) -> std::io::Result<()> {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.file.with_file_name(name);
        let mut file = File::create(&new)?;
        writeln!(file, "{position}")?;
        file.sync_data()?;
        fs::rename(new, &self.file)
    }
}
