//! A WebSocket of bare bytes, so that the client adds as little as it can.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{Result, goals::median};

/// A masked binary frame of 64 B, whose mask is zero.
const FRAME: [u8; 70] = {
    let mut frame = [b'x'; 70];
    frame[0] = 0x82;
    frame[1] = 0x80 | 64;
    let mut mask = 2;
    while mask < 6 {
        frame[mask] = 0;
        mask += 1;
    }
    frame
};

/// What comes back: the same without a mask.
const ECHO_BYTES: usize = FRAME.len() - 4;

/// No answer takes so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to `/echo`.
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) fn connect(address: &str) -> Result<Socket> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "GET /echo HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        match head.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(Socket(stream)),
            false => Err(format!("no WebSocket: {}", String::from_utf8_lossy(&head)).into()),
        }
    }
}

/// The median time of a round trip of 64 B, one in flight, in microseconds.
pub(crate) fn round_trip(address: &str, count: usize) -> Result<f64> {
    let Socket(mut stream) = Socket::connect(address)?;
    let mut times = Vec::with_capacity(count);
    let mut echo = [0; ECHO_BYTES];
    for _ in 0..count {
        let begun = Instant::now();
        stream.write_all(&FRAME)?;
        stream.read_exact(&mut echo)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times))
}
