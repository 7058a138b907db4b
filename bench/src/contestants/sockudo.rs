//! sockudo-ws.

use std::net::SocketAddr;

use bytes::Bytes;
use sockudo_ws::{Config, Message, WebSocketStream};
use tokio::net::{TcpListener, TcpStream};

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
        Message::Binary(payload.clone())
    }

    fn payload(&self) -> Option<&[u8]> {
        match self {
            Message::Binary(payload) => Some(payload),
            _ => None,
        }
    }
}

pub(crate) struct Sockudo;

impl Engine for Sockudo {
    const NAME: &'static str = "sockudo-ws";
    const HOW: &'static str = "`feed` and a flush each 64 KiB, with its default configuration";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = Framed<WebSocketStream<TcpStream>, Message>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        let stream = accept_upgraded(server).await?;
        Ok(Framed::new(WebSocketStream::server(
            stream,
            Config::default(),
        )))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        let stream = connect_upgraded(address).await?;
        Ok(Framed::new(WebSocketStream::client(
            stream,
            Config::default(),
        )))
    }
}
