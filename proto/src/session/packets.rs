//! Packets that arrive.

use std::time::Duration;

use bytes::Bytes;

use crate::connection::Phase;
use crate::error::ProtocolError;
use crate::event::{EndReason, Event};
use crate::limits::{CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, MAX_GO_AWAY};
use crate::number::Generation;
use crate::packet::Packet;
use crate::resume::Rejection;
use crate::session::{Session, Side};
use crate::time::Time;

/// Why [`Session::handle_packet`] refused a packet. After each of these errors: send what
/// [`poll_transmit`](Session::poll_transmit) still gives, then close the connection with
/// [`close_code`](HandleError::close_code).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The connection does not carry the session: a newer one has replaced it, or it was detached.
    /// The session goes on without it.
    #[error("the connection was replaced by a newer one of the same session")]
    Superseded,
    /// The server rejected the session. [`Rejection::is_retryable`] says whether to connect again.
    #[error("the server rejected the session: {0}")]
    Rejected(#[from] Rejection),
    /// The peer broke the protocol. [`ProtocolError::is_resumable`] says whether to connect again.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl HandleError {
    /// The WebSocket close code with which to close the connection (RFC 6455, section 7.4.1): 1002
    /// after [`HandleError::Protocol`], otherwise 1000.
    pub fn close_code(&self) -> u16 {
        match self {
            HandleError::Protocol(_) => CLOSE_PROTOCOL_ERROR,
            HandleError::Superseded | HandleError::Rejected(_) => CLOSE_NORMAL,
        }
    }

    /// Whether the session lives on and may resume on another connection.
    pub fn is_resumable(&self) -> bool {
        match self {
            HandleError::Superseded => false,
            HandleError::Rejected(rejection) => rejection.is_retryable(),
            HandleError::Protocol(error) => error.is_resumable(),
        }
    }
}

impl Session {
    /// A packet came on the connection `generation`: one WebSocket binary message. The messages in
    /// it are slices of it.
    ///
    /// After calling this: [`recv`](Session::recv), [`poll_event`](Session::poll_event),
    /// [`poll_transmit`](Session::poll_transmit), [`poll_timeout`](Session::poll_timeout).
    ///
    /// # Errors
    /// After any error: send what `poll_transmit` still gives, close the connection, and call
    /// [`detach`](Session::detach). [`HandleError::is_resumable`] says whether the session lives
    /// on. If not, [`Event::Ended`] has come.
    pub fn handle_packet(
        &mut self,
        now: Time,
        generation: Generation,
        packet: Bytes,
    ) -> Result<(), HandleError> {
        self.handle(now, generation, || Packet::decode(packet))
    }

    /// A WebSocket text message came on the connection `generation`. Packets are binary messages,
    /// so the peer broke the protocol: the session ends as after a packet that cannot be read.
    ///
    /// After calling this: the same as after [`handle_packet`](Session::handle_packet).
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`], unless the session has ended already; or
    /// [`HandleError::Superseded`].
    pub fn handle_text(&mut self, now: Time, generation: Generation) -> Result<(), HandleError> {
        let error = ProtocolError::Malformed("a text message");
        self.handle(now, generation, || Err(error))
    }

    fn handle(
        &mut self,
        now: Time,
        generation: Generation,
        packet: impl FnOnce() -> Result<Packet, ProtocolError>,
    ) -> Result<(), HandleError> {
        if !self.connection.is_current(generation) {
            return Err(HandleError::Superseded);
        }
        // Nothing that a peer sends after the end matters, well-formed or not.
        if self.state.is_ended() || self.state.peer_has_ended() {
            return Ok(());
        }
        self.counters.packets_received += 1;
        let result = match packet() {
            Ok(packet) => self.dispatch(now, packet),
            Err(error) => Err(error.into()),
        };
        if let Err(HandleError::Protocol(error)) = &result {
            self.fail(now, generation, error.clone());
        }
        result
    }

    fn dispatch(&mut self, now: Time, packet: Packet) -> Result<(), HandleError> {
        match packet {
            Packet::Unknown(_) => {
                self.counters.ignored += 1;
                return Ok(());
            }
            Packet::Welcome(welcome) => return Ok(self.handle_welcome(&welcome)?),
            Packet::Reject(rejection) => return Err(self.handle_reject(now, rejection)),
            _ => {}
        }
        if self.connection.phase != Phase::Attached {
            return Err(ProtocolError::Unexpected("a packet before WELCOME").into());
        }
        self.agreement.tokens.confirm();
        Ok(self.handle_attached(now, packet)?)
    }

    fn handle_attached(&mut self, now: Time, packet: Packet) -> Result<(), ProtocolError> {
        match packet {
            Packet::Data { first, records } => self.handle_data(first, records)?,
            Packet::Ack(seq) => self.handle_ack(seq)?,
            Packet::Credit(limit) => self.sending.credit.raise(limit),
            Packet::Blocked(limit) => self.handle_blocked(limit),
            Packet::Ping(number) => self.connection.pong = Some(number),
            Packet::Pong(number) => {
                if let Some(round_trip) = self.signals.ping.answer(now, number) {
                    self.events.push(Event::Pong { round_trip });
                }
            }
            Packet::Close {
                last,
                within_millis,
                frame,
            } => self.handle_close(now, last, within_millis, frame)?,
            Packet::End => self.handle_end()?,
            Packet::Abort { code, reason } => {
                self.end(EndReason::AbortedByPeer { code, reason }, None);
            }
            Packet::GoAway {
                within_millis,
                reason,
            } if self.side == Side::Client => {
                let within = Duration::from_millis(within_millis).min(MAX_GO_AWAY);
                self.events.push(Event::GoAway { within, reason });
            }
            Packet::GoAway { .. } => return Err(ProtocolError::Unexpected("GOAWAY from a client")),
            _ => {
                return Err(ProtocolError::Unexpected(
                    "a handshake on an attached connection",
                ));
            }
        }
        Ok(())
    }
}
