//! The command `unstall`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod doctor;

/// WebSocket streams that never stall.
#[derive(Parser)]
#[command(name = "unstall", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Doctor(doctor::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Doctor(arguments) => doctor::run(arguments),
    }
}
