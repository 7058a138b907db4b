//! Packets that are ready to be sent.

use bytes::{Bytes, BytesMut};

use crate::number::{Position, Seq};
use crate::util::copy_in_pieces;

/// A packet to send, in two parts. One after the other they are one WebSocket binary message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transmit {
    /// The packet, or everything in it before `body`.
    pub head: Bytes,
    /// The payload of a long record that was sent by
    /// [`Session::send_shared`](crate::Session::send_shared): a slice of that message. Otherwise
    /// empty.
    pub body: Bytes,
}

impl Transmit {
    pub(crate) fn new(head: Bytes, body: Bytes) -> Transmit {
        Transmit { head, body }
    }

    /// The length of the packet in bytes.
    #[allow(clippy::len_without_is_empty)] // No packet is empty.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The packet in one piece. It is copied if it has two parts.
    pub fn into_bytes(self) -> Bytes {
        if self.body.is_empty() {
            return self.head;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        whole.extend_from_slice(&self.head);
        copy_in_pieces(&self.body, |piece| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

/// A packet in one piece.
impl From<Bytes> for Transmit {
    fn from(head: Bytes) -> Transmit {
        Transmit::new(head, Bytes::new())
    }
}

/// A finished DATA packet: the bytes that are sent, and sent again after a resume.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) packet: Transmit,
    /// The packet's first record.
    pub(crate) first: Seq,
    /// The end of its last record.
    pub(crate) end: Position,
    /// The message of the last record continues in the next packet.
    pub(crate) continues: bool,
    /// The memory that the packet keeps, in bytes.
    pub(crate) memory: u32,
}
