//! Once, with a large `max_message_bytes`, 14 bytes ended the process: the declared length was allocated immediately. Usage: attacks/run declared_length
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unstall::{Options, Server};

#[tokio::main]
async fn main() {
    // The usual "no limit". (1 << 40 has the same effect.)
    let limit = std::env::args()
        .nth(1)
        .map_or(usize::MAX, |it| it.parse().unwrap());
    let server = Server::builder()
        .options(Options::default().max_message_bytes(limit))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr();
    let serving = server.clone();
    tokio::spawn(async move {
        serving
            .serve(|mut c| async move { while let Ok(Some(_)) = c.recv().await {} })
            .await
    });
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await.unwrap();
    let mut head = [0; 512];
    let _ = tcp.read(&mut head).await.unwrap();
    let length = (limit as u64).min(1 << 46);
    let mut frame = vec![0x82, 0xff];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    println!("limit {limit}, declared length {length}");
    tcp.write_all(&frame).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("the process lives");
    println!("ok");
}
