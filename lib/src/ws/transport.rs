//! The byte stream below a WebSocket: TCP, or TLS over TCP.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::extension::CompressionAgreed;
use crate::defaults;

/// A connected byte stream.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    /// Dropped with the socket: the connection's place among the open ones of a server.
    _held: Option<Held>,
}

/// Something that lives as long as a socket.
#[derive(Clone)]
pub(crate) struct Held(#[allow(dead_code)] pub(crate) Arc<dyn Send + Sync>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    TlsClient(Box<client::TlsStream<TcpStream>>),
    TlsServer(Box<server::TlsStream<TcpStream>>),
    /// The stream of another HTTP server, after the upgrade.
    #[cfg(feature = "axum")]
    Foreign(hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>),
}

/// A stream after the WebSocket handshake, on either side.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// The stream below HTTP.
    pub(crate) transport: Transport,
    /// What was read behind the handshake: the first bytes of frames.
    pub(crate) leftover: Bytes,
    /// The agreed subprotocol.
    pub(crate) subprotocol: Option<String>,
    /// The agreement to compress messages.
    pub(crate) compression: Option<CompressionAgreed>,
    /// The head of the server's answer; on a client only.
    pub(crate) response: Option<http::Response<()>>,
    /// The other end of the TCP connection. Behind a proxy, the proxy's address.
    pub(crate) peer: Option<SocketAddr>,
    /// This end of the TCP connection.
    pub(crate) local: Option<SocketAddr>,
}

impl Upgraded {
    /// Whether both sides agreed to a session.
    pub(crate) fn is_session(&self) -> bool {
        self.subprotocol.as_deref() == Some(unstall_proto::SUBPROTOCOL)
    }
}

impl Transport {
    /// Plain TCP. Sets the socket's options.
    pub(crate) fn tcp_stream(tcp: TcpStream) -> Transport {
        set_options(&tcp);
        Transport::new(Stream::Tcp(tcp))
    }

    pub(crate) fn tls_client(tls: client::TlsStream<TcpStream>) -> Transport {
        Transport::new(Stream::TlsClient(Box::new(tls)))
    }

    pub(crate) fn tls_server(tls: server::TlsStream<TcpStream>) -> Transport {
        Transport::new(Stream::TlsServer(Box::new(tls)))
    }

    #[cfg(feature = "axum")]
    pub(crate) fn foreign(upgraded: hyper::upgrade::Upgraded) -> Transport {
        Transport::new(Stream::Foreign(hyper_util::rt::TokioIo::new(upgraded)))
    }

    fn new(stream: Stream) -> Transport {
        Transport {
            stream,
            _held: None,
        }
    }

    /// The same stream. It drops `held` when it is dropped itself.
    pub(crate) fn holding(self, held: Held) -> Transport {
        Transport {
            _held: Some(held),
            ..self
        }
    }

    /// The TCP socket below; `None` for the stream of another HTTP server.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::TlsClient(tls) => Some(tls.get_ref().0),
            Stream::TlsServer(tls) => Some(tls.get_ref().0),
            #[cfg(feature = "axum")]
            Stream::Foreign(_) => None,
        }
    }

    /// The address of the peer.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tcp().and_then(|tcp| tcp.peer_addr().ok())
    }

    /// The address of this end.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.tcp().and_then(|tcp| tcp.local_addr().ok())
    }
}

/// Sets the options of a socket. A connection also works without them, so an error is only logged.
///
/// `TCP_USER_TIMEOUT` is not set, because it ends connections to live peers that do not read.
pub(crate) fn set_options(tcp: &TcpStream) {
    // Messages leave when they are written. The writer packs them, not Nagle's algorithm.
    let nodelay = tcp.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(defaults::KEEPALIVE_IDLE)
        .with_interval(defaults::KEEPALIVE_INTERVAL);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(defaults::KEEPALIVE_RETRIES);
    let socket = SockRef::from(tcp);
    let kept = socket.set_tcp_keepalive(&keepalive);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kept = kept.and(socket.set_tcp_notsent_lowat(defaults::NOT_SENT_BYTES));
    if let Err(error) = nodelay.and(kept) {
        tracing::debug!(%error, "could not set the options of a socket");
    }
}

macro_rules! each {
    ($self:ident, $io:ident => $body:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp($io) => $body,
            Stream::TlsClient($io) => $body,
            Stream::TlsServer($io) => $body,
            #[cfg(feature = "axum")]
            Stream::Foreign($io) => $body,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(io) => io.is_write_vectored(),
            Stream::TlsClient(io) => io.is_write_vectored(),
            Stream::TlsServer(io) => io.is_write_vectored(),
            #[cfg(feature = "axum")]
            Stream::Foreign(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
