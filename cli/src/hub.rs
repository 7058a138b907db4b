//! `unstall hub`: a server to publish and subscribe, over WebSocket and HTTP.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::{sync::watch, task::JoinSet};
use unstall::{
    Options, Principal, Rejection, Server, ServerLimits, printable, rustls::ServerConfig,
};
use unstall_dashboard::{Dashboard, DashboardBuilder};
use unstall_topics::{Node, SUBPROTOCOL};

use crate::{
    connect::parse_seconds,
    failure::Failure,
    figures::Figures,
    runtime,
    serve::{ServeResult, end_asked},
    stdout,
    tls::Tls,
    topics::store::Store,
};
use door::Door;
use http::Shared;

mod door;
mod events;
mod feed;
mod http;
mod identity;
mod limits;
mod pages;
mod post;
mod process;
mod shares;
mod tokens;

pub(crate) use process::HubProcess;

const EXAMPLES: &str = "\
WebSockets at /topics speak unstall.topics.v1, as `unstall publish` and `unstall
subscribe` do. HTTP is for everything else:

  POST /topics/TOPIC        publishes the body and answers {\"log\":\"…\",\"offset\":N} when
                            it is safe. JSON, text and forms are text, else binary.
                            ?final=true makes it the topic's last message. With the
                            header Idempotency-Key the message is stored once,
                            however often it is sent
  GET  /topics/FILTER       reads as lines of JSON up to the end that the log has now
                            ?after=N or ?from=…: where to begin; default start
                            ?limit=N: how many messages at most; default 1,000
  GET  /topics/FILTER       with Accept: text/event-stream: a stream of events, from
                            now on, or from ?from=…, or from behind Last-Event-ID.
                            The id of an event is a position: LOG:OFFSET:TIME
  GET  /                    a page that shows connections and subscriptions: what waits,
                            why, and since when
  GET  /status.json         the same as JSON
  GET  /metrics             the hub's figures, for Prometheus
  GET  /healthz             answers ok

A FILTER is a topic, in which * stands for any token, and > for all the rest.

Without --token-key everybody may do everything, so it listens on loopback only.
With --token-key, clients show a JSON Web Token: in the first packet of a
WebSocket, or as `Authorization: Bearer …`. Its claims are pub and sub, lists of
filters that it may publish to and subscribe to; exp, when it expires; id, who it
is, which keeps the publishers of different clients apart; and operate, true for
those who may see how the hub is doing: /, /status.json and /metrics. An EventSource
cannot set headers: let your site set the token as the cookie unstall-token, with
HttpOnly, Secure and SameSite=Strict. It counts for reading only. Tokens in URLs
are not taken, because URLs are logged.

The first line on standard output is `listening on ws://ADDRESS`, with the actual
port. SIGINT and SIGTERM close every connection with code 1001 and end the
server. If the directory or the stream of the log is removed or replaced, the hub
ends with exit code 1. Started again, it serves the log that is there.

Examples:
  unstall hub
  unstall hub --store data --max-bytes 10GiB --max-age 7d
  unstall hub --store nats://127.0.0.1:4222/EVENTS --listen 127.0.0.1:0
  unstall hub --listen 0.0.0.0:9200 --token-key key.pem
  curl -d 'hello' http://127.0.0.1:9200/topics/greetings
  curl -N -H 'Accept: text/event-stream' 'http://127.0.0.1:9200/topics/>'";

/// Serve topics: logs with names and positions
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Hub {
    /// The address to listen on; port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9200")]
    listen: SocketAddr,

    #[command(flatten)]
    store: Store,

    /// Let in who has a token that this key signed: a secret of at least 32 bytes (HS256), or a
    /// public key in PEM, of RSA (RS256) or Ed25519 (EdDSA)
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,

    #[command(flatten)]
    tls: Tls,

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

impl Hub {
    pub(crate) fn run(self) -> Result<(), Failure> {
        runtime::run(async {
            // Signals are handled before the first line of output, because its reader may send one
            // immediately.
            let end_asked = end_asked().map_err(Failure::work)?;
            let door = self.door()?;
            let log = self.store.open().await?;
            let (ending, _) = watch::channel(false);
            let node = Node::new(&log).access(door.clone());
            let dashboard = dashboard(&door).node(&node).start().await;
            let shared = Shared::new(log.clone(), door, Figures::record()?, &ending);
            let mut tasks = JoinSet::new();
            let tls = self.tls.renewed(&mut tasks)?;
            let server = self.bind(shared, &dashboard, tls).await?;
            let scheme = self.tls.scheme();
            stdout::print(&format!("listening on {scheme}://{}", server.local_addr()))?;
            let page = if self.tls.is_on() { "https" } else { "http" };
            tracing::info!("{page}://{}/ shows the connections", server.local_addr());
            let serving = server.serve(dashboard.beside(move |connection| node.serve(connection)));
            let why = tokio::select! {
                () = serving => None,
                () = end_asked => {
                    tracing::info!("received a signal: shutting down");
                    None
                }
                why = log.ended() => Some(why),
            };
            // Streams of events have no end of their own. The shutdown counts them before they end.
            let (shutdown, _) = tokio::join!(
                biased;
                server.shutdown(self.drain),
                async { ending.send_replace(true) },
            );
            let result = ServeResult::new(server.stats(), shutdown);
            tracing::info!("{result:?}");
            if self.json {
                stdout::print_json(&result)?;
            }
            match why {
                None => Ok(()),
                Some(why) => Err(Failure::work(format_args!(
                    "the log has ended, and the hub with it: {}",
                    printable(&why)
                ))),
            }
        })
    }

    /// Who may come in.
    fn door(&self) -> Result<Door, Failure> {
        match &self.token_key {
            Some(file) => Door::with_key(file),
            None if self.listen.ip().is_loopback() => Ok(Door::open()),
            None => Err(Failure::usage(format_args!(
                "without --token-key everybody may publish and read, so the hub listens on loopback \
                 only, and {} is not; add --token-key FILE, or listen on 127.0.0.1",
                self.listen.ip()
            ))),
        }
    }

    async fn bind(
        &self,
        shared: Shared,
        dashboard: &Dashboard,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Server, Failure> {
        let door = shared.door.clone();
        let options = Options::default().max_message_bytes(limits::PACKET_BYTES);
        let limits = ServerLimits::default().max_connections(self.max_connections);
        let mut builder = Server::builder()
            .options(options)
            .limits(limits)
            .plain()
            .subprotocols([SUBPROTOCOL])
            .unlisted(unstall_dashboard::LIVE)
            .router(http::router(shared, dashboard.router()));
        builder = builder.authenticate(move |mut request| {
            let door = door.clone();
            async move {
                if request.uri().path() == unstall_dashboard::LIVE {
                    return Ok(request);
                }
                if request.uri().path() != "/topics" {
                    return Err(Rejection::not_found("The WebSocket is at /topics.\n"));
                }
                if let Err(refusal) = door.check_page(request.headers()) {
                    return Err(Rejection::forbidden(refusal));
                }
                if let Some(name) = door.principal(request.headers()) {
                    request.extensions_mut().insert(Principal::new(name));
                }
                Ok(request)
            }
        });
        if let Some(tls) = tls {
            builder = builder.tls(tls);
        }
        builder.bind(self.listen).await.map_err(Failure::work)
    }
}

/// The page that shows the connections of this process. Who may see it has the claim `operate`.
fn dashboard(door: &Door) -> DashboardBuilder {
    let builder = Dashboard::builder()
        .name("unstall hub")
        .version(env!("CARGO_PKG_VERSION"));
    match door.is_open() {
        true => builder,
        false => {
            let door = door.clone();
            builder.authorize(move |asked| door.check_operator(asked.headers, asked.token))
        }
    }
}
