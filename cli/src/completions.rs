//! `unstall completions`: completion scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::stdout;

const EXAMPLES: &str = "\
Examples:
  unstall completions bash > ~/.local/share/bash-completion/completions/unstall
  unstall completions zsh > ~/.zfunc/_unstall
  unstall completions fish > ~/.config/fish/completions/unstall.fish";

/// Print the completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell that the script is for
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        let mut command = crate::args::Args::command();
        clap_complete::generate(self.shell, &mut command, "unstall", &mut script);
        stdout::print(String::from_utf8_lossy(&script).trim_end())
    }
}
