//! The pump against peers that never stop sending.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{Plain, Pump, Reading};
use crate::{
    defaults::{LONG_READ_BYTES, READ_TURN_BYTES, READ_TURN_FRAMES},
    handles::{Identity, Shared},
    settings::Options,
    ws::{Side, WebSocket},
};

/// A peer that sends `begins` once and then `again` for ever.
struct Endless {
    begins: Vec<u8>,
    again: Vec<u8>,
    at: usize,
    read: usize,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(self.read < 64 << 20, "the turn never ends");
        self.read += buffer.remaining();
        while buffer.remaining() > 0 {
            let at = self.at;
            self.at += 1;
            let byte = match self.begins.get(at) {
                Some(byte) => *byte,
                None => self.again[(at - self.begins.len()) % self.again.len()],
            };
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Once a turn of reading counted only messages. Empty fragments, of which a peer sends ten million a
/// second, never ended it. Other connections waited 13 ms instead of 0.08.
#[test]
fn turn_ends_whatever_the_peer_says() {
    let endless_message = [0x82, 127, 0, 1, 0, 0, 0, 0, 0, 0];
    let endless_fragment = [0x02, 127, 0, 1, 0, 0, 0, 0, 0, 0];
    let cases: [(&str, &[u8], &[u8]); 8] = [
        ("empty fragments", &[0x02, 0], &[0x00, 0]),
        ("fragments of a byte", &[0x01, 0], &[0x00, 1, b'a']),
        ("empty messages", &[], &[0x82, 0]),
        ("pings", &[], &[0x89, 0]),
        ("pongs", &[], &[0x8a, 1, 7]),
        ("pings between fragments", &[0x02, 0], &[0x89, 0, 0x00, 0]),
        ("one message", &endless_message, &[7]),
        ("one fragment", &endless_fragment, &[7]),
    ];
    for (what, begins, again) in cases {
        let peer = Endless {
            begins: begins.to_vec(),
            again: again.to_vec(),
            at: 0,
            read: 0,
        };
        let options = Options::default().max_message_bytes(usize::MAX);
        let ws = WebSocket::new(peer, Bytes::new(), Side::Client, &options);
        let shared = Shared::new(options, Identity::default());
        let mut reading = Reading::new(&shared.options);
        let plain = Plain::new(&mut reading, &shared.account);
        let mut pump = Pump::new(ws, shared.clone(), plain);
        let mut cx = Context::from_waker(Waker::noop());
        for turn in 1..=20 {
            let again = pump.read_messages(READ_TURN_BYTES, &mut cx, Instant::now());
            assert!(matches!(again, Ok(true)), "{what}: {again:?}");
            let messages = pump.report.counters.messages_received;
            assert!(
                messages <= turn * READ_TURN_FRAMES as u64,
                "{what}: {messages}"
            );
        }
        let most = 20 * (READ_TURN_BYTES + LONG_READ_BYTES) as u64;
        assert!(
            pump.ws.bytes_read() <= most,
            "{what}: {}",
            pump.ws.bytes_read()
        );
    }
}
