//! One turn of reading, whatever the messages are.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    defaults::{MESSAGE_OVERHEAD_BYTES, READ_TURN_MESSAGES},
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
    /// Reads until the socket is empty, or as many bytes as `limit` or messages as a turn has.
    pub(crate) fn read<S: AsyncRead + AsyncWrite + Unpin>(
        ws: &mut WebSocket<S>,
        limit: usize,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(bool, Payload<'_>) -> Result<(), Failure>,
    ) -> Turn {
        let (mut bytes, mut messages) = (0, 0);
        let mut turn = Turn {
            again: limit > 0,
            ..Turn::default()
        };
        while bytes < limit && messages < READ_TURN_MESSAGES {
            match ws.poll_read(cx) {
                Poll::Ready(Ok(Received::Message { text, payload })) => {
                    bytes += payload.len() + MESSAGE_OVERHEAD_BYTES;
                    messages += 1;
                    if let Err(failure) = receive(text, payload) {
                        turn.failure = Some(failure);
                        break;
                    }
                }
                Poll::Ready(Ok(Received::Ping)) => bytes += 1,
                Poll::Ready(Ok(Received::Pong(payload))) => {
                    bytes += 1;
                    turn.add_pong(payload);
                }
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
