//! The processes that own sockets, from procfs (see proc(5)).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::{fs, io};

use crate::kernel;
use crate::reports::printable;

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// The program's name in the kernel: at most 15 bytes.
    pub program: String,
    /// Its scheduling state as proc(5) names it, for example `R` (running),
    /// `S` (sleeping), `T` (stopped by a signal).
    pub state: char,
}

impl Process {
    /// Whether a signal (SIGSTOP, or a debugger) has stopped the process.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// The processes that hold sockets, as far as this user may see them.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// If several processes share a socket, the one with the lowest process id.
    by_inode: HashMap<u32, Process>,
}

impl Owners {
    /// Reads the sockets of every process of the system. Processes whose sockets this user may not
    /// see are left out.
    pub(super) fn read() -> Owners {
        let mut owners = Owners::default();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids: Vec<u32> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        for pid in pids {
            owners.add(pid);
        }
        owners
    }

    pub(super) fn of(&self, inode: u32) -> Option<&Process> {
        self.by_inode.get(&inode)
    }

    fn add(&mut self, pid: u32) {
        let directory = Path::new("/proc").join(pid.to_string());
        let Ok(sockets) = sockets_of(pid) else { return };
        if sockets.is_empty() {
            return;
        }
        let Some(process) = describe(pid, &directory) else {
            return;
        };
        for inode in sockets {
            self.by_inode
                .entry(inode)
                .or_insert_with(|| process.clone());
        }
    }
}

/// The inodes of the sockets that a process holds (see [`TcpAccount::inode`]).
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is no such process (or no procfs),
/// [`io::ErrorKind::PermissionDenied`] if this user may not see it.
///
/// [`TcpAccount::inode`]: super::TcpAccount::inode
pub fn sockets_of(pid: u32) -> io::Result<HashSet<u32>> {
    let mut inodes = HashSet::new();
    for descriptor in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))? {
        // A descriptor may be closed while this reads.
        let Ok(target) = descriptor.and_then(|descriptor| fs::read_link(descriptor.path())) else {
            continue;
        };
        inodes.extend(target.to_str().and_then(socket_inode));
    }
    Ok(inodes)
}

/// The addresses that a process listens on for TCP connections.
///
/// # Errors
/// As [`sockets_of`], and what the netlink socket reports; [`io::ErrorKind::Unsupported`] on other
/// systems than Linux.
pub fn listeners_of(pid: u32) -> io::Result<Vec<SocketAddr>> {
    let own = sockets_of(pid)?;
    let mut addresses: Vec<SocketAddr> = kernel::tcp_listeners()?
        .into_iter()
        .filter(|listener| own.contains(&listener.inode))
        .map(|listener| listener.local)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// procfs shows a descriptor that is a socket as `socket:[12345]`.
fn socket_inode(target: &str) -> Option<u32> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn describe(pid: u32, directory: &Path) -> Option<Process> {
    // "pid (program) state …"; the program's name may contain anything, even ')'.
    let stat = fs::read(directory.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (before, after) = stat.rsplit_once(')')?;
    let program = before.split_once('(')?.1;
    Some(Process {
        pid,
        // A program can choose its name, so control characters are escaped.
        program: printable(program).to_string(),
        state: after.trim_start().chars().next()?,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_owner_of_a_socket_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let inode = fs::metadata(format!("/proc/self/fd/{descriptor}"))
            .unwrap()
            .ino();
        let owners = Owners::read();
        let owner = owners
            .of(u32::try_from(inode).unwrap())
            .expect("this process is visible");
        assert_eq!(owner.pid, std::process::id());
        assert!(!owner.program.is_empty());
        assert!(!owner.is_stopped());
    }

    #[test]
    fn what_a_process_listens_on_is_found_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let found = listeners_of(std::process::id()).unwrap();
        assert!(found.contains(&address), "{found:?}");
        assert!(!found.contains(&client.local_addr().unwrap()), "{found:?}");
        drop(listener);
        let found = listeners_of(std::process::id()).unwrap();
        assert!(!found.contains(&address), "{found:?}");
    }

    #[test]
    fn only_sockets_have_a_socket_inode() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for other in [
            "pipe:[4711]",
            "/tmp/socket:[1]",
            "socket:[]",
            "socket:[-1]",
            "socket:[1",
        ] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }
}
