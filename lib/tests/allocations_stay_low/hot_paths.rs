//! The hot paths whose allocations and instructions are counted, with both sides in one process.

use unstall::{Client, Connection, Incoming, IncomingRef, Receiver, Sender, Server};

/// The client's end of a connection over loopback TCP, and the server's.
pub(crate) async fn opened(session: bool) -> (Connection, Connection) {
    let (client, server): (fn(Client) -> Client, _) = match session {
        true => (Client::require_session, Server::builder()),
        false => (Client::plain, Server::builder().plain()),
    };
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let dialed = Client::new(format!("ws://{}/", server.local_addr())).without_reconnect();
    let (client, accepted) = tokio::join!(client(dialed).connect(), server.accept());
    (client.unwrap(), accepted.unwrap())
}

pub(crate) async fn each(sender: Sender, size: usize, count: u64) -> Sender {
    let payload = vec![7; size];
    for _ in 0..count {
        sender.send(&payload[..]).await.unwrap();
    }
    sender
}

pub(crate) async fn many(sender: Sender, size: usize, count: u64) -> Sender {
    let payload = vec![7; size];
    let messages = (0..count).map(|_| &payload[..]);
    sender.send_many(messages).await.unwrap();
    sender
}

pub(crate) async fn recv(mut receiver: Receiver, size: usize, count: u64) -> Receiver {
    for _ in 0..count {
        let Some(Incoming::Message(message)) = receiver.recv().await.unwrap() else {
            panic!("a message was due");
        };
        assert_eq!(message.as_bytes().len(), size);
    }
    receiver
}

pub(crate) async fn recv_batch(mut receiver: Receiver, size: usize, count: u64) -> Receiver {
    let mut received = 0;
    while received < count {
        let mut batch = receiver.recv_batch().await.unwrap().unwrap();
        while let Some(incoming) = batch.next() {
            let IncomingRef::Message(message) = incoming else {
                panic!("a gap");
            };
            assert_eq!(message.as_bytes().len(), size);
            received += 1;
        }
    }
    receiver
}
