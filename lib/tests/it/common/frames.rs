//! A raw peer: it writes and reads frames (RFC 6455 section 5.2) as the test says, also wrong ones.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use unstall::tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame that was written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// RSV1 is 4, RSV2 is 2, RSV3 is 1.
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame {
        fin: true,
        reserved: 0,
        opcode,
        masked: false,
        payload: payload.as_ref().to_vec(),
    }
}

/// A frame that is not the last of its message.
pub(crate) fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame {
        fin: false,
        ..frame(opcode, payload)
    }
}

pub(crate) fn close(code: u16, reason: &str) -> Frame {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(CLOSE, payload)
}

impl Frame {
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let code = self.payload.first_chunk::<2>();
        code.map(|code| u16::from_be_bytes(*code))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let mask_bit = u8::from(self.masked) << 7;
        match self.payload.len() {
            len @ 0..=125 => bytes.push(mask_bit | len as u8),
            len @ 126..=0xffff => {
                bytes.push(mask_bit | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(mask_bit | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        if self.masked {
            bytes.extend_from_slice(&MASK);
            let masked = self.payload.iter().zip(MASK.iter().cycle());
            bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend_from_slice(&self.payload);
        }
        bytes
    }
}

/// How a raw peer's stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Fin,
    Reset,
}

/// One end of a WebSocket connection whose handshake is done, in bytes.
pub(crate) struct RawPeer<S = TcpStream> {
    pub(crate) io: S,
    /// Whether this end is the client, whose frames are masked.
    pub(crate) is_client: bool,
}

impl RawPeer {
    /// The server's end of the next connection: answers the upgrade request.
    pub(crate) async fn accept(listener: &TcpListener) -> RawPeer {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let head = read_head(&mut tcp).await;
        let answer = switching(&head, "");
        tcp.write_all(answer.as_bytes()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        RawPeer::server(tcp)
    }

    /// The client's end of a new connection to `server`.
    pub(crate) async fn connect(server: SocketAddr) -> RawPeer {
        let tcp = TcpStream::connect(server).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        RawPeer::upgrade(tcp).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawPeer<S> {
    /// The server's end of a stream that is upgraded.
    pub(crate) fn server(io: S) -> RawPeer<S> {
        RawPeer {
            io,
            is_client: false,
        }
    }

    /// The client's end of a stream that is upgraded.
    pub(crate) fn client(io: S) -> RawPeer<S> {
        RawPeer {
            io,
            is_client: true,
        }
    }

    /// The client's end of a stream, after it asked for the upgrade.
    pub(crate) async fn upgrade(mut io: S) -> RawPeer<S> {
        io.write_all(upgrade("").as_bytes()).await.unwrap();
        let head = read_head(&mut io).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        RawPeer::client(io)
    }

    /// Writes a frame, masked if this end is a client.
    pub(crate) async fn say(&mut self, frame: Frame) {
        let masked = self.is_client;
        self.say_as_is(&Frame { masked, ..frame }).await;
    }

    pub(crate) async fn say_as_is(&mut self, frame: &Frame) {
        self.io.write_all(&frame.encode()).await.unwrap();
    }

    /// The next frame, or how the stream ended.
    pub(crate) async fn see(&mut self) -> Result<Frame, StreamEnd> {
        self.read_frame().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => StreamEnd::Fin,
            _ => StreamEnd::Reset,
        })
    }

    /// The next frame that is not a heartbeat.
    pub(crate) async fn see_beyond_heartbeats(&mut self) -> Result<Frame, StreamEnd> {
        loop {
            let frame = self.see().await?;
            if frame.opcode != PING && (frame.opcode != PONG || !frame.payload.is_empty()) {
                return Ok(frame);
            }
        }
    }

    async fn read_frame(&mut self) -> std::io::Result<Frame> {
        let first = self.io.read_u8().await?;
        let second = self.io.read_u8().await?;
        let len = match second & 0x7f {
            126 => u64::from(self.io.read_u16().await?),
            127 => self.io.read_u64().await?,
            len => u64::from(len),
        };
        let masked = second & 0x80 != 0;
        // RFC 6455 section 5.1: a client's frames are masked, a server's are not.
        assert_eq!(masked, !self.is_client, "masking of opcode {}", first & 15);
        let mut mask = [0; 4];
        if masked {
            self.io.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.io.read_exact(&mut payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Ok(Frame {
            fin: first & 0x80 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 15,
            masked,
            payload,
        })
    }
}

/// A good upgrade request with `more` header lines, each with its CRLF.
pub(crate) fn upgrade(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Reads up to the end of an HTTP head.
pub(crate) async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a whole request"));
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

/// The 101 that answers a request, with more header lines, each with its CRLF.
pub(crate) fn switching(head: &str, more: &str) -> String {
    let key = header(head, "sec-websocket-key").expect("a WebSocket request");
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {}\r\n{more}\r\n",
        derive_accept_key(key.as_bytes())
    )
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// As [`listen`], but the kernel buffers only about so many received bytes of each connection.
pub(crate) fn listen_keeping(bytes: u32) -> (TcpListener, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
