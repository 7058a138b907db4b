//! Helpers of the tests: peers of every kind, and waiting for conditions.

pub(crate) mod clock;
pub(crate) mod events;
pub(crate) mod foreign;
pub(crate) mod frames;
pub(crate) mod memory;
pub(crate) mod net;
pub(crate) mod numbered;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod sessions;

use std::{panic::Location, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use unstall::tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use unstall::{Client, Connection, ConnectionError, Incoming, Message, Options};

/// The longest that anything may take on a loaded machine before a test gives up.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// Fails the test when the work takes longer than [`AMPLE`]: a hang must not hang the tests.
#[track_caller]
pub(crate) fn limit<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match tokio::time::timeout(AMPLE, work).await {
            Ok(done) => done,
            Err(_) => panic!("nothing came of it within {AMPLE:?}: {caller}"),
        }
    }
}

/// Waits until `done` returns true. It is asked every 2 ms; that interval does not affect the result.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let wait = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(AMPLE, wait).await.is_err() {
            panic!("never came: {what}: {caller}");
        }
    }
}

/// The received message. Anything else fails the test.
#[track_caller]
pub(crate) fn plain(received: Result<Option<Incoming>, ConnectionError>) -> Message {
    match received {
        Ok(Some(Incoming::Message(message))) => message,
        other => panic!("a message was due, not {other:?}"),
    }
}

/// The seed in `UNSTALL_SEED`, or a random one. It is printed, so that a run can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("UNSTALL_SEED") {
        Ok(seed) => seed.parse().expect("UNSTALL_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("UNSTALL_SEED={seed}");
    seed
}

/// Whether the long form of a test was asked for.
pub(crate) fn full() -> bool {
    std::env::var_os("UNSTALL_FULL").is_some()
}

/// An application that sends back what it receives. The message `panic` makes it panic.
pub(crate) async fn echo(mut connection: Connection) {
    while let Ok(Some(incoming)) = connection.recv().await {
        let Incoming::Message(message) = incoming else {
            continue;
        };
        assert_ne!(message.as_text(), Some("panic"), "on purpose");
        if connection.send(message).await.is_err() {
            return;
        }
    }
}

/// Sends a text and gets it back.
pub(crate) async fn echoed(connection: &mut Connection, text: &str) {
    connection.send(text.to_owned()).await.unwrap();
    let back = plain(limit(connection.recv()).await);
    assert_eq!(back.as_text(), Some(text));
}

/// Both ends of one TCP connection over loopback.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// A connection over an adopted stream of tungstenite, whose handshake is done.
pub(crate) async fn adopt<S>(stream: S, role: Role, options: Options) -> Connection
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = WebSocketConfig::default();
    let stream = WebSocketStream::from_raw_socket(stream, role, Some(config)).await;
    Connection::from_websocket(stream, options)
}

/// A client and a server connection with the same options, both adopted.
pub(crate) async fn pair(options: Options) -> (Connection, Connection) {
    let (client, server) = tcp_pair().await;
    (
        adopt(client, Role::Client, options.clone()).await,
        adopt(server, Role::Server, options).await,
    )
}

/// A client that the library dials, without reconnects.
pub(crate) fn client(address: std::net::SocketAddr, options: Options) -> Client {
    Client::new(format!("ws://{address}"))
        .options(options)
        .without_reconnect()
}

/// The next connection of `listener`, upgraded by tungstenite and then adopted.
pub(crate) async fn accept(listener: &TcpListener, options: Options) -> Connection {
    let (tcp, _) = listener.accept().await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let stream = accept_async(tcp).await.unwrap();
    Connection::from_websocket(stream, options)
}
