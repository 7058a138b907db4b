//! tokio-websockets.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio_websockets::{ClientBuilder, Config, Message, ServerBuilder, WebSocketStream};

use super::{
    framed::{Frame, Framed},
    tungstenite::{accept_upgraded, connect_upgraded},
};
use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine},
};

impl Frame for Message {
    fn binary(payload: &Bytes) -> Message {
        Message::binary(payload.clone())
    }

    fn payload(&self) -> Option<&[u8]> {
        self.is_binary().then(|| &self.as_payload()[..])
    }
}

/// At its default of 8 KiB the sink flushes more often than the loop.
fn config() -> Config {
    Config::default().flush_threshold(BATCH_BYTES)
}

pub(crate) struct TokioWebSockets;

impl Engine for TokioWebSockets {
    const NAME: &'static str = "tokio-websockets";
    const HOW: &'static str = "`feed` and a flush each 64 KiB, flush threshold 64 KiB";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = Framed<WebSocketStream<TcpStream>, Message>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        let stream = accept_upgraded(server).await?;
        let socket = ServerBuilder::new().config(config()).serve(stream);
        Ok(Framed::new(socket))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        let stream = connect_upgraded(address).await?;
        let socket = ClientBuilder::new().config(config()).take_over(stream);
        Ok(Framed::new(socket))
    }
}
