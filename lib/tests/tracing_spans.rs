//! The log lines of a connection name the connection and its peer.
//!
//! This is a program of its own. If another test's thread logs while the subscriber is being set, that
//! line may be switched off for ever.

#[path = "it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;

use common::{client, frames::listen, limit, plain};
use std::{
    io,
    sync::{Arc, Mutex},
};
use unstall::{CloseCode, Connection, Message, Options};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Once the spans of lazy clients and of adopted streams had no peer.
#[tokio::test]
async fn tracing_spans_carry_the_connections_id_and_the_peer() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (listener, address) = listen().await;
    let client = client(address, Options::default()).connect_lazy().unwrap();
    let (tcp, peer) = listener.accept().await.unwrap();
    let server = unstall::tokio_tungstenite::accept_async(tcp).await.unwrap();
    let mut server = Connection::from_websocket(server, Options::default());
    client.send("hello").await.unwrap();
    assert_eq!(plain(server.recv().await), Message::from("hello"));
    assert_eq!(
        (client.peer_addr(), server.peer_addr()),
        (Some(address), Some(peer))
    );
    limit(async { tokio::join!(client.close(CloseCode::NORMAL, ""), server.recv()) })
        .await
        .1
        .unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (connection, peer) in [(&client, address), (&server, peer)] {
        let id = connection.stats().id;
        let span = format!("connection{{id={id} peer={peer}}}");
        let lines: Vec<_> = text.lines().filter(|line| line.contains(&span)).collect();
        assert!(
            lines.iter().any(|line| line.contains("Connected")),
            "{span}:\n{text}"
        );
    }
}
