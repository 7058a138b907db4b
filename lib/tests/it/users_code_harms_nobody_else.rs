//! The user's code may panic, and use the connection, wherever it is called: nothing of the library
//! is locked then.

use bytes::Bytes;

use crate::common::{
    echo, echoed, limit,
    net::{bind, serve},
    plain,
    sessions::{client, pair, quick_client},
};
use unstall::{Client, Message, Sender, Server};

fn clients(server: &Server) -> [Client; 2] {
    let address = server.local_addr();
    [client(address), quick_client(address).plain()]
}

/// Once the panic of an iterator given to `send_many` ended the process: it was drawn under a lock,
/// which the handles took again when they were dropped while the handler unwound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panic_of_an_iterator_given_to_send_many_ends_its_own_connection_alone() {
    let server = bind(Server::builder()).await;
    serve(&server, |mut connection| async move {
        let first = plain(connection.recv().await);
        if first.as_text() == Some("prices") {
            let prices = (1..).map(|price| {
                assert!(price < 3, "the iterator panics as it should");
                price.to_string()
            });
            let _ = connection.send_many(prices).await;
        }
        connection.send(first).await.unwrap();
        echo(connection).await;
    });
    for client in clients(&server) {
        let client = client.without_fresh_session().without_reconnect();
        let mut other = client.connect().await.unwrap();
        echoed(&mut other, "before").await;
        let mut connection = client.connect().await.unwrap();
        connection.send("prices").await.unwrap();
        for price in ["1", "2"] {
            let message = plain(limit(connection.recv()).await);
            assert_eq!(
                message.as_text(),
                Some(price),
                "what it gave before is sent"
            );
        }
        limit(async { while let Ok(Some(_)) = connection.recv().await {} }).await;
        echoed(&mut other, "after").await;
    }
    assert_eq!(server.stats().handler_panics, 2);
}

/// Sends once more when its last user drops it.
struct SendsAtTheEnd(Sender);

impl AsRef<[u8]> for SendsAtTheEnd {
    fn as_ref(&self) -> &[u8] {
        &[7; 10_000]
    }
}

impl Drop for SendsAtTheEnd {
    fn drop(&mut self) {
        self.0.try_send("dropped").unwrap();
    }
}

/// Once a payload was dropped under a lock of the queue that it came from, though it may be anybody's
/// code: one whose drop sends waited for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_whose_drop_sends_is_sent_and_then_sends() {
    let server = bind(Server::builder()).await;
    for client in clients(&server) {
        let (connection, mut peer) = pair(&server, client).await;
        let (sender, _receiver) = connection.split();
        let payload = Bytes::from_owner(SendsAtTheEnd(sender.clone()));
        sender.send(Message::binary(payload)).await.unwrap();
        assert_eq!(plain(limit(peer.recv()).await).as_bytes(), [7; 10_000]);
        let taking = async { plain(peer.recv().await) };
        assert_eq!(limit(taking).await.as_text(), Some("dropped"));
    }
}
