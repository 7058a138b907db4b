//! Loopback TCP with kernel buffers of a fixed size at both ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::{fmt, io};

use indicatif::HumanCount;
use serde::Serialize;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The requested size of each of the four buffers. Linux doubles it for its bookkeeping, which
/// gives 128 KiB, its initial size of a receive buffer. It is fixed, because buffers that grow
/// would make the rows differ by chance.
const KERNEL_BUFFER_BYTES: u32 = 64 * 1024;

/// The sizes that the kernel set, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct KernelBuffers {
    pub(super) client_send: u64,
    pub(super) client_receive: u64,
    pub(super) server_send: u64,
    pub(super) server_receive: u64,
}

impl fmt::Display for KernelBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client_send,
            client_receive,
            server_send,
            server_receive,
        } = *self;
        let end = |send, receive| {
            format!(
                "{} bytes to send, {} to receive",
                HumanCount(send),
                HumanCount(receive)
            )
        };
        if (client_send, client_receive) == (server_send, server_receive) {
            return write!(
                f,
                "kernel buffers of each end: {}",
                end(client_send, client_receive)
            );
        }
        write!(
            f,
            "kernel buffers of the client: {}; of the server: {}",
            end(client_send, client_receive),
            end(server_send, server_receive)
        )
    }
}

/// Makes a connection. Returns both ends and the actual sizes of their buffers.
///
/// Nagle's algorithm stays on, as it is by default. Without it each request is a segment of its own,
/// and thousands of segments fill the receive buffer with more than their bytes. Linux then drops
/// segments, and on some kernels two full directions wait for their retransmission timers. That
/// stall would be the kernel's, not the program's.
pub(super) async fn connect() -> io::Result<(TcpStream, TcpStream, KernelBuffers)> {
    let listener = listen()?;
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(KERNEL_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES)?;
    let (client, accepted) =
        tokio::try_join!(socket.connect(listener.local_addr()?), listener.accept())?;
    let (server, _) = accepted;
    let buffers = KernelBuffers {
        client_send: SockRef::from(&client).send_buffer_size()? as u64,
        client_receive: SockRef::from(&client).recv_buffer_size()? as u64,
        server_send: SockRef::from(&server).send_buffer_size()? as u64,
        server_receive: SockRef::from(&server).recv_buffer_size()? as u64,
    };
    Ok((client, server, buffers))
}

/// A listener whose connections inherit the buffer sizes: set before `listen`, as tcp(7) asks.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_send_buffer_size(KERNEL_BUFFER_BYTES as usize)?;
    socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES as usize)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1)?;
    TcpListener::from_std(socket.into())
}
