//! The WebSocket engine: the one module that names tungstenite.
//!
//! Sockets that unstall opened drive tungstenite's context directly over readiness, which saves
//! two waker registrations a message. A `WebSocketStream` that was adopted is driven through its
//! `Stream` and `Sink`, because its buffers cannot be taken over.

mod bridge;
pub(crate) mod headers;
mod incoming;
mod masking;
mod outgoing;
#[cfg(test)]
mod tests;
mod translate;
pub(crate) mod transport;

use std::{
    any::Any,
    io,
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
        Error, Message as WsMessage, handshake,
        protocol::{
            CloseFrame, Role, WebSocketConfig, WebSocketContext,
            frame::{Frame, coding::OpCode},
        },
    },
};

use crate::{
    defaults::{CONTROL_BACKLOG_BYTES, CONTROL_FRAME_BYTES},
    reports::{Close, CloseCode, ConnectionError},
    settings::{Account, Options},
};
use bridge::{Bridge, Encoding};
use incoming::{Front, Incoming};
use outgoing::{CONTINUE, Outgoing, data};
use translate::{engine_message, failure, fit, would_block_is_pending};
use unstall_proto::Transmit;

pub(crate) use incoming::Payload;

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
pub(crate) enum Received<'a> {
    /// A whole message. A payload of its own pins nothing else that is large.
    Message {
        text: bool,
        payload: Payload<'a>,
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

/// Frames of data are read and written here; control frames and whatever is not as it should be go
/// through tungstenite's context.
struct Own {
    context: WebSocketContext,
    incoming: Incoming,
    outgoing: Outgoing,
    /// A close frame went either way: no message is sent any more.
    closing: bool,
}

impl Own {
    fn new(role: Role, leftover: &[u8], limit: usize) -> Own {
        let config = WebSocketConfig::default()
            // It sees control frames only.
            .read_buffer_size(CONTROL_FRAME_BYTES)
            // Control frames go straight to where data frames wait for the socket, and if that is
            // full wait here. When a peer that does not read asks for pong after pong, only the
            // latest is kept (RFC 6455 §5.5.3).
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BACKLOG_BYTES)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        Own {
            context: WebSocketContext::from_partially_read(Vec::new(), role, Some(config)),
            incoming: Incoming::new(role == Role::Server, limit, leftover),
            outgoing: Outgoing::new(role == Role::Client),
            closing: false,
        }
    }

    /// Appends a frame of data, whose payload is the parts one behind the other.
    fn write<const PARTS: usize>(
        &mut self,
        opcode: OpCode,
        is_final: bool,
        payload: [Payload<'_>; PARTS],
    ) -> Result<(), Failure> {
        if self.closing {
            return Err(Failure::Closed);
        }
        let written = self.outgoing.frame(opcode, is_final, payload);
        written.map_err(|error| Failure::Broken(error.into()))
    }

    /// Writes everything out: data frames, and what control frames the context has. The inner
    /// result is the context's, once that is done.
    fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<Result<(), Failure>>> {
        let result = loop {
            let encoded = self.context.flush(&mut Encoding(&mut self.outgoing));
            ready!(self.outgoing.poll_write(io, cx, written))?;
            // Else some found no room before.
            if let Poll::Ready(result) = would_block_is_pending(encoded) {
                break result.map_err(failure);
            }
        };
        ready!(Pin::new(io).poll_flush(cx))?;
        Poll::Ready(Ok(result))
    }
}

/// A WebSocket over any byte stream, polled by one task.
pub(crate) struct WebSocket<S> {
    engine: Engine<S>,
    fragment_bytes: usize,
    max_message_bytes: usize,
    /// Something was written that `poll_flush` has not yet carried out.
    unflushed: bool,
    /// How far an adopted stream fills its read buffer at the most, and the longest message ever in
    /// it.
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
        let own = Own::new(role, &leftover, options.max_message_bytes);
        WebSocket {
            bytes_read: leftover.len() as u64,
            ..WebSocket::over(Engine::Own(Box::new(own), io), 0, options)
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

    /// From now on what is read and not yielded counts in this account.
    pub(crate) fn charge(&mut self, account: &Account) {
        if let Engine::Own(own, _) = &mut self.engine {
            own.incoming.charge(account.share());
        }
    }

    /// Forgets what was read and not yielded, because nothing more will be read.
    pub(crate) fn discard_received(&mut self) {
        if let Engine::Own(own, _) = &mut self.engine {
            own.incoming.discard();
        }
    }

    /// The next message or control frame. Any byte that arrives shows in [`Self::bytes_read`].
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received<'_>, Failure>> {
        if matches!(self.engine, Engine::Adopted(_)) {
            return self.poll_read_adopted(cx);
        }
        let Engine::Own(own, io) = &mut self.engine else {
            return Poll::Pending;
        };
        loop {
            if !own.incoming.is_for_other() {
                let front = own.incoming.poll_front(io, cx, &mut self.bytes_read);
                let (text, payload) = match ready!(front) {
                    Ok(Front::Lent { text, place }) => (text, own.incoming.lend(place)),
                    Ok(Front::Long { text, payload }) => (text, Payload::Shared(payload)),
                    Ok(Front::Other) => continue,
                    Ok(Front::Refused(why)) => return Poll::Ready(Err(Failure::Broken(why))),
                    Err(error) => return Poll::Ready(Err(Failure::Broken(error.into()))),
                };
                return Poll::Ready(Ok(Received::Message { text, payload }));
            }
            let mut bridge = Bridge {
                io,
                cx,
                read: &mut self.bytes_read,
                incoming: &mut own.incoming,
                outgoing: &mut own.outgoing,
            };
            match would_block_is_pending(own.context.read(&mut bridge)) {
                Poll::Pending if own.incoming.is_for_other() => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(Err(Error::ConnectionClosed)) => {
                    // The answer to the peer's close goes out first.
                    let written = &mut self.bytes_written;
                    let _ = ready!(own.outgoing.poll_write(io, cx, written));
                    let _ = ready!(Pin::new(io).poll_flush(cx));
                    return Poll::Ready(Err(Failure::Closed));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(failure(error))),
                Poll::Ready(Ok(received)) => {
                    if received.is_close() {
                        own.closing = true;
                        own.incoming.give_rest_to_other();
                    }
                    self.unflushed |= received.is_ping() || received.is_close();
                    return Poll::Ready(engine_message(received));
                }
            }
        }
    }

    fn poll_read_adopted(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received<'_>, Failure>> {
        let Engine::Adopted(stream) = &mut self.engine else {
            return Poll::Pending;
        };
        let received = ready!(Pin::new(&mut **stream).poll_next(cx));
        // Only whole messages can be seen here.
        self.bytes_read += 1;
        let received = received.unwrap_or(Err(Error::ConnectionClosed));
        let received = engine_message(received.map_err(failure)?)?;
        self.unflushed |= matches!(received, Received::Ping | Received::Close(_));
        let Received::Message { text, payload } = received else {
            return Poll::Ready(Ok(received));
        };
        // An adopted stream has limits of its own.
        let (size, limit) = (payload.len(), self.max_message_bytes);
        if size > limit {
            let why = ConnectionError::MessageTooLarge { size, limit };
            return Poll::Ready(Err(Failure::Broken(why)));
        }
        // A long message makes the read buffer grow, at most to twice what was needed, and later
        // ones are slices of that: copied out where keeping the slice would pin far more.
        self.longest = self.longest.max(size);
        let payload = payload.into_bytes();
        let payload = match size < (self.read_window + self.longest) / 2 {
            true => Payload::Borrowed(&payload).into_bytes(),
            false => payload,
        };
        let payload = Payload::Shared(payload);
        Poll::Ready(Ok(Received::Message { text, payload }))
    }

    /// Appends the message's next frame, from `offset` on, and returns where it ends: the message's
    /// length, once it is whole.
    pub(crate) fn write(
        &mut self,
        text: bool,
        message: &Bytes,
        offset: usize,
    ) -> Result<usize, Failure> {
        let len = message.len();
        let end = len.min(offset + self.fragment_bytes);
        let payload = if end - offset == len {
            message.clone()
        } else {
            message.slice(offset..end)
        };
        let opcode = match offset {
            0 => data(text),
            _ => CONTINUE,
        };
        self.write_frame(opcode, end == len, Payload::Shared(payload))?;
        Ok(end)
    }

    /// Appends a whole message, to be copied.
    pub(crate) fn write_short(&mut self, text: bool, message: &[u8]) -> Result<(), Failure> {
        let (mut opcode, mut rest) = (data(text), message);
        while let Some((part, more)) = rest.split_at_checked(self.fragment_bytes) {
            if more.is_empty() {
                break;
            }
            self.write_frame(opcode, false, Payload::Borrowed(part))?;
            (opcode, rest) = (CONTINUE, more);
        }
        self.write_frame(opcode, true, Payload::Borrowed(rest))
    }

    /// Appends a session's packet: a binary message of one frame.
    pub(crate) fn write_packet(&mut self, packet: Transmit) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Own(own, _) => {
                let parts = [packet.head, packet.body].map(Payload::Shared);
                own.write(data(false), true, parts)?;
                self.unflushed = true;
                Ok(())
            }
            Engine::Adopted(_) => {
                let frame = Frame::message(packet.into_bytes(), data(false), true);
                self.write_raw(WsMessage::Frame(frame))
            }
        }
    }

    fn write_frame(
        &mut self,
        opcode: OpCode,
        is_final: bool,
        payload: Payload<'_>,
    ) -> Result<(), Failure> {
        match &mut self.engine {
            Engine::Own(own, _) => {
                own.write(opcode, is_final, [payload])?;
                self.unflushed = true;
                Ok(())
            }
            Engine::Adopted(_) => {
                let frame = Frame::message(payload.into_bytes(), opcode, is_final);
                self.write_raw(WsMessage::Frame(frame))
            }
        }
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
                own.context.write(&mut Encoding(&mut own.outgoing), message)
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

    /// Carries everything to the socket and, under TLS, out of the TLS buffer.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let result = match &mut self.engine {
            Engine::Own(own, io) => {
                if let Some(why) = &self.write_failure {
                    return Poll::Ready(Err(Failure::Broken(why.clone())));
                }
                let written = ready!(own.poll_flush(io, cx, &mut self.bytes_written));
                written.unwrap_or_else(|error| {
                    let why = ConnectionError::from(error);
                    self.write_failure = Some(why.clone());
                    Err(Failure::Broken(why))
                })
            }
            Engine::Adopted(stream) => {
                ready!(Pin::new(&mut **stream).poll_flush(cx)).map_err(failure)
            }
        };
        if self.write_failure.is_none() {
            self.unflushed = false;
        }
        Poll::Ready(result)
    }

    /// To be called now and then: gives back the memory of buffers that are larger than what came
    /// since the last call.
    pub(crate) fn shrink(&mut self) {
        if let Engine::Own(own, _) = &mut self.engine {
            own.incoming.shrink();
            own.outgoing.shrink();
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
