//! The command `unstall`.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod completions;
mod doctor;
mod demo;
mod failure;
mod logging;
mod man;
mod packets;
mod progress;
mod rss;
mod runtime;
mod stdout;

fn main() -> ExitCode {
    let args = args::Args::parse();
    logging::start(args.verbose);
    match args.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
