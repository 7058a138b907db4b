//! A session's packets over a WebSocket: the pump's other traffic.

use bytes::Bytes;
use std::task::Poll;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Link, ending::session_loss};
use crate::{
    defaults::{READ_TURN_BYTES, WRITE_BATCH_BYTES, WRITE_TURN_BYTES},
    handles::{CloseRequest, Shared},
    pump::{Flushing, Traffic, Turn, TurnContext},
    reports::ConnectionError,
    settings::Options,
    time::granted,
    ws::{
        Failure, Side, WebSocket,
        transport::{Transport, Upgraded},
    },
};
use unstall_proto::{HandleError, limits::MAX_PACKET};

pub(crate) struct Packets<'l>(pub(crate) &'l mut Link);

impl Link {
    fn handle_packet(&mut self, text: bool, packet: Bytes, now: Instant) -> Result<(), Failure> {
        let broken = |why: String| Failure::Broken(ConnectionError::Protocol(why));
        if text {
            return Err(broken(
                "a text message where a session's packet was due".into(),
            ));
        }
        let time = self.time(now);
        let Some(generation) = self.generation else {
            return Err(broken("a packet on a connection that was replaced".into()));
        };
        match self.session.handle_packet(time, generation, packet) {
            Ok(()) => Ok(()),
            // The farewell goes out first, and then the session is over.
            Err(HandleError::Protocol(error)) if !error.is_resumable() => Ok(()),
            Err(HandleError::Rejected(rejection)) => {
                Err(Failure::Broken(ConnectionError::SessionRefused {
                    why: session_loss(rejection),
                    retry_after: rejection.retry_after().map(granted),
                }))
            }
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

impl Traffic for Packets<'_> {
    fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        context: TurnContext<'_, '_>,
        _unlimited: bool,
    ) -> Turn {
        let TurnContext {
            shared,
            counters,
            cx,
            now,
        } = context;
        let link = &mut *self.0;
        let before = link.received;
        let mut turn = Turn::read(ws, READ_TURN_BYTES, cx, |text, payload| {
            counters.bytes_received += payload.len() as u64;
            link.handle_packet(text, payload.into_bytes(), now)
        });
        link.exchange(shared, cx, now);
        counters.messages_received += link.received - before;
        if let Some(failure) = link.failure.take() {
            turn.failure.get_or_insert(Failure::Broken(failure));
        }
        if link.leaves_at().is_some_and(|at| at <= now) {
            link.leave_at = None;
            turn.failure
                .get_or_insert(Failure::Broken(ConnectionError::GoingAway));
        }
        turn
    }

    fn write<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        flushing: &mut Flushing,
        context: TurnContext<'_, '_>,
        open: bool,
    ) -> Result<bool, Failure> {
        let TurnContext {
            shared,
            counters,
            cx,
            now,
        } = context;
        let link = &mut *self.0;
        let time = link.time(now);
        let mut written = 0;
        let again = loop {
            match flushing.poll(ws, shared, cx, now) {
                Poll::Pending => break false,
                Poll::Ready(result) => result?,
            }
            link.settle_flushes(shared);
            link.close_when_due(shared, now);
            let Some(generation) = link.generation.filter(|_| open) else {
                break false;
            };
            if written >= WRITE_TURN_BYTES {
                break true;
            }
            if link.was_opened() {
                counters.messages_sent += link.accept(shared, cx, now);
            }
            link.close_when_due(shared, now);
            let mut bytes = 0;
            while bytes < WRITE_BATCH_BYTES {
                let Some(packet) = link.session.poll_transmit_parts(time, generation) else {
                    break;
                };
                bytes += packet.len();
                ws.write_packet(packet)?;
            }
            if bytes == 0 {
                break false;
            }
            counters.bytes_sent += bytes as u64;
            written += bytes;
        };
        link.tell_stalls(shared, now);
        Ok(again)
    }

    /// The reader can always read: credit bounds what comes.
    fn is_paused(&self) -> bool {
        false
    }

    /// So does the peer.
    fn peer_always_reads(&self) -> bool {
        true
    }

    fn request_close(&mut self, request: &CloseRequest) {
        self.0.request_close(request);
    }

    fn is_idle(&self, shared: &Shared) -> bool {
        self.0.is_idle(shared)
    }

    fn is_over(&self, _: &Shared) -> bool {
        self.0.is_over()
    }

    fn wake_at(&self) -> Option<Instant> {
        self.0.next_timer()
    }

    fn report(&mut self, _: &Shared, _: Instant) -> Option<Instant> {
        None
    }

    /// What was sent and not acknowledged is sent again.
    fn abandon(&mut self, _: &Shared) -> u64 {
        0
    }
}

/// A session's packets are bounded by the protocol, and never cut into frames.
pub(crate) fn over_packets(
    upgraded: Upgraded,
    side: Side,
    options: &Options,
) -> WebSocket<Transport> {
    let packets = options
        .clone()
        .max_message_bytes(MAX_PACKET)
        .fragment_bytes(MAX_PACKET);
    WebSocket::new(upgraded.transport, upgraded.leftover, side, &packets)
}
