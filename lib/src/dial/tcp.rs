//! From a host's name to a TCP connection.

use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpStream;
use tower_service::Service;

use super::Deadline;
use crate::defaults;
use crate::reports::ConnectPhase;

/// Why there is no TCP connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// What the resolver answered.
    Dns(io::Error),
    /// The operating system's error for the last address that was tried.
    Tcp(io::Error),
    /// The step that did not finish in time.
    Timeout(ConnectPhase),
}

/// Resolves `host`, and connects to one of its addresses.
pub(super) async fn connect(
    host: &str,
    port: u16,
    deadline: &Deadline,
) -> Result<TcpStream, Failure> {
    let Ok(resolved) = deadline.limit(resolve(host, port)).await else {
        return Err(Failure::Timeout(ConnectPhase::Dns));
    };
    let addresses = resolved.map_err(Failure::Dns)?;
    let connect = connect_to(port, addresses, deadline);
    let timed_out = || Err(Failure::Timeout(ConnectPhase::Tcp));
    match deadline.limit(connect).await {
        Ok(Ok(tcp)) => Ok(tcp),
        // The connector's own timeout ends the attempt at the same time as the deadline.
        Ok(Err(error)) if is_connectors_timeout(&error) => timed_out(),
        Ok(Err(error)) => Err(Failure::Tcp(error)),
        Err(_) => timed_out(),
    }
}

fn is_connectors_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the resolver knows no address of this name",
        )),
    }
}

/// The first IPv4 address of `host`, for a SOCKS4 proxy.
pub(super) async fn resolve_v4(host: &str) -> io::Result<Ipv4Addr> {
    let addresses = resolve(host, 0).await?;
    let mut v4 = addresses.iter().filter_map(|found| match found.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    v4.next().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "it has no IPv4 address, and SOCKS4 knows no others",
        )
    })
}

/// Connects to one of `addresses` (Happy Eyeballs, RFC 8305). The two address families are tried at
/// the same time, the second with a short delay. Within a family the addresses are tried one after
/// another, each with an equal share of the time.
pub(super) async fn connect_to(
    port: u16,
    addresses: Vec<SocketAddr>,
    deadline: &Deadline,
) -> io::Result<TcpStream> {
    let mut connector = HttpConnector::new_with_resolver(Resolved(addresses));
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(deadline.remaining()));
    connector.set_happy_eyeballs_timeout(Some(defaults::HAPPY_EYEBALLS_DELAY));
    // The host is a name, so that the connector asks `Resolved` for the addresses.
    let uri =
        Uri::try_from(format!("http://resolved:{port}/")).expect("a name and a port make a URI");
    let connected = connector.call(uri).await;
    connected
        .map(|tcp| tcp.into_inner())
        .map_err(|error| innermost_io_error(&error))
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
