//! A node: serves a log to clients.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use unstall::Options;
use unstall_proto::topics::{ServerConfig, limits::MAX_PACKET};

use crate::{
    access::{Access, Open},
    connected::Connected,
    defaults::{NODE_AHEADS, NODE_READS},
    log::Log,
};

/// Serves a log to clients, over any number of connections. Clones share everything.
///
/// It takes connections that agreed to the subprotocol [`SUBPROTOCOL`](crate::SUBPROTOCOL), from a
/// [`Server`](unstall::Server) or from the axum extractor:
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use unstall_topics::{Log, Node, SUBPROTOCOL};
///
/// let node = Node::new(&Log::memory(Default::default()).await?);
/// let server = unstall::Server::builder()
///     .subprotocols([SUBPROTOCOL])
///     .options(Node::options())
///     .bind("127.0.0.1:9200")
///     .await?;
/// server.serve(move |connection| node.serve(connection));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Node {
    pub(crate) parts: Arc<Parts>,
}

/// What the connections of a node share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) log: Log,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) config: Arc<ServerConfig>,
    /// Bounds the reads of the store that are under way, and so their memory.
    pub(crate) reads: Arc<Semaphore>,
    /// Bounds what is read before it is asked for.
    pub(crate) aheads: Arc<Semaphore>,
    pub(crate) connected: Arc<Connected>,
}

impl Node {
    /// A node that lets everybody publish and subscribe to everything.
    pub fn new(log: &Log) -> Node {
        let max_message = log.shared.store.max_message_bytes() as u64;
        let parts = Parts {
            log: log.clone(),
            access: Arc::new(Open),
            config: Arc::new(ServerConfig::new().max_message(max_message)),
            reads: Arc::new(Semaphore::new(NODE_READS)),
            aheads: Arc::new(Semaphore::new(NODE_AHEADS)),
            connected: Arc::default(),
        };
        Node {
            parts: Arc::new(parts),
        }
    }

    /// The options for a server whose connections this node serves. Packets of topics are short, so a
    /// longer WebSocket message is refused while it arrives. Everything else is as in
    /// [`unstall::Options`].
    pub fn options() -> Options {
        Options::default().max_message_bytes(MAX_PACKET)
    }

    /// Who may publish and subscribe to what. Default: everybody, everything.
    #[must_use]
    pub fn access(mut self, access: impl Access) -> Node {
        Arc::make_mut(&mut self.parts).access = Arc::new(access);
        self
    }

    /// A name that clients are told, for people who look for a fault. At most 123 bytes. Default
    /// none.
    #[must_use]
    pub fn name(self, name: &str) -> Node {
        self.configure(|config| config.name(name))
    }

    /// How many subscriptions a connection may have, at least 1. Default 1,000: an idle one takes
    /// some hundred bytes.
    #[must_use]
    pub fn max_subscriptions(self, count: u32) -> Node {
        self.configure(|config| config.subscriptions(count))
    }

    fn configure(mut self, change: impl FnOnce(ServerConfig) -> ServerConfig) -> Node {
        let parts = Arc::make_mut(&mut self.parts);
        parts.config = Arc::new(change((*parts.config).clone()));
        self
    }

    /// Asks all clients to connect elsewhere, each at a random moment within this time, and also
    /// those that come later. Their connections go on until they leave. Call it before a shutdown:
    /// clients that know another node then lose no time.
    ///
    /// At most 123 bytes of the reason reach them.
    pub fn go_away(&self, within: Duration, reason: &str) {
        self.parts.connected.go_away(within, reason);
    }

    /// The log that it serves.
    pub fn log(&self) -> &Log {
        &self.parts.log
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("log", &self.parts.log.id())
            .field("access", &self.parts.access)
            .finish_non_exhaustive()
    }
}
