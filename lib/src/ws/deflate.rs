//! Compresses the messages that are sent (RFC 7692 section 7.2.1).

use std::io;

use super::{
    CowBytes,
    contexts::{Compressor, StreamId},
    extension::Direction,
    header::Opcode,
    history::History,
};
use crate::settings::Compression;

/// What a message's compressed data ends with, and what is not sent of it.
pub(super) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Compresses one connection's messages, one after the other.
pub(super) struct Deflater {
    stream: StreamId,
    level: u32,
    window_bits: u8,
    smallest: usize,
    /// What the peer knows of earlier messages. `None`: each message is compressed by itself.
    history: Option<History>,
    /// Frames of a compressed message are written, and more follow.
    open: bool,
    /// Something was compressed since the last call of `shrink`.
    used: bool,
}

impl Deflater {
    pub(super) fn new(compression: &Compression, direction: Direction) -> Deflater {
        Deflater {
            stream: StreamId::new(),
            level: compression.level,
            window_bits: direction.window_bits,
            smallest: compression.smallest,
            history: direction
                .takeover
                .then(|| History::new(direction.window_bits)),
            open: false,
            used: false,
        }
    }

    /// How much memory it holds.
    pub(super) fn held(&self) -> usize {
        self.history.as_ref().map_or(0, History::held)
    }

    /// Compresses a frame's payload, and gives it to `write`. `None`: the payload is sent as it is,
    /// because it is short, or would not become smaller.
    pub(super) fn frame<const PARTS: usize>(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: &[CowBytes<'_>; PARTS],
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> Option<io::Result<()>> {
        let size: usize = payload.iter().map(|part| part.len()).sum();
        let first = opcode != Opcode::Continuation;
        let begins = first && (size >= self.smallest || !is_final) && size > 0;
        if !begins && (first || !self.open) {
            return None;
        }
        self.used = true;
        let history = self.history.as_ref();
        let mut compressor = Compressor::take(&self.stream, self.level, self.window_bits, history);
        if !compressor.compress(payload.each_ref().map(|part| &**part)) {
            let failed = io::Error::other("the compressor has failed");
            return (!first).then_some(Err(failed));
        }
        let output = &mut compressor.output;
        if is_final {
            match output.ends_with(&TAIL) {
                true => output.truncate(output.len() - TAIL.len()),
                // Nothing was new. An empty block is all there is to say.
                false => output.push(0),
            }
        }
        if first && output.len() >= size {
            compressor.give_back(None);
            return None;
        }
        self.open = !is_final;
        let written = write(output);
        if let Some(history) = &mut self.history {
            payload.iter().for_each(|part| history.push(part));
        }
        let goes_on = self.open || self.history.is_some();
        compressor.give_back(goes_on.then_some(&self.stream));
        Some(written)
    }

    /// Frees memory if nothing was compressed since the last call. The peer does not notice: a
    /// message need not refer to earlier ones.
    pub(super) fn shrink(&mut self) {
        if !std::mem::take(&mut self.used)
            && let Some(history) = &mut self.history
        {
            history.clear();
        }
    }
}
