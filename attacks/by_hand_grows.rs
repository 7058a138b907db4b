//! Once, with `acknowledge_by_hand`, each received message that was not acknowledged cost 16 bytes, without bound. Usage: attacks/run by_hand_grows
// Receiving renews the credit, but the position of each message was kept until it was acknowledged. An honest peer stops
// at its replay limit; a hostile one does not. No limit counted the positions.
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unstall::{Options, Server};

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        >> 10
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0xfe);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::main]
async fn main() {
    let options = Options::default().acknowledge_by_hand(true);
    let server = Server::builder()
        .options(options)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr();
    let serving = server.clone();
    tokio::spawn(async move {
        // It receives everything and never acknowledges.
        let handler = |connection: unstall::Connection| async move {
            let (_sender, mut receiver) = connection.split();
            while let Ok(Some(mut batch)) = receiver.recv_batch().await {
                while batch.next().is_some() {}
            }
        };
        serving.serve(handler).await
    });
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: unstall.v1\r\n\r\n").await.unwrap();
    let mut head = [0; 512];
    let _ = tcp.read(&mut head).await.unwrap();
    let mut hello = vec![1];
    hello.extend_from_slice(&[7; 32]);
    for number in [0u64, 1, 0, 0, 1 << 40, 1 << 20] {
        hello.extend_from_slice(&number.to_be_bytes());
    }
    tcp.write_all(&frame(&hello)).await.unwrap();
    let (mut read, mut write) = tcp.into_split();
    // Wait for the server's packets without parsing them: it renews credit as fast as it receives.
    let (credit, mut granted) = tokio::sync::watch::channel(1u64 << 20);
    tokio::spawn(async move {
        let mut all = Vec::new();
        let mut buffer = [0; 65536];
        loop {
            let n = read.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                println!("the server ended the connection");
                return;
            }
            all.extend_from_slice(&buffer[..n]);
            let mut at = 0;
            while all.len() >= at + 2 && all.len() >= at + 2 + usize::from(all[at + 1] & 127) {
                let size = usize::from(all[at + 1] & 127);
                let packet = &all[at + 2..at + 2 + size];
                if packet.first() == Some(&0x12) {
                    let _ = credit.send(u64::from_be_bytes(packet[1..9].try_into().unwrap()));
                }
                at += 2 + size;
            }
            all.drain(..at);
        }
    });
    const COUNT: usize = 4000;
    let before = rss();
    let (mut sent, mut offset) = (0u64, 0u64);
    for packet in 0..10_000u64 {
        while offset + COUNT as u64 * 64 > *granted.borrow_and_update() {
            if granted.changed().await.is_err() {
                return;
            }
        }
        let mut data = vec![0x10];
        data.extend_from_slice(&(sent + 1).to_be_bytes());
        data.resize(9 + COUNT, 0); // Empty binary messages.
        write.write_all(&frame(&data)).await.unwrap();
        sent += COUNT as u64;
        offset += COUNT as u64 * 64;
        if packet % 2500 == 2499 {
            println!(
                "{} million messages, {} MiB on the wire: memory {before} -> {} MiB",
                sent / 1_000_000,
                sent >> 20,
                rss()
            );
        }
    }
    if rss() > before + 256 {
        println!("DEFECT: memory grows with every message");
        std::process::exit(1);
    }
    println!("ok");
}
