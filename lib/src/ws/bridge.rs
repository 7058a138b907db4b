//! A byte stream as tungstenite reads and writes it.

use std::{
    io::{self, Read, Write},
    task::{Context, Poll},
};

use tokio::io::AsyncRead;

use super::{incoming::Incoming, outgoing::Outgoing};

/// A byte stream with the task that polls it, as tungstenite wants it. What is written only waits
/// for the socket.
pub(super) struct Bridge<'a, 'b, S> {
    pub(super) io: &'a mut S,
    pub(super) cx: &'a mut Context<'b>,
    pub(super) read: &'a mut u64,
    pub(super) incoming: &'a mut Incoming,
    pub(super) outgoing: &'a mut Outgoing,
}

impl<S: AsyncRead + Unpin> Read for Bridge<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let incoming = &mut *self.incoming;
        match incoming.poll_other(self.io, self.cx, self.read, buffer) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S> Write for Bridge<'_, '_, S> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.outgoing.write(frames)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stands for the socket while frames are only encoded: there is nothing to read.
pub(super) struct Encoding<'a>(pub(super) &'a mut Outgoing);

impl Read for Encoding<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Encoding<'_> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.0.write(frames)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
