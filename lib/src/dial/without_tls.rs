//! Stands in for `dial/tls` where the crate is built without its feature `tls`.

use std::io;
use std::sync::Arc;

use crate::ws::transport::Transport;

/// There is none.
#[derive(Clone, Debug)]
pub(crate) enum ClientConfig {}

/// There is none.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub(crate) enum ServerConfig {}

pub(crate) async fn connect(
    _: Option<&Arc<ClientConfig>>,
    _: &str,
    _: Transport,
) -> io::Result<Transport> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "unstall was built without its feature `tls`",
    ))
}

#[cfg(feature = "server")]
pub(crate) async fn accept(config: Arc<ServerConfig>, _: Transport) -> io::Result<Transport> {
    match *config {}
}

#[cfg(feature = "http2")]
pub(crate) fn offering_http2(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    config
}
