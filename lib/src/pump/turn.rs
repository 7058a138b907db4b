//! One turn of reading, whatever the messages are.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    defaults::{MESSAGE_OVERHEAD_BYTES, READ_TURN_FRAMES},
    handles::Shared,
    reports::{Close, Counters},
    ws::{Failure, Payload, Received, WebSocket},
};

/// What a turn is done with and for: the queues and events of the handles, the pump's counters, its
/// task and the time.
pub(crate) struct TurnContext<'a, 'c> {
    pub(crate) shared: &'a Shared,
    pub(crate) counters: &'a mut Counters,
    pub(crate) cx: &'a mut Context<'c>,
    pub(crate) now: Instant,
}

/// What a turn of reading found beside messages.
#[derive(Default)]
pub(crate) struct Turn {
    /// It was used up: there may be more.
    pub(crate) again: bool,
    pub(crate) pongs: Vec<Bytes>,
    pub(crate) close: Option<Close>,
    pub(crate) failure: Option<Failure>,
}

impl Turn {
    /// Reads until the socket is empty, or as many bytes as `limit` or frames as a turn has.
    pub(crate) fn read<S: AsyncRead + AsyncWrite + Unpin>(
        ws: &mut WebSocket<S>,
        limit: usize,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(bool, Payload<'_>) -> Result<(), Failure>,
    ) -> Turn {
        let (mut bytes, mut frames) = (0, 0);
        let mut turn = Turn {
            again: limit > 0,
            ..Turn::default()
        };
        while bytes < limit && frames < READ_TURN_FRAMES {
            frames += 1;
            match ws.poll_read(cx) {
                Poll::Ready(Ok(Received::Message { text, payload })) => {
                    bytes += payload.len() + MESSAGE_OVERHEAD_BYTES;
                    if let Err(failure) = receive(text, payload) {
                        turn.failure = Some(failure);
                        break;
                    }
                }
                Poll::Ready(Ok(Received::Part(part))) => bytes += part,
                Poll::Ready(Ok(Received::Ping)) => {}
                Poll::Ready(Ok(Received::Pong(payload))) => turn.add_pong(payload),
                Poll::Ready(Ok(Received::Close(close))) => turn.close = Some(close),
                Poll::Ready(Err(failure)) => {
                    turn.failure = Some(failure);
                    break;
                }
                Poll::Pending => {
                    turn.again = false;
                    break;
                }
            }
        }
        turn
    }

    /// A peer may send pongs without end; only a few can be answers.
    fn add_pong(&mut self, payload: Bytes) {
        self.pongs.truncate(15);
        self.pongs.push(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        defaults::{LONG_READ_BYTES, READ_TURN_BYTES},
        settings::Options,
        ws::Side,
    };
    use std::{io, pin::Pin, task::Waker};
    use tokio::io::ReadBuf;

    /// A peer that says the same again and again, without end.
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

    /// Once a turn counted messages only: fragments of no byte, of which a peer sends ten million a
    /// second, never ended it, and other connections waited 13 ms for theirs.
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
            let mut ws = WebSocket::new(peer, Bytes::new(), Side::Client, &options);
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..20 {
                let mut messages = 0;
                let turn = Turn::read(&mut ws, READ_TURN_BYTES, &mut cx, |_, _| {
                    messages += 1;
                    Ok(())
                });
                assert!(turn.again, "{what}: there is more");
                assert!(turn.failure.is_none(), "{what}: {:?}", turn.failure);
                assert!(messages <= READ_TURN_FRAMES, "{what}: {messages}");
            }
            let most = 20 * (READ_TURN_BYTES + LONG_READ_BYTES) as u64;
            assert!(ws.bytes_read() <= most, "{what}: {}", ws.bytes_read());
        }
    }
}
