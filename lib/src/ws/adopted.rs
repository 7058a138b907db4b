//! A `WebSocketStream` that was adopted: tungstenite reads and writes its frames, because its
//! buffers cannot be taken over.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, frame::Frame},
    },
};

use super::{CowBytes, Failure, Received, header::Opcode};
use crate::reports::{Close, CloseCode, ConnectionError};
use unstall_proto::util::cut_reason;

pub(super) struct Adopted<S> {
    stream: WebSocketStream<S>,
    /// How much the stream reads at once.
    read_buffer: usize,
    /// The longest message that ever came.
    longest: usize,
    /// The stream has limits of its own; this one counts too.
    limit: usize,
    /// Something was written that `poll_flush` has not yet carried out.
    unflushed: bool,
    /// Messages and control frames ever read: the bytes cannot be seen.
    count: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Adopted<S> {
    pub(super) fn new(stream: WebSocketStream<S>, limit: usize) -> Adopted<S> {
        Adopted {
            read_buffer: stream.get_config().read_buffer_size,
            stream,
            longest: 0,
            limit,
            unflushed: false,
            count: 0,
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received<'static>, Failure>> {
        let received = ready!(Pin::new(&mut self.stream).poll_next(cx));
        self.count += 1;
        let received = received.unwrap_or(Err(Error::ConnectionClosed));
        Poll::Ready(match received.map_err(failure)? {
            Message::Text(text) => self.message(true, text.into()),
            Message::Binary(payload) => self.message(false, payload),
            Message::Ping(_) => {
                self.unflushed = true;
                Ok(Received::Ping)
            }
            Message::Pong(payload) => Ok(Received::Pong(payload)),
            Message::Close(frame) => {
                self.unflushed = true;
                Ok(Received::Close(close(frame)))
            }
            Message::Frame(_) => {
                let why = "a raw frame where a message was due".to_owned();
                Err(Failure::Broken(ConnectionError::Protocol(why)))
            }
        })
    }

    fn message(&mut self, text: bool, payload: Bytes) -> Result<Received<'static>, Failure> {
        let (size, limit) = (payload.len(), self.limit);
        if size > limit {
            let why = ConnectionError::MessageTooLarge { size, limit };
            return Err(Failure::Broken(why));
        }
        // A long message makes the stream's buffer grow, at most to twice what was needed, and later
        // messages are slices of that. They are copied where a slice would pin far more.
        self.longest = self.longest.max(size);
        let payload = match size < (self.read_buffer + self.longest) / 2 {
            true => CowBytes::Borrowed(&payload).into_bytes(),
            false => payload,
        };
        let payload = CowBytes::Shared(payload);
        Ok(Received::Message { text, payload })
    }

    pub(super) fn write(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: Bytes,
    ) -> Result<(), Failure> {
        let frame = Frame::message(payload, (opcode as u8).into(), is_final);
        self.send(Message::Frame(frame))
    }

    pub(super) fn heartbeat(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Failure> {
        let payload = Bytes::copy_from_slice(payload);
        self.send(match opcode {
            Opcode::Ping => Message::Ping(payload),
            _ => Message::Pong(payload),
        })
    }

    pub(super) fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Failure> {
        let frame = CloseFrame {
            code: code.as_u16().into(),
            reason: cut_reason(reason).into(),
        };
        match self.send(Message::Close(Some(frame))) {
            // The peer was faster: the answer to its close is queued.
            Err(Failure::Closed) => Ok(()),
            result => result,
        }
    }

    fn send(&mut self, message: Message) -> Result<(), Failure> {
        self.unflushed = true;
        let control = message.is_ping() || message.is_pong() || message.is_close();
        match Pin::new(&mut self.stream).start_send(message) {
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            // Full of pongs that the peer does not read: another control frame is not worth more. A
            // message never meets that, because it goes into a buffer that was flushed.
            Err(Error::WriteBufferFull(_)) if control => Ok(()),
            result => result.map_err(failure),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.unflushed = false;
        Poll::Ready(flushed.map_err(failure))
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    pub(super) fn io(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

pub(super) fn close(frame: Option<CloseFrame>) -> Close {
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

pub(super) fn failure(error: Error) -> Failure {
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
