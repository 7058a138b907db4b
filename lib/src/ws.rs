//! The WebSocket engine: the one file that names tungstenite.
//!
//! Sockets that unstall opened drive tungstenite's context directly over readiness, which saves
//! two waker registrations a message. A `WebSocketStream` that was adopted is driven through its
//! `Stream` and `Sink`, because its buffers cannot be taken over.

mod frames;

use std::{
    any::Any,
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error, Message as WsMessage,
        error::{CapacityError, ProtocolError},
        handshake,
        protocol::{
            CloseFrame, Role, WebSocketConfig, WebSocketContext,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

use crate::{
    defaults::{IDLE_READ_BYTES, READ_BUFFER_BYTES, WRITE_BATCH_BYTES},
    error::{Close, CloseCode, ConnectionError},
    options::Options,
};
use frames::Frames;

/// A fresh `Sec-WebSocket-Key` (RFC 6455 section 4.1, item 7).
pub(crate) fn new_key() -> String {
    handshake::client::generate_key()
}

/// The `Sec-WebSocket-Accept` that answers `key` (RFC 6455 section 4.2.2, item 5.4).
pub(crate) fn accept_key(key: &[u8]) -> String {
    handshake::derive_accept_key(key)
}

/// The TCP socket below a stream that someone else made, if it is of a kind that is known.
pub(crate) fn tcp_below(stream: &dyn Any) -> Option<&TcpStream> {
    if let Some(tcp) = stream.downcast_ref::<TcpStream>() {
        return Some(tcp);
    }
    if let Some(MaybeTlsStream::Plain(tcp)) = stream.downcast_ref() {
        return Some(tcp);
    }
    if let Some(tls) = stream.downcast_ref::<tokio_rustls::TlsStream<TcpStream>>() {
        return Some(tls.get_ref().0);
    }
    if let Some(tls) = stream.downcast_ref::<tokio_rustls::client::TlsStream<TcpStream>>() {
        return Some(tls.get_ref().0);
    }
    let tls = stream.downcast_ref::<tokio_rustls::server::TlsStream<TcpStream>>()?;
    Some(tls.get_ref().0)
}

/// What a read yields.
#[derive(Debug)]
pub(crate) enum Received {
    /// A whole message: the payload may be a part of a read buffer of up to `buffer` bytes.
    Message {
        text: bool,
        payload: Bytes,
        buffer: usize,
    },
    /// A ping; its pong is queued already.
    Ping,
    Pong(Bytes),
    Close(Close),
}

/// Why the engine cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The closing handshake is complete.
    Closed,
    Broken(ConnectionError),
}

/// Which end of the connection this is: clients mask, servers do not (RFC 6455 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

enum Engine<S> {
    Own(Box<Own>, S),
    Adopted(Box<WebSocketStream<S>>),
}

/// tungstenite's context, whose read window follows the traffic. It cannot be changed, but between
/// two messages, with nothing in either buffer, a new context stands for the old one.
struct Own {
    context: WebSocketContext,
    role: Role,
    config: WebSocketConfig,
    frames: Frames,
    /// What was read at once at the most since the window was last looked at.
    largest_read: usize,
    /// Reading stops at the end of a message, for a larger window.
    outgrown: bool,
    /// Every whole message that was read was taken out.
    drained: bool,
    /// A close frame went either way: the context knows more than its buffers.
    closing: bool,
    /// Bytes read and written when the context was new.
    begun_at: u64,
}

impl Own {
    fn new(role: Role, config: WebSocketConfig, part: Bytes) -> Own {
        let config = config.read_buffer_size(IDLE_READ_BYTES);
        let mut frames = Frames::default();
        frames.pass(&part);
        Own {
            // A copy: the context would go on with all of the buffer that this is a part of.
            context: WebSocketContext::from_partially_read(part.to_vec(), role, Some(config)),
            role,
            config,
            frames,
            largest_read: 0,
            outgrown: false,
            drained: false,
            closing: false,
            begun_at: 0,
        }
    }

    /// Whether nothing is in the buffers. `flushed`: nothing waits to be written.
    fn is_between_messages(&self, flushed: bool) -> bool {
        flushed && self.drained && !self.closing && self.frames.to_end() == 0
    }

    fn renew(&mut self, window: usize, moved: u64) {
        self.config = self.config.read_buffer_size(window);
        self.context =
            WebSocketContext::from_partially_read(Vec::new(), self.role, Some(self.config));
        self.outgrown = false;
        self.begun_at = moved;
    }
}

/// A WebSocket over any byte stream, polled by one task.
pub(crate) struct WebSocket<S> {
    engine: Engine<S>,
    fragment_bytes: usize,
    max_message_bytes: usize,
    /// Something was written that `poll_flush` has not yet carried out.
    unflushed: bool,
    /// How far the read buffer is filled ahead at the most, and the longest message ever in it.
    read_window: usize,
    longest: usize,
    bytes_read: u64,
    bytes_written: u64,
    /// The socket takes nothing any more. What the peer sent before can still be read.
    write_failure: Option<ConnectionError>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// After the upgrade; `leftover` is what was read beyond it.
    pub(crate) fn new(io: S, leftover: Bytes, side: Side, options: &Options) -> WebSocket<S> {
        let role = match side {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        let limit = Some(options.max_message_bytes);
        let max_write_buffer = (2 * WRITE_BATCH_BYTES).saturating_add(options.fragment_bytes);
        let config = WebSocketConfig::default()
            // Written out by poll_flush alone, a batch at a time.
            .write_buffer_size(max_write_buffer - 1)
            // A batch and the frame that ends it. When a peer that does not read asks for pong after
            // pong, only the latest is kept (RFC 6455 §5.5.3).
            .max_write_buffer_size(max_write_buffer)
            .max_message_size(limit)
            .max_frame_size(limit);
        let bytes_read = leftover.len() as u64;
        let own = Box::new(Own::new(role, config, leftover));
        WebSocket {
            bytes_read,
            ..WebSocket::over(Engine::Own(own, io), READ_BUFFER_BYTES, options)
        }
    }

    pub(crate) fn adopt(stream: WebSocketStream<S>, options: &Options) -> WebSocket<S> {
        let window = stream.get_config().read_buffer_size;
        WebSocket::over(Engine::Adopted(Box::new(stream)), window, options)
    }

    fn over(engine: Engine<S>, read_window: usize, options: &Options) -> WebSocket<S> {
        WebSocket {
            engine,
            fragment_bytes: options.fragment_bytes,
            max_message_bytes: options.max_message_bytes,
            unflushed: false,
            read_window,
            longest: 0,
            bytes_read: 0,
            bytes_written: 0,
            write_failure: None,
        }
    }

    /// The next message or control frame. Any byte that arrives shows in [`Self::bytes_read`].
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Failure>> {
        let message = match &mut self.engine {
            Engine::Own(own, io) => loop {
                let mut io = Bridge {
                    io,
                    cx,
                    read: &mut self.bytes_read,
                    written: &mut self.bytes_written,
                    write_failure: &mut self.write_failure,
                    frames: &mut own.frames,
                    largest_read: &mut own.largest_read,
                    stop_at_end: own.outgrown && !self.unflushed && !own.closing,
                };
                let message = would_block_is_pending(own.context.read(&mut io));
                own.drained = message.is_pending();
                if own.outgrown && own.is_between_messages(!self.unflushed) {
                    own.renew(READ_BUFFER_BYTES, self.bytes_read + self.bytes_written);
                } else {
                    own.outgrown |= own.largest_read >= own.config.read_buffer_size
                        && own.config.read_buffer_size < READ_BUFFER_BYTES;
                    break ready!(message);
                }
            },
            Engine::Adopted(stream) => {
                let message = ready!(Pin::new(&mut **stream).poll_next(cx));
                // Only whole messages can be seen here.
                self.bytes_read += 1;
                message.unwrap_or(Err(Error::ConnectionClosed))
            }
        };
        let message = message.map_err(failure)?;
        // An adopted stream has limits of its own.
        let (size, limit) = (message.len(), self.max_message_bytes);
        if size > limit && (message.is_text() || message.is_binary()) {
            let why = ConnectionError::MessageTooLarge { size, limit };
            return Poll::Ready(Err(Failure::Broken(why)));
        }
        let received = match message {
            WsMessage::Text(text) => self.received(true, text.into()),
            WsMessage::Binary(payload) => self.received(false, payload),
            WsMessage::Ping(_) => {
                self.unflushed = true;
                Received::Ping
            }
            WsMessage::Pong(payload) => Received::Pong(payload),
            WsMessage::Close(frame) => {
                if let Engine::Own(own, _) = &mut self.engine {
                    own.closing = true;
                }
                self.unflushed = true;
                Received::Close(close(frame))
            }
            WsMessage::Frame(_) => {
                let why = "a raw frame where a message was due".to_owned();
                return Poll::Ready(Err(Failure::Broken(ConnectionError::Protocol(why))));
            }
        };
        Poll::Ready(Ok(received))
    }

    /// A long message makes the read buffer grow, at most to twice what was needed, and later ones
    /// are slices of that.
    fn received(&mut self, text: bool, payload: Bytes) -> Received {
        self.longest = self.longest.max(payload.len());
        Received::Message {
            text,
            payload,
            buffer: 2 * (self.read_window + self.longest),
        }
    }

    /// Puts the message's next frame into the write buffer, from `offset` on, and returns where it
    /// ends: the message's length, once it is whole.
    pub(crate) fn write(
        &mut self,
        text: bool,
        message: Bytes,
        offset: usize,
    ) -> Result<usize, Failure> {
        let len = message.len();
        let end = len.min(offset + self.fragment_bytes);
        let payload = if end - offset == len {
            message
        } else {
            message.slice(offset..end)
        };
        let kind = match (offset, text) {
            (0, true) => Data::Text,
            (0, false) => Data::Binary,
            _ => Data::Continue,
        };
        let frame = Frame::message(payload, OpCode::Data(kind), end == len);
        self.write_raw(WsMessage::Frame(frame))?;
        Ok(end)
    }

    /// Puts a binary message into the write buffer, whole.
    pub(crate) fn write_packet(&mut self, packet: Bytes) -> Result<(), Failure> {
        self.write_raw(WsMessage::Binary(packet))
    }

    pub(crate) fn ping(&mut self, payload: [u8; 8]) -> Result<(), Failure> {
        self.write_raw(WsMessage::Ping(Bytes::copy_from_slice(&payload)))
    }

    /// An unsolicited pong (RFC 6455 §5.5.3): a heartbeat that asks for nothing.
    pub(crate) fn pong(&mut self) -> Result<(), Failure> {
        self.write_raw(WsMessage::Pong(Bytes::new()))
    }

    /// Puts a close frame into the write buffer, once. A reason that does not fit is cut.
    pub(crate) fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Failure> {
        let frame = CloseFrame {
            code: code.as_u16().into(),
            reason: fit(reason).into(),
        };
        match self.write_raw(WsMessage::Close(Some(frame))) {
            // The peer was faster: the answer to its close is queued.
            Err(Failure::Closed) => Ok(()),
            result => result,
        }
    }

    fn write_raw(&mut self, message: WsMessage) -> Result<(), Failure> {
        self.unflushed = true;
        let control = message.is_ping() || message.is_pong() || message.is_close();
        let result = match &mut self.engine {
            Engine::Own(own, _) => {
                own.closing |= message.is_close();
                own.context.write(&mut Buffering, message)
            }
            Engine::Adopted(stream) => Pin::new(&mut **stream).start_send(message),
        };
        match result {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // Full of pongs that the peer does not read: another control frame is not worth more.
            // A message never meets that, for it goes into a buffer that was flushed.
            Err(Error::WriteBufferFull(_)) if control => Ok(()),
            result => result.map_err(failure),
        }
    }

    /// Carries everything out of the write buffer and, under TLS, out of the TLS buffer.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let result = match &mut self.engine {
            Engine::Own(own, io) => {
                let mut io = Bridge {
                    io,
                    cx,
                    read: &mut self.bytes_read,
                    written: &mut self.bytes_written,
                    write_failure: &mut self.write_failure,
                    frames: &mut own.frames,
                    largest_read: &mut own.largest_read,
                    stop_at_end: false,
                };
                ready!(would_block_is_pending(own.context.flush(&mut io)))
            }
            Engine::Adopted(stream) => ready!(Pin::new(&mut **stream).poll_flush(cx)),
        };
        if let Some(why) = &self.write_failure {
            return Poll::Ready(Err(Failure::Broken(why.clone())));
        }
        self.unflushed = false;
        Poll::Ready(result.map_err(failure))
    }

    /// To be called now and then: gives back the memory of buffers that are larger than what came
    /// since the last call.
    pub(crate) fn shrink(&mut self) {
        let Engine::Own(own, _) = &mut self.engine else {
            return;
        };
        let moved = self.bytes_read + self.bytes_written;
        let small = std::mem::take(&mut own.largest_read) < IDLE_READ_BYTES;
        let used = moved - own.begun_at >= IDLE_READ_BYTES as u64;
        if small && used && own.is_between_messages(!self.unflushed) {
            own.renew(IDLE_READ_BYTES, moved);
        }
    }

    /// Whether everything written is on the socket.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    /// Sends FIN, then reads and forgets until the peer's FIN: what this side wrote is then not
    /// destroyed by a reset.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let io = match &mut self.engine {
            Engine::Own(_, io) => io,
            Engine::Adopted(stream) => stream.get_mut(),
        };
        if ready!(Pin::new(&mut *io).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut forgotten = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut forgotten);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// Bytes ever read from the socket; for an adopted stream, messages.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Bytes ever written to the socket; zero for an adopted stream.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }
}

/// A byte stream with the task that polls it, as tungstenite wants it.
struct Bridge<'a, 'b, S> {
    io: &'a mut S,
    cx: &'a mut Context<'b>,
    read: &'a mut u64,
    written: &'a mut u64,
    write_failure: &'a mut Option<ConnectionError>,
    frames: &'a mut Frames,
    largest_read: &'a mut usize,
    /// Nothing is read beyond the message that has begun.
    stop_at_end: bool,
}

impl<S: AsyncRead + Unpin> Read for Bridge<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut limit = buffer.len();
        if self.stop_at_end {
            limit = limit.min(self.frames.to_end());
            if limit == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let mut buffer = ReadBuf::new(&mut buffer[..limit]);
        match Pin::new(&mut *self.io).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => {
                result?;
                let read = buffer.filled();
                *self.read += read.len() as u64;
                *self.largest_read = read.len().max(*self.largest_read);
                self.frames.pass(read);
                Ok(read.len())
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Bridge<'_, '_, S> {
    /// Never fails: tungstenite writes pongs while it reads, and reading must go on. The failure is
    /// kept for `poll_flush`.
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.write_failure.is_some() {
            return Ok(buffer.len());
        }
        match Pin::new(&mut *self.io).poll_write(self.cx, buffer) {
            Poll::Ready(Ok(written)) => {
                *self.written += written as u64;
                Ok(written)
            }
            Poll::Ready(Err(error)) => {
                *self.write_failure = Some(error.into());
                Ok(buffer.len())
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.write_failure.is_some() {
            return Ok(());
        }
        match Pin::new(&mut *self.io).poll_flush(self.cx) {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => {
                *self.write_failure = Some(error.into());
                Ok(())
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Stands for the socket while messages are only put into the write buffer: takes nothing.
struct Buffering;

impl Read for Buffering {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Buffering {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn would_block_is_pending<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A close reason has at most 123 bytes (RFC 6455 §5.5): cut at a character.
fn fit(reason: &str) -> &str {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

fn close(frame: Option<CloseFrame>) -> Close {
    match frame {
        Some(frame) => Close {
            code: Some(CloseCode::received(frame.code.into())),
            reason: frame.reason.as_str().to_owned(),
        },
        None => Close {
            code: None,
            reason: String::new(),
        },
    }
}

fn failure(error: Error) -> Failure {
    Failure::Broken(match error {
        Error::ConnectionClosed | Error::AlreadyClosed => return Failure::Closed,
        Error::Protocol(ProtocolError::SendAfterClosing) => return Failure::Closed,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            ConnectionError::EndOfStream
        }
        Error::Protocol(error) => ConnectionError::Protocol(error.to_string()),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            ConnectionError::MessageTooLarge {
                size,
                limit: max_size,
            }
        }
        Error::Utf8(_) => ConnectionError::InvalidText,
        Error::Io(error) => ConnectionError::from(error),
        error => ConnectionError::Protocol(error.to_string()),
    })
}
