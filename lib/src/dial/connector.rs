//! Streams that the application connects itself.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc};

use crate::ws::transport::Transport;

/// Where a client wants to go; see [`Client::connector`](crate::Client::connector).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The host of the URL: a name, or an IP address without brackets.
    pub host: String,
    /// The port of the URL, or the default port of its scheme.
    pub port: u16,
    /// Whether the client speaks TLS over the stream, because the URL is `wss://`.
    pub tls: bool,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Transport>> + Send>>;

/// The application's function that connects.
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn(Endpoint) -> Connecting + Send + Sync>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector(…)")
    }
}

impl Connector {
    pub(crate) fn new(
        connect: impl Fn(Endpoint) -> Connecting + Send + Sync + 'static,
    ) -> Connector {
        Connector(Arc::new(connect))
    }

    pub(super) async fn connect(&self, to: Endpoint) -> io::Result<Transport> {
        (self.0)(to).await
    }
}
