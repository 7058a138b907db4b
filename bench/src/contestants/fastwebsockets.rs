//! fastwebsockets, in its two halves.

use std::net::SocketAddr;

use bytes::Bytes;
use fastwebsockets::{
    FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocketError, WebSocketWrite,
    after_handshake_split,
};
use tokio::{
    io::{AsyncWrite, BufWriter},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::tungstenite::{accept_upgraded, connect_upgraded};
use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine, Link, Rx, Tx},
};

pub(crate) struct FastWebSockets;

impl Engine for FastWebSockets {
    const NAME: &'static str = "fastwebsockets";
    const HOW: &'static str = "`write_frame` of borrowed payloads into a `BufWriter` of 64 KiB, \
        flushed each 64 KiB; read with its fragment collector";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = Halves;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Halves> {
        Ok(Halves::new(accept_upgraded(server).await?, Role::Server))
    }

    async fn connect(address: SocketAddr) -> Result<Halves> {
        Ok(Halves::new(connect_upgraded(address).await?, Role::Client))
    }
}

type Writing = WebSocketWrite<BufWriter<OwnedWriteHalf>>;
pub(crate) type Reading = FragmentCollectorRead<OwnedReadHalf>;

/// The two halves, the writing one straight into the socket.
pub(crate) fn halves(stream: TcpStream, role: Role) -> (WebSocketWrite<OwnedWriteHalf>, Reading) {
    let (reading, writing) = stream.into_split();
    let (rx, tx) = after_handshake_split(reading, writing, role);
    (tx, FragmentCollectorRead::new(rx))
}

pub(crate) struct Halves {
    tx: Writing,
    rx: Reading,
}

impl Halves {
    fn new(stream: TcpStream, role: Role) -> Halves {
        let (reading, writing) = stream.into_split();
        let writing = BufWriter::with_capacity(BATCH_BYTES, writing);
        let (rx, tx) = after_handshake_split(reading, writing, role);
        Halves {
            tx,
            rx: FragmentCollectorRead::new(rx),
        }
    }
}

impl Link for Halves {
    type Tx = Writing;
    type Rx = Reading;

    fn split(self) -> (Writing, Reading) {
        (self.tx, self.rx)
    }
}

impl Tx for Halves {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        self.tx.feed(payload).await
    }

    async fn flush(&mut self) -> Result<()> {
        Tx::flush(&mut self.tx).await
    }
}

impl Rx for Halves {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        self.rx.receive(take).await
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Tx for WebSocketWrite<W> {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        Ok(self
            .write_frame(Frame::binary(Payload::Borrowed(payload)))
            .await?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(WebSocketWrite::flush(self).await?)
    }
}

impl Rx for Reading {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        loop {
            // No peer sends pings here, so reading has nothing to answer.
            let mut unsent = |_| async { Ok::<_, WebSocketError>(()) };
            let frame = self.read_frame(&mut unsent).await?;
            if frame.opcode == OpCode::Binary {
                take(&frame.payload);
                return Ok(());
            }
        }
    }
}
