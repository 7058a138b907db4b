//! A WebSocket client that costs little: the load must not be what is measured.

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::Result;

/// Connects, and agrees to a subprotocol, if there is one.
pub(crate) async fn connect(address: &str, subprotocol: Option<&str>) -> Result<(Reader, Writer)> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let offered = subprotocol.map_or(String::new(), |name| {
        format!("Sec-WebSocket-Protocol: {name}\r\n")
    });
    let request = format!(
        "GET /topics HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut buffer).await? == 0 {
            return Err("the server closed the connection in the handshake".into());
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&buffer).into_owned().into());
    }
    buffer.advance(end);
    let (reader, writer) = socket.into_split();
    Ok((
        Reader {
            socket: reader,
            buffer,
        },
        Writer {
            socket: writer,
            out: Vec::new(),
        },
    ))
}

const PING: u8 = 9;
const PONG: u8 = 10;

pub(crate) enum Frame {
    Message(BytesMut),
    Ping(BytesMut),
}

pub(crate) struct Reader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

pub(crate) struct Writer {
    socket: OwnedWriteHalf,
    out: Vec<u8>,
}

impl Reader {
    /// The next frame. No server here fragments.
    pub(crate) async fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some((opcode, head, length)) = head(&self.buffer)
                && self.buffer.len() >= head + length
            {
                self.buffer.advance(head);
                let payload = self.buffer.split_to(length);
                match opcode {
                    0..=7 => return Ok(Frame::Message(payload)),
                    PING => return Ok(Frame::Ping(payload)),
                    _ => continue,
                }
            }
            self.buffer.reserve(16 << 10);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }
}

/// Opcode, length of the head, and length of the payload of a frame.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (bytes.first()?, bytes.get(1)?);
    let (head, length) = match second & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes(*bytes[2..].first_chunk()?)),
        ),
        127 => (10, u64::from_be_bytes(*bytes[2..].first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    Some((first & 0x0f, head, length))
}

impl Writer {
    /// Adds a message.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        self.frame(2, payload);
    }

    /// Adds the answer to a ping.
    pub(crate) fn pong(&mut self, payload: &[u8]) {
        self.frame(PONG, payload);
    }

    /// The masking key is zero, which costs nothing and is as good as another.
    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.out.push(0x80 | opcode);
        match payload.len() {
            short @ 0..126 => self.out.push(0x80 | short as u8),
            long @ 126..65_536 => {
                self.out.push(0x80 | 126);
                self.out.extend_from_slice(&(long as u16).to_be_bytes());
            }
            longer => {
                self.out.push(0x80 | 127);
                self.out.extend_from_slice(&(longer as u64).to_be_bytes());
            }
        }
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(payload);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.out.len()
    }

    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.socket.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }
}
