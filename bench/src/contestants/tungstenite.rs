//! tokio-tungstenite with its defaults, flushed in three ways.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsStream;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async, tungstenite::Message};

use super::framed::{Frame, Framed};
use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine},
    tcp,
    tls::{self, Secure},
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

pub(crate) type WebSocket = WebSocketStream<TcpStream>;

pub(crate) async fn accept(listener: &TcpListener) -> Result<WebSocket> {
    Ok(accept_async(tcp::accept(listener).await?).await?)
}

pub(crate) async fn connect(address: SocketAddr) -> Result<WebSocket> {
    let stream = tcp::connect(address).await?;
    let (socket, _) = client_async(format!("ws://{address}/"), stream).await?;
    Ok(socket)
}

/// The server's end of a connection whose handshake is done, for engines that take one over. No figure
/// includes a handshake. Nothing was read ahead, because the client sends first.
pub(crate) async fn accept_upgraded(listener: &TcpListener) -> Result<TcpStream> {
    Ok(accept(listener).await?.into_inner())
}

/// The client's end.
pub(crate) async fn connect_upgraded(address: SocketAddr) -> Result<TcpStream> {
    Ok(connect(address).await?.into_inner())
}

macro_rules! tungstenite {
    ($name:ident, $called:literal, $how:literal, $batching:expr) => {
        pub(crate) struct $name;

        impl Engine for $name {
            const NAME: &'static str = $called;
            const HOW: &'static str = $how;
            const BATCHING: Batching = $batching;
            type Server = TcpListener;
            type Link = Framed<WebSocket, Message>;

            async fn bind(listener: TcpListener) -> Result<TcpListener> {
                Ok(listener)
            }

            async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
                Ok(Framed::new(accept(server).await?))
            }

            async fn connect(address: SocketAddr) -> Result<Self::Link> {
                Ok(Framed::new(connect(address).await?))
            }
        }
    };
}

tungstenite!(
    Naive,
    "tt-naive",
    "tokio-tungstenite, `send().await` for each message",
    Batching::Naive
);
tungstenite!(
    Each64,
    "tt-64",
    "tokio-tungstenite, `feed` and a flush each 64 messages",
    Batching::Messages(64)
);
tungstenite!(
    Batched,
    "tt-batched",
    "tokio-tungstenite, `feed` and a flush each 64 KiB",
    Batching::Bytes(BATCH_BYTES)
);

impl Engine for Secure<Batched> {
    const NAME: &'static str = Batched::NAME;
    const HOW: &'static str = Batched::HOW;
    const BATCHING: Batching = Batched::BATCHING;
    type Server = TcpListener;
    type Link = Framed<WebSocketStream<TlsStream<TcpStream>>, Message>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        let stream = tls::accept(server).await?;
        Ok(Framed::new(accept_async(stream).await?))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        let stream = tls::connect(address).await?;
        let (socket, _) = client_async(format!("wss://{address}/"), stream).await?;
        Ok(Framed::new(socket))
    }
}
