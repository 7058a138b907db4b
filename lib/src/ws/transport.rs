//! The byte stream below a WebSocket: TCP, TLS, or a stream of another kind.

use std::any::Any;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::client;
#[cfg(all(feature = "tls", feature = "server"))]
use tokio_rustls::{rustls::pki_types::CertificateDer, server};

use super::extension::CompressionAgreed;
use crate::defaults;

/// What was written since the socket was last read.
#[derive(Debug)]
struct Unheard {
    bytes: usize,
    /// So many, and a read looks at the socket itself.
    step: usize,
}

/// A connected byte stream.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    /// `None`: nobody counts.
    unheard: Option<Unheard>,
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

enum Stream {
    Tcp(TcpStream),
    /// Over TCP, or over the TLS of a proxy.
    #[cfg(feature = "tls")]
    TlsClient(Box<client::TlsStream<Transport>>),
    #[cfg(all(feature = "tls", feature = "server"))]
    TlsServer(Box<server::TlsStream<Transport>>),
    /// A stream of the application's own, or a Unix socket.
    Other(Box<dyn ByteStream>),
    /// The stream of another HTTP server, after the upgrade.
    #[cfg(any(feature = "axum", feature = "http2"))]
    Foreign(hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>),
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stream::Tcp(_) => "Tcp",
            #[cfg(feature = "tls")]
            Stream::TlsClient(_) => "TlsClient",
            #[cfg(all(feature = "tls", feature = "server"))]
            Stream::TlsServer(_) => "TlsServer",
            Stream::Other(_) => "Other",
            #[cfg(any(feature = "axum", feature = "http2"))]
            Stream::Foreign(_) => "Foreign",
        })
    }
}

/// A byte stream of any kind.
trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

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
    pub(crate) response: Option<Arc<http::Response<()>>>,
    /// What became of a session's HELLO in the request; on a client only.
    pub(crate) hello: HelloSent,
    /// The other end of the TCP connection. Behind a proxy, the proxy's address.
    pub(crate) peer: Option<SocketAddr>,
    /// This end of the TCP connection.
    pub(crate) local: Option<SocketAddr>,
}

/// What became of a session's HELLO in the request of a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HelloSent {
    /// The request had none.
    #[default]
    Never,
    /// The request had it, and the answer does not say that the server took it.
    Unanswered,
    /// The server took it.
    Taken,
}

impl Upgraded {
    /// Takes it out of its box. An async function that did so itself would keep the empty box.
    pub(crate) fn unboxed(self: Box<Self>) -> Upgraded {
        *self
    }

    /// Whether both sides agreed to a session.
    pub(crate) fn is_session(&self) -> bool {
        self.subprotocol.as_deref() == Some(unstall_proto::SUBPROTOCOL)
    }
}

impl Transport {
    /// The certificates of the client at the other end, if it presented any.
    #[cfg(all(feature = "tls", feature = "server"))]
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.stream {
            Stream::TlsServer(tls) => tls.get_ref().1.peer_certificates(),
            _ => None,
        }
    }

    /// Plain TCP. Sets the socket's options.
    pub(crate) fn tcp_stream(tcp: TcpStream) -> Transport {
        set_options(&tcp);
        Transport::new(Stream::Tcp(tcp))
    }

    /// A stream of any kind. TCP is known as such.
    pub(crate) fn of<S>(stream: S) -> Transport
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = Some(stream);
        let any: &mut dyn Any = &mut stream;
        if let Some(tcp) = any
            .downcast_mut::<Option<TcpStream>>()
            .and_then(Option::take)
        {
            return Transport::tcp_stream(tcp);
        }
        match stream {
            Some(other) => Transport::new(Stream::Other(Box::new(other))),
            None => unreachable!("only a TcpStream is taken out"),
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls_client(tls: client::TlsStream<Transport>) -> Transport {
        Transport::new(Stream::TlsClient(Box::new(tls)))
    }

    #[cfg(all(feature = "tls", feature = "server"))]
    pub(crate) fn tls_server(tls: server::TlsStream<Transport>) -> Transport {
        Transport::new(Stream::TlsServer(Box::new(tls)))
    }

    #[cfg(any(feature = "axum", feature = "http2"))]
    pub(crate) fn foreign(upgraded: hyper::upgrade::Upgraded) -> Transport {
        Transport::new(Stream::Foreign(hyper_util::rt::TokioIo::new(upgraded)))
    }

    fn new(stream: Stream) -> Transport {
        Transport {
            stream,
            unheard: None,
            _held: None,
        }
    }

    /// The same stream. It drops `held` when it is dropped itself, with what it held before.
    pub(crate) fn holding(self, held: Held) -> Transport {
        let held = match self._held {
            Some(before) => Held(Arc::new((before, held))),
            None => held,
        };
        Transport {
            _held: Some(held),
            ..self
        }
    }

    /// From now on a read looks at the TCP socket itself after each `step` bytes that were written.
    /// Otherwise it waits until the runtime has noticed that something is there. A runtime of one thread
    /// notices nothing while a task sends and never waits.
    pub(crate) fn hear_each(&mut self, step: usize) {
        match &mut self.stream {
            #[cfg(feature = "tls")]
            Stream::TlsClient(tls) => tls.get_mut().0.hear_each(step),
            #[cfg(all(feature = "tls", feature = "server"))]
            Stream::TlsServer(tls) => tls.get_mut().0.hear_each(step),
            _ => self.unheard = Some(Unheard { bytes: 0, step }),
        }
    }

    /// So many bytes were written.
    fn count_written(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(unheard), Poll::Ready(Ok(bytes))) = (&mut self.unheard, written) {
            unheard.bytes += bytes;
        }
    }

    /// The TCP socket below; `None` for a stream of another kind.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            #[cfg(feature = "tls")]
            Stream::TlsClient(tls) => tls.get_ref().0.tcp(),
            #[cfg(all(feature = "tls", feature = "server"))]
            Stream::TlsServer(tls) => tls.get_ref().0.tcp(),
            Stream::Other(_) => None,
            #[cfg(any(feature = "axum", feature = "http2"))]
            Stream::Foreign(_) => None,
        }
    }

    /// The socket itself, if the stream is plain TCP.
    pub(crate) fn tcp_mut(&mut self) -> Option<&mut TcpStream> {
        match &mut self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            _ => None,
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
fn set_options(tcp: &TcpStream) {
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
        match &mut $self.stream {
            Stream::Tcp($io) => $body,
            Stream::Other($io) => $body,
            #[cfg(feature = "tls")]
            Stream::TlsClient($io) => $body,
            #[cfg(all(feature = "tls", feature = "server"))]
            Stream::TlsServer($io) => $body,
            #[cfg(any(feature = "axum", feature = "http2"))]
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
        let this = self.get_mut();
        let read = each!(this, io => Pin::new(io).poll_read(cx, buf));
        let Some(unheard) = &mut this.unheard else {
            return read;
        };
        if read.is_pending() && unheard.bytes < unheard.step {
            return Poll::Pending;
        }
        unheard.bytes = 0;
        match &this.stream {
            Stream::Tcp(tcp) if read.is_pending() => read_now(tcp, buf),
            _ => read,
        }
    }
}

/// Reads what is there, whether or not the runtime has noticed. Pending if nothing is: the runtime will
/// wake the task, because it was asked before.
fn read_now(tcp: &TcpStream, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let socket = SockRef::from(tcp);
    let read = socket
        .peek(&mut [MaybeUninit::uninit()])
        .and_then(|_| (&*socket).read(buf.initialize_unfilled()));
    match read {
        Ok(read) => {
            buf.advance(read);
            Poll::Ready(Ok(()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = each!(this, io => Pin::new(io).poll_write(cx, buf));
        this.count_written(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = each!(this, io => Pin::new(io).poll_write_vectored(cx, bufs));
        this.count_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(io) => io.is_write_vectored(),
            Stream::Other(io) => io.is_write_vectored(),
            #[cfg(feature = "tls")]
            Stream::TlsClient(io) => io.is_write_vectored(),
            #[cfg(all(feature = "tls", feature = "server"))]
            Stream::TlsServer(io) => io.is_write_vectored(),
            #[cfg(any(feature = "axum", feature = "http2"))]
            Stream::Foreign(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        each!(this, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        each!(this, io => Pin::new(io).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::HEAR_COMPRESSED_BYTES;
    use std::future::poll_fn;
    use std::io::Write;

    /// Once a session that sent without a pause in a runtime of one thread read no acknowledgement until
    /// its credit was used up. It kept megabytes of packets.
    #[tokio::test]
    async fn a_sender_that_never_waits_hears_what_the_runtime_has_not_noticed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut theirs, _) = listener.accept().unwrap();
        let mut transport = Transport::tcp_stream(ours.unwrap());
        transport.hear_each(HEAR_COMPRESSED_BYTES);
        transport.tcp().unwrap().writable().await.unwrap();
        theirs.write_all(b"heard").unwrap();
        let heard = poll_fn(|cx| {
            let mut bytes = [0; 16];
            let mut there = ReadBuf::new(&mut bytes);
            let early = Pin::new(&mut transport).poll_read(cx, &mut there);
            assert!(early.is_pending(), "the runtime has noticed nothing");
            let sent = [0; HEAR_COMPRESSED_BYTES];
            let written = Pin::new(&mut transport).poll_write(cx, &sent);
            assert!(matches!(written, Poll::Ready(Ok(HEAR_COMPRESSED_BYTES))));
            let read = Pin::new(&mut transport).poll_read(cx, &mut there);
            read.map(|read| read.map(|()| there.filled().to_vec()))
        });
        assert_eq!(heard.await.unwrap(), b"heard");
    }
}
