//! Copies of payloads.

use bytes::Bytes;

/// Long payloads are copied in pieces below what the C library copies by `rep movsb`: on processors
/// in wide use that takes several times as long where both ends are not aligned alike, as they never
/// are here.
pub(crate) const PIECE_BYTES: usize = 2 << 10;

/// A payload of its own.
pub(crate) fn copied(bytes: &[u8]) -> Bytes {
    let mut copy = Vec::with_capacity(bytes.len());
    bytes
        .chunks(PIECE_BYTES)
        .for_each(|piece| copy.extend_from_slice(piece));
    copy.into()
}
