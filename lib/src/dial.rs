//! Dialing: from a URL to an upgraded connection, under one deadline.

mod exchange;
pub(crate) mod proxy;
mod target;
pub(crate) mod tls;
mod upgrade;

use std::future::{Future, Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::ClientConfig;
use tower_service::Service;

pub(crate) use self::proxy::Proxy;
pub(crate) use self::target::Target;
use crate::defaults;
use crate::reports::{ConnectError, ConnectPhase};
use crate::settings::Compression;
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
    /// Offered in this order.
    pub(crate) subprotocols: Vec<String>,
    pub(crate) session: Wanted,
    /// Offered to the server.
    pub(crate) compression: Option<Compression>,
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

    let (host, port) = match &options.proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (target.host.as_str(), target.port),
    };
    let addresses = deadline
        .cover(ConnectPhase::Dns, resolve(host, port))
        .await?;
    let tcp = connect_tcp(host, port, addresses, &deadline);
    let mut tcp = deadline.cover(ConnectPhase::Tcp, tcp).await?;
    if let Some(proxy) = &options.proxy {
        tcp = deadline
            .cover(ConnectPhase::Proxy, proxy.tunnel(tcp, target))
            .await?;
    }
    let transport = if target.secure {
        deadline
            .cover(ConnectPhase::Tls, connect_tls(tcp, target, options))
            .await?
    } else {
        Transport::tcp_stream(tcp)
    };
    let upgrade = upgrade::upgrade(transport, target, options, headers);
    deadline.cover(ConnectPhase::Upgrade, upgrade).await
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

    /// Runs a step until the deadline.
    async fn cover<T>(
        &self,
        phase: ConnectPhase,
        step: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let cut = |_| {
            Err(ConnectError::Timeout {
                phase,
                after: self.after,
            })
        };
        timeout_at(self.at, step).await.unwrap_or_else(cut)
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| ConnectError::Dns {
        host: host.to_owned(),
        source,
    };
    let found: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(failed)?
        .collect();
    if found.is_empty() {
        let none = io::Error::new(
            io::ErrorKind::NotFound,
            "the resolver knows no address of this name",
        );
        return Err(failed(none));
    }
    Ok(found)
}

/// Connects to one of `addresses` (Happy Eyeballs, RFC 8305). The two address families are tried at
/// the same time, the second with a short delay. Within a family the addresses are tried one after
/// another, each with an equal share of the time.
async fn connect_tcp(
    host: &str,
    port: u16,
    addresses: Vec<SocketAddr>,
    deadline: &Deadline,
) -> Result<TcpStream, ConnectError> {
    let mut connector = HttpConnector::new_with_resolver(Resolved(addresses));
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(deadline.remaining()));
    connector.set_happy_eyeballs_timeout(Some(defaults::HAPPY_EYEBALLS_DELAY));
    // The host is a name, so that the connector asks `Resolved` for the addresses.
    let uri =
        Uri::try_from(format!("http://resolved:{port}/")).expect("a name and a port make a URI");
    match connector.call(uri).await {
        Ok(tcp) => Ok(tcp.into_inner()),
        Err(error) => {
            let source = innermost_io_error(&error);
            // The connector's own timeout ends the attempt at the same time as the deadline.
            if source.kind() == io::ErrorKind::TimedOut && source.raw_os_error().is_none() {
                return Err(ConnectError::Timeout {
                    phase: ConnectPhase::Tcp,
                    after: deadline.after,
                });
            }
            Err(ConnectError::Tcp {
                to: target::host_and_port(host, port),
                source,
            })
        }
    }
}

/// The operating system's error inside the connector's error.
fn innermost_io_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
        }
        next = error.source();
    }
    io::Error::other(error.to_string())
}

async fn connect_tls(
    tcp: TcpStream,
    target: &Target,
    options: &DialOptions,
) -> Result<Transport, ConnectError> {
    crate::ws::transport::set_options(&tcp);
    let tls = tls::connect(options.tls.as_ref(), &target.host, tcp).await;
    tls.map_err(|source| ConnectError::Tls {
        host: target.host.clone(),
        source,
    })
}

/// A resolver that returns addresses that are already known.
#[derive(Clone)]
struct Resolved(Vec<SocketAddr>);

impl<Name> Service<Name> for Resolved {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

#[cfg(test)]
mod tests;
