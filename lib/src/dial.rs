//! Dialing: from a URL to an upgraded connection, under one deadline.

#[cfg(all(feature = "server", feature = "tls"))]
pub(crate) mod certificate;
mod connector;
pub(crate) mod environment;
mod exchange;
pub(crate) mod proxy;
mod secrets;
mod target;
mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(not(feature = "tls"))]
#[path = "dial/without_tls.rs"]
pub(crate) mod tls;
mod upgrade;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tracing::Instrument;

pub(crate) use self::connector::Connector;
pub use self::connector::Endpoint;
pub(crate) use self::proxy::Proxy;
pub(crate) use self::target::Target;
use self::tls::ClientConfig;
use crate::reports::{ConnectError, ConnectPhase};
use crate::settings::Compression;
use crate::spans;
use crate::time::later;
use crate::ws::transport::{Transport, Upgraded};

/// Whether a client wants a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Offers one; the connection is plain if the server does not agree.
    #[default]
    Offered,
    /// Offers one, and fails if the server does not agree.
    Required,
    /// Offers none.
    Never,
}

/// How to dial; [`Target`] says where.
#[derive(Debug, Clone)]
pub(crate) struct DialOptions {
    /// `None`: trust the roots that the crate's features name.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) proxy: Option<Proxy>,
    /// Connects in place of this library, and of the proxy.
    pub(crate) connector: Option<Connector>,
    /// Offered in this order.
    pub(crate) subprotocols: Vec<String>,
    /// Whether the server has to agree to one of them.
    pub(crate) subprotocol_required: bool,
    pub(crate) session: Wanted,
    /// Offered to the server.
    pub(crate) compression: Option<Compression>,
    /// HELLO of a new session, if one is offered.
    pub(crate) hello: Option<HeaderValue>,
    /// One timeout over all steps.
    pub(crate) connect_timeout: Duration,
}

/// The application's headers for one attempt, or why its function failed.
type Headers = Result<HeaderMap, Box<dyn std::error::Error + Send + Sync>>;

/// Connects to `target` and upgrades to WebSocket. `headers` resolves to the request's headers; the
/// deadline covers it too.
///
/// Cancel safety: if dropped, it leaves nothing behind, except a name lookup that finishes in the
/// background.
pub(crate) async fn dial(
    target: &Target,
    options: &DialOptions,
    headers: impl Future<Output = Headers>,
) -> Result<Upgraded, ConnectError> {
    let deadline = Deadline::new(options.connect_timeout);
    let headers = async { headers.await.map_err(ConnectError::HeaderFunction) };
    let headers = deadline.cover(ConnectPhase::Headers, headers).await?;
    upgrade::check_headers(&headers)?;

    let mut transport = match (&options.connector, &options.proxy) {
        (Some(connector), _) => {
            let own = connect_own(connector, target);
            deadline.cover(ConnectPhase::Connector, own).await?
        }
        (None, Some(proxy)) => {
            let tunnel = proxy.tunnel(target, options.tls.as_ref(), &deadline);
            deadline.cover(ConnectPhase::Proxy, tunnel).await?
        }
        (None, None) => connect_tcp(target, &deadline).await?,
    };
    if target.secure {
        let tls = connect_tls(transport, target, options);
        transport = deadline.cover(ConnectPhase::Tls, tls).await?;
    }
    let span = spans::request();
    let upgrade = upgrade::upgrade(transport, target, options, headers).instrument(span.clone());
    let upgraded = deadline.cover(ConnectPhase::Upgrade, upgrade).await;
    match &upgraded {
        Ok(_) => spans::answered(&span, StatusCode::SWITCHING_PROTOCOLS),
        Err(ConnectError::Refused { status, .. }) => spans::answered(&span, *status),
        Err(_) => {}
    }
    upgraded
}

/// One deadline over several steps. Its error names the step that did not finish in time.
struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    fn new(after: Duration) -> Deadline {
        Deadline {
            at: later(Instant::now(), after),
            after,
        }
    }

    fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    async fn limit<T>(&self, step: impl Future<Output = T>) -> Result<T, Elapsed> {
        timeout_at(self.at, step).await
    }

    fn missed(&self, phase: ConnectPhase) -> ConnectError {
        let after = self.after;
        ConnectError::Timeout { phase, after }
    }

    /// Runs a step until the deadline.
    async fn cover<T>(
        &self,
        phase: ConnectPhase,
        step: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let missed = |_| Err(self.missed(phase));
        self.limit(step).await.unwrap_or_else(missed)
    }
}

async fn connect_tcp(target: &Target, deadline: &Deadline) -> Result<Transport, ConnectError> {
    match tcp::connect(&target.host, target.port, deadline).await {
        Ok(tcp) => Ok(Transport::tcp_stream(tcp)),
        Err(tcp::Failure::Timeout(phase)) => Err(deadline.missed(phase)),
        Err(tcp::Failure::Dns(source)) => Err(ConnectError::Dns {
            host: target.host.clone(),
            source,
        }),
        Err(tcp::Failure::Tcp(source)) => Err(ConnectError::Tcp {
            to: target.host_and_port(),
            source,
        }),
    }
}

async fn connect_own(connector: &Connector, target: &Target) -> Result<Transport, ConnectError> {
    let endpoint = Endpoint {
        host: target.host.clone(),
        port: target.port,
        tls: target.secure,
    };
    let connected = connector.connect(endpoint).await;
    connected.map_err(|source| ConnectError::Connector {
        to: target.host_and_port(),
        source,
    })
}

async fn connect_tls(
    below: Transport,
    target: &Target,
    options: &DialOptions,
) -> Result<Transport, ConnectError> {
    let tls = tls::connect(options.tls.as_ref(), &target.host, below).await;
    tls.map_err(|source| ConnectError::Tls {
        host: target.host.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
