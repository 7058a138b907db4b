//! TCP with a length before each message: the limit.

use std::{io::IoSlice, net::SocketAddr};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::TlsStream;

use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine, Link, Rx, Tx, ended},
    tcp,
    tls::{self, Secure},
};

pub(crate) struct Raw;

impl Engine for Raw {
    const NAME: &'static str = "raw";
    const HOW: &'static str = "TCP with a u32 length before each message, written each 64 KiB; \
        does not mask";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = RawLink;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<RawLink> {
        Ok(RawLink::over(tcp::accept(server).await?.into_split()))
    }

    async fn connect(address: SocketAddr) -> Result<RawLink> {
        Ok(RawLink::over(tcp::connect(address).await?.into_split()))
    }
}

impl Engine for Secure<Raw> {
    const NAME: &'static str = Raw::NAME;
    const HOW: &'static str = Raw::HOW;
    const BATCHING: Batching = Raw::BATCHING;
    type Server = TcpListener;
    type Link = RawLink<ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        Ok(RawLink::over(split(tls::accept(server).await?)))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        Ok(RawLink::over(split(tls::connect(address).await?)))
    }
}

pub(crate) struct RawLink<R = OwnedReadHalf, W = OwnedWriteHalf> {
    tx: RawTx<W>,
    rx: RawRx<R>,
}

impl<R, W> RawLink<R, W> {
    fn over((reading, writing): (R, W)) -> RawLink<R, W> {
        RawLink {
            tx: RawTx {
                stream: writing,
                buffer: Vec::new(),
            },
            rx: RawRx {
                stream: reading,
                buffer: vec![0; FIRST_READ_BYTES],
                start: 0,
                end: 0,
            },
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static, W: AsyncWrite + Unpin + Send + 'static> Link
    for RawLink<R, W>
{
    type Tx = RawTx<W>;
    type Rx = RawRx<R>;

    fn split(self) -> (RawTx<W>, RawRx<R>) {
        (self.tx, self.rx)
    }
}

impl<R: Send + 'static, W: AsyncWrite + Unpin + Send + 'static> Tx for RawLink<R, W> {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        self.tx.feed(payload).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.tx.flush().await
    }
}

impl<R: AsyncRead + Unpin + Send + 'static, W: Send + 'static> Rx for RawLink<R, W> {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        self.rx.receive(take).await
    }
}

pub(crate) struct RawTx<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Tx for RawTx<W> {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        let length = u32::try_from(payload.len())?;
        self.buffer.extend_from_slice(&length.to_be_bytes());
        if payload.len() >= BATCH_BYTES {
            // A copy would cost more than a write of its own.
            write_both(&mut self.stream, &self.buffer, payload).await?;
            self.buffer.clear();
        } else {
            self.buffer.extend_from_slice(payload);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }
}

async fn write_both(
    stream: &mut (impl AsyncWrite + Unpin),
    head: &[u8],
    payload: &[u8],
) -> Result<()> {
    let slices = [IoSlice::new(head), IoSlice::new(payload)];
    let written = stream.write_vectored(&slices).await?;
    if written < head.len() {
        stream.write_all(&head[written..]).await?;
    }
    let rest = written.saturating_sub(head.len());
    Ok(stream.write_all(&payload[rest..]).await?)
}

/// As large as tokio-tungstenite's.
const READ_BYTES: usize = 128 << 10;
/// The size until a read fills it, so that an idle connection shows the limit too.
const FIRST_READ_BYTES: usize = 512;
const HEAD_BYTES: usize = 4;

pub(crate) struct RawRx<R> {
    stream: R,
    buffer: Vec<u8>,
    /// What was read and not handed out.
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> RawRx<R> {
    /// The length of the message at the front with its head, if that much is known.
    fn front(&self) -> Option<usize> {
        let head = self.buffer[self.start..self.end].first_chunk()?;
        Some(HEAD_BYTES + u32::from_be_bytes(*head) as usize)
    }

    async fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let wanted = self.front().unwrap_or(0);
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        match self.stream.read(&mut self.buffer[self.end..]).await? {
            0 => Err(ended()),
            read => {
                self.end += read;
                if self.end == self.buffer.len() && self.end < READ_BYTES {
                    self.buffer.resize(READ_BYTES, 0);
                }
                Ok(())
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> Rx for RawRx<R> {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        let mut taken = false;
        loop {
            match self.front() {
                Some(length) if length <= self.end - self.start => {
                    take(&self.buffer[self.start + HEAD_BYTES..self.start + length]);
                    self.start += length;
                    taken = true;
                }
                _ if taken => return Ok(()),
                _ => self.fill().await?,
            }
        }
    }
}
