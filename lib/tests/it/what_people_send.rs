//! What people have in hand can be sent as it is, and a client is a value like any other.

use std::{borrow::Cow, sync::Arc};

use bytes::{Bytes, BytesMut};
use unstall::{
    Client, CloseCode, Connection, Message, Server,
    tokio_tungstenite::tungstenite::{Message as WsMessage, Utf8Bytes},
};

use crate::common::{echo, limit, plain};

async fn echo_server() -> Server {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(echo).await });
    server
}

fn client(server: &Server) -> Client {
    Client::new(format!("ws://{}", server.local_addr()))
}

/// Sends a payload of each kind, and returns how many.
async fn send_each_kind(connection: &Connection, text: &String, bytes: &Vec<u8>) -> usize {
    let mut sent = 0;
    macro_rules! send {
        ($($payload:expr),* $(,)?) => {$(
            limit(connection.send($payload)).await.unwrap();
            sent += 1;
        )*};
    }
    send!(
        text,
        text.as_str(),
        text.clone(),
        text.clone().into_boxed_str(),
        Cow::Borrowed(text.as_str()),
        Cow::<str>::Owned(text.clone()),
        Arc::<str>::from(text.as_str()),
        Utf8Bytes::from(text.as_str()),
        Message::try_from(WsMessage::text(text.clone())).unwrap(),
    );
    send!(
        bytes,
        bytes.as_slice(),
        bytes.clone(),
        bytes.clone().into_boxed_slice(),
        Cow::Borrowed(bytes.as_slice()),
        Cow::<[u8]>::Owned(bytes.clone()),
        Arc::<[u8]>::from(bytes.as_slice()),
        Bytes::from(bytes.clone()),
        &Bytes::from(bytes.clone()),
        BytesMut::from(bytes.as_slice()),
    );
    sent
}

#[tokio::test]
async fn every_kind_of_text_and_bytes_arrives() {
    let server = echo_server().await;
    for client in [client(&server).plain(), client(&server).require_session()] {
        let mut connection = limit(client.connect()).await.unwrap();
        for len in [3, 300] {
            let (text, bytes) = ("t".repeat(len), vec![b'b'; len]);
            let sent = send_each_kind(&connection, &text, &bytes).await;
            assert_eq!(sent, 19);
            for at in 0..sent {
                let message = plain(limit(connection.recv()).await);
                let expected = match at < 9 {
                    true => Message::text(text.clone()),
                    false => Message::binary(bytes.clone()),
                };
                assert_eq!(message, expected, "the payload number {at}");
            }
        }
        let _ = limit(connection.close(CloseCode::NORMAL, "")).await;
    }
}

#[tokio::test]
async fn clones_of_a_client_connect_each_as_often_as_they_are_asked() {
    let server = echo_server().await;
    let client = client(&server);
    let clone = client.clone();
    for client in [&client, &clone, &client] {
        let mut connection = limit(client.connect()).await.unwrap();
        connection.send("hello").await.unwrap();
        assert_eq!(
            plain(limit(connection.recv()).await).as_text(),
            Some("hello")
        );
        assert!(limit(connection.close(CloseCode::NORMAL, "")).await.clean);
    }
}
