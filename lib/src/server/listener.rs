//! Sources of connections for a server.

use std::{future::Future, io, net::SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A source of connections for [`ServerBuilder::listener`](crate::ServerBuilder::listener): TCP, Unix
/// sockets, or byte streams of your own.
///
/// ```
/// use std::{io, net::SocketAddr};
/// use tokio::{io::DuplexStream, sync::mpsc};
///
/// /// Connections within the process.
/// struct Pipes(mpsc::Receiver<DuplexStream>);
///
/// impl unstall::Listener for Pipes {
///     type Io = DuplexStream;
///
///     async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
///         match self.0.recv().await {
///             Some(pipe) => Ok((pipe, None)),
///             // Nobody connects any more.
///             None => std::future::pending().await,
///         }
///     }
/// }
/// ```
pub trait Listener: Send + 'static {
    /// The streams that it accepts.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection. Returns it, with the address of its client if that has one.
    /// The limits per address do not apply to clients without an address.
    ///
    /// It must be cancel safe: if the future is dropped, no connection may be lost. After an error
    /// the server goes on, with a pause if the error is not about one connection alone.
    fn accept(&mut self)
    -> impl Future<Output = io::Result<(Self::Io, Option<SocketAddr>)>> + Send;

    /// The address to report as [`Server::local_addr`](crate::Server::local_addr), if there is one.
    ///
    /// # Errors
    /// The operating system does not tell it. The server then does not start.
    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Ok(None)
    }
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (tcp, peer) = TcpListener::accept(self).await?;
        Ok((tcp, Some(peer)))
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        TcpListener::local_addr(self).map(Some)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<(tokio::net::UnixStream, Option<SocketAddr>)> {
        let (stream, _) = tokio::net::UnixListener::accept(self).await?;
        Ok((stream, None))
    }
}
