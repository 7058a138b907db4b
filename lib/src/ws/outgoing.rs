//! Frames on their way to the socket. Long payloads that need no mask are not copied.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use super::{
    incoming::Payload,
    masking::{Keys, apply_mask},
};
use crate::{
    defaults::{CONTROL_BACKLOG_BYTES, FRAGMENT_BYTES, WRITE_BATCH_BYTES},
    messages::copying::PIECE_BYTES,
};

/// From here on a payload is written from where it lies: what a copy costs is more than one more
/// element in a vectored write.
const APART_BYTES: usize = 4 << 10;

/// Elements of one vectored write: two for each packet of a batch, and some.
const SLICES: usize = 16;

#[derive(Default)]
pub(super) struct Outgoing {
    /// Headers, and payloads that were copied.
    bytes: Vec<u8>,
    /// Payloads that were not, each with its place: so many of `bytes` come before it.
    apart: VecDeque<(usize, Bytes)>,
    /// How much of `bytes` is written.
    written: usize,
    /// A client's masking keys that were not used yet.
    keys: Option<Keys>,
}

impl Outgoing {
    /// Of a client, that is, or of a server.
    pub(super) fn new(masking: bool) -> Outgoing {
        Outgoing {
            keys: masking.then(Keys::default),
            ..Outgoing::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.apart.is_empty()
    }

    /// Appends a frame of data, whose payload is the parts one behind the other.
    pub(super) fn frame<const PARTS: usize>(
        &mut self,
        opcode: OpCode,
        is_final: bool,
        payload: [Payload<'_>; PARTS],
    ) -> io::Result<()> {
        let mask = self.keys.as_mut().map(Keys::next).transpose()?;
        let header = FrameHeader {
            is_final,
            opcode,
            mask,
            ..FrameHeader::default()
        };
        let length: usize = payload.iter().map(|part| part.len()).sum();
        header
            .format(length as u64, &mut self.bytes)
            .map_err(io::Error::other)?;
        let mut done = 0;
        for part in payload {
            let length = part.len();
            match (part, mask) {
                (Payload::Shared(part), None) if length >= APART_BYTES => {
                    self.apart.push_back((self.bytes.len(), part));
                }
                (part, None) => self.bytes.extend_from_slice(&part),
                (part, Some(mut key)) => {
                    key.rotate_left(done % 4);
                    self.mask(&part, key);
                }
            }
            done += length;
        }
        Ok(())
    }

    /// Appends what a client sends. Each piece is masked while it is in the processor's cache.
    fn mask(&mut self, payload: &[u8], key: [u8; 4]) {
        self.bytes.reserve(payload.len());
        for piece in payload.chunks(PIECE_BYTES) {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(piece);
            apply_mask(&mut self.bytes[begin..], key);
        }
    }

    /// Writes everything to the socket; `count` grows by what it took.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        count: &mut u64,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let taken = match self.apart.is_empty() {
                true => Pin::new(&mut *io).poll_write(cx, &self.bytes[self.written..]),
                false => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let slices = self.slices(&mut slices);
                    Pin::new(&mut *io).poll_write_vectored(cx, slices)
                }
            };
            let taken = ready!(taken)?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *count += taken as u64;
            self.advance(taken);
        }
        self.bytes.clear();
        self.written = 0;
        // What a batch and one fragment make it grow to is usual.
        if self.bytes.capacity() > WRITE_BATCH_BYTES + 2 * FRAGMENT_BYTES {
            self.bytes.shrink_to(WRITE_BATCH_BYTES);
        }
        Poll::Ready(Ok(()))
    }

    fn slices<'s, 'b>(&'b self, slices: &'s mut [IoSlice<'b>; SLICES]) -> &'s [IoSlice<'b>] {
        let (mut at, mut count) = (self.written, 0);
        for (place, payload) in self.apart.iter().take(SLICES / 2) {
            if *place > at {
                slices[count] = IoSlice::new(&self.bytes[at..*place]);
                count += 1;
                at = *place;
            }
            slices[count] = IoSlice::new(payload);
            count += 1;
        }
        if self.apart.len() < SLICES / 2 && at < self.bytes.len() {
            slices[count] = IoSlice::new(&self.bytes[at..]);
            count += 1;
        }
        &slices[..count]
    }

    fn advance(&mut self, mut taken: usize) {
        while taken > 0 {
            let place = self.apart.front().map_or(self.bytes.len(), |front| front.0);
            let step = taken.min(place - self.written);
            self.written += step;
            taken -= step;
            if self.written < place {
                return;
            }
            let Some((_, payload)) = self.apart.front_mut() else {
                return;
            };
            let step = taken.min(payload.len());
            payload.advance(step);
            taken -= step;
            if payload.is_empty() {
                self.apart.pop_front();
            }
        }
    }

    /// Gives back the memory of a batch.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.bytes = Vec::new();
            self.apart = VecDeque::new();
        }
    }
}

/// Control frames, as tungstenite encodes them. A peer that asks for pong after pong and reads none
/// is not answered without bound.
impl Write for Outgoing {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        if self.bytes.len() - self.written > WRITE_BATCH_BYTES + CONTROL_BACKLOG_BYTES {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.extend_from_slice(frames);
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn data(text: bool) -> OpCode {
    OpCode::Data(match text {
        true => Data::Text,
        false => Data::Binary,
    })
}

pub(super) const CONTINUE: OpCode = OpCode::Data(Data::Continue);
