//! `unstall verify`: breaks connections on purpose and accounts for every message.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use unstall::{RedactedUrl, defaults};

use crate::compress::{Compress, How};
use crate::connect::{Header, check_url, header, url};
use crate::failure::Failure;
use crate::faults::Kind;
use crate::{runtime, stdout};
use foreign::ClientCommand;
use plan::Sizes;
use run::Run;
use topics::Named;

mod echoed;
mod foreign;
mod ledger;
mod peer;
mod plan;
mod process;
mod run;
mod stream;
mod talk;
mod text;
mod topics;
mod verdict;
mod visit;

pub(crate) use peer::VerifyPeer;
pub(crate) use topics::VerifyTopicsPeer;

const EXAMPLES: &str = "\
Two processes, a client and a server, send each other numbered and hashed
messages over loopback TCP, both ways at once. A proxy between them injects
faults, at bytes that the seed decides:

  cut      every connection ends, by a reset or a FIN, in mid-frame
  freeze   nothing passes, in mid-frame; one in four freezes outlasts the silence
           timeout, and then late bytes come out of the abandoned connection
  delay    all bytes arrive late
  refuse   a cut, and new connections are reset for a while
  slow     the application on one side receives nothing for a while
  restart  the server process is killed and started again: its sessions end

A message is lost if it did not arrive and this was not reported: its sender
did not get it back, and its receiver got no gap at its place. `sent` is the sum
of `delivered`, `reported_undelivered` and `lost`. Messages that a killed process
may have sent count as sent. Recovery is the time from a cut to the first
message received over the new connection.

With a URL the client verifies another server, which must send every message
back, as `unstall serve` does at /. With --plain there is no session: the
verdict says how many messages were lost, and how many of them were reported.

With --client, the client is a program in any language, which sends every message
back. Some messages are text. `slow` stops its process for a moment. `kill` kills it
and starts it again: it must acknowledge a message only after its echo was delivered.
`restart` kills the server: the client must tell of the gap on standard error and end
with exit code 1, and is started again. See `Proving a client` in the guide.

With --topics, publishers, hubs (`unstall hub`) and subscribers are processes of
their own. Every subscriber reads everything from the beginning; half of them start
in the midst of it. The faults are these, besides cut, freeze, delay and refuse:

  restart    a hub is asked to end, and started again
  kill       a hub is killed, and started again
  slow       a subscriber receives nothing for a while
  retention  the log is small, and a subscriber receives nothing until messages are
             removed that it has not read: it must be told of them

With --client, the client gets a list of URLs, and forwards every message of the topic
verify.in to verify.out. `slow` stops its process. What is counted is verify.out.

`published` is the sum of `stored`, `not_stored` and `unknown`. A stored message has
to reach every subscriber once and in order, or be within a gap that is reported.

Exit code 1: a promise was broken. Ctrl-C ends the run and prints the verdict.

Examples:
  unstall verify
  unstall verify --faults cut,restart --seed 7
  unstall verify --count 1000000 --size 64 --times 200 --rate max --json
  unstall verify --plain --faults cut
  unstall verify --client 'node echo.mjs {url}' --faults cut,restart
  unstall verify --topics --faults kill,cut --times 30
  unstall verify --topics --store nats://127.0.0.1:4222/VERIFY --nodes 3
  unstall verify wss://relay.example/echo --tls-roots ca.pem";

/// Break connections on purpose and prove that no message was lost
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// The URL of an echo server, ws://… or wss://…; without it a server is started
    #[arg(value_parser = url)]
    url: Option<RedactedUrl>,

    /// Messages to send, each way
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    count: u64,

    /// Bytes of each message, or a range such as 64..4096
    #[arg(long, value_name = "B|A..B", default_value = "16..2048")]
    size: Sizes,

    /// The kinds of faults, separated by commas; default cut,freeze,delay,refuse,slow, and with
    /// --topics cut,freeze,restart,kill
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    faults: Option<Vec<Named>>,

    /// The number of faults, spread over the run; 0 for none
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(..=100_000))]
    times: u32,

    /// Messages a second each way, or `max`; by default the run takes about 10 seconds
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,

    /// Verify a client in any language: a command with {url} where the URL goes. It must send every
    /// message back, or with --topics forward it; see `Proving a client` in the guide
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["url", "plain"])]
    client: Option<ClientCommand>,

    /// End the run if nothing arrives for this long; default 30, and with --topics 60
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    patience: Option<u64>,

    /// The seed of the faults, to repeat a run; random by default
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Use plain WebSocket connections, without sessions
    #[arg(long)]
    plain: bool,

    #[command(flatten)]
    compress: Compress,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,

    /// Send this header with the upgrade request to URL; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header,
          requires = "url")]
    headers: Vec<Header>,

    /// Trust the certificates of this PEM file instead of the system's
    #[arg(long, value_name = "FILE", requires = "url")]
    tls_roots: Option<PathBuf>,

    #[command(flatten)]
    of_topics: topics::Flags,
}

/// The faults of a run, unless it says.
const FAULTS: [Kind; 5] = [
    Kind::Cut,
    Kind::Freeze,
    Kind::Delay,
    Kind::Refuse,
    Kind::Slow,
];

/// The patience of a run, unless it says. It is far longer than the longest fault and every timeout of
/// the run.
const PATIENCE: Duration = Duration::from_secs(30);

/// The length of a default run in seconds.
const SECONDS: f64 = 10.0;

/// The task of a run.
struct Aim {
    url: Option<String>,
    client: Option<ClientCommand>,
    /// If nothing is received for this long, the run has stalled.
    patience: Duration,
    headers: Vec<(String, String)>,
    tls_roots: Option<PathBuf>,
    count: u64,
    sizes: Sizes,
    faults: Vec<Kind>,
    times: usize,
    rate: Option<f64>,
    seed: u64,
    plain: bool,
    compress: Option<How>,
}

impl Verify {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.of_topics.topics {
            return topics::run(self);
        }
        let json = self.json;
        runtime::run(async {
            let verdict = Run::start(self.aim()?).await?.conclude().await;
            if json {
                stdout::print_json(&verdict)?;
            } else {
                stdout::print(&verdict.to_string())?;
            }
            if verdict.ok {
                Ok(())
            } else {
                Err(Failure::work(verdict.broken().join("; ")))
            }
        })
    }

    fn aim(self) -> Result<Aim, Failure> {
        let named = |fault| match fault {
            Named::Retention => Err(Failure::usage("`retention` is a fault of --topics alone")),
            Named::Of(Kind::Kill) if self.client.is_none() => Err(Failure::usage(
                "`kill` is a fault of --client and of --topics; `restart` kills the server",
            )),
            Named::Of(kind) => Ok(kind),
        };
        let faults = match self.faults {
            Some(faults) => faults.into_iter().map(named).collect::<Result<_, _>>()?,
            None => FAULTS.to_vec(),
        };
        if self.url.is_some() && faults.contains(&Kind::Restart) {
            return Err(Failure::usage(
                "the server at a URL cannot be restarted: leave out `restart` or the URL",
            ));
        }
        if faults.contains(&Kind::Kill) && faults.contains(&Kind::Restart) {
            return Err(Failure::usage(
                "a client that is killed cannot tell what a killed server took with it: leave out \
                 `kill` or `restart`",
            ));
        }
        if let Some(url) = &self.url {
            check_url(url)?;
        }
        let headers = self.headers.iter().map(Header::split);
        let headers = headers.map(|it| it.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let headers = headers.collect::<Result<_, _>>()?;
        let seed = self.seed.unwrap_or_else(any_seed);
        let rate = self.rate.unwrap_or(self.count as f64 / SECONDS);
        Ok(Aim {
            url: self.url.map(|url| url.reveal().to_owned()),
            headers,
            tls_roots: self.tls_roots,
            count: self.count,
            sizes: match self.client {
                Some(_) => self.size.with_seed(seed).with_texts(),
                None => self.size.with_seed(seed),
            },
            client: self.client,
            patience: self.patience.map_or(PATIENCE, Duration::from_secs),
            faults,
            times: self.times as usize,
            rate: rate.is_finite().then_some(rate),
            seed,
            plain: self.plain,
            compress: self.compress.how(),
        })
    }
}

/// A random seed, small enough that every program reads it from JSON without rounding.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) & 0xffff_ffff
}

fn parse_rate(text: &str) -> Result<f64, String> {
    if text == "max" {
        return Ok(f64::INFINITY);
    }
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1e9).contains(&rate) {
        Ok(rate)
    } else {
        Err("expected 0.001 to 1000000000 messages a second, or `max`".to_owned())
    }
}

/// The memory limit of a process: all queues of its connection full, the same again for undelivered
/// messages of a lost session, and the process itself.
fn memory_limit_bytes(sizes: Sizes) -> u64 {
    const PROCESS_BYTES: usize = 32 << 20;
    let queues = defaults::INBOX_BYTES
        + defaults::OUTBOX_BYTES
        + defaults::REPLAY_BYTES
        + defaults::WINDOW_BYTES
        + 2 * sizes.largest();
    (2 * queues + PROCESS_BYTES) as u64
}
