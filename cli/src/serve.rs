//! `unstall serve`: a server to test clients against.

use std::future::ready;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::{HeaderMap, HeaderValue, Request, header};
use serde::Serialize;
use tokio::task::JoinSet;
use tracing::Instrument;
use unstall::rustls::ServerConfig;
use unstall::{
    BearerToken, Connection, Options, Rejection, Server, ServerLimits, ServerStats, ShutdownReport,
};
use unstall_dashboard::Dashboard;

use crate::compress::Compress;
use crate::connect::{log_events, parse_seconds};
use crate::failure::Failure;
use crate::figures::Figures;
use crate::tls::Tls;
use crate::{runtime, stdout};

mod echo;
mod packets;
mod signals;
mod sink;

pub(crate) use signals::{ReloadAsked, end_asked, reload_asked};

const EXAMPLES: &str = "\
Paths:
  /, /echo  sends each message back, text as text and binary as binary
  /packets  answers the text {\"count\":N,\"size\":B} with N binary messages of B
            bytes (at least 16), then the text {\"done\":N}; an invalid request
            gets {\"error\":\"…\"}
  /sink     checks such packets; answers the text {\"report\":true} with counts

A packet is its index (u64, big-endian, from 0), the XXH3-64 of everything
after these 16 bytes (u64, big-endian), and a payload derived from the index.
Requests may be sent without waiting; they are answered in order. A client that
offers the subprotocol unstall.v1 gets a session, which outlives its
connections; every other client gets a plain WebSocket.

If it listens on loopback without --token, a browser finds a page at http://ADDRESS/ that
shows its connections: what waits, why, and since when. GET /status.json has the same as
JSON, and GET /metrics its figures, for Prometheus.

The first line on standard output is `listening on ws://ADDRESS`, with the
actual port. SIGINT and SIGTERM close every connection with code 1001
and end the server.

With --compress a client that offers permessage-deflate gets it. The packets are
noise, which does not become smaller and is sent as it is.

Examples:
  unstall serve
  unstall serve --listen 127.0.0.1:0 --json
  unstall serve --compress=level=6
  unstall serve --tls-cert server.pem --tls-key server.key
  unstall serve --token FILE";

/// Serve echoes, checked packets and a packet sink
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The address to listen on; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,

    /// Listen on a Unix socket at this path instead
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    unix_socket: Option<PathBuf>,

    #[command(flatten)]
    tls: Tls,

    /// Accept no sessions: every connection is plain
    #[arg(long)]
    plain: bool,

    #[command(flatten)]
    compress: Compress,

    /// Let in only clients with the token in this file: `Authorization: Bearer TOKEN`, or for a
    /// page the subprotocol `unstall.bearer.` and the token in base64url. All others get 401
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,

    /// End a session that was without a connection for this many seconds, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "120")]
    session_life: Duration,

    /// The most connections at once. One address may have three quarters of them
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    max_connections: usize,

    /// Seconds that connections may take to close when the server ends, or `forever`
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    drain: Duration,

    /// Print one JSON object at the end, with counts of connections
    #[arg(long)]
    json: bool,
}

/// Counts of connections. The fields are those of the JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct ServeResult {
    /// TCP connections that arrived.
    arrived: u64,
    /// Connections whose WebSocket handshake was completed.
    accepted: u64,
    /// Connections that were refused, for example over a limit.
    refused: u64,
    /// Connections whose handshake failed, was cut or took too long.
    handshakes_failed: u64,
    /// Connections that were open at the end and closed in time.
    closed: usize,
    /// Connections that were open at the end and were cut, because they did not close in time.
    aborted: usize,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            // Signals are handled before the first line of output, because its reader may send one
            // immediately.
            let end_asked = end_asked().map_err(Failure::work)?;
            let dashboard = match self.is_for_this_machine() {
                true => Some(dashboard().await),
                false => None,
            };
            let mut tasks = JoinSet::new();
            let tls = self.tls.renewed(&mut tasks)?;
            let server = self.bind(dashboard.as_ref(), tls).await?;
            let address = self.address(self.tls.scheme(), &server);
            stdout::print(&format!("listening on {address}"))?;
            let serving = async {
                match &dashboard {
                    Some(dashboard) => {
                        if self.has_tcp() {
                            tracing::info!("http://{}/ shows the connections", server.local_addr());
                        }
                        server.serve(dashboard.beside(route)).await;
                    }
                    None => server.serve(route).await,
                }
            };
            tokio::select! {
                () = serving => {}
                () = end_asked => tracing::info!("received a signal: shutting down"),
            }
            let shutdown = server.shutdown(self.drain).await;
            let result = ServeResult::new(server.stats(), shutdown);
            tracing::info!("{result:?}");
            if self.json {
                stdout::print_json(&result)
            } else {
                Ok(())
            }
        })
    }

    /// Whether only programs of this machine come in, and each may see everything.
    fn is_for_this_machine(&self) -> bool {
        self.listen.ip().is_loopback() && self.token.is_none()
    }

    fn has_tcp(&self) -> bool {
        #[cfg(unix)]
        return self.unix_socket.is_none();
        #[cfg(not(unix))]
        return true;
    }

    async fn bind(
        &self,
        dashboard: Option<&Dashboard>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Server, Failure> {
        let options = Options::default()
            .session_life(self.session_life)
            .compression(self.compress.option());
        let token = self.token.as_deref().map(read_token).transpose()?;
        let limits = ServerLimits::default().max_connections(self.max_connections);
        let builder = Server::builder().options(options).limits(limits);
        let builder = match dashboard {
            Some(dashboard) => {
                let builder = dashboard.on(builder);
                builder.router(dashboard.router().merge(figures()?))
            }
            None => builder,
        };
        let mut builder = builder.authenticate(move |request| {
            let checked = check(&request, token.as_deref());
            ready(checked.map(|()| request))
        });
        if let Some(tls) = tls {
            builder = builder.tls(tls);
        }
        if self.plain {
            builder = builder.plain();
        }
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            return builder.bind_unix(path).await.map_err(Failure::work);
        }
        builder.bind(self.listen).await.map_err(Failure::work)
    }

    /// The address to print.
    fn address(&self, scheme: &str, server: &Server) -> String {
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            return path.display().to_string();
        }
        format!("{scheme}://{}", server.local_addr())
    }
}

/// The token in a file.
pub(crate) fn read_token(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::work(format_args!("cannot read the token {name}: {error}")))?;
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    match is_token {
        true => Ok(token.to_owned()),
        false => Err(Failure::work(format_args!(
            "the token {name} is empty, or not one word of ASCII characters"
        ))),
    }
}

/// Whether a request shows the token, if one is asked for.
pub(crate) fn check_token(headers: &HeaderMap, token: Option<&str>) -> Result<(), Rejection> {
    match token {
        Some(token) if !shows(headers, token) => {
            let challenge = HeaderValue::from_static("Bearer");
            Err(Rejection::unauthorized("a valid token is needed\n")
                .header(header::WWW_AUTHENTICATE, challenge))
        }
        _ => Ok(()),
    }
}

/// Whether a request shows this token.
pub(crate) fn shows(headers: &HeaderMap, token: &str) -> bool {
    BearerToken::of(headers).is_some_and(|shown| shown.is(token))
}

/// Whether a request may come in: it has the token, and its path is served.
fn check(request: &Request<()>, token: Option<&str>) -> Result<(), Rejection> {
    check_token(request.headers(), token)?;
    let path = request.uri().path();
    match handler_of(path) {
        Some(_) => Ok(()),
        None if path == unstall_dashboard::LIVE => Ok(()),
        None => Err(Rejection::not_found(
            "the paths are /, /echo, /packets and /sink",
        )),
    }
}

#[derive(Clone, Copy)]
enum Handler {
    Echo,
    Packets,
    Sink,
}

/// The page that shows the connections of this process.
async fn dashboard() -> Dashboard {
    let builder = Dashboard::builder().name("unstall serve");
    builder.version(env!("CARGO_PKG_VERSION")).start().await
}

/// How the server is doing, and nothing else over HTTP.
fn figures() -> Result<axum::Router, Failure> {
    let figures = Figures::record()?;
    let page = move || std::future::ready(figures.page());
    let no_page = || async {
        let upgrade = [(http::header::UPGRADE, "websocket")];
        let why = "this is for WebSockets; over HTTP there are only /, /status.json and /metrics\n";
        (http::StatusCode::UPGRADE_REQUIRED, upgrade, why)
    };
    let router = axum::Router::new().route("/metrics", axum::routing::get(page));
    Ok(router.fallback(no_page))
}

fn handler_of(path: &str) -> Option<Handler> {
    match path {
        "/" | "/echo" => Some(Handler::Echo),
        "/packets" => Some(Handler::Packets),
        "/sink" => Some(Handler::Sink),
        _ => None,
    }
}

/// Runs one connection and logs its events, until both it and its handler have ended.
async fn route(connection: Connection) {
    let request = connection.request();
    let path = request.as_ref().map_or("", |request| request.uri().path());
    // An error span, because a span below the level of the log is not shown.
    let span = tracing::error_span!("connection", peer = ?connection.peer_addr(), path);
    let logging = log_events(&connection).instrument(span);
    let handling = async {
        match handler_of(path) {
            Some(Handler::Echo) => echo::run(connection).await,
            Some(Handler::Packets) => packets::run(connection).await,
            Some(Handler::Sink) => sink::run(connection).await,
            // The handshake has refused it already.
            None => {}
        }
    };
    tokio::join!(handling, logging);
}

impl ServeResult {
    pub(crate) fn new(stats: ServerStats, shutdown: ShutdownReport) -> Self {
        Self {
            arrived: stats.arrived,
            accepted: stats.accepted,
            refused: stats.refused.total(),
            handshakes_failed: stats.handshakes.failed
                + stats.handshakes.timed_out
                + stats.handshakes.evicted,
            closed: shutdown.closed,
            aborted: shutdown.aborted,
        }
    }
}
