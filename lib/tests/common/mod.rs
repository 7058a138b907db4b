//! Two connections over a real loopback TCP connection.
#![allow(dead_code, unreachable_pub)]

pub mod proxy;

use tokio::net::{TcpListener, TcpStream};
use unstall::tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use unstall::{Connection, ConnectionError, Incoming, Message, Options};

/// Both ends of one TCP connection over loopback.
pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

pub async fn adopt(tcp: TcpStream, role: Role, options: Options) -> Connection {
    let config = WebSocketConfig::default();
    let stream = WebSocketStream::from_raw_socket(tcp, role, Some(config)).await;
    Connection::from_websocket(stream, options)
}

/// A client and a server connection with the same options.
pub async fn pair(options: Options) -> (Connection, Connection) {
    let (client, server) = tcp_pair().await;
    (
        adopt(client, Role::Client, options.clone()).await,
        adopt(server, Role::Server, options).await,
    )
}

/// The message, where nothing else may come.
pub fn plain(received: Result<Option<Incoming>, ConnectionError>) -> Message {
    match received {
        Ok(Some(Incoming::Message(message))) => message,
        other => panic!("a message was due, not {other:?}"),
    }
}

/// Fails the test when the work takes longer than so many seconds: a hang must not hang the tests.
pub async fn limit<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(seconds);
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("nothing came of it within {seconds} s"),
    }
}
