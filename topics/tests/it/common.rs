//! A node on a free port, and what tests wait for.

use std::{net::SocketAddr, time::Duration};

use unstall::Server;
use unstall_topics::{Delivery, Limits, Log, Message, Node, SUBPROTOCOL, Subscription, Topics};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn log() -> Log {
    Log::memory(Limits::default()).await.unwrap()
}

/// Serves a log until the server is dropped.
pub(crate) async fn serve(node: Node) -> (Server, SocketAddr) {
    let server = Server::builder()
        .subprotocols([SUBPROTOCOL])
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr();
    let (accepting, node) = (server.clone(), node);
    tokio::spawn(async move {
        while let Some(connection) = accepting.accept().await {
            let node = node.clone();
            tokio::spawn(async move { node.serve(connection).await });
        }
    });
    (server, address)
}

pub(crate) fn client(address: SocketAddr) -> Topics {
    Topics::connect([format!("ws://{address}/topics")])
}

pub(crate) async fn next(feed: &mut Subscription) -> Option<Delivery> {
    tokio::time::timeout(PATIENCE, feed.recv())
        .await
        .expect("a delivery in time")
        .unwrap()
}

/// The next message. Marks are passed over; a gap fails the test.
pub(crate) async fn message(feed: &mut Subscription) -> Message {
    loop {
        match next(feed).await {
            Some(Delivery::Message(message)) => return message,
            Some(Delivery::CaughtUp(_)) => {}
            other => panic!("a message, not {other:?}"),
        }
    }
}
