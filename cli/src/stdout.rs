//! Printing to standard output, which may be a closed pipe.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints `text` and a newline. A closed pipe is not a failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::work(format_args!(
            "writing to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Prints the one JSON object of `--json`.
pub(crate) fn print_json(object: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(object)
        .map_err(|error| Failure::work(format_args!("writing JSON: {error}")))?;
    print(&text)
}
