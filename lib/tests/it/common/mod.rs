//! Two connections over a real loopback TCP connection.

pub(crate) mod frames;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod sessions;

use tokio::net::{TcpListener, TcpStream};
use unstall::tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use unstall::{Client, Connection, ConnectionError, Event, Events, Incoming, Message, Options};

/// Both ends of one TCP connection over loopback.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

pub(crate) async fn adopt(tcp: TcpStream, role: Role, options: Options) -> Connection {
    let config = WebSocketConfig::default();
    let stream = WebSocketStream::from_raw_socket(tcp, role, Some(config)).await;
    Connection::from_websocket(stream, options)
}

/// A client and a server connection with the same options.
pub(crate) async fn pair(options: Options) -> (Connection, Connection) {
    let (client, server) = tcp_pair().await;
    (
        adopt(client, Role::Client, options.clone()).await,
        adopt(server, Role::Server, options).await,
    )
}

/// A client of the library's own dialing, which does not reconnect.
pub(crate) fn client(address: std::net::SocketAddr, options: Options) -> Client {
    Client::new(format!("ws://{address}"))
        .options(options)
        .without_reconnect()
}

/// The next connection of `listener`, upgraded by a foreign engine and then adopted.
pub(crate) async fn accept(listener: &TcpListener, options: Options) -> Connection {
    let (tcp, _) = listener.accept().await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let stream = unstall::tokio_tungstenite::accept_async(tcp).await.unwrap();
    Connection::from_websocket(stream, options)
}

/// Waits for the first event of which `pick` makes something.
pub(crate) async fn wait_for<T>(events: &mut Events, pick: impl Fn(&Event) -> Option<T>) -> T {
    let mut seen = Vec::new();
    while let Some(event) = events.recv().await {
        if let Some(picked) = pick(&event) {
            return picked;
        }
        seen.push(event);
    }
    panic!("the connection ended without the event; there were {seen:?}");
}

/// The message, where nothing else may come.
pub(crate) fn plain(received: Result<Option<Incoming>, ConnectionError>) -> Message {
    match received {
        Ok(Some(Incoming::Message(message))) => message,
        other => panic!("a message was due, not {other:?}"),
    }
}

/// Fails the test when the work takes longer than so many seconds: a hang must not hang the tests.
pub(crate) async fn limit<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(seconds);
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("nothing came of it within {seconds} s"),
    }
}

/// That of `UNSTALL_SEED`, or another each time; printed, so that a run can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("UNSTALL_SEED") {
        Ok(seed) => seed.parse().expect("UNSTALL_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("UNSTALL_SEED={seed}");
    seed
}
