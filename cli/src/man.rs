//! `unstall man`: the manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::failure::Failure;
use crate::stdout;

const EXAMPLES: &str = "\
Example:
  unstall man ~/.local/share/man/man1 && man unstall-pull";

/// Write the manual pages, unstall.1 and one for each subcommand
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// The directory to write to; created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let directory = self.directory.display();
        std::fs::create_dir_all(&self.directory)
            .and_then(|()| clap_mangen::generate_to(crate::args::Args::command(), &self.directory))
            .map_err(|error| {
                Failure::work(format_args!("writing manual pages to {directory}: {error}"))
            })?;
        stdout::print(&format!("manual pages written to {directory}"))
    }
}
