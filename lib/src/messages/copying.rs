//! Copies of payloads.

use bytes::Bytes;

use crate::defaults::COPY_PIECE_BYTES;

/// Appends a copy, in pieces. `change` gets each of them while it is in the processor's cache.
#[inline]
pub(crate) fn append(to: &mut Vec<u8>, bytes: &[u8], mut change: impl FnMut(&mut [u8])) {
    to.reserve(bytes.len());
    for piece in bytes.chunks(COPY_PIECE_BYTES) {
        let begin = to.len();
        to.extend_from_slice(piece);
        change(&mut to[begin..]);
    }
}

/// A payload of its own.
pub(crate) fn copied(bytes: &[u8]) -> Bytes {
    let mut copy = Vec::with_capacity(bytes.len());
    append(&mut copy, bytes, |_| {});
    copy.into()
}
