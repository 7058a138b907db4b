//! The traffic of a session: its packets over a WebSocket.

use std::task::{Context, Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use unstall_proto::{HandleError, limits::MAX_PACKET};

use super::{Session, ending::session_loss};
use crate::{
    defaults::{
        HEAR_BYTES, HEAR_COMPRESSED_BYTES, READ_TURN_BYTES, SMALLEST_COMPRESSED_PACKET,
        WRITE_BATCH_BYTES,
    },
    handles::{CloseRequest, Shared},
    pump::{Reading, Traffic, TurnContext},
    reports::{CloseCode, ConnectionError},
    settings::Options,
    time::granted,
    ws::{
        CowBytes, Failure, Side, WebSocket,
        transport::{Transport, Upgraded},
    },
};

/// A session on its connection.
pub(crate) struct Packets<'s> {
    pub(crate) session: &'s mut Session,
    pub(crate) reading: &'s mut Reading,
}

impl Packets<'_> {
    fn handle(&mut self, text: bool, packet: CowBytes<'_>, now: Instant) -> Result<(), Failure> {
        let broken = |why: String| Failure::Broken(ConnectionError::Protocol(why));
        let session = &mut *self.session;
        let time = session.time(now);
        let Some(generation) = session.carrier.generation() else {
            return Err(broken("a packet on a connection that was replaced".into()));
        };
        let handled = match text {
            true => session.protocol.handle_text(time, generation),
            false => {
                let packet = packet.into_bytes();
                if session.carrier.repeats_hello(&packet) {
                    return Ok(());
                }
                session.protocol.handle_packet(time, generation, packet)
            }
        };
        match handled {
            Ok(()) => Ok(()),
            // The session is over as soon as its ABORT is sent.
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
    /// Reading never pauses, because credit bounds what the peer sends.
    fn room(&mut self, _: &mut TurnContext<'_, '_>) -> Result<usize, Failure> {
        Ok(READ_TURN_BYTES)
    }

    fn receive(
        &mut self,
        text: bool,
        payload: CowBytes<'_>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<(), Failure> {
        turn.report.counters.bytes_received += payload.len() as u64;
        self.handle(text, payload, turn.now)
    }

    fn deliver(&mut self, turn: &mut TurnContext<'_, '_>) -> Result<(), Failure> {
        let before = self.session.receiving.messages();
        self.session.exchange(self.reading, turn);
        let received = self.session.receiving.messages() - before;
        turn.report.counters.messages_received += received;
        self.session.tell_stalls(self.reading, turn.report);
        match self.session.why_leave(turn.shared, turn.now) {
            Some(why) => Err(Failure::Broken(why)),
            None => Ok(()),
        }
    }

    fn settle(&mut self, turn: &mut TurnContext<'_, '_>) {
        self.session.settle_flushes(turn.shared);
        self.session.close_when_due(turn.shared, turn.now);
    }

    fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        ws: &mut WebSocket<S>,
        turn: &mut TurnContext<'_, '_>,
    ) -> Result<usize, Failure> {
        let session = &mut *self.session;
        let Some(generation) = session.carrier.generation() else {
            return Ok(0);
        };
        if session.was_opened() {
            session.accept(turn);
        }
        session.close_when_due(turn.shared, turn.now);
        let time = session.time(turn.now);
        let mut bytes = 0;
        while bytes < WRITE_BATCH_BYTES {
            let Some(packet) = session.protocol.poll_transmit_parts(time, generation) else {
                break;
            };
            bytes += packet.len();
            ws.write_packet(packet)?;
        }
        turn.report.counters.bytes_sent += bytes as u64;
        session.tell_stalls(self.reading, turn.report);
        Ok(bytes)
    }

    fn shrink(&mut self) {
        self.session.protocol.shrink();
    }

    fn is_paused(&self) -> bool {
        false
    }

    /// The peer never pauses reading either.
    fn peer_always_reads(&self) -> bool {
        true
    }

    fn request_close(&mut self, request: &CloseRequest) {
        self.session.request_close(request);
    }

    fn is_idle(&self, shared: &Shared) -> bool {
        self.session.is_idle(shared)
    }

    fn is_over(&self, _: &Shared) -> bool {
        self.session.is_over()
    }

    fn failed_with(&self) -> Option<CloseCode> {
        let code = CloseCode::received(self.session.protocol.close_code());
        Some(code).filter(|code| *code != CloseCode::NORMAL)
    }

    /// An eviction ends the session, not only the connection. The peer is told by ABORT.
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        self.session.end_if_evicted(cx);
        Poll::Pending
    }

    fn wake_at(&self) -> Option<Instant> {
        self.session.wake_at()
    }

    fn reading(&mut self) -> &mut Reading {
        self.reading
    }

    /// Nothing is lost with the connection: unacknowledged messages are sent again.
    fn abandon(&mut self, _: &Shared) -> u64 {
        0
    }
}

/// A WebSocket for the packets of a session. The protocol bounds them, and each is one frame.
pub(crate) fn over_packets(
    mut upgraded: Upgraded,
    side: Side,
    options: &Options,
) -> WebSocket<Transport> {
    let packets = options
        .clone()
        .max_message_bytes(MAX_PACKET)
        .fragment_bytes(MAX_PACKET);
    let agreed = upgraded.compression.take();
    upgraded.compression = agreed.map(|it| it.not_below(SMALLEST_COMPRESSED_PACKET));
    upgraded.transport.hear_each(match upgraded.compression {
        Some(_) => HEAR_COMPRESSED_BYTES,
        None => HEAR_BYTES,
    });
    WebSocket::upgraded(upgraded, side, &packets)
}
