//! A page that shows the WebSockets of a process: what waits, why, since when, and who.
//!
//! It shows all connections and sessions of [`unstall`] in this process: throughput, queues against their
//! limits, and where time is stalled by cause, now and over the last 15 minutes. The page is embedded in the
//! program and needs nothing from elsewhere. The same data is JSON: the guide's chapter "The status of a
//! process, as JSON" is the contract.
//!
//! ```no_run
//! use unstall::{Connection, Server};
//! use unstall_dashboard::Dashboard;
//!
//! # async fn handler(_: Connection) {}
//! # async fn example() -> std::io::Result<()> {
//! let dashboard = Dashboard::builder().name("feed").start().await;
//! let server = dashboard.on(Server::builder()).bind("127.0.0.1:9100").await?;
//! println!("http://{}/ shows how it is doing", server.local_addr());
//! server.serve(dashboard.beside(handler)).await;
//! # Ok(())
//! # }
//! ```
//! [`Dashboard::on`] adds the answers to the server. [`Dashboard::beside`] takes the WebSockets of the page,
//! and leaves all others to the handler.
//!
//! # Who may look
//! By default only programs and pages of the same machine. With [`DashboardBuilder::token`], whoever has the
//! token; [`DashboardBuilder::authorize`] asks the application. Pages of other sites can neither read nor embed
//! anything. No payload, header, token or URL is shown.
//!
//! # What it costs
//! Each second it reads the sums over all connections, which takes some milliseconds for 10,000 of them.
//! Each connection is looked at only while somebody watches. The history and what a page is told are bounded.

mod access;
mod changes;
mod history;
mod json;
mod limits;
mod live;
mod look;
mod one;
mod sampler;
mod sites;
mod web;

use std::{future::Future, sync::Arc, time::SystemTime};

use axum::Router;
use http::Request;
use unstall::{CloseCode, Connection, ServerBuilder};
use unstall_topics::{Limits, Log, Node, SUBPROTOCOL};

use access::Access;
pub use access::{Asked, Refusal};
use json::Process;
use live::{Readers, Viewer};
use look::Subject;
use one::Surgery;
use sampler::Sampler;
pub use sites::names_this_machine;

/// The path of the page's WebSocket. It speaks [`SUBPROTOCOL`].
pub const LIVE: &str = "/status/live";

/// The page of a process. Clones share everything. It looks at the process until the last one is dropped.
#[derive(Clone, Debug)]
pub struct Dashboard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    access: Access,
    sampler: Arc<Sampler>,
    surgery: Surgery,
    node: Node,
}

/// Builds a [`Dashboard`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is started"]
pub struct DashboardBuilder {
    name: String,
    version: String,
    access: Access,
    node: Option<Node>,
}

impl Dashboard {
    /// What can be set.
    pub fn builder() -> DashboardBuilder {
        DashboardBuilder {
            name: "unstall".to_owned(),
            version: String::new(),
            access: Access::loopback(),
            node: None,
        }
    }

    /// The server answers with the page, too. It calls [`ServerBuilder::router`],
    /// [`ServerBuilder::subprotocols`] and [`ServerBuilder::unlisted`]. With a router or subprotocols of your own, merge
    /// [`router`](Dashboard::router) into the one, add [`SUBPROTOCOL`] to the
    /// others, and keep [`LIVE`] [unlisted](ServerBuilder::unlisted).
    pub fn on(&self, builder: ServerBuilder) -> ServerBuilder {
        let builder = builder.router(self.router()).unlisted(LIVE);
        builder.subprotocols([SUBPROTOCOL])
    }

    /// A handler that takes the WebSockets of the page and leaves all others to yours.
    pub fn beside<H, F>(
        &self,
        handler: H,
    ) -> impl Fn(Connection) -> futures_util::future::BoxFuture<'static, ()> + Send + Sync + 'static
    where
        H: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (dashboard, handler) = (self.clone(), Arc::new(handler));
        move |connection| {
            let takes = connection.request().is_some_and(|it| dashboard.takes(&it));
            match takes {
                true => {
                    let dashboard = dashboard.clone();
                    Box::pin(async move { dashboard.serve(connection).await })
                }
                false => Box::pin(handler(connection)),
            }
        }
    }

    /// The answers over HTTP: `/`, `/status.json`, and what is under `/status/`. Requests need axum's
    /// `ConnectInfo<SocketAddr>`, which [`ServerBuilder::router`] gives them; without it nobody is on this
    /// machine.
    pub fn router(&self) -> Router {
        web::router(self.shared.clone())
    }

    /// Whether an upgrade request is for the page's WebSocket, at [`LIVE`]. A hook of
    /// [`authenticate`](ServerBuilder::authenticate) has to let these in: [`serve`](Dashboard::serve) checks
    /// them.
    pub fn takes<T>(&self, request: &Request<T>) -> bool {
        request.uri().path() == LIVE
    }

    /// Serves a WebSocket of the page until it ends. It is closed if its client may not look.
    ///
    /// Cancel safety: if dropped, the connection closes.
    pub async fn serve(&self, connection: Connection) {
        let request = connection.request();
        let allowed = request.is_some_and(|request| {
            let access = &self.shared.access;
            let peer = connection.peer_addr();
            access.check_place(request.headers(), peer).is_ok()
        });
        let refused = match (allowed, Viewer::enter(&self.shared.sampler.viewers)) {
            (true, Some(viewer)) => {
                self.shared.node.serve(connection).await;
                drop(viewer);
                return;
            }
            (true, None) => (CloseCode::TRY_AGAIN_LATER, "too many pages are open"),
            (false, _) => (CloseCode::POLICY_VIOLATION, "you may not see this"),
        };
        let _ = connection.close(refused.0, refused.1).await;
    }
}

impl DashboardBuilder {
    /// What the page calls this process. Default `unstall`.
    pub fn name(mut self, name: impl Into<String>) -> DashboardBuilder {
        self.name = name.into();
        self
    }

    /// The version of this process, which the page shows. Default none.
    pub fn version(mut self, version: impl Into<String>) -> DashboardBuilder {
        self.version = version.into();
        self
    }

    /// Whoever has this token may look, from everywhere. By default only this machine may, without one.
    ///
    /// # Panics
    /// If the token is empty.
    pub fn token(self, token: impl Into<Arc<str>>) -> DashboardBuilder {
        let token = token.into();
        assert!(!token.is_empty(), "an empty token lets everybody in");
        self.token_of(move || Some(token.clone()))
    }

    /// Like [`token`](DashboardBuilder::token), for a token that is replaced while the process runs. The
    /// function says which one counts now. It is asked at each request, so it should answer from memory. While
    /// it answers `None`, only this machine may look.
    pub fn token_of(
        mut self,
        token: impl Fn() -> Option<Arc<str>> + Send + Sync + 'static,
    ) -> DashboardBuilder {
        self.access = Access::Token(Arc::new(token));
        self
    }

    /// This function decides who may look. It is asked at each request, so it should answer from memory.
    /// Pages of other sites are refused before.
    pub fn authorize(
        mut self,
        hook: impl Fn(&Asked<'_>) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> DashboardBuilder {
        self.access = Access::Hook(Arc::new(hook));
        self
    }

    /// Shows the log and the subscriptions of this node as well.
    pub fn node(mut self, node: &Node) -> DashboardBuilder {
        self.node = Some(node.clone());
        self
    }

    /// Begins to look at the process, in a task.
    ///
    /// # Panics
    /// Outside a Tokio runtime with time enabled.
    pub async fn start(self) -> Dashboard {
        let limits = Limits::default()
            .max_bytes(limits::LOG_BYTES)
            .max_age(limits::LOG_AGE);
        let live = Log::memory(limits)
            .await
            .expect("a log in memory can always be made");
        let subject = Subject {
            process: Process {
                name: self.name,
                version: self.version,
                pid: std::process::id(),
                started: json::millis(SystemTime::now()),
            },
            log: self.node.as_ref().map(|node| node.log().clone()),
            node: self.node,
        };
        let node = Node::new(&live).access(Readers(self.access.clone()));
        let sampler = Sampler::new(subject, live);
        tokio::spawn(sampler::run(Arc::downgrade(&sampler)));
        Dashboard {
            shared: Arc::new(Shared {
                access: self.access,
                sampler,
                surgery: Surgery::default(),
                node,
            }),
        }
    }
}

/// The program of the package's page is tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
