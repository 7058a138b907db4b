//! A message that arrives in several records.

use bytes::Bytes;

use crate::error::ProtocolError;
use crate::limits::MAX_RECORD;
use crate::payload::Kind;
use crate::util::copy_in_pieces;

/// The payload of a message, as its pieces arrive. Memory is taken as they do, and never for what a
/// peer announces.
#[derive(Clone, Debug)]
pub(super) struct Assembly {
    pub(super) kind: Kind,
    pub(super) is_final: bool,
    /// The sum of the costs of its records.
    pub(super) cost: u64,
    /// How long the payload is, also of one that is not kept.
    length: u64,
    payload: Vec<u8>,
    /// The bytes are wanted. If not, they are counted only.
    kept: bool,
}

impl Assembly {
    pub(super) fn new(kind: Kind, is_final: bool, kept: bool) -> Assembly {
        Assembly {
            kind,
            is_final,
            cost: 0,
            length: 0,
            payload: Vec::new(),
            kept,
        }
    }

    /// Appends a piece.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        is_final: bool,
        piece: &[u8],
        max_message: u64,
    ) -> Result<(), ProtocolError> {
        if (kind, is_final) != (self.kind, self.is_final) {
            return Err(ProtocolError::Malformed(
                "a message that changes within itself",
            ));
        }
        self.length += piece.len() as u64;
        if self.length > max_message {
            return Err(ProtocolError::MessageTooLarge { limit: max_message });
        }
        if !self.kept {
            return Ok(());
        }
        let size = self.payload.len();
        if self.payload.capacity() - size < piece.len() {
            // The room doubles, but never far beyond the largest message.
            let limit = usize::try_from(max_message).unwrap_or(usize::MAX);
            let capacity = (2 * size).clamp(size + piece.len(), limit.max(size + MAX_RECORD));
            self.payload.reserve_exact(capacity - size);
        }
        copy_in_pieces(piece, |part| self.payload.extend_from_slice(part));
        Ok(())
    }

    /// The whole payload, checked. Empty if it was not kept.
    pub(super) fn finish(mut self) -> Result<Bytes, ProtocolError> {
        if self.kept && self.kind == Kind::Text && std::str::from_utf8(&self.payload).is_err() {
            return Err(ProtocolError::InvalidText);
        }
        // The message may wait for long, so the room to grow is given back.
        self.payload.shrink_to_fit();
        Ok(self.payload.into())
    }

    /// The memory that it takes, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.payload.capacity() as u64
    }
}
