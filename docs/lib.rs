//! The guide of unstall. Each chapter in `src` is a test: `cargo test -p unstall-docs` compiles its
//! Rust code blocks, and runs those that do not say otherwise.
//!
//! Below are the few helpers that the chapters use, so that they show what matters.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// The two ends of a WebSocket of tokio-tungstenite, over loopback.
///
/// # Panics
/// If loopback does not work.
pub async fn streams() -> (WebSocketStream<TcpStream>, WebSocketStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let request = format!("ws://{address}/");
        client_async(request, tcp).await.unwrap().0
    };
    let server = async {
        accept_async(listener.accept().await.unwrap().0)
            .await
            .unwrap()
    };
    tokio::join!(client, server)
}

/// Whether the work is still not done after half a second. A stall never ends.
pub async fn stalls<T>(work: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(500), work)
        .await
        .is_err()
}

/// A network between client and server that can be made to swallow connections in silence.
#[derive(Debug)]
pub struct Network {
    /// Where clients connect to.
    pub address: SocketAddr,
    /// How many connections there were so far, and how many of them are swallowed.
    connections: watch::Sender<(u64, u64)>,
}

impl Network {
    /// A network in front of `server`.
    ///
    /// # Panics
    /// If loopback does not work.
    pub async fn to(server: SocketAddr) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = watch::Sender::new((0, 0));
        let made = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let ((a, b), (c, d)) = (client.into_split(), server.into_split());
                made.send_modify(|(count, _)| *count += 1);
                let number = made.borrow().0;
                tokio::spawn(relay(a, d, number, made.subscribe()));
                tokio::spawn(relay(c, b, number, made.subscribe()));
            }
        });
        Network {
            address,
            connections,
        }
    }

    /// From now on nothing arrives over the connections so far, and nobody is told.
    pub fn swallow(&self) {
        self.connections
            .send_modify(|(count, swallowed)| *swallowed = *count);
    }
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    connections: watch::Receiver<(u64, u64)>,
) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let swallowed = number <= connections.borrow().1;
        if !swallowed && to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

macro_rules! chapters {
    ($($name:ident $path:literal)*) => {$(
        #[doc = include_str!($path)]
        #[cfg(doctest)]
        pub struct $name;
    )*};
}

chapters! {
    Comparison "src/comparison.md"
    Limits "src/limits.md"
    Moving "src/moving.md"
    Operating "src/operating.md"
    Ported "src/ported.md"
    Proof "src/proof.md"
    Protocol "src/protocol.md"
    Relay "src/relay.md"
    Stalls "src/stalls.md"
    Status "src/status.md"
    Topics "src/topics.md"
    Tour "src/tour.md"
}
