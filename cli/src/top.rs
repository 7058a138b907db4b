//! `unstall top`: what a server's connections do and wait for, in a terminal.

use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::status::{Asker, Identity};
use crate::stdout;

mod details;
mod draw;
mod run;
mod view;

const EXAMPLES: &str = "\
Keys:
  up, down, PageUp, PageDown, Home, End   choose a connection
  Enter                                   its details and events; Esc goes back
  s, r                                    sort by the next column; reverse the order
  /                                       show only rows with a text, such as a peer or a cause
  q, Ctrl-C                               quit

A row tells the connection's number, peer, messages per second out and in, bytes
that wait to be sent and to be read, what it waits for, and since when. Those that
wait longest come first. The guide's chapter \"The status of a process, as JSON\" has
each figure. NO_COLOR switches colours off.

Examples:
  unstall top ws://127.0.0.1:9200
  unstall top wss://hub.example --token FILE
  unstall top 127.0.0.1:9100 --once | grep 'peer is not reading'

Exit codes: 0 the status was shown; 1 the server does not answer, or does not show
its status; 2 wrong usage.";

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Show what a server's connections do, what they wait for, and since when
///
/// Works with `unstall hub`, `unstall serve`, and any program that shows the library's page.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// The server's address, for example ws://127.0.0.1:9200
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    identity: Identity,

    /// Time between two looks, for example 500ms, 1s, 1m (100ms to 1h)
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::doctor::interval)]
    interval: Duration,

    /// Print what would be on the screen as text, once, with all rows
    #[arg(long, conflicts_with = "json")]
    once: bool,

    /// Print the status as one JSON object, as the server tells it
    #[arg(long)]
    json: bool,

    /// With --once or --json: details and events of this connection
    #[arg(long, value_name = "ID")]
    connection: Option<u64>,
}

impl Top {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let asker = Asker::new(&self.url, self.identity.read()?, TIMEOUT)?;
        if self.json {
            let text = match self.connection {
                Some(id) => asker.connection_text(id),
                None => asker.status_text(),
            };
            return stdout::print(text.map_err(Failure::because)?.trim_end());
        }
        if self.once {
            return run::once(&asker, self.interval, self.connection);
        }
        run::live(asker, self.interval, self.connection)
    }
}
