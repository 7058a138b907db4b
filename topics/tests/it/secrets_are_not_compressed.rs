//! Tokens and publishers' ids, as they are on the wire of a compressed connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::TcpListener,
};
use unstall::{Client, Compression, Options, Server};
use unstall_topics::{Node, SUBPROTOCOL, Topics};

use crate::common::{in_time, log, url};

/// A TCP proxy that keeps what clients say.
async fn recorder(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let kept = said.clone();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(target).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            kept.lock().unwrap().extend(&buffer[..read]);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    (address, said)
}

/// The first bytes and the payloads of a client's frames, behind its request.
fn frames(said: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let head = said.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = &said[head.unwrap() + 4..];
    let mut frames = Vec::new();
    while let [first, length, ..] = *rest {
        assert_eq!(length & 0x80, 0x80, "clients mask");
        let (length, header) = match length & 0x7f {
            126 => (usize::from(rest[2]) << 8 | usize::from(rest[3]), 4),
            length => (usize::from(length), 2),
        };
        let (mask, payload) = rest[header..][..4 + length].split_at(4);
        let payload = payload.iter().zip(mask.iter().cycle());
        frames.push((first, payload.map(|(byte, mask)| byte ^ mask).collect()));
        rest = &rest[header + 4 + length..];
    }
    frames
}

/// Once HELLO was compressed when it was long enough, and so the length of a token told of its bytes.
#[tokio::test]
async fn hello_is_sent_as_it_is_and_messages_are_compressed() {
    let options = || Options::default().compression(Compression::default());
    let server = Server::builder()
        .subprotocols([SUBPROTOCOL])
        .options(options())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let node = Node::new(&log().await);
    let (serving, address) = (server.clone(), server.local_addr());
    tokio::spawn(async move {
        let serve = move |connection| node.serve(connection);
        serving.serve(serve).await;
    });
    let (address, said) = recorder(address).await;

    let token = "token-".repeat(1_000);
    let client = Client::new(url(address)).options(options());
    let topics = Topics::over([client]).token(&token).start();
    let text = "tick ".repeat(100);
    in_time(topics.publish("a.b", text.as_str())).await.unwrap();

    let said = said.lock().unwrap().clone();
    let [(first, hello), (_, publish), ..] = &frames(&said)[..] else {
        panic!("HELLO and PUBLISH");
    };
    assert_eq!((*first, hello[0]), (0x82, 0x01), "whole, binary, as it is");
    assert!(hello.ends_with(token.as_bytes()));
    assert!(publish.len() < 100, "{} bytes", publish.len());
    let text = String::from_utf8_lossy(&said);
    assert!(text.contains("permessage-deflate"), "it is a test of it");
}
