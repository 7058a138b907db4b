//! From messages and control frames to the socket. Long payloads that need no mask are not copied.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::{
    CowBytes,
    deflate::Deflater,
    header::{Header, Opcode},
    masking::{Keys, apply_mask},
};
use crate::{
    defaults::{
        CONTROL_BACKLOG_BYTES, FRAGMENT_BYTES, UNCOPIED_WRITE_BYTES, WRITE_BATCH_BYTES,
        WRITE_SLICES,
    },
    settings::{Account, Share},
};
use unstall_proto::util::copy_in_pieces;

pub(super) struct Encoder {
    /// Headers, and payloads that were copied.
    bytes: Vec<u8>,
    /// Payloads that were not copied. Each comes after so many of `bytes`.
    uncopied: VecDeque<(usize, Bytes)>,
    /// How much of `bytes` is written.
    written: usize,
    /// A client's masking keys.
    keys: Option<Keys>,
    /// Compresses messages, if that was agreed.
    deflater: Option<Box<Deflater>>,
    /// Covers `bytes` and the compressor's history. Payloads that were not copied count in their
    /// queue.
    share: Share,
    /// Bytes ever written to the socket.
    count: u64,
}

impl Encoder {
    /// `masking`: this side is a client.
    pub(super) fn new(masking: bool) -> Encoder {
        Encoder {
            bytes: Vec::new(),
            uncopied: VecDeque::new(),
            written: 0,
            keys: masking.then(Keys::default),
            deflater: None,
            share: Account::default().share(),
            count: 0,
        }
    }

    /// From now on what it holds counts in this account.
    pub(super) fn charge(&mut self, account: &Account) {
        self.share = account.share();
        self.share.cover_anyway(self.held());
    }

    fn held(&self) -> usize {
        self.bytes.capacity() + self.deflater.as_ref().map_or(0, |it| it.held())
    }

    /// Bytes ever written to the socket.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.uncopied.is_empty()
    }

    /// Whether there is room for a pong. This bounds the answers to a peer that sends pings and does
    /// not read.
    pub(super) fn has_room_for_control(&self) -> bool {
        self.bytes.len() - self.written <= WRITE_BATCH_BYTES + CONTROL_BACKLOG_BYTES
    }

    /// From now on it compresses messages.
    pub(super) fn compress(&mut self, deflater: Deflater) {
        self.deflater = Some(Box::new(deflater));
    }

    /// Appends a frame, whose payload is the parts one after the other.
    #[inline]
    pub(super) fn frame<const PARTS: usize>(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: [CowBytes<'_>; PARTS],
    ) -> io::Result<()> {
        if self.deflater.is_some() && !opcode.is_control() {
            return self.compressed(opcode, is_final, payload);
        }
        self.append(opcode, is_final, false, payload)
    }

    /// Appends a frame as it is, also if compression was agreed. All frames of its message have to be
    /// appended so.
    pub(super) fn plain_frame(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: CowBytes<'_>,
    ) -> io::Result<()> {
        self.append(opcode, is_final, false, [payload])
    }

    /// Whether it takes frames that are encoded already: it neither masks nor compresses.
    pub(super) fn takes_frames(&self) -> bool {
        self.keys.is_none() && self.deflater.is_none()
    }

    /// Appends frames that are encoded already.
    pub(super) fn frames(&mut self, frames: &Bytes) {
        match frames.len() >= UNCOPIED_WRITE_BYTES {
            true => self.uncopied.push_back((self.bytes.len(), frames.clone())),
            false => self.bytes.extend_from_slice(frames),
        }
    }

    #[inline(never)]
    fn compressed<const PARTS: usize>(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: [CowBytes<'_>; PARTS],
    ) -> io::Result<()> {
        let mut deflater = self.deflater.take();
        let written = deflater.as_mut().and_then(|deflater| {
            deflater.frame(opcode, is_final, &payload, |compressed| {
                let begins = opcode != Opcode::Continuation;
                self.append(opcode, is_final, begins, [CowBytes::Borrowed(compressed)])
            })
        });
        self.deflater = deflater;
        written.unwrap_or_else(|| self.append(opcode, is_final, false, payload))
    }

    #[inline]
    fn append<const PARTS: usize>(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        is_compressed: bool,
        payload: [CowBytes<'_>; PARTS],
    ) -> io::Result<()> {
        let mask = self.keys.as_mut().map(Keys::next).transpose()?;
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let header = Header {
            is_final,
            is_compressed,
            opcode,
            mask,
            length: length as u64,
        };
        header.write(&mut self.bytes);
        let mut done = 0;
        for part in payload {
            let length = part.len();
            match (part, mask) {
                (CowBytes::Shared(part), None) if length >= UNCOPIED_WRITE_BYTES => {
                    self.uncopied.push_back((self.bytes.len(), part));
                }
                (part, None) => self.bytes.extend_from_slice(&part),
                (part, Some(mut key)) => {
                    key.rotate_left(done % 4);
                    self.append_masked(&part, key);
                }
            }
            done += length;
        }
        Ok(())
    }

    /// Each piece is masked while it is in the processor's cache.
    fn append_masked(&mut self, payload: &[u8], key: [u8; 4]) {
        let bytes = &mut self.bytes;
        bytes.reserve(payload.len());
        copy_in_pieces(payload, |piece| {
            let begin = bytes.len();
            bytes.extend_from_slice(piece);
            apply_mask(&mut bytes[begin..], key);
        });
    }

    /// Writes everything to the socket.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.share.cover_anyway(self.held());
        while !self.is_empty() {
            let taken = match self.uncopied.is_empty() {
                true => Pin::new(&mut *io).poll_write(cx, &self.bytes[self.written..]),
                false => {
                    let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                    let slices = self.slices(&mut slices);
                    Pin::new(&mut *io).poll_write_vectored(cx, slices)
                }
            };
            let taken = ready!(taken)?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.count += taken as u64;
            self.advance(taken);
        }
        self.bytes.clear();
        self.written = 0;
        // A batch and one fragment are usual. Memory beyond that is freed.
        if self.bytes.capacity() > WRITE_BATCH_BYTES + 2 * FRAGMENT_BYTES {
            self.bytes.shrink_to(WRITE_BATCH_BYTES);
            self.share.relax(self.held());
        }
        Poll::Ready(Ok(()))
    }

    fn slices<'s, 'b>(&'b self, slices: &'s mut [IoSlice<'b>; WRITE_SLICES]) -> &'s [IoSlice<'b>] {
        let (mut at, mut count) = (self.written, 0);
        for (place, payload) in self.uncopied.iter().take(WRITE_SLICES / 2) {
            if *place > at {
                slices[count] = IoSlice::new(&self.bytes[at..*place]);
                count += 1;
                at = *place;
            }
            slices[count] = IoSlice::new(payload);
            count += 1;
        }
        if self.uncopied.len() < WRITE_SLICES / 2 && at < self.bytes.len() {
            slices[count] = IoSlice::new(&self.bytes[at..]);
            count += 1;
        }
        &slices[..count]
    }

    fn advance(&mut self, mut taken: usize) {
        while taken > 0 {
            let next = self.uncopied.front();
            let place = next.map_or(self.bytes.len(), |(place, _)| *place);
            let step = taken.min(place - self.written);
            self.written += step;
            taken -= step;
            if self.written < place {
                return;
            }
            let Some((_, payload)) = self.uncopied.front_mut() else {
                return;
            };
            let step = taken.min(payload.len());
            payload.advance(step);
            taken -= step;
            if payload.is_empty() {
                self.uncopied.pop_front();
            }
        }
    }

    /// Frees the memory of the last batch.
    pub(super) fn shrink(&mut self) {
        if let Some(deflater) = &mut self.deflater {
            deflater.shrink();
        }
        if self.is_empty() {
            self.bytes = Vec::new();
            self.written = 0;
            self.uncopied = VecDeque::new();
            self.share.settle(self.held());
        }
    }
}
