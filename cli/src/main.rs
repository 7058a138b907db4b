//! The command `unstall`.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::process::ExitCode;

mod args;
mod cat;
mod completions;
mod compress;
mod connect;
mod demo;
mod doctor;
mod failure;
mod faults;
mod figures;
mod hub;
mod logging;
mod man;
mod packets;
mod process_group;
mod progress;
mod publish;
mod pull;
mod relay;
mod rss;
mod runtime;
mod serve;
mod status;
mod stdout;
mod subscribe;
mod table;
mod terminal;
mod time;
mod tls;
mod top;
mod topics;
mod verify;

fn main() -> ExitCode {
    let args = args::parse();
    logging::start(args.verbose);
    args.command.run()
}
