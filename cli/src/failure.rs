//! How a subcommand fails, and the exit code that says so.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Why a subcommand did not succeed: what happened and what to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A promise was broken or the work failed: exit code 1.
    Work(String),
    /// The command line cannot be obeyed: exit code 2, as clap's own.
    Usage(String),
}

impl Failure {
    /// The work failed.
    pub(crate) fn work(reason: impl Display) -> Self {
        Self::Work(reason.to_string())
    }

    /// The command line cannot be obeyed.
    pub(crate) fn usage(reason: impl Display) -> Self {
        Self::Usage(reason.to_string())
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (reason, code) = match self {
            Self::Work(reason) => (reason, 1),
            Self::Usage(reason) => (reason, 2),
        };
        // A closed stderr is no reason for another exit code.
        let _ = writeln!(std::io::stderr(), "unstall: {reason}");
        ExitCode::from(code)
    }
}
