//! `unstall relay`: a WebSocket proxy for programs that nobody rewrites.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use clap::Args;
use http::HeaderMap;
use serde::Serialize;
use unstall::{
    Budget, CloseCode, Connection, Options, Overflow, RedactedUrl, Server, ServerLimits, Spill,
    SpillFallback, TrustedProxies,
};
use unstall_dashboard::Dashboard;

use crate::{
    compress::{Compress, How},
    connect::{Reach, check_url, parse_seconds, url},
    failure::Failure,
    figures::Figures,
    runtime,
    serve::{ServeResult, end_asked},
    stdout,
    topics::store::parse_bytes,
};
use door::Door;
use fresh::FreshHeaders;
use listen::Listen;
use passing::{Passed, Relaying};
use path::Paths;
use record::{Record, Recorder};
use renewal::Renewal;
use upstream::{Upstream, Wanted};

mod door;
mod ending;
mod fresh;
mod headers;
mod http_side;
mod leg;
mod limits;
mod listen;
mod pair;
mod passing;
mod path;
mod record;
mod remembered;
mod renewal;
mod rotation;
mod rules;
mod run;
mod systemd;
mod upstream;

pub(crate) use record::Place;

const EXAMPLES: &str = "\
For each client there is one connection upstream. It is made before the client
is answered: a refusal of upstream reaches the client with its status, and so do
the subprotocol and the headers of its answer. What stands after the path of
--listen is appended to the URL of --to.

What upstream sends and a slow client does not take is held up to --buffer in
memory. Then upstream has to wait. With --spill more is held in a file, so that
upstream never waits; when that is full, the client is closed with code 1008.
What a client sends waits in the client, once upstream does not take it.

Close codes and reasons pass both ways. If upstream is lost without a close frame,
the client is closed with code 1012, and the reason says why. If a client is lost,
upstream is closed with code 1001. There is never a silent gap.

Two relays have a session between them, unless --plain. A cut that is shorter than
--session-life then passes unnoticed at both ends:

  unstall relay --listen ws://127.0.0.1:9300 --to wss://far.example:9301 --require-session
  unstall relay --listen wss://:9301 --to ws://127.0.0.1:8080 --tls-cert … --tls-key …

The first line on standard output is `listening on ws://ADDRESS`. SIGINT and SIGTERM
close every connection with code 1001 and end the relay. GET /healthz answers ok.
GET /metrics answers with figures for Prometheus, and a browser finds a page at / that
shows the connections: on loopback, or with --token. Their WebSocket is /status/live,
which is then not passed on.

Examples:
  unstall relay --to wss://feed.example/stream
  unstall relay --to wss://feed.example -H 'Authorization: Bearer …'
  unstall relay --to wss://feed.example --headers-command 'get-token --as-header'
  unstall relay --to wss://feed.example --spill 1GiB --compress-upstream";

/// Pass WebSockets on to another server, without stalls and silent gaps
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Relay {
    /// Where to listen: ws://HOST:PORT, with a base path if you like; port 0 takes a free port
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:9300")]
    listen: Listen,

    /// The server to pass connections on to: ws://HOST:PORT/PATH or wss://…
    #[arg(long, value_name = "URL", value_parser = url)]
    to: RedactedUrl,

    #[command(flatten)]
    clients: Clients,

    #[command(flatten)]
    limits: Limits,

    /// Ask for no session upstream, and open none with clients: every connection is plain
    #[arg(long, conflicts_with = "require_session")]
    plain: bool,

    /// Insist on a session upstream. Without this, one is offered for clients that offer no
    /// subprotocol of their own
    #[arg(long)]
    require_session: bool,

    /// End a session that was without a connection for this many seconds, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "120")]
    session_life: Duration,

    #[command(flatten)]
    renewal: Renewal,

    /// Pass the client's Host header, which says how the client calls the relay
    #[arg(long, help_heading = "Connection")]
    keep_host: bool,

    /// Compress messages upstream if it agrees; HOW as for --compress, which is for clients
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true,
          default_missing_value = "", help_heading = "Connection")]
    compress_upstream: Option<How>,

    #[command(flatten)]
    fresh: FreshHeaders,

    #[command(flatten)]
    reach: Reach,

    #[command(flatten)]
    record: Record,

    /// Print one JSON object at the end, with counts
    #[arg(long)]
    json: bool,
}

/// How clients come in
#[derive(Debug, Args)]
struct Clients {
    /// Listen on a Unix socket at this path instead
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    unix_socket: Option<PathBuf>,

    /// Serve wss:// with the certificate chain of this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Let in only clients with the token in this file, as `unstall serve` does. The token goes no
    /// further than the relay
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,

    /// Let pages of this origin connect, such as https://app.example; may be repeated. Default: pages
    /// of the relay's own host
    #[arg(long = "origin", value_name = "ORIGIN", conflicts_with = "any_origin")]
    origins: Vec<String>,

    /// Let pages of every site connect. Upstream then has to check the Origin header
    #[arg(long)]
    any_origin: bool,

    /// Believe the X-Forwarded-For of this proxy: an address or a network; may be repeated. `unix:` is
    /// every client of a Unix socket
    #[arg(long = "trusted-proxy", value_name = "ADDRESS")]
    trusted_proxies: Vec<String>,

    #[command(flatten)]
    compress: Compress,

    /// Seconds that connections may take to close when the relay ends, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    drain: Duration,
}

/// What is held, and what happens then
#[derive(Debug, Args)]
struct Limits {
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

    /// The largest message, in either direction
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = limits::MESSAGE_BYTES,
          help_heading = "Limits")]
    max_message: u64,

    /// The most clients at once. One address may have three quarters of them
    #[arg(long, value_name = "NUMBER", default_value_t = limits::CONNECTIONS,
          help_heading = "Limits")]
    max_connections: usize,

    /// Hold at most so many bytes in memory for all connections together
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = limits::MEMORY_BYTES,
          help_heading = "Limits")]
    memory: u64,
}

/// What happens when a client's buffers are full.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Full {
    Close,
    Pause,
}

/// What the relay did. The fields are those of the JSON object.
#[derive(Debug, Serialize)]
struct RelayResult {
    #[serde(flatten)]
    clients: ServeResult,
    /// Clients for which no connection upstream could be made.
    unreached: u64,
    /// Messages from clients to upstream.
    messages_up: u64,
    /// Messages from upstream to clients.
    messages_down: u64,
    /// Plain connections upstream that were lost and made again.
    reconnects: u64,
    /// Plain connections upstream that gave way to others because of their age.
    rotations: u64,
}

impl Relay {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            // Signals are handled before the first line of output, because its reader may send one
            // immediately.
            let end_asked = end_asked().map_err(Failure::work)?;
            // Both sides draw from it.
            let budget = Budget::new(in_memory(self.limits.memory));
            let door = Arc::new(self.door(&budget)?);
            let policy = Arc::new(self.renewal.policy()?);
            let recorder = self.record.recorder().await?;
            let dashboard = match self.may_be_watched() {
                true => Some(http_side::dashboard(&door).await),
                false => None,
            };
            let server = self.bind(&door, budget, dashboard.as_ref()).await?;
            stdout::print(&format!("listening on {}", self.address(&server)))?;
            let _watchdog = systemd::ready();
            if let Some(address) = recorder.as_ref().and_then(|it| it.address()) {
                stdout::print(&format!("recordings at ws://{address}"))?;
            }
            let passed = Arc::new(Passed::default());
            let handler = {
                let (door, passed) = (door.clone(), passed.clone());
                move |client| {
                    let (door, policy, passed) = (door.clone(), policy.clone(), passed.clone());
                    let recorder = recorder.clone();
                    async move {
                        let relaying = Relaying {
                            door: &door,
                            policy: &policy,
                            passed: &passed,
                        };
                        relay(client, relaying, recorder.as_deref()).await;
                    }
                }
            };
            let serving = async {
                match &dashboard {
                    Some(dashboard) => server.serve(dashboard.beside(handler)).await,
                    None => server.serve(handler).await,
                }
            };
            tokio::select! {
                () = serving => {}
                () = end_asked => tracing::info!("received a signal: shutting down"),
            }
            systemd::stopping();
            let shutdown = server.shutdown(self.clients.drain).await;
            door.closed().await;
            let result = RelayResult {
                clients: ServeResult::new(server.stats(), shutdown),
                unreached: door.unreached.load(Relaxed),
                messages_up: passed.up.load(Relaxed),
                messages_down: passed.down.load(Relaxed),
                reconnects: passed.reconnects.load(Relaxed),
                rotations: passed.rotations.load(Relaxed),
            };
            tracing::info!("{result:?}");
            match self.json {
                true => stdout::print_json(&result),
                false => Ok(()),
            }
        })
    }

    /// Whether clients come from this machine only.
    fn is_local(&self) -> bool {
        let host = self.listen.host.parse::<IpAddr>();
        self.listen.host == "localhost" || host.is_ok_and(|host| host.is_loopback())
    }

    /// Whether there is anybody who may see the page.
    fn may_be_watched(&self) -> bool {
        self.is_local() || self.clients.token.is_some()
    }

    /// Whether clients use TLS.
    fn secure(&self) -> bool {
        self.clients.tls_cert.is_some()
    }

    fn door(&self, budget: &Budget) -> Result<Door, Failure> {
        check_url(&self.to)?;
        if self.listen.secure && !self.secure() {
            let why = "--listen says wss://, so it needs --tls-cert and --tls-key";
            return Err(Failure::usage(why));
        }
        let to = self.to.reveal();
        let mut own = HeaderMap::new();
        for header in self.reach.headers() {
            let (name, value) = header?;
            let (name, value) = fresh::header(&format!("{name}: {value}")).ok_or_else(|| {
                Failure::usage("a header of -H has characters that headers must not have")
            })?;
            own.append(name, value);
        }
        let wanted = match (self.plain, self.require_session) {
            (true, _) => Wanted::Plain,
            (false, true) => Wanted::Session,
            (false, false) => Wanted::Offered,
        };
        let upstream = Upstream {
            paths: Paths::new(&self.listen.base, to),
            way: self.reach.prepared()?,
            options: self.upstream_options().budget(budget.clone()),
            wanted,
            own,
            fresh: self.fresh.source()?,
            keep_host: self.keep_host,
            credentials: has_credentials(to),
            secure: self.secure(),
        };
        Door::new(upstream, self.clients.token.as_deref(), !self.plain)
    }

    fn options(&self) -> Options {
        Options::default()
            .max_message_bytes(in_memory(self.limits.max_message))
            .session_life(self.session_life)
    }

    fn upstream_options(&self) -> Options {
        let buffer = in_memory(self.limits.buffer);
        let full = match self.limits.spill {
            // A client that is slower than upstream must not fail at every burst.
            None => Full::Pause,
            // Who pays with a file wants that upstream never waits.
            Some(_) => Full::Close,
        };
        let full = self.limits.overflow.unwrap_or(full);
        let overflow = match (self.limits.spill, full) {
            (None, Full::Close) => Overflow::Disconnect,
            (None, Full::Pause) => Overflow::Pause,
            (Some(bytes), full) => {
                Overflow::Spill(Spill::default().max_bytes(bytes).then(match full {
                    Full::Close => SpillFallback::Disconnect,
                    Full::Pause => SpillFallback::Pause,
                }))
            }
        };
        let compression = self.compress_upstream.as_ref().map(How::compression);
        self.options()
            .connect_timeout(self.reach.connect_timeout)
            .compression(compression)
            .inbox_bytes(buffer)
            .window_bytes(buffer)
            .overflow(overflow)
    }

    async fn bind(
        &self,
        door: &Arc<Door>,
        budget: Budget,
        dashboard: Option<&Dashboard>,
    ) -> Result<Server, Failure> {
        let clients = &self.clients;
        let options = self
            .options()
            .compression(clients.compress.option())
            .inbox_bytes(limits::CLIENT_INBOX_BYTES)
            .budget(budget);
        let handshake = self
            .reach
            .connect_timeout
            .saturating_add(limits::HANDSHAKE_TIMEOUT);
        let server_limits = ServerLimits::default()
            .max_connections(self.limits.max_connections)
            .handshake_timeout(handshake);
        let figures = Figures::record()?;
        let passed = systemd::listener()?;
        // A socket that was passed may be open to others than --listen says.
        let open = match &passed {
            Some(listener) => listener.local_addr().is_ok_and(|it| it.ip().is_loopback()),
            None => self.is_local(),
        };
        let router = http_side::router(figures, door.clone(), open, dashboard);
        let mut builder = Server::builder()
            .options(options)
            .limits(server_limits)
            .unlisted(unstall_dashboard::LIVE)
            .router(router);
        if self.plain {
            builder = builder.plain();
        }
        builder = match (clients.any_origin, &clients.origins[..]) {
            (true, _) => builder.allow_any_origin(),
            (false, []) => builder,
            (false, origins) => builder.origins(origins),
        };
        if !clients.trusted_proxies.is_empty() {
            let proxies = TrustedProxies::new(&clients.trusted_proxies).map_err(Failure::usage)?;
            builder = builder.trusted_proxies(proxies.x_forwarded_for());
        }
        if let Some((cert, key)) = clients.tls_cert.as_ref().zip(clients.tls_key.as_ref()) {
            builder = builder.tls_pem(cert, key);
        }
        let door = door.clone();
        let watched = dashboard.is_some();
        let builder = builder.authenticate(move |request| {
            let door = door.clone();
            async move {
                match watched && request.uri().path() == unstall_dashboard::LIVE {
                    true => Ok(http_side::of_page(request)),
                    false => door.enter(request).await,
                }
            }
        });
        #[cfg(unix)]
        if let Some(path) = &clients.unix_socket {
            return builder.bind_unix(path).await.map_err(Failure::work);
        }
        if let Some(listener) = passed {
            return builder.listener(listener).map_err(Failure::work);
        }
        let address = (self.listen.host.as_str(), self.listen.port);
        builder.bind(address).await.map_err(Failure::work)
    }

    /// The address to print.
    fn address(&self, server: &Server) -> String {
        #[cfg(unix)]
        if let Some(path) = &self.clients.unix_socket {
            return path.display().to_string();
        }
        let scheme = if self.secure() { "wss" } else { "ws" };
        format!("{scheme}://{}{}", server.local_addr(), self.listen.base)
    }
}

/// Passes the messages of one client.
async fn relay(client: Connection, relaying: Relaying<'_>, recorder: Option<&Recorder>) {
    // In a box, so that an open connection does not keep the memory for dialing.
    let upstream = match Box::pin(relaying.door.upstream_of(&client)).await {
        Ok(upstream) => upstream,
        Err(farewell) => {
            let _ = client.close(farewell.code, &farewell.reason).await;
            return;
        }
    };
    let recording = match recorder.map(Recorder::begin).transpose() {
        Ok(recording) => recording,
        Err(failure) => {
            tracing::error!("{}", failure.into_reason());
            let why = "what passes here cannot be recorded";
            let _ = client.close(CloseCode::INTERNAL_ERROR, why).await;
            return;
        }
    };
    passing::pass(client, upstream, relaying, recording).await;
}

fn has_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.contains('@')
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
