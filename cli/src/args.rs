//! The command line: the subcommands and their common arguments.

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use unstall::RedactedUrl;

use crate::failure::Failure;
use crate::{
    cat, completions, demo, doctor, hub, man, publish, pull, relay, serve, subscribe, top, verify,
};

const EXAMPLES: &str = "\
Examples:
  unstall demo                              a stall, its usual fix, and unstall
  unstall serve                             a server to test against
  unstall pull ws://127.0.0.1:9100/packets  fetch and check 100,000 packets
  unstall cat wss://feed.example/stream     print messages as lines
  unstall hub                               topics: logs to publish and subscribe to
  unstall relay --to wss://feed.example     pass WebSockets on, for programs as they are
  unstall verify                            break connections, lose no message
  unstall top ws://127.0.0.1:9200           what a server's connections wait for
  unstall doctor                            find out which connection is stuck
  echo '{\"report\":true}' | unstall cat ws://127.0.0.1:9100/sink

Exit codes: 0 success; 1 a promise was broken or the work failed; 2 wrong usage.
UNSTALL_LOG or RUST_LOG select what is logged to stderr, for example
UNSTALL_LOG=unstall=debug.";

/// WebSocket streams that never stall, never lose a message silently, and use bounded memory
#[derive(Debug, Parser)]
#[command(name = "unstall", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Log more to stderr: -v events, -vv details, -vvv everything
    #[arg(short, long, global = true, display_order = 900, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Pull(pull::Pull),
    Cat(cat::Cat),
    Hub(hub::Hub),
    Publish(publish::Publish),
    Subscribe(subscribe::Subscribe),
    Relay(Box<relay::Relay>),
    Verify(verify::Verify),
    VerifyPeer(verify::VerifyPeer),
    VerifyTopicsPeer(verify::VerifyTopicsPeer),
    Top(top::Top),
    Doctor(doctor::Arguments),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Parses the command line. If it is wrong, prints why and ends the process.
pub(crate) fn parse() -> Args {
    Args::try_parse().unwrap_or_else(|error| {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match hidden(error.to_string(), &arguments) {
            Some(text) if error.use_stderr() => {
                eprint!("{text}");
                std::process::exit(error.exit_code())
            }
            _ => error.exit(),
        }
    })
}

/// clap repeats an argument that it does not expect. The text without the secrets of URLs and
/// headers, if there are any.
fn hidden(text: String, arguments: &[String]) -> Option<String> {
    let shown = |argument: &String| match argument.split_once(": ") {
        _ if argument.contains("://") || argument.contains('@') => {
            Some(RedactedUrl::new(argument).to_string())
        }
        Some((name, _)) => Some(format!("{name}: …")),
        None => None,
    };
    let mut secrets: Vec<_> = arguments
        .iter()
        .filter_map(|argument| Some((argument, shown(argument)?)))
        .filter(|(argument, _)| text.contains(*argument))
        .collect();
    secrets.sort_by_key(|(argument, _)| std::cmp::Reverse(argument.len()));
    let hide = |text: String, (argument, shown): &(&String, String)| text.replace(*argument, shown);
    (!secrets.is_empty()).then(|| secrets.iter().fold(text, hide))
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        let result = match self {
            Self::Doctor(arguments) => return doctor::run(arguments),
            Self::Demo(demo) => demo.run(),
            Self::Serve(serve) => serve.run(),
            Self::Pull(pull) => pull.run(),
            Self::Cat(cat) => cat.run(),
            Self::Hub(hub) => hub.run(),
            Self::Publish(publish) => publish.run(),
            Self::Subscribe(subscribe) => subscribe.run(),
            Self::Relay(relay) => relay.run(),
            Self::Verify(verify) => verify.run(),
            Self::Top(top) => top.run(),
            Self::VerifyPeer(peer) => peer.run(),
            Self::VerifyTopicsPeer(peer) => peer.run(),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
        };
        result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
