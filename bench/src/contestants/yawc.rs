//! yawc.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{StreamExt, stream::Map};
use tokio::net::{TcpListener, TcpStream};
use yawc::{OpCode, Options, Role, WebSocket, WebSocketError};

use super::{
    framed::{self, Framed},
    tungstenite::{accept_upgraded, connect_upgraded},
};
use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine},
};

impl framed::Frame for yawc::Frame {
    fn binary(payload: &Bytes) -> yawc::Frame {
        yawc::Frame::binary(payload.clone())
    }

    fn payload(&self) -> Option<&[u8]> {
        (self.opcode() == OpCode::Binary).then(|| &self.payload()[..])
    }
}

/// The stream of yawc yields no errors: it ends.
pub(super) type Frames =
    Map<WebSocket<TcpStream>, fn(yawc::Frame) -> Result<yawc::Frame, WebSocketError>>;

/// The buffers of its authors' benchmarks. The default limit is smaller than the largest payloads here.
fn link(stream: TcpStream, role: Role) -> Result<Framed<Frames, yawc::Frame>> {
    let options = Options::default()
        .with_read_buffer_capacity(128 << 10)
        .with_backpressure_boundary(BATCH_BYTES)
        .with_limits(16 << 20, 32 << 20);
    let socket = WebSocket::from_stream(stream, role, options)?;
    Ok(Framed::new(socket.map(Ok)))
}

pub(crate) struct Yawc;

impl Engine for Yawc {
    const NAME: &'static str = "yawc";
    const HOW: &'static str = "`feed` and a flush each 64 KiB, read buffer 128 KiB and write \
        boundary 64 KiB, as in its authors' benchmarks";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = Framed<Frames, yawc::Frame>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        link(accept_upgraded(server).await?, Role::Server)
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        link(connect_upgraded(address).await?, Role::Client)
    }
}
