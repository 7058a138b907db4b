//! TCP sockets with the same options for every contestant.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

/// Unless another is asked for: BBR, a common default, paces loopback to a fraction of what it
/// carries.
pub(crate) const CONGESTION_CONTROL: &str = "cubic";

/// The one of this process's connections, once it is known.
static CONGESTION: OnceLock<String> = OnceLock::new();

/// To be called before there is any connection.
pub(crate) fn set_congestion(name: &str) {
    CONGESTION.get_or_init(|| name.to_owned());
}

/// Fails where somebody asks for a congestion control that the kernel does not give; the default
/// may be missing.
pub(crate) fn check_congestion(name: &str) -> Result<()> {
    if name == CONGESTION_CONTROL {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let Err(error) = socket.set_tcp_congestion(name.as_bytes()) else {
            return Ok(());
        };
        let available = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let available = std::fs::read_to_string(available).unwrap_or_default();
        Err(format!(
            "this kernel does not let connections have congestion control {name:?}: {error}. It \
             has {}. Load the module, as root: modprobe tcp_{name}",
            available.trim()
        )
        .into())
    }
    #[cfg(not(target_os = "linux"))]
    Err(format!("congestion control {name:?} can be asked for on Linux only").into())
}

/// What the kernel says of a connected socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SocketFacts {
    pub(crate) congestion_control: String,
    /// The congestion control while it connected, if that differs. Its effects may last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) switched_from: Option<String>,
    pub(crate) nodelay: bool,
}

/// A listener on loopback. What it accepts inherits its congestion control.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_congestion_control(&SockRef::from(&socket));
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

pub(crate) async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_congestion_control(&SockRef::from(&socket));
    socket.set_tcp_nodelay(true)?;
    // This blocks only as long as loopback takes.
    socket.connect(&address.into())?;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket.into())
}

/// Keeps the default if the system refuses. The option in force is read back and shown.
fn set_congestion_control(socket: &SockRef<'_>) {
    #[cfg(target_os = "linux")]
    if let Some(name) = CONGESTION.get() {
        let _ = socket.set_tcp_congestion(name.as_bytes());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Sets the options of every connection of this process, also of those that a contestant dialed or
/// accepted itself, and tells what is in force, each combination once.
#[cfg(target_os = "linux")]
pub(crate) fn tune_all() -> Vec<SocketFacts> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let mut facts = Vec::new();
    let Ok(this) = pidfd_open(getpid(), PidfdFlags::empty()) else {
        return facts;
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.collect::<Vec<i32>>() {
        // A second descriptor of the same socket.
        let Ok(socket) = pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let socket = SockRef::from(&socket);
        if socket.peer_addr().is_err() {
            continue;
        }
        let before = congestion_control(&socket);
        set_congestion_control(&socket);
        let _ = socket.set_tcp_nodelay(true);
        if let (Some(before), Some(now)) = (before, congestion_control(&socket)) {
            let switched = before != now;
            facts.push(SocketFacts {
                congestion_control: now,
                switched_from: switched.then_some(before),
                nodelay: socket.tcp_nodelay().unwrap_or(false),
            });
        }
    }
    facts.sort();
    facts.dedup();
    facts
}

#[cfg(target_os = "linux")]
fn congestion_control(socket: &SockRef<'_>) -> Option<String> {
    let name = socket.tcp_congestion().ok()?;
    let name = String::from_utf8_lossy(&name);
    Some(name.trim_end_matches('\0').to_owned())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn tune_all() -> Vec<SocketFacts> {
    Vec::new()
}
