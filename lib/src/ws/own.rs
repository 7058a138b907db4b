//! A WebSocket over a byte stream that this library opened.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    CowBytes, Failure, Received, Side,
    control::{close_payload, parse_close},
    decoder::{Decoded, Decoder},
    deflate::Deflater,
    encoder::Encoder,
    extension::CompressionAgreed,
    header::Opcode,
    inflate::Inflater,
    poll_forget,
};
use crate::{
    reports::{CloseCode, ConnectionError},
    settings::Account,
};

pub(super) struct Own<S> {
    io: S,
    side: Side,
    decoder: Decoder,
    encoder: Encoder,
    /// The latest ping, if there was no room for its pong. Earlier pings need no answer any more (RFC
    /// 6455 section 5.5.3).
    unanswered: Option<Bytes>,
    /// This side's close frame was written. No frame may follow it.
    close_sent: bool,
    /// The peer's close frame was read. What follows it is ignored.
    close_received: bool,
    /// Something was written that `poll_flush` has not yet carried out.
    unflushed: bool,
    /// Why the socket can no longer be written. What the peer sent before can still be read.
    write_failure: Option<ConnectionError>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Own<S> {
    pub(super) fn new(io: S, leftover: &[u8], side: Side, limit: usize) -> Own<S> {
        Own {
            io,
            side,
            decoder: Decoder::new(side == Side::Server, limit, leftover),
            encoder: Encoder::new(side == Side::Client),
            unanswered: None,
            close_sent: false,
            close_received: false,
            unflushed: false,
            write_failure: None,
        }
    }

    /// From now on messages are compressed, as both sides agreed.
    pub(super) fn compress(&mut self, agreed: &CompressionAgreed) {
        let deflater = Deflater::new(&agreed.compression, agreed.outgoing);
        self.encoder.compress(deflater);
        self.decoder.inflate(Inflater::new(agreed.incoming));
    }

    pub(super) fn charge(&mut self, account: &Account) {
        self.decoder.charge(account);
        self.encoder.charge(account);
    }

    pub(super) fn discard_received(&mut self) {
        self.decoder.discard();
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received<'_>, Failure>> {
        if self.close_received {
            ready!(self.poll_closed(cx));
            return Poll::Ready(Err(Failure::Closed));
        }
        let decoded = ready!(self.decoder.poll_next(&mut self.io, cx))?;
        Poll::Ready(match decoded {
            Decoded::Lent { text, place } => {
                let payload = CowBytes::Borrowed(self.decoder.payload(place));
                Ok(Received::Message { text, payload })
            }
            Decoded::LentInflated { text, size } => {
                let payload = CowBytes::Borrowed(self.decoder.inflated(size));
                Ok(Received::Message { text, payload })
            }
            Decoded::Owned { text, payload } => {
                let payload = CowBytes::Shared(payload);
                Ok(Received::Message { text, payload })
            }
            Decoded::Part(bytes) => Ok(Received::Part(bytes)),
            Decoded::Control { opcode, place } => {
                let payload = Bytes::copy_from_slice(self.decoder.payload(place));
                self.control(opcode, payload)
            }
            Decoded::End => Err(Failure::Broken(ConnectionError::EndOfStream)),
        })
    }

    fn control(&mut self, opcode: Opcode, payload: Bytes) -> Result<Received<'static>, Failure> {
        match opcode {
            Opcode::Ping => {
                self.answer(payload)?;
                Ok(Received::Ping)
            }
            Opcode::Close => {
                let close = parse_close(&payload).map_err(Failure::Broken)?;
                self.close_received = true;
                // Answered with the same frame (section 5.5.1), unless it is the answer itself.
                self.write_close(&payload)?;
                Ok(Received::Close(close))
            }
            _ => Ok(Received::Pong(payload)),
        }
    }

    /// Queues the pong for a ping, or keeps it until there is room.
    fn answer(&mut self, ping: Bytes) -> Result<(), Failure> {
        if self.close_sent {
            return Ok(());
        }
        self.unflushed = true;
        match self.encoder.has_room_for_control() {
            true => {
                self.unanswered = None;
                self.write_control(Opcode::Pong, &ping)
            }
            false => {
                self.unanswered = Some(ping);
                Ok(())
            }
        }
    }

    /// After both close frames the server closes the TCP connection, and a client waits for that
    /// (section 7.1.1). How the stream ends does not matter any more.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.side == Side::Client {
            ready!(poll_forget(&mut self.io, cx));
        }
        // The answer to the peer's close goes out first.
        if ready!(self.encoder.poll_write(&mut self.io, cx)).is_ok() {
            let _ = ready!(Pin::new(&mut self.io).poll_flush(cx));
        }
        Poll::Ready(())
    }

    /// Appends a frame of data, whose payload is the parts one after the other.
    #[inline]
    pub(super) fn write<const PARTS: usize>(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: [CowBytes<'_>; PARTS],
    ) -> Result<(), Failure> {
        if self.close_sent {
            return Err(Failure::Closed);
        }
        self.unflushed = true;
        let written = self.encoder.frame(opcode, is_final, payload);
        written.map_err(|error| Failure::Broken(error.into()))
    }

    /// Appends a frame of a message that must not be compressed.
    pub(super) fn write_uncompressed(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: CowBytes<'_>,
    ) -> Result<(), Failure> {
        if self.close_sent {
            return Err(Failure::Closed);
        }
        self.unflushed = true;
        let written = self.encoder.plain_frame(opcode, is_final, payload);
        written.map_err(|error| Failure::Broken(error.into()))
    }

    /// Whether [`write_frames`](Self::write_frames) can be called.
    pub(super) fn writes_packed(&self) -> bool {
        self.encoder.takes_frames()
    }

    /// Appends frames that are encoded already: whole messages.
    pub(super) fn write_frames(&mut self, frames: &Bytes) -> Result<(), Failure> {
        if self.close_sent {
            return Err(Failure::Closed);
        }
        self.unflushed = true;
        self.encoder.frames(frames);
        Ok(())
    }

    fn write_control(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Failure> {
        self.write(opcode, true, [CowBytes::Borrowed(payload)])
    }

    /// A ping, or a pong that nobody asked for. It is left out behind many pongs that the peer has not
    /// read.
    pub(super) fn heartbeat(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Failure> {
        match self.encoder.has_room_for_control() {
            true => self.write_control(opcode, payload),
            false => Ok(()),
        }
    }

    pub(super) fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Failure> {
        self.write_close(&close_payload(code, reason))
    }

    /// Appends this side's close frame, once.
    fn write_close(&mut self, payload: &[u8]) -> Result<(), Failure> {
        if self.close_sent {
            return Ok(());
        }
        self.write_control(Opcode::Close, payload)?;
        self.close_sent = true;
        self.unanswered = None;
        Ok(())
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = &self.write_failure {
            return Poll::Ready(Err(Failure::Broken(why.clone())));
        }
        loop {
            let written = ready!(self.encoder.poll_write(&mut self.io, cx));
            let flushed = match written {
                Ok(()) if self.unanswered.is_none() => {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))
                }
                written => written,
            };
            if let Err(error) = flushed {
                let why = ConnectionError::from(error);
                self.write_failure = Some(why.clone());
                return Poll::Ready(Err(Failure::Broken(why)));
            }
            match self.unanswered.take() {
                Some(ping) => self.write_control(Opcode::Pong, &ping)?,
                None => break,
            }
        }
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    pub(super) fn shrink(&mut self) {
        self.decoder.shrink();
        self.encoder.shrink();
    }

    pub(super) fn io(&mut self) -> &mut S {
        &mut self.io
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.decoder.count()
    }

    pub(super) fn bytes_written(&self) -> u64 {
        self.encoder.count()
    }

    /// How much memory reading holds.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.decoder.held()
    }

    #[cfg(test)]
    pub(super) fn into_io(self) -> S {
        self.io
    }
}
