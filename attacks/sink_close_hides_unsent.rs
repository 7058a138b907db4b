//! Once a peer's close hid messages that were accepted and never written: `send` and the sink's `close` both said Ok. Usage: attacks/run sink_close_hides_unsent
use futures_util::SinkExt;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The peer's close may come before or after the handler's answers, so several attempts are made.
const TRIES: u32 = 30;

#[tokio::main]
async fn main() {
    let mut bad = Vec::new();
    let mut silent = 0;
    for _ in 0..TRIES {
        let (hidden, blamed) = one().await;
        silent += u32::from(hidden);
        if blamed {
            bad.push("flush blames ClosedHere; it was the peer who closed");
        }
    }
    bad.dedup();
    if silent > 0 {
        println!("{silent} of {TRIES} times");
        bad.push("accepted messages were dropped, sink.close() is Ok, no report has them");
    }
    if !bad.is_empty() {
        println!("DEFECT: {}", bad.join("; "));
        std::process::exit(1);
    }
    println!("ok");
}

/// Whether accepted messages were hidden, and whether `flush` blamed this side.
async fn one() -> (bool, bool) {
    let server = unstall::Server::builder()
        .plain()
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let addr = server.local_addr();
    let peer = tokio::spawn(async move {
        let mut s = TcpStream::connect(addr).await.unwrap();
        s.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await.unwrap();
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(s.read_u8().await.unwrap());
        }
        s.write_all(b"\x81\x83\0\0\0\0one\x81\x83\0\0\0\0two\x88\x82\0\0\0\0\x03\xe8")
            .await
            .unwrap();
        let mut rest = vec![];
        let _ = s.read_to_end(&mut rest).await;
        rest
    });
    let (tx, mut rx) = server.accept().await.unwrap().split();
    let mut sink = tx.sink();
    let mut accepted = 0;
    while let Ok(Some(i)) = rx.recv().await {
        accepted += sink.feed(i.into_message().unwrap()).await.is_ok() as u32;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let flushed = format!("{:?}", tx.flush().await);
    let closed = sink.close().await;
    let after = tx.close(unstall::CloseCode::NORMAL, "").await;
    println!(
        "accepted {accepted}, peer got {:?}; flush {flushed}; sink.close {closed:?}; report afterwards: clean {} unsent {:?}",
        peer.await.unwrap(),
        after.clean,
        after.unsent
    );
    let hidden = accepted > 0 && closed.is_ok() && after.unsent.is_empty();
    (hidden, flushed.contains("ClosedHere"))
}
