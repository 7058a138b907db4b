//! `unstall relay`: a WebSocket proxy for programs that nobody rewrites.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use unstall::{CloseCode, Connection, Server, ServerLimits};
use unstall_dashboard::Dashboard;

use crate::{
    failure::Failure,
    figures::Figures,
    runtime,
    serve::{ServeResult, end_asked, reload_asked},
    stdout,
};
use door::{Door, Entered};
use options::{Process, RouteOptions};
use passing::{Passed, Relaying};
use plan::{Settings, Source};
use record::{Recorder, Recorders};
use reload::Reload;
use routes::{Planned, Scope};

mod door;
mod ending;
mod file;
mod fresh;
mod headers;
mod held;
mod http_side;
mod leg;
mod limits;
mod listen;
mod options;
mod pair;
mod passing;
mod path;
mod plan;
mod pool;
mod record;
mod reload;
mod remembered;
mod renewal;
mod rotation;
mod routes;
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

With --config, all of this is in a file, which may have several routes by path and host.
The guide has an example: https://github.com/unstall/unstall/blob/main/docs/src/relay.md

The first line on standard output is `listening on ws://ADDRESS`. SIGINT and SIGTERM
close every connection with code 1001 and end the relay. SIGHUP reads all files again, and
no connection is lost. GET /healthz answers ok.
GET /metrics answers with figures for Prometheus, and a browser finds a page at / that
shows the connections: on loopback, or with --token. Their WebSocket is /status/live,
which is then not passed on.

Examples:
  unstall relay --to wss://feed.example/stream
  unstall relay --to wss://feed.example -H 'Authorization: Bearer …'
  unstall relay --to wss://feed.example --headers-command 'get-token --as-header'
  unstall relay --to wss://feed.example --spill 1GiB --compress-upstream
  unstall relay --config relay.toml --check";

const USAGE: &str = "\
unstall relay --to <URL> [OPTIONS]
       unstall relay --config <FILE> [--check] [--json]";

/// Pass WebSockets on to another server, without stalls and silent gaps
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(crate) struct Relay {
    /// Read everything from this TOML file, which may have several routes. Its names are those of the
    /// options. SIGHUP reads it again
    #[arg(long, value_name = "FILE", conflicts_with_all = options::names())]
    config: Option<PathBuf>,

    /// Check the file of --config and all files that it names, say what the relay would do, and end
    #[arg(long, requires = "config")]
    check: bool,

    #[command(flatten)]
    process: Process,

    #[command(flatten)]
    route: RouteOptions,

    /// Print one JSON object at the end, with counts
    #[arg(long)]
    json: bool,
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
        let source = self.source();
        if self.check {
            return stdout::print(&source.plan(None)?.told());
        }
        runtime::run(async {
            // Signals are handled before the first line of output, because its reader may send one
            // immediately.
            let end_asked = end_asked().map_err(Failure::work)?;
            let reload_asked = reload_asked().map_err(Failure::work)?;
            let running = Running::start(source).await?;
            for line in running.lines() {
                stdout::print(&line)?;
            }
            let _watchdog = systemd::ready();
            let passed = Arc::new(Passed::default());
            tokio::select! {
                () = running.serve(&passed) => {}
                () = running.reload.run(reload_asked) => {}
                () = end_asked => tracing::info!("received a signal: shutting down"),
            }
            systemd::stopping();
            let result = running.end(&passed).await;
            tracing::info!("{result:?}");
            match self.json {
                true => stdout::print_json(&result),
                false => Ok(()),
            }
        })
    }

    /// Where the settings are. The command line has one route, below the path of `--listen`.
    fn source(&self) -> Source {
        if let Some(file) = &self.config {
            return Source::File(file.clone());
        }
        let path = self.process.clients.listen.base.clone();
        Source::CommandLine(Box::new(Settings {
            process: self.process.clone(),
            routes: vec![Planned {
                scope: Scope::below(&path),
                options: self.route.clone(),
                line: None,
            }],
        }))
    }
}

/// A relay that listens.
struct Running {
    server: Server,
    dashboard: Option<Dashboard>,
    reload: Reload,
}

impl Running {
    async fn start(source: Source) -> Result<Running, Failure> {
        let mut plan = source.plan(None)?;
        let passed = systemd::listener()?;
        // A socket that was passed may be open to others than --listen says.
        let local = match &passed {
            Some(listener) => listener.local_addr().is_ok_and(|it| it.ip().is_loopback()),
            None => plan.process.clients.is_local(),
        };
        let recorders = Recorders::default();
        plan.open(&recorders).await?;
        let certificate = plan.certificate.take().map(Arc::new);
        let (process, facts) = (plan.process.clone(), plan.facts.clone());
        let connect_timeout = plan.connect_timeout();
        let door = Arc::new(Door::new(plan.current(), local));
        let dashboard = match door.may_be_watched() {
            true => Some(http_side::dashboard(&door).await),
            false => None,
        };
        let reload = Reload {
            source,
            recorders,
            door,
            certificate,
            process,
            facts,
            connect_timeout,
        };
        Ok(Running {
            server: reload.bind(passed, dashboard.as_ref()).await?,
            dashboard,
            reload,
        })
    }

    /// What is printed at the start: where the relay listens, and its recordings.
    fn lines(&self) -> Vec<String> {
        let clients = &self.reload.process.clients;
        let mut address = format!(
            "{}://{}{}",
            clients.tls.scheme(),
            self.server.local_addr(),
            clients.listen.base
        );
        #[cfg(unix)]
        if let Some(path) = &clients.unix_socket {
            address = path.display().to_string();
        }
        let recordings = self.reload.recorders.addresses();
        let recordings = recordings
            .iter()
            .map(|it| format!("recordings at ws://{it}"));
        std::iter::once(format!("listening on {address}"))
            .chain(recordings)
            .collect()
    }

    /// Serves clients until the server ends.
    async fn serve(&self, passed: &Arc<Passed>) {
        let (door, passed) = (self.reload.door.clone(), passed.clone());
        let handler = move |client| {
            let (door, passed) = (door.clone(), passed.clone());
            async move { relay(client, &door, &passed).await }
        };
        match &self.dashboard {
            Some(dashboard) => self.server.serve(dashboard.beside(handler)).await,
            None => self.server.serve(handler).await,
        }
    }

    /// Ends all connections.
    async fn end(self, passed: &Passed) -> RelayResult {
        let door = &self.reload.door;
        let drain = self.reload.process.clients.drain;
        let shutdown = self.server.shutdown(drain).await;
        door.closed().await;
        RelayResult {
            clients: ServeResult::new(self.server.stats(), shutdown),
            unreached: door.unreached.load(Relaxed),
            messages_up: passed.up.load(Relaxed),
            messages_down: passed.down.load(Relaxed),
            reconnects: passed.reconnects.load(Relaxed),
            rotations: passed.rotations.load(Relaxed),
        }
    }
}

impl Reload {
    /// The server of the relay, which listens.
    async fn bind(
        &self,
        passed: Option<TcpListener>,
        dashboard: Option<&Dashboard>,
    ) -> Result<Server, Failure> {
        let Process { clients, limits } = &self.process;
        let options = self.facts.options.clone();
        let options = options
            .compression(clients.compress.option())
            .inbox_bytes(limits::CLIENT_INBOX_BYTES)
            .budget(self.facts.budget.clone());
        let handshake = self
            .connect_timeout
            .saturating_add(limits::HANDSHAKE_TIMEOUT);
        let limits = ServerLimits::default()
            .max_connections(limits.max_connections)
            .handshake_timeout(handshake);
        let router = http_side::router(Figures::record()?, self.door.clone(), dashboard);
        let mut builder = Server::builder()
            .options(options)
            .limits(limits)
            .unlisted(unstall_dashboard::LIVE)
            .router(router);
        builder = match (clients.any_origin, &clients.origins[..]) {
            (true, _) => builder.allow_any_origin(),
            (false, []) => builder,
            (false, origins) => builder.origins(origins),
        };
        if let Some(proxies) = self.process.proxies()? {
            builder = builder.trusted_proxies(proxies);
        }
        if let Some(certificate) = &self.certificate {
            builder = builder.tls(certificate.config().map_err(Failure::because)?);
        }
        let (door, watched) = (self.door.clone(), dashboard.is_some());
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
        let address = (clients.listen.host.as_str(), clients.listen.port);
        builder.bind(address).await.map_err(Failure::work)
    }
}

/// Passes the messages of one client.
async fn relay(client: Connection, door: &Door, passed: &Passed) {
    // In a box, so that an open connection does not keep the memory for dialing.
    let Entered { upstream, seat } = match Box::pin(door.entered(&client)).await {
        Ok(entered) => entered,
        Err(farewell) => {
            let _ = client.close(farewell.code, &farewell.reason).await;
            return;
        }
    };
    let route = seat.route();
    let recording = match route.recorder.as_deref().map(Recorder::begin).transpose() {
        Ok(recording) => recording,
        Err(failure) => {
            tracing::error!("{}", failure.into_reason());
            let why = "what passes here cannot be recorded";
            let _ = client.close(CloseCode::INTERNAL_ERROR, why).await;
            return;
        }
    };
    let relaying = Relaying {
        door,
        policy: &route.policy,
        passed,
    };
    passing::pass(client, upstream, relaying, recording).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
