//! Logs go to stderr, so that stdout has only the command's output.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

/// Starts logging. `verbose` is the number of `-v`. `UNSTALL_LOG`, or else `RUST_LOG`, overrides
/// it.
pub(crate) fn start(verbose: u8) {
    let default: Directive = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    }
    .into();
    let chosen = ["UNSTALL_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::builder()
        .with_default_directive(default)
        .parse_lossy(chosen.unwrap_or_default());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
