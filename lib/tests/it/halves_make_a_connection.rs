//! A connection is its two halves: they know what it knows, it does what they do, and they can be
//! joined again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::common::{
    clock::hurried,
    limit,
    net::bind,
    plain,
    sessions::{client, pair, text},
    until,
};
use futures_util::SinkExt;
use unstall::{
    Client, CloseCode, Connection, IncomingRef, Message, Options, Receiver, Sender, Server,
};

/// What a handle knows of its connection.
#[derive(Debug, PartialEq)]
struct Facts {
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    subprotocol: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    session: bool,
    id: u64,
}

macro_rules! facts {
    ($handle:expr) => {
        Facts {
            peer: $handle.peer_addr(),
            local: $handle.local_addr(),
            subprotocol: $handle.subprotocol(),
            path: $handle.request().map(|request| request.uri().to_string()),
            status: $handle.response().map(|answer| answer.status().as_u16()),
            session: $handle.is_session(),
            id: $handle.stats().id,
        }
    };
}

/// A session, the client's end first.
async fn session(options: Options) -> (Server, Connection, Connection) {
    let server = bind(Server::builder().options(options.clone())).await;
    let client = client(server.local_addr()).options(options);
    let (client, session) = pair(&server, client).await;
    (server, client, session)
}

#[tokio::test]
async fn halves_know_what_the_connection_knows() {
    let (server, client, session) = session(Options::default()).await;
    let known = (facts!(client), facts!(session));
    assert_eq!(known.0.peer, Some(server.local_addr()));
    assert_eq!(known.0.peer, known.1.local);
    assert_eq!(known.0.local, known.1.peer);
    assert_eq!(known.1.path.as_deref(), Some("/"));
    assert_eq!((known.0.status, known.1.status), (Some(101), None));
    for (connection, known) in [(client, known.0), (session, known.1)] {
        assert!(known.session);
        assert_eq!(known.subprotocol.as_deref(), Some("unstall.v1"));
        let (sender, receiver) = connection.split();
        assert_eq!(facts!(sender), known);
        assert_eq!(facts!(receiver), known);
        drop(sender);
        assert_eq!(facts!(receiver), known, "without the other half");
    }
}

#[tokio::test]
async fn nothing_is_known_before_a_lazy_client_has_connected() {
    let connection = Client::new("ws://127.0.0.1:1/").connect_lazy().unwrap();
    let facts = facts!(connection);
    assert_eq!((facts.peer, facts.local), (None, None));
    assert_eq!((facts.subprotocol, facts.status), (None, None));
    assert!(!facts.session);
}

#[tokio::test]
async fn halves_are_joined_again_in_the_middle_of_the_stream() {
    let (_server, client, session) = session(Options::default()).await;
    client.send_many(["1", "2", "3", "4"]).await.unwrap();
    let (sender, mut receiver) = session.split();
    assert_eq!(plain(limit(receiver.recv()).await), Message::from("1"));
    let other = sender.clone();
    let mut session = receiver.reunite(sender).unwrap();
    assert_eq!(text(&mut session).await, "2");
    // A clone joins them as well, and the others stay valid.
    let (sender, receiver) = session.split();
    let mut session = receiver.reunite(other).unwrap();
    assert_eq!(text(&mut session).await, "3");
    assert_eq!(text(&mut session).await, "4");
    let (mut client, id) = (client, session.stats().id);
    drop(session);
    sender.send("still open").await.unwrap();
    assert_eq!(sender.stats().id, id);
    assert_eq!(text(&mut client).await, "still open");
    let closing = sender.close(CloseCode::NORMAL, "");
    let (report, end) = tokio::join!(limit(closing), limit(client.recv()));
    assert!(report.clean && matches!(end, Ok(None)), "{end:?}");
}

#[tokio::test]
async fn halves_of_two_connections_are_both_given_back() {
    let (_one, client, mut session) = session(Options::default()).await;
    let (_two, _other_client, other) = self::session(Options::default()).await;
    let (sender, receiver) = client.split();
    let (other_sender, other_receiver) = other.split();
    let ids = (other_sender.stats().id, receiver.stats().id);
    let error = receiver.reunite(other_sender).unwrap_err();
    assert!(error.to_string().contains("different connections"));
    let (other_sender, receiver): (Sender, Receiver) = error.into_halves();
    assert_eq!((other_sender.stats().id, receiver.stats().id), ids);
    let _ = other_receiver.reunite(other_sender).unwrap();
    let client = receiver.reunite(sender).unwrap();
    client.send("joined").await.unwrap();
    assert_eq!(text(&mut session).await, "joined");
}

#[tokio::test]
async fn connection_receives_batches_and_acknowledges_by_hand() {
    let by_hand = Options::default().acknowledge_by_hand(true);
    let (_server, client, mut session) = session(by_hand).await;
    client.send_many(["done", "not done"]).await.unwrap();
    let (mut received, mut positions) = (Vec::new(), Vec::new());
    while received.len() < 2 {
        let mut batch = limit(session.recv_batch()).await.unwrap().unwrap();
        let Some(IncomingRef::Message(message)) = batch.next() else {
            panic!("a message was due");
        };
        received.push(message.to_message());
        drop(batch);
        positions.push(session.position());
    }
    assert_eq!(received, ["done", "not done"].map(Message::from));
    assert!(positions[0] < positions[1]);
    session.acknowledge_to(positions[0]);
    let closing = hurried(client.close(CloseCode::NORMAL, "")).await;
    assert_eq!(closing.maybe_delivered, [Message::from("not done")]);
}

#[tokio::test]
async fn connection_is_a_sink_and_gives_back_what_was_not_delivered() {
    let server = bind(Server::builder()).await;
    let client = client(server.local_addr()).without_fresh_session();
    let (client, session) = pair(&server, client).await;
    let mut sink = client.sink();
    sink.send(Message::from("lost")).await.unwrap();
    until("it has come", || session.stats().messages_received == 1).await;
    let client = Arc::new(client);
    let waiting = client.clone();
    let ended = tokio::spawn(async move { waiting.ended().await });
    drop(session);
    let report = limit(ended).await.unwrap();
    assert_eq!(report.maybe_delivered, [Message::from("lost")]);
    assert!(client.take_undelivered().is_empty(), "each comes back once");
}

/// While messages are received, the peer hears of them in steps: it has not heard of the first of
/// two messages in a packet.
#[tokio::test]
async fn what_was_received_last_counts_as_delivered_while_the_end_is_awaited() {
    let options = Options::default().close_timeout(Duration::from_millis(1500));
    let (_server, client, mut session) = session(options).await;
    client
        .send_many(["received", "not received"])
        .await
        .unwrap();
    until("both have come", || session.stats().messages_received == 2).await;
    assert_eq!(text(&mut session).await, "received");
    let ended = tokio::spawn(async move { session.ended().await });
    let report = hurried(client.close(CloseCode::NORMAL, "")).await;
    assert_eq!(report.maybe_delivered, [Message::from("not received")]);
    let _ = limit(ended).await.unwrap();
}
