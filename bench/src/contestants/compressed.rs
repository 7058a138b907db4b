//! Engines that compress messages (RFC 7692), all alike: a window of 4 KiB, contexts kept from message to
//! message, and the fastest level of zlib-rs.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use sockudo_ws::{
    CompressedWebSocketStream, Config, DeflateWindowBits, Message, deflate::DeflateConfig,
};
use tokio::net::{TcpListener, TcpStream};
use unstall::{Client, Compression, Options, Receiver, Server, ServerBuilder, ServerLimits};
use yawc::{CompressionLevel, Role, WebSocket};

use super::{
    framed::Framed,
    tungstenite::{accept_upgraded, connect_upgraded},
    unstall as ours,
    yawc::Frames,
};
use crate::{
    Result,
    engine::{BATCH_BYTES, Batching, Engine},
};

const WINDOW_BITS: u8 = 12;
const LEVEL: u32 = 1;

pub(crate) struct Yawc;

fn yawc(stream: TcpStream, role: Role) -> Result<Framed<Frames, yawc::Frame>> {
    let options = yawc::Options::default()
        .with_read_buffer_capacity(128 << 10)
        .with_backpressure_boundary(BATCH_BYTES)
        .with_client_max_window_bits(WINDOW_BITS)
        .with_server_max_window_bits(WINDOW_BITS)
        .with_compression_level(CompressionLevel::new(LEVEL));
    let agreed = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
    let socket = WebSocket::from_stream_with_extensions(stream, role, Some(agreed), options)?;
    Ok(Framed::new(socket.map(Ok)))
}

impl Engine for Yawc {
    const NAME: &'static str = "yawc";
    const HOW: &'static str = "`feed` and a flush each 64 KiB, with permessage-deflate";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = Framed<Frames, yawc::Frame>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        yawc(accept_upgraded(server).await?, Role::Server)
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        yawc(connect_upgraded(address).await?, Role::Client)
    }
}

pub(crate) struct Sockudo;

fn deflate() -> DeflateConfig {
    DeflateConfig {
        server_max_window_bits: DeflateWindowBits::Bits12,
        client_max_window_bits: DeflateWindowBits::Bits12,
        compression_level: LEVEL,
        ..DeflateConfig::default()
    }
}

impl Engine for Sockudo {
    const NAME: &'static str = "sockudo-ws";
    const HOW: &'static str = "`feed` and a flush each 64 KiB, with permessage-deflate";
    const BATCHING: Batching = Batching::Bytes(BATCH_BYTES);
    type Server = TcpListener;
    type Link = Framed<CompressedWebSocketStream<TcpStream>, Message>;

    async fn bind(listener: TcpListener) -> Result<TcpListener> {
        Ok(listener)
    }

    async fn accept(server: &mut TcpListener) -> Result<Self::Link> {
        let stream = accept_upgraded(server).await?;
        let config = Config::default();
        Ok(Framed::new(CompressedWebSocketStream::server(
            stream,
            config,
            deflate(),
        )))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        let stream = connect_upgraded(address).await?;
        let config = Config::default();
        Ok(Framed::new(CompressedWebSocketStream::client(
            stream,
            config,
            deflate(),
        )))
    }
}

fn options() -> Options {
    let compression = Compression::default().window_bits(WINDOW_BITS).level(LEVEL);
    Options::default()
        .compression(compression)
        .ping_interval(Duration::from_secs(1))
}

macro_rules! unstall {
    ($name:ident, $called:literal, $how:literal, $server:expr, $client:expr) => {
        pub(crate) struct $name;

        impl Engine for $name {
            const NAME: &'static str = $called;
            const HOW: &'static str = $how;
            const BATCHING: Batching = Batching::Own;
            type Server = Server;
            type Link = ours::Unstall<Receiver>;

            async fn bind(listener: TcpListener) -> Result<Server> {
                // All clients of the suite have the same address.
                let limits = ServerLimits::default().connections_per_address(usize::MAX);
                let builder = Server::builder().limits(limits).options(options());
                Ok($server(builder).listener(listener)?)
            }

            async fn accept(server: &mut Server) -> Result<Self::Link> {
                Ok(ours::Unstall::new(ours::accept(server).await?))
            }

            async fn connect(address: SocketAddr) -> Result<Self::Link> {
                let client = |client: Client| $client(client.options(options()));
                let connection = ours::connect("ws", client, address).await?;
                if !connection.is_compressed() {
                    return Err("the connection is not compressed".into());
                }
                Ok(ours::Unstall::new(connection))
            }
        }
    };
}

unstall!(
    Plain,
    "unstall-plain",
    "unstall without a session, `send_many()`, `recv().await`, compressed",
    ServerBuilder::plain,
    Client::plain
);
unstall!(
    Session,
    "unstall-session",
    "unstall with a session, `send_many()`, `recv().await`, compressed",
    std::convert::identity,
    ours::session
);

/// What they all compress: ticks of JSON. The last byte shows the order.
pub(crate) fn tick(place: usize, size: usize) -> Bytes {
    let mut random = place as u64 + 1;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut text = String::from("[");
    while text.len() < size {
        text += &format!(
            "{{\"stream\":\"btcusdt@trade\",\"data\":{{\"e\":\"trade\",\"E\":17000000{:05},\"s\":\"BTCUSDT\",\
             \"t\":33100{:05},\"p\":\"432{:02}.{:02}\",\"q\":\"0.{:05}\",\"m\":{}}}}},",
            place * 13,
            place,
            next(100),
            next(100),
            next(100_000),
            next(2) == 0,
        );
    }
    text.truncate(size - 1);
    text.push(char::from(b'a' + (place % 26) as u8));
    text.into()
}
