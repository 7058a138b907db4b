//! What can go wrong, who did it, and who may try again.

use crate::limits::{CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR};
use crate::number::{Offset, Seq};
use crate::resume::Rejection;

/// A rule of the protocol that the peer broke (SPEC.md, "Errors").
///
/// Only [`SequenceGap`](ProtocolError::SequenceGap) is mended by another connection. Every other
/// error would come again with the replay, so it ends the session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet is cut short, has bytes left over, or a field is out of its range.
    #[error("the peer sent a malformed packet: {0}")]
    Malformed(&'static str),
    /// The kind of packet is unknown and is not one that may be ignored.
    #[error("the peer sent a packet of the unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// A packet that must not come from this side or in this state.
    #[error("the peer sent a packet out of turn: {0}")]
    Unexpected(&'static str),
    /// Records are missing between what was received and this packet.
    #[error("records {expected} to before {first} are missing; resume on another connection")]
    SequenceGap {
        /// The record that had to come next.
        expected: Seq,
        /// The first record of the packet.
        first: Seq,
    },
    /// The sequence of records has reached the last number there is.
    #[error("the peer exhausted the sequence numbers")]
    SequenceExhausted,
    /// More was sent than the credit allows.
    #[error("the peer sent up to byte {sent} with credit up to {granted}")]
    CreditExceeded {
        /// Where the records of the packet end.
        sent: Offset,
        /// What was granted.
        granted: Offset,
    },
    /// An acknowledgement of records that were not sent, or of a part of a message.
    #[error("the peer acknowledged record {acknowledged}, which {why}")]
    InvalidAck {
        /// What the peer acknowledged.
        acknowledged: Seq,
        /// Why that cannot be.
        why: &'static str,
    },
    /// A message is larger than announced as accepted.
    #[error("the peer sent a message of more than {limit} bytes")]
    MessageTooLarge {
        /// The largest message that is accepted, in bytes.
        limit: u64,
    },
    /// A text message is not UTF-8.
    #[error("the peer sent a text message that is not UTF-8")]
    InvalidText,
    /// Positions in a resume exchange that do not fit the session.
    #[error("the peer resumed at a position that this session does not have: {0}")]
    Inconsistent(&'static str),
}

impl ProtocolError {
    /// The code that ABORT carries for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            ProtocolError::Malformed(_) => ErrorCode::MALFORMED,
            ProtocolError::UnknownKind(_) => ErrorCode::UNKNOWN_KIND,
            ProtocolError::Unexpected(_) => ErrorCode::UNEXPECTED,
            ProtocolError::SequenceGap { .. } => ErrorCode::SEQUENCE_GAP,
            ProtocolError::SequenceExhausted => ErrorCode::SEQUENCE_EXHAUSTED,
            ProtocolError::CreditExceeded { .. } => ErrorCode::CREDIT_EXCEEDED,
            ProtocolError::InvalidAck { .. } => ErrorCode::INVALID_ACK,
            ProtocolError::MessageTooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
            ProtocolError::InvalidText => ErrorCode::INVALID_TEXT,
            ProtocolError::Inconsistent(_) => ErrorCode::INCONSISTENT,
        }
    }

    /// Whether the session lives on and may resume on another connection.
    pub fn is_resumable(&self) -> bool {
        matches!(self, ProtocolError::SequenceGap { .. })
    }
}

/// Why a session was aborted, as a number on the wire (SPEC.md, "Errors").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// A packet could not be decoded.
    pub const MALFORMED: ErrorCode = ErrorCode(1);
    /// A packet of an unknown kind that may not be ignored.
    pub const UNKNOWN_KIND: ErrorCode = ErrorCode(2);
    /// A packet out of turn.
    pub const UNEXPECTED: ErrorCode = ErrorCode(3);
    /// Records are missing.
    pub const SEQUENCE_GAP: ErrorCode = ErrorCode(4);
    /// The sequence numbers ran out.
    pub const SEQUENCE_EXHAUSTED: ErrorCode = ErrorCode(5);
    /// More was sent than credit allowed.
    pub const CREDIT_EXCEEDED: ErrorCode = ErrorCode(6);
    /// An acknowledgement that cannot be.
    pub const INVALID_ACK: ErrorCode = ErrorCode(7);
    /// A message larger than announced.
    pub const MESSAGE_TOO_LARGE: ErrorCode = ErrorCode(8);
    /// A text message that is not UTF-8.
    pub const INVALID_TEXT: ErrorCode = ErrorCode(9);
    /// Positions in a resume exchange that do not fit.
    pub const INCONSISTENT: ErrorCode = ErrorCode(10);
    /// The close was not completed by its deadline.
    pub const CLOSE_TIMEOUT: ErrorCode = ErrorCode(11);
    /// The application ended the session at once.
    pub const APPLICATION: ErrorCode = ErrorCode(12);
}

/// Why [`Session::handle_packet`](crate::Session::handle_packet) refused a packet. After each of
/// them: transmit what [`poll_transmit`](crate::Session::poll_transmit) still gives, then close
/// the connection with [`close_code`](HandleError::close_code).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The connection is not the session's current one: a newer one took its place, or it was
    /// detached. The session goes on elsewhere.
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
    /// after [`HandleError::Protocol`], 1000 otherwise.
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

/// Why [`Session::send`](crate::Session::send) did not accept a message. The caller still has
/// it: `send` only borrows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No room beside what is not acknowledged yet. Send it again after
    /// [`Event::Writable`](crate::Event::Writable).
    #[error("the replay buffer is full; send again when the session is writable")]
    Full,
    /// Larger than the peer accepts. Sending it again is of no use.
    #[error("the message has {size} bytes and the limit is {limit}")]
    TooLarge {
        /// The message's size, in bytes.
        size: u64,
        /// The largest message that can be sent, in bytes.
        limit: u64,
    },
    /// The session is closing or has ended. Sending it again is of no use.
    #[error("the session is closed for sending")]
    Closed,
}
