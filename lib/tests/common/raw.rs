//! A peer that speaks frames by hand, so that nothing on its side is the library's.
#![allow(dead_code, unreachable_pub)]

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use unstall::tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use unstall::{Client, Connection, Options};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The server's end of a TCP connection after the upgrade.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = Vec::new();
        encode(&mut frame, opcode, payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Says goodbye and half-closes; what the other side still sends is read and forgotten.
    pub async fn finish(mut self) {
        self.send(CLOSE, &1000u16.to_be_bytes()).await;
        let _ = self.0.shutdown().await;
        let _ = tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await;
    }

    /// The next frame's opcode and payload; `None` at the end of the stream.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let second = self.0.read_u8().await.ok()?;
        assert_eq!(second & 0x80, 0x80, "a client masks its frames");
        let len = match second & 0x7f {
            126 => self.0.read_u16().await.ok()?.into(),
            127 => self.0.read_u64().await.ok()?,
            len => len.into(),
        };
        let mut mask = [0; 4];
        self.0.read_exact(&mut mask).await.ok()?;
        let mut payload = vec![0; len as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Some((first & 0x0f, payload))
    }
}

/// Appends an unmasked frame.
pub fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// A client connection, and the raw server it is connected to. It does not reconnect.
pub async fn client(options: Options) -> (Connection, Raw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let client = Client::new(url).options(options).without_reconnect();
    let (connection, tcp) = tokio::join!(client.connect(), upgrade(&listener));
    (connection.unwrap(), Raw(tcp))
}

/// Answers one upgrade request.
pub async fn upgrade(listener: &TcpListener) -> TcpStream {
    let mut tcp = listener.accept().await.unwrap().0;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head
        .lines()
        .find_map(|line| {
            line.split_once(':')
                .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        })
        .map(|(_, key)| derive_accept_key(key.trim().as_bytes()))
        .expect("an upgrade request");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {key}\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await.unwrap();
    tcp
}
