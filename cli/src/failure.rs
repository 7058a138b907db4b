//! Failures of subcommands, and their exit codes.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use unstall::printable;

/// Why a subcommand did not succeed: what happened and what to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A promise was broken or the work failed: exit code 1.
    Work(String),
    /// The command line is wrong: exit code 2, as clap's own errors have.
    Usage(String),
}

impl Failure {
    /// The work failed.
    pub(crate) fn work(reason: impl Display) -> Self {
        Self::Work(reason.to_string())
    }

    /// The work failed because of an error. The text includes its causes.
    pub(crate) fn because(error: impl Error) -> Self {
        Self::Work(chain(&error))
    }

    /// The command line is wrong.
    pub(crate) fn usage(reason: impl Display) -> Self {
        Self::Usage(reason.to_string())
    }

    /// The same, with what it is about in front.
    pub(crate) fn of(self, what: impl Display) -> Self {
        match self {
            Self::Work(reason) => Self::Work(format!("{what}: {reason}")),
            Self::Usage(reason) => Self::Usage(format!("{what}: {reason}")),
        }
    }

    /// What happened, without the exit code.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Work(reason) | Self::Usage(reason) => reason,
        }
    }

    /// Writes it to stderr and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (reason, code) = match self {
            Self::Work(reason) => (reason, 1),
            Self::Usage(reason) => (reason, 2),
        };
        // The text may include words of a peer. A closed stderr does not change the exit code.
        let _ = writeln!(std::io::stderr(), "unstall: {}", printable(&reason));
        ExitCode::from(code)
    }
}

/// An error and its causes in one line, safe to print on a terminal.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = printable(&error.to_string()).to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {}", printable(&cause.to_string()));
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer\nfailed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_told_with_its_causes_each_once_and_in_one_line() {
        let error = Outer(std::io::Error::other("\x1b[31mthe inner"));
        assert_eq!(chain(&error), r"the outer\nfailed: \u{1b}[31mthe inner");
    }
}
