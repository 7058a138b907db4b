//! unstall measured side by side with other WebSocket engines; see README.md.

mod args;
mod contestants;
mod engine;
mod job;
mod json;
mod latency;
mod limits;
mod machine;
mod meter;
#[cfg(target_os = "linux")]
mod namespace;
mod payload;
mod pin;
mod process;
mod relay;
mod round;
mod shared;
mod table;
mod tcp;
mod ticks;
mod tls;
mod worker;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

/// Any error. It is only printed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let done = match &args.hidden {
        Some(args::Hidden::Worker { job }) => worker::run(job),
        None => workloads::measure(&args.measure),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unstall-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
