//! The rules that a peer can break, and their numbers on the wire (SPEC.md, "Errors").

use crate::number::{Offset, Seq};

/// A rule of the protocol that the peer broke.
///
/// Another connection mends only [`SequenceGap`](ProtocolError::SequenceGap). Every other error
/// would come again with the replay, so it ends the session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet is cut short, has bytes left over, or has a field out of its range.
    #[error("the peer sent a malformed packet: {0}")]
    Malformed(&'static str),
    /// The kind of a packet is unknown, and is not one that may be ignored.
    #[error("the peer sent a packet of the unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// A packet must not come from this side, or not in this state.
    #[error("the peer sent an unexpected packet: {0}")]
    Unexpected(&'static str),
    /// Records are missing between what was received and this packet.
    #[error("records {expected} to before {first} are missing; resume on another connection")]
    SequenceGap {
        /// The record that should have come next.
        expected: Seq,
        /// The first record of the packet.
        first: Seq,
    },
    /// The peer sent a record beyond the last sequence number.
    #[error("the peer sent more records than there are sequence numbers")]
    SequenceExhausted,
    /// The peer sent more than its credit allows.
    #[error("the peer sent up to offset {sent} with credit up to {granted}")]
    CreditExceeded {
        /// The offset at which the records of the packet end.
        sent: Offset,
        /// The credit.
        granted: Offset,
    },
    /// The peer acknowledged records that were not sent, or a part of a message.
    #[error("the peer acknowledged record {acknowledged}, which {why}")]
    InvalidAck {
        /// The record that the peer acknowledged.
        acknowledged: Seq,
        /// Why this is not possible.
        why: &'static str,
    },
    /// A message is larger than this side announced.
    #[error("the peer sent a message of more than {limit} bytes")]
    MessageTooLarge {
        /// The largest message that is accepted, in bytes.
        limit: u64,
    },
    /// A text message is not UTF-8.
    #[error("the peer sent a text message that is not UTF-8")]
    InvalidText,
    /// The resume exchange names positions that the session does not have.
    #[error("the peer resumed at a position that this session does not have: {0}")]
    Inconsistent(&'static str),
}

impl ProtocolError {
    /// The code that ABORT carries for this error.
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

/// Why a session was aborted, as a number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is a number of the wire")]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// A packet or record that cannot be read.
    pub const MALFORMED: ErrorCode = ErrorCode(1);
    /// A packet of an unknown kind that may not be ignored.
    pub const UNKNOWN_KIND: ErrorCode = ErrorCode(2);
    /// A packet that must not come from this side or in this state.
    pub const UNEXPECTED: ErrorCode = ErrorCode(3);
    /// Records are missing.
    pub const SEQUENCE_GAP: ErrorCode = ErrorCode(4);
    /// A record beyond the last sequence number.
    pub const SEQUENCE_EXHAUSTED: ErrorCode = ErrorCode(5);
    /// More than the credit allows.
    pub const CREDIT_EXCEEDED: ErrorCode = ErrorCode(6);
    /// An acknowledgement of what was not sent, or of a part of a message.
    pub const INVALID_ACK: ErrorCode = ErrorCode(7);
    /// A message larger than announced.
    pub const MESSAGE_TOO_LARGE: ErrorCode = ErrorCode(8);
    /// A text message that is not UTF-8.
    pub const INVALID_TEXT: ErrorCode = ErrorCode(9);
    /// Positions in a resume exchange that do not fit.
    pub const INCONSISTENT: ErrorCode = ErrorCode(10);
    /// The close was not completed by its deadline.
    pub const CLOSE_TIMEOUT: ErrorCode = ErrorCode(11);
    /// The application aborted the session.
    pub const APPLICATION: ErrorCode = ErrorCode(12);
}
