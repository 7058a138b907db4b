//! What programs that use the library say of their own connections, beside the kernel's account.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use unstall::doctor::{Finding, listeners_of};

use crate::status::{Asker, Connection};

/// How long a program may take to answer. One that does not run answers never.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How many ports of a program are asked.
const PORTS: usize = 8;

/// Whom to ask.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Every program that listens, and not only those that are called `unstall`.
    pub(super) all: bool,
    pub(super) token: Option<String>,
}

/// What programs say, by the cookie of the kernel's account.
pub(super) type Said = HashMap<u64, Connection>;

/// Asks the programs of these findings. Whoever does not answer, or answers something else, says nothing.
pub(super) fn ask(findings: &[Finding], asking: &Asking) -> Said {
    let owners = findings.iter().filter_map(|it| it.owner.as_ref());
    let asked = owners.filter(|it| asking.all || it.program == "unstall");
    let running = asked.filter(|it| !it.is_stopped());
    let pids: BTreeSet<u32> = running.map(|it| it.pid).collect();
    let mut said = Said::new();
    for pid in pids {
        let own: Vec<&Finding> = findings
            .iter()
            .filter(|it| it.owner.as_ref().is_some_and(|owner| owner.pid == pid))
            .collect();
        said.extend(joined(&own, status(pid, asking)));
    }
    said
}

/// The connections of a process, if it tells them on one of its ports.
fn status(pid: u32, asking: &Asking) -> Vec<Connection> {
    let listeners = listeners_of(pid).unwrap_or_default();
    let addresses = listeners.into_iter().filter_map(reached);
    let tell = |address: SocketAddr| {
        let asker = Asker::new(&address.to_string(), asking.token.clone(), TIMEOUT).ok()?;
        let status = asker.status().ok()?;
        (status.process.pid == pid).then_some(status.connections)
    };
    addresses.take(PORTS).find_map(tell).unwrap_or_default()
}

/// The address on loopback that reaches a listener. `None`: it listens elsewhere.
fn reached(listener: SocketAddr) -> Option<SocketAddr> {
    let ip = match listener.ip().to_canonical() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, listener.port()))
}

/// The peer's address names a connection, if no other one of the process has the same peer.
fn joined(findings: &[&Finding], connections: Vec<Connection>) -> Said {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let mut by_peer: HashMap<SocketAddr, Vec<Connection>> = HashMap::new();
    for connection in connections {
        let peer = connection.peer.as_deref().and_then(|it| it.parse().ok());
        if let Some(peer) = peer {
            let same = by_peer.entry(canonical(peer)).or_default();
            same.push(connection);
        }
    }
    let mut said = Said::new();
    for finding in findings {
        let peer = canonical(finding.account.peer);
        let alike = findings
            .iter()
            .filter(|it| canonical(it.account.peer) == peer);
        if alike.count() == 1
            && let Some([connection]) = by_peer.get(&peer).map(Vec::as_slice)
        {
            said.insert(finding.account.cookie, connection.clone());
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked() {
        for (listener, asked) in [
            ("0.0.0.0:1", Some("127.0.0.1:1")),
            ("127.0.0.2:1", Some("127.0.0.2:1")),
            ("[::]:1", Some("[::1]:1")),
            ("[::ffff:0.0.0.0]:1", Some("127.0.0.1:1")),
            ("10.0.0.1:1", None),
        ] {
            let asked = asked.map(|it| it.parse().unwrap());
            assert_eq!(reached(listener.parse().unwrap()), asked, "{listener}");
        }
    }
}
