//! The WebSocket engine: from bytes to messages and back.
//!
//! On sockets that this library opened, frames are read and written here. A `WebSocketStream` that
//! was adopted goes on with tungstenite, because its buffers cannot be taken over. With
//! `pump/start`, this is the one room that names tungstenite.

mod adopted;
mod contexts;
mod control;
mod convert;
mod decoder;
mod deflate;
#[cfg(test)]
mod deflate_tests;
mod encoder;
pub(crate) mod extension;
#[cfg(any(test, fuzzing))]
#[allow(unreachable_pub)]
pub mod fuzzed;
mod header;
pub(crate) mod headers;
mod history;
mod inflate;
mod masking;
mod own;
mod spare;
#[cfg(test)]
mod tests;
pub(crate) mod transport;
mod utf8;
mod window;

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::handshake};

use crate::{
    defaults::PACKED_BYTES,
    reports::{Close, CloseCode, ConnectionError},
    settings::{Account, Options},
};
use adopted::Adopted;
pub use convert::ControlMessage;
use extension::CompressionAgreed;
use header::{Header, Opcode};
use own::Own;
use transport::{Transport, Upgraded};
use unstall_proto::{Kind, Records, Transmit, util::copied};

/// A fresh `Sec-WebSocket-Key` (RFC 6455 section 4.1, item 7).
pub(crate) fn new_key() -> String {
    handshake::client::generate_key()
}

/// The `Sec-WebSocket-Accept` that answers `key` (RFC 6455 section 4.2.2, item 5.4).
pub(crate) fn accept_key(key: &[u8]) -> String {
    handshake::derive_accept_key(key)
}

/// The TCP socket below an adopted stream, if it is of a known kind.
pub(crate) fn tcp_below(stream: &dyn Any) -> Option<&TcpStream> {
    if let Some(tcp) = stream.downcast_ref::<TcpStream>() {
        return Some(tcp);
    }
    if let Some(MaybeTlsStream::Plain(tcp)) = stream.downcast_ref() {
        return Some(tcp);
    }
    tcp_below_tls(stream)
}

#[cfg(feature = "tls")]
fn tcp_below_tls(stream: &dyn Any) -> Option<&TcpStream> {
    if let Some(tls) = stream.downcast_ref::<tokio_rustls::TlsStream<TcpStream>>() {
        return Some(tls.get_ref().0);
    }
    if let Some(tls) = stream.downcast_ref::<tokio_rustls::client::TlsStream<TcpStream>>() {
        return Some(tls.get_ref().0);
    }
    let tls = stream.downcast_ref::<tokio_rustls::server::TlsStream<TcpStream>>()?;
    Some(tls.get_ref().0)
}

#[cfg(not(feature = "tls"))]
fn tcp_below_tls(_: &dyn Any) -> Option<&TcpStream> {
    None
}

/// What a read yields.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// A whole message. A payload of its own keeps no memory that is much larger than itself.
    Message {
        text: bool,
        payload: CowBytes<'a>,
    },
    /// So many bytes of a message that is not whole yet; perhaps none.
    Part(usize),
    /// A ping; its pong is queued already.
    Ping,
    Pong(Bytes),
    Close(Close),
}

/// A payload, borrowed or of its own.
#[derive(Debug)]
pub(crate) enum CowBytes<'a> {
    Borrowed(&'a [u8]),
    Shared(Bytes),
}

impl CowBytes<'_> {
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            CowBytes::Borrowed(bytes) => copied(bytes),
            CowBytes::Shared(bytes) => bytes,
        }
    }
}

impl std::ops::Deref for CowBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            CowBytes::Borrowed(bytes) => bytes,
            CowBytes::Shared(bytes) => bytes,
        }
    }
}

/// Why the engine cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The closing handshake is complete.
    Closed,
    Broken(ConnectionError),
}

/// Which end of the connection this is: clients mask, servers do not (RFC 6455 section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

enum Engine<S> {
    Own(Box<Own<S>>),
    Adopted(Box<Adopted<S>>),
}

/// A WebSocket over any byte stream, polled by one task.
pub(crate) struct WebSocket<S> {
    engine: Engine<S>,
    fragment_bytes: usize,
}

impl WebSocket<Transport> {
    /// A WebSocket after the handshake of this library.
    pub(crate) fn upgraded(upgraded: Upgraded, side: Side, options: &Options) -> Self {
        let agreed = upgraded.compression.as_ref();
        WebSocket::new(upgraded.transport, upgraded.leftover, side, options).compressed(agreed)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A WebSocket after the upgrade. `leftover` is what was read behind it.
    pub(crate) fn new(io: S, leftover: Bytes, side: Side, options: &Options) -> WebSocket<S> {
        let own = Own::new(io, &leftover, side, options.max_message_bytes);
        WebSocket {
            engine: Engine::Own(Box::new(own)),
            fragment_bytes: options.fragment_bytes,
        }
    }

    /// From now on messages are compressed, as both sides agreed.
    pub(crate) fn compressed(mut self, agreed: Option<&CompressionAgreed>) -> WebSocket<S> {
        if let (Engine::Own(own), Some(agreed)) = (&mut self.engine, agreed) {
            own.compress(agreed);
        }
        self
    }

    pub(crate) fn adopt(stream: WebSocketStream<S>, options: &Options) -> WebSocket<S> {
        let adopted = Adopted::new(stream, options.max_message_bytes);
        WebSocket {
            engine: Engine::Adopted(Box::new(adopted)),
            fragment_bytes: options.fragment_bytes,
        }
    }

    /// From now on the buffers of this WebSocket count in this account. An adopted stream has buffers
    /// of its own, which cannot be counted.
    pub(crate) fn charge(&mut self, account: &Account) {
        if let Engine::Own(own) = &mut self.engine {
            own.charge(account);
        }
    }

    /// Forgets what was read and not returned, because nothing more is read.
    pub(crate) fn discard_received(&mut self) {
        if let Engine::Own(own) = &mut self.engine {
            own.discard_received();
        }
    }

    /// The next message or control frame, or a part of a message. The work of one call is bounded,
    /// whatever the peer sends. Every byte that arrives counts in [`Self::bytes_read`].
    ///
    /// A long message counts in the account until the next call. Do not call while there is no room
    /// for the last message.
    #[inline]
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received<'_>, Failure>> {
        match &mut self.engine {
            Engine::Own(own) => own.poll_read(cx),
            Engine::Adopted(adopted) => adopted.poll_read(cx),
        }
    }

    /// Appends the next frame of the message, from `offset` on. Returns where the frame ends, which is
    /// the message's length after its last frame.
    pub(crate) fn write(
        &mut self,
        text: bool,
        message: &Bytes,
        offset: usize,
    ) -> Result<usize, Failure> {
        let (opcode, payload, end) = self.part(text, message, offset);
        self.write_frame(opcode, end == message.len(), payload)?;
        Ok(end)
    }

    /// The same for a message that must not be compressed. Each frame of it is written so.
    pub(crate) fn write_uncompressed(
        &mut self,
        text: bool,
        message: &Bytes,
        offset: usize,
    ) -> Result<usize, Failure> {
        let (opcode, payload, end) = self.part(text, message, offset);
        let is_final = end == message.len();
        match &mut self.engine {
            Engine::Own(own) => own.write_uncompressed(opcode, is_final, payload)?,
            // It never compresses.
            Engine::Adopted(adopted) => adopted.write(opcode, is_final, payload.into_bytes())?,
        }
        Ok(end)
    }

    /// The part of a message that is its next frame, and where it ends.
    fn part(
        &self,
        text: bool,
        message: &Bytes,
        offset: usize,
    ) -> (Opcode, CowBytes<'static>, usize) {
        let len = message.len();
        let end = len.min(offset.saturating_add(self.fragment_bytes));
        let payload = match end - offset == len {
            true => message.clone(),
            false => message.slice(offset..end),
        };
        let opcode = match offset {
            0 => Opcode::data(text),
            _ => Opcode::Continuation,
        };
        (opcode, CowBytes::Shared(payload), end)
    }

    /// Appends a copy of a whole message.
    #[inline]
    pub(crate) fn write_short(&mut self, text: bool, message: &[u8]) -> Result<(), Failure> {
        let (mut opcode, mut rest) = (Opcode::data(text), message);
        while let Some((part, more)) = rest.split_at_checked(self.fragment_bytes) {
            if more.is_empty() {
                break;
            }
            self.write_frame(opcode, false, CowBytes::Borrowed(part))?;
            (opcode, rest) = (Opcode::Continuation, more);
        }
        self.write_frame(opcode, true, CowBytes::Borrowed(rest))
    }

    /// Whether [`write_packed`](Self::write_packed) can be called for packets of short messages.
    pub(crate) fn writes_packed(&self) -> bool {
        match &self.engine {
            Engine::Own(own) => own.writes_packed() && self.fragment_bytes >= PACKED_BYTES,
            Engine::Adopted(_) => false,
        }
    }

    /// Appends the messages of a packet that is made [for frames](Records::for_frames). They become
    /// frames where they are. Returns the packet's memory, to be used again when it is flushed.
    pub(crate) fn write_packed(&mut self, packet: Records) -> Result<Bytes, Failure> {
        let frames = packet.into_frames(|kind, length, header| {
            Header::write_whole(kind == Kind::Text, length, header);
        });
        match &mut self.engine {
            Engine::Own(own) => own.write_frames(&frames)?,
            // Its packets are not written like this.
            Engine::Adopted(_) => {}
        }
        Ok(frames)
    }

    /// Appends a session's packet: a binary message of one frame.
    pub(crate) fn write_packet(&mut self, packet: Transmit) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Own(own) => {
                let parts = [packet.head, packet.body].map(CowBytes::Shared);
                own.write(Opcode::Binary, true, parts)
            }
            Engine::Adopted(adopted) => adopted.write(Opcode::Binary, true, packet.into_bytes()),
        }
    }

    #[inline]
    fn write_frame(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: CowBytes<'_>,
    ) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Own(own) => own.write(opcode, is_final, [payload]),
            Engine::Adopted(adopted) => adopted.write(opcode, is_final, payload.into_bytes()),
        }
    }

    pub(crate) fn ping(&mut self, payload: [u8; 8]) -> Result<(), Failure> {
        self.heartbeat(Opcode::Ping, &payload)
    }

    /// An unsolicited pong (RFC 6455 section 5.5.3): a heartbeat that asks for nothing.
    pub(crate) fn pong(&mut self) -> Result<(), Failure> {
        self.heartbeat(Opcode::Pong, &[])
    }

    fn heartbeat(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Own(own) => own.heartbeat(opcode, payload),
            Engine::Adopted(adopted) => adopted.heartbeat(opcode, payload),
        }
    }

    /// Appends a close frame, once. A reason that is too long is cut.
    pub(crate) fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Own(own) => own.close(code, reason),
            Engine::Adopted(adopted) => adopted.close(code, reason),
        }
    }

    /// Writes everything to the socket, and flushes the buffer of TLS.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match &mut self.engine {
            Engine::Own(own) => own.poll_flush(cx),
            Engine::Adopted(adopted) => adopted.poll_flush(cx),
        }
    }

    /// Whether everything written is on the socket.
    pub(crate) fn is_flushed(&self) -> bool {
        match &self.engine {
            Engine::Own(own) => own.is_flushed(),
            Engine::Adopted(adopted) => adopted.is_flushed(),
        }
    }

    /// Frees memory that recent traffic did not need. Call this now and then.
    pub(crate) fn shrink(&mut self) {
        if let Engine::Own(own) = &mut self.engine {
            own.shrink();
        }
    }

    /// Sends FIN, then reads and forgets until the peer's FIN. Closing at once could send a reset,
    /// which would destroy what this side wrote before.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let io = match &mut self.engine {
            Engine::Own(own) => own.io(),
            Engine::Adopted(adopted) => adopted.io(),
        };
        match ready!(Pin::new(&mut *io).poll_shutdown(cx)) {
            Ok(()) => poll_forget(io, cx),
            Err(_) => Poll::Ready(()),
        }
    }

    /// Bytes ever read from the socket; for an adopted stream, messages.
    pub(crate) fn bytes_read(&self) -> u64 {
        match &self.engine {
            Engine::Own(own) => own.bytes_read(),
            Engine::Adopted(adopted) => adopted.count(),
        }
    }

    /// Bytes ever written to the socket; zero for an adopted stream.
    pub(crate) fn bytes_written(&self) -> u64 {
        match &self.engine {
            Engine::Own(own) => own.bytes_written(),
            Engine::Adopted(_) => 0,
        }
    }
}

/// Reads and forgets until the stream ends, with or without an error. Tokio's cooperative scheduling
/// bounds how much one poll reads.
fn poll_forget<S: AsyncRead + Unpin>(io: &mut S, cx: &mut Context<'_>) -> Poll<()> {
    let mut forgotten = [0; 4096];
    loop {
        let mut buffer = ReadBuf::new(&mut forgotten);
        let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}
