//! Systems without netlink sock_diag.

use std::io;
use std::net::SocketAddr;

use super::TcpAccount;

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "the kernel's account of TCP sockets is read over netlink sock_diag, which only Linux has",
    ))
}

pub(super) fn tcp_account(_: SocketAddr, _: SocketAddr) -> io::Result<Option<TcpAccount>> {
    unsupported()
}

pub(super) fn tcp_listeners() -> io::Result<Vec<TcpAccount>> {
    unsupported()
}

pub(super) fn tcp_accounts() -> io::Result<Vec<TcpAccount>> {
    unsupported()
}
