//! What a relay can be told: options of the whole process, and of each route. The command line has one route, a
//! file has several ([`file`](super::file)). Both are read by these structs.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Arg, Args, Command, Id};
use unstall::{Options, Overflow, RedactedUrl, Spill, SpillFallback};

use super::{fresh::FreshHeaders, limits, listen::Listen, record::Record, renewal::Renewal};
use crate::{
    compress::{Compress, How},
    connect::{Reach, parse_seconds, url},
    tls::Tls,
    topics::store::parse_bytes,
};

/// What is of the whole process
#[derive(Clone, Debug, Args)]
pub(crate) struct Process {
    #[command(flatten)]
    pub(super) clients: Clients,

    #[command(flatten)]
    pub(super) limits: Limits,
}

/// How clients come in
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct Clients {
    /// Where to listen: ws://HOST:PORT, with a base path if you like; port 0 takes a free port
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:9300")]
    pub(super) listen: Listen,

    /// Listen on a Unix socket at this path instead
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    pub(super) unix_socket: Option<PathBuf>,

    #[command(flatten)]
    pub(super) tls: Tls,

    /// Let in only clients with the token in this file, as `unstall serve` does. The token goes no
    /// further than the relay. SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub(super) token: Option<PathBuf>,

    /// Let pages of this origin connect, such as https://app.example; may be repeated. Default: pages
    /// of the relay's own host
    #[arg(long = "origin", value_name = "ORIGIN", conflicts_with = "any_origin")]
    pub(super) origins: Vec<String>,

    /// Let pages of every site connect. Upstream then has to check the Origin header
    #[arg(long)]
    pub(super) any_origin: bool,

    /// Believe the X-Forwarded-For of this proxy: an address or a network; may be repeated. `unix:` is
    /// every client of a Unix socket
    #[arg(long = "trusted-proxy", value_name = "ADDRESS")]
    pub(super) trusted_proxies: Vec<String>,

    #[command(flatten)]
    pub(super) compress: Compress,

    /// End a session that was without a connection for this many seconds, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "120")]
    pub(super) session_life: Duration,

    /// Seconds that connections may take to close when the relay ends, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    pub(super) drain: Duration,
}

/// What all connections together may have
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct Limits {
    /// The largest message, in either direction
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = limits::MESSAGE_BYTES,
          help_heading = "Limits")]
    pub(super) max_message: u64,

    /// The most clients at once. One address may have three quarters of them
    #[arg(long, value_name = "NUMBER", default_value_t = limits::CONNECTIONS,
          help_heading = "Limits")]
    pub(super) max_connections: usize,

    /// Hold at most so many bytes in memory for all connections together
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = limits::MEMORY_BYTES,
          help_heading = "Limits")]
    pub(super) memory: u64,
}

/// What is of one route
#[derive(Clone, Debug, Args)]
pub(crate) struct RouteOptions {
    /// The server to pass connections on to: ws://HOST:PORT/PATH or wss://…
    #[arg(long, value_name = "URL", value_parser = url)]
    pub(super) to: Option<RedactedUrl>,

    /// Ask for no session upstream, and open none with clients: every connection is plain
    #[arg(long, conflicts_with = "require_session")]
    pub(super) plain: bool,

    /// Insist on a session upstream. Without this, one is offered for clients that offer no
    /// subprotocol of their own
    #[arg(long)]
    pub(super) require_session: bool,

    #[command(flatten)]
    pub(super) renewal: Renewal,

    /// Pass the client's Host header, which says how the client calls the relay
    #[arg(long, help_heading = "Connection")]
    pub(super) keep_host: bool,

    /// Compress messages upstream if it agrees; HOW as for --compress, which is for clients
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true,
          default_missing_value = "", help_heading = "Connection")]
    pub(super) compress_upstream: Option<How>,

    #[command(flatten)]
    pub(super) held: Held,

    #[command(flatten)]
    pub(super) fresh: FreshHeaders,

    #[command(flatten)]
    pub(super) reach: Reach,

    #[command(flatten)]
    pub(super) record: Record,
}

/// What is held for a client that reads slowly, and what happens then
#[derive(Clone, Debug, Args)]
pub(crate) struct Held {
    /// Hold so many bytes in memory for a client that reads slowly
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = limits::BUFFER_BYTES,
          help_heading = "Limits")]
    buffer: u64,

    /// Then hold so many bytes in a temporary file, without a name, for each client
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Limits")]
    spill: Option<u64>,

    /// What happens when these are full: `pause` reading upstream, which then has to wait, or `close`
    /// the client with code 1008. Default: `pause`, and with --spill `close`
    #[arg(long, value_name = "WHAT", help_heading = "Limits")]
    overflow: Option<Full>,
}

/// What happens when a client's buffers are full.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Full {
    Close,
    Pause,
}

impl Process {
    /// The options of every connection, to clients and upstream.
    pub(super) fn options(&self) -> Options {
        Options::default()
            .max_message_bytes(in_memory(self.limits.max_message))
            .session_life(self.clients.session_life)
    }

    /// The options that differ and need a new process.
    pub(super) fn fixed(&self, new: &Process) -> Vec<&'static str> {
        let (old, new) = (self, new);
        let (clients, limits) = (&old.clients, &old.limits);
        let differ = [
            ("listen", clients.listen != new.clients.listen),
            #[cfg(unix)]
            (
                "unix-socket",
                clients.unix_socket != new.clients.unix_socket,
            ),
            (
                "tls-cert and tls-key",
                clients.tls.is_on() != new.clients.tls.is_on(),
            ),
            ("origin", clients.origins != new.clients.origins),
            ("any-origin", clients.any_origin != new.clients.any_origin),
            (
                "trusted-proxy",
                clients.trusted_proxies != new.clients.trusted_proxies,
            ),
            ("compress", clients.compress != new.clients.compress),
            (
                "session-life",
                clients.session_life != new.clients.session_life,
            ),
            ("drain", clients.drain != new.clients.drain),
            ("max-message", limits.max_message != new.limits.max_message),
            (
                "max-connections",
                limits.max_connections != new.limits.max_connections,
            ),
            ("memory", limits.memory != new.limits.memory),
        ];
        let differ = differ.into_iter().filter(|(_, differs)| *differs);
        differ.map(|(name, _)| name).collect()
    }
}

impl Clients {
    /// Whether only this machine reaches the address.
    pub(super) fn is_local(&self) -> bool {
        let host = self.listen.host.parse::<IpAddr>();
        self.listen.host == "localhost" || host.is_ok_and(|host| host.is_loopback())
    }

    /// Where it listens, for a reader.
    pub(super) fn shown(&self) -> String {
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            return path.display().to_string();
        }
        format!("{}://{}", self.tls.scheme(), self.listen)
    }
}

impl RouteOptions {
    /// The options of connections upstream.
    pub(super) fn upstream(&self, options: Options) -> Options {
        let buffer = in_memory(self.held.buffer);
        let compression = self.compress_upstream.as_ref().map(How::compression);
        options
            .connect_timeout(self.reach.connect_timeout)
            .compression(compression)
            .inbox_bytes(buffer)
            .window_bytes(buffer)
            .overflow(self.held.overflow())
    }
}

impl Held {
    fn overflow(&self) -> Overflow {
        let full = match self.spill {
            // A client that is slower than upstream must not fail at every burst.
            None => Full::Pause,
            // Who pays with a file wants that upstream never waits.
            Some(_) => Full::Close,
        };
        match (self.spill, self.overflow.unwrap_or(full)) {
            (None, Full::Close) => Overflow::Disconnect,
            (None, Full::Pause) => Overflow::Pause,
            (Some(bytes), full) => {
                Overflow::Spill(Spill::default().max_bytes(bytes).then(match full {
                    Full::Close => SpillFallback::Disconnect,
                    Full::Pause => SpillFallback::Pause,
                }))
            }
        }
    }
}

/// The names of all options that a file has.
pub(super) fn names() -> Vec<Id> {
    let command = Process::augment_args(Command::new("relay"));
    let command = RouteOptions::augment_args(command);
    command.get_arguments().map(Arg::get_id).cloned().collect()
}

/// A number of bytes of memory.
pub(super) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
