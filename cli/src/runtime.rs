//! The Tokio runtime of the subcommands that need one.

use std::future::Future;

use crate::failure::Failure;

/// Runs `work` to its end.
pub(crate) fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::work(format_args!("starting the runtime: {error}")))?;
    let result = runtime.block_on(work);
    // A read of standard input cannot be cancelled. Waiting for it would wait for the next line.
    runtime.shutdown_background();
    result
}
