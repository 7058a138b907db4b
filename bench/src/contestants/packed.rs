//! Many messages in one frame of tokio-tungstenite: what packing costs without the promises of a session.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::tungstenite::{self, WebSocket};
use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine, Link, Rx, Tx, ended},
};

pub(crate) struct Packed;

impl Engine for Packed {
    const NAME: &'static str = "packed";
    const HOW: &'static str = "packets of 32 KiB over tokio-tungstenite, read in place; no \
        sequence, credit or replay";
    const BATCHING: Batching = Batching::Own;
    type Server = TcpListener;
    type Link = Packets<WebSocket>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        Ok(Packets::new(tungstenite::accept(server).await?))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        Ok(Packets::new(tungstenite::connect(address).await?))
    }
}

const PACKET_BYTES: usize = 32 << 10;

/// A connection or half of one, and the packet that is being filled.
pub(crate) struct Packets<S> {
    socket: S,
    packet: BytesMut,
    unflushed: usize,
}

impl<S> Packets<S> {
    fn new(socket: S) -> Packets<S> {
        Packets {
            socket,
            packet: BytesMut::new(),
            unflushed: 0,
        }
    }
}

impl Link for Packets<WebSocket> {
    type Tx = Packets<SplitSink<WebSocket, Message>>;
    type Rx = Packets<SplitStream<WebSocket>>;

    fn split(self) -> (Self::Tx, Self::Rx) {
        let (sink, stream) = self.socket.split();
        (Packets::new(sink), Packets::new(stream))
    }
}

impl<S: Sink<Message, Error = Error> + Unpin + Send + 'static> Packets<S> {
    async fn feed_packet(&mut self) -> Result<()> {
        self.unflushed += self.packet.len();
        let packet = self.packet.split().freeze();
        Ok(self.socket.feed(Message::Binary(packet)).await?)
    }
}

impl<S: Sink<Message, Error = Error> + Unpin + Send + 'static> Tx for Packets<S> {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        if self.packet.is_empty() {
            self.packet.reserve(PACKET_BYTES + payload.len() + 5);
        }
        put_varint(&mut self.packet, payload.len());
        self.packet.put_slice(payload);
        if self.packet.len() >= PACKET_BYTES {
            self.feed_packet().await?;
        }
        if self.unflushed >= BATCH_BYTES {
            self.unflushed = 0;
            self.socket.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.packet.is_empty() {
            self.feed_packet().await?;
        }
        self.unflushed = 0;
        Ok(self.socket.flush().await?)
    }
}

impl<S: Stream<Item = Result<Message, Error>> + Unpin + Send + 'static> Rx for Packets<S> {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        loop {
            let message = self.socket.next().await.ok_or_else(ended)??;
            let Message::Binary(packet) = message else {
                continue;
            };
            let mut rest = &packet[..];
            while !rest.is_empty() {
                let length = varint(&mut rest).ok_or("a record without a length")?;
                let (payload, behind) = rest.split_at_checked(length).ok_or("a cut record")?;
                take(payload);
                rest = behind;
            }
            return Ok(());
        }
    }
}

fn put_varint(packet: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        packet.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    packet.put_u8(value as u8);
}

fn varint(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
