//! What was read from the socket and is not decoded yet.

use std::{
    future::Future,
    io,
    mem::MaybeUninit,
    ops::Range,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::spare::Spare;
use crate::{
    defaults::{
        FRAGMENT_BYTES, IDLE_READ_BYTES, LONG_READ_BYTES, READ_BUFFER_BYTES, SPARE_BUFFER_BYTES,
        TRUSTED_BYTES,
    },
    settings::Share,
};

/// The read window: bytes of the socket, from the next frame on.
pub(super) struct Window {
    bytes: BytesMut,
    /// How much of it is decoded, from its beginning on.
    decoded: usize,
    /// How many bytes it holds after a read. After a long message this is exactly one more of the
    /// same length, which can then take the whole buffer without a copy.
    reads: usize,
    /// The largest read since the last call of `shrink`.
    largest_read: usize,
    /// Bytes ever read.
    count: u64,
    spare: Spare,
}

impl Window {
    /// Begins with what was read before.
    pub(super) fn new(leftover: &[u8]) -> Window {
        Window {
            bytes: leftover.into(),
            decoded: 0,
            reads: IDLE_READ_BYTES,
            largest_read: 0,
            count: leftover.len() as u64,
            spare: Spare::default(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What was read and is not decoded.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.decoded..]
    }

    /// The same, to be unmasked.
    #[inline]
    pub(super) fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.decoded..]
    }

    /// So many bytes are decoded. Returns where they lie, until more is read.
    #[inline]
    pub(super) fn advance(&mut self, size: usize) -> Range<usize> {
        let begin = self.decoded;
        self.decoded += size;
        begin..self.decoded
    }

    #[inline]
    pub(super) fn get(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// How much memory it holds.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity() + self.spare.held()
    }

    /// Whether a payload of that length may keep the whole buffer. It may not if the buffer is more
    /// than three times as large.
    #[inline]
    pub(super) fn is_filled_by(&self, length: usize) -> bool {
        length >= self.bytes.capacity() / 3
    }

    /// Gives the buffer away with the payload at `place`, which was decoded last, in a frame of
    /// `size` bytes.
    pub(super) fn give_away(&mut self, place: Range<usize>, size: usize) -> Bytes {
        let mut next = BytesMut::new();
        next.extend_from_slice(self.rest());
        let whole = std::mem::replace(&mut self.bytes, next).freeze();
        self.decoded = 0;
        self.reads = match size <= SPARE_BUFFER_BYTES {
            true => {
                self.spare.keep(&whole);
                size
            }
            false => IDLE_READ_BYTES,
        };
        whole.slice(place)
    }

    /// Reads at most up to `needed` bytes, or as many as are read ahead. Returns how many bytes came;
    /// zero at the end of the stream. `share` covers the window, and the bytes that are held
    /// `besides`.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        needed: usize,
        share: &mut Share,
        besides: usize,
    ) -> Poll<io::Result<usize>> {
        let held = self.rest().len();
        if self.decoded > 0 {
            self.bytes.copy_within(self.decoded.., 0);
            self.bytes.truncate(held);
            self.decoded = 0;
        }
        let size = self.next_size(needed, held);
        let total = besides + size.max(self.bytes.capacity());
        if !share.cover(total + self.spare.held()) {
            self.spare = Spare::default();
            ready!(share.poll_cover_urgently(total, cx));
        }
        let limit = (size - held).min(LONG_READ_BYTES);
        let read = match size <= IDLE_READ_BYTES {
            true => ready!(poll_read_by_way_of_the_stack(
                io,
                cx,
                &mut self.bytes,
                limit
            ))?,
            false => {
                if self.bytes.capacity() < size {
                    let mut larger = self.spare.take(size);
                    larger.extend_from_slice(&self.bytes);
                    self.bytes = larger;
                }
                ready!(poll_read(io, cx, &mut self.bytes, limit))?
            }
        };
        self.count += read as u64;
        self.largest_read = self.largest_read.max(read);
        if held + read >= self.reads {
            self.reads = READ_BUFFER_BYTES;
        }
        Poll::Ready(Ok(read))
    }

    /// How large the window is to be for the next read. It grows with what has arrived, because the
    /// length that a peer announces costs the peer nothing.
    fn next_size(&self, needed: usize, held: usize) -> usize {
        let doubled = held.saturating_mul(2).max(READ_BUFFER_BYTES);
        let grown = match held >= READ_BUFFER_BYTES {
            true => doubled.max(TRUSTED_BYTES),
            false => doubled,
        };
        self.reads.max(needed.min(grown))
    }

    /// A fragment was copied out. The buffer of an unusually long one is freed.
    pub(super) fn after_fragment(&mut self) {
        if self.bytes.capacity() > 2 * FRAGMENT_BYTES {
            self.bytes = BytesMut::from(self.rest());
            self.decoded = 0;
        }
    }

    /// Frees memory that recent traffic did not need.
    pub(super) fn shrink(&mut self) {
        let small = std::mem::take(&mut self.largest_read) < IDLE_READ_BYTES;
        if small {
            self.reads = IDLE_READ_BYTES;
            self.spare = Spare::default();
            if self.rest().is_empty() {
                self.bytes = BytesMut::new();
                self.decoded = 0;
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.bytes = BytesMut::new();
        self.decoded = 0;
        self.spare = Spare::default();
    }
}

/// Reads at most `limit` bytes, behind what is in the buffer.
fn poll_read<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut impl BufMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let mut buffer = buffer.limit(limit);
    pin!(io.read_buf(&mut buffer)).poll(cx)
}

/// The same, but makes room in the buffer only once bytes have come. So an idle connection holds no
/// buffer.
fn poll_read_by_way_of_the_stack<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let mut stack = [MaybeUninit::uninit(); IDLE_READ_BYTES];
    let mut there = ReadBuf::uninit(&mut stack[..limit]);
    ready!(Pin::new(io).poll_read(cx, &mut there))?;
    buffer.extend_from_slice(there.filled());
    Poll::Ready(Ok(there.filled().len()))
}
