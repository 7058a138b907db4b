//! cargo run -p unstall --example adopt
//!
//! Programs that already have a `WebSocketStream` of tokio-tungstenite hand it over after the
//! handshake. Here both ends are such programs, and both send 32 MiB before they receive anything.
//! With bare streams that is a deadlock.

use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};
use unstall::{BoxError, CloseCode, Connection, Incoming, Options, tokio_tungstenite};

const MESSAGES: usize = 512;
const SIZE: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let accepted = async { Ok::<_, BoxError>(accept_async(listener.accept().await?.0).await?) };
    let connected = async { Ok::<_, BoxError>(connect_async(url).await?.0) };
    let (server, client): (
        WebSocketStream<TcpStream>,
        WebSocketStream<MaybeTlsStream<TcpStream>>,
    ) = tokio::try_join!(accepted, connected)?;

    // What was sent and what has come wait in these queues. They must have room for it here, because
    // neither side receives before it has sent everything.
    let room = MESSAGES * (SIZE + 1024);
    let options = Options::default().inbox_bytes(room);
    let server = Connection::from_websocket(server, options.clone());
    let client = Connection::from_websocket(client, options);

    let server = tokio::spawn(send_then_receive(server, "server"));
    let client = tokio::spawn(send_then_receive(client, "client"));
    for end in [server, client] {
        println!("{}", end.await??);
    }
    Ok(())
}

async fn send_then_receive(mut connection: Connection, name: &str) -> Result<String, BoxError> {
    let payload = vec![7; SIZE];
    for _ in 0..MESSAGES {
        connection.send(&payload).await?;
    }
    let mut received = 0;
    while received < MESSAGES {
        match connection.recv().await?.ok_or("the other end has closed")? {
            Incoming::Message(message) => received += usize::from(message.len() == SIZE),
            Incoming::Gap(gap) => return Err(format!("{gap:?}").into()),
        }
    }
    let report = connection.close(CloseCode::NORMAL, "").await;
    Ok(format!(
        "{name}: {received} messages, closed cleanly: {}",
        report.clean
    ))
}
