//! The working memory of compression. It is large, so connections borrow it from the process and
//! keep only their history.

use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::available_parallelism,
};

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};

use super::history::History;
use crate::defaults::{
    COMPRESSED_SCRATCH_BYTES, COMPRESSION_LEVEL, COMPRESSION_WINDOW_BITS, CONTEXTS_KEPT,
};

/// Those that nobody uses now, the one that was used last at the end. They are boxed. Moving
/// them by value a few times for each message took almost a tenth of the time of a short one.
#[allow(clippy::vec_box)]
static COMPRESSORS: Mutex<Vec<Box<Compressor>>> = Mutex::new(Vec::new());
#[allow(clippy::vec_box)]
static DECOMPRESSORS: Mutex<Vec<Box<Decompress>>> = Mutex::new(Vec::new());

/// Each thread uses one at a time.
static KEPT: LazyLock<usize> = LazyLock::new(|| {
    available_parallelism().map_or(CONTEXTS_KEPT, |it| CONTEXTS_KEPT.max(it.get()))
});

/// A stream of compressed messages, of which a compressor may still have the state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamId(u64);

impl StreamId {
    pub(super) fn new() -> StreamId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        StreamId(NEXT.fetch_add(1, Relaxed))
    }
}

/// Compresses for one stream after the other.
pub(super) struct Compressor {
    /// The stream whose state it has; zero if it has none that can go on.
    stream: u64,
    level: u32,
    window_bits: u8,
    compress: Compress,
    /// What was compressed since [`take`](Compressor::take).
    pub(super) output: Vec<u8>,
}

impl Compressor {
    /// Borrows a compressor that continues the stream. `history` is what the peer knows of it.
    pub(super) fn take(
        stream: &StreamId,
        level: u32,
        window_bits: u8,
        history: Option<&History>,
    ) -> Box<Compressor> {
        let mut compressor = Compressor::find(stream.0, level, window_bits);
        if compressor.stream != stream.0 || stream.0 == 0 {
            compressor.compress.reset();
            // An error would leave it without a history, which the peer does not notice.
            for part in history.into_iter().flat_map(History::parts) {
                if !part.is_empty() {
                    let _ = compressor.compress.set_dictionary(part);
                }
            }
        }
        compressor.stream = 0;
        compressor
    }

    /// The one that has the stream's state, or the one that was not used for longest.
    fn find(stream: u64, level: u32, window_bits: u8) -> Box<Compressor> {
        // zlib has no window of 256 bytes. In one of 512 it refers to the last 250 only.
        let window_bits = window_bits.max(9);
        {
            let mut kept = COMPRESSORS.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = |it: &Compressor| it.level == level && it.window_bits == window_bits;
            let found = kept.iter().position(|it| it.stream == stream && fits(it));
            if let Some(at) = found.or_else(|| kept.iter().position(|it| fits(it))) {
                return kept.remove(at);
            }
        }
        let zlib = flate2::Compression::new(level);
        Box::new(Compressor {
            stream: 0,
            level,
            window_bits,
            compress: Compress::new_with_window_bits(zlib, false, window_bits),
            output: Vec::new(),
        })
    }

    /// Compresses the parts, and ends at a whole byte behind an empty block (RFC 7692 section
    /// 7.2.1). `false`: the compressor has failed.
    #[must_use]
    pub(super) fn compress<const PARTS: usize>(&mut self, parts: [&[u8]; PARTS]) -> bool {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        // The fastest level can make an eighth more of what cannot be compressed.
        self.output.reserve(size + size / 8 + 64);
        let last = parts.iter().rposition(|part| !part.is_empty());
        let mut parts = parts[..=last.unwrap_or(0)].iter().peekable();
        while let Some(part) = parts.next() {
            let flush = match parts.peek() {
                Some(_) => FlushCompress::None,
                None => FlushCompress::Sync,
            };
            if !self.step(part, flush) {
                return false;
            }
        }
        true
    }

    fn step(&mut self, mut input: &[u8], flush: FlushCompress) -> bool {
        loop {
            let before = self.compress.total_in();
            let result = self.compress.compress_vec(input, &mut self.output, flush);
            if result.is_err() {
                return false;
            }
            let taken = usize::try_from(self.compress.total_in() - before);
            input = &input[taken.unwrap_or(0).min(input.len())..];
            // Room that is left means that nothing waits to be written.
            if self.output.len() < self.output.capacity() && input.is_empty() {
                return true;
            }
            self.output.reserve(input.len().max(64));
        }
    }

    /// Gives it back. With `stream` it keeps that stream's state, as long as nobody else needs it.
    pub(super) fn give_back(mut self: Box<Self>, stream: Option<&StreamId>) {
        self.stream = stream.map_or(0, |it| it.0);
        self.output.clear();
        self.output.shrink_to(COMPRESSED_SCRATCH_BYTES);
        let mut kept = COMPRESSORS.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = (kept.len() >= *KEPT).then(|| kept.remove(0));
        kept.push(self);
        drop(kept);
        drop(oldest);
    }
}

/// Borrows a decompressor, which begins after `history`.
pub(super) fn take_decompressor(history: Option<&History>) -> Box<Decompress> {
    let kept = DECOMPRESSORS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .pop();
    let mut decompress = kept.unwrap_or_else(|| Box::new(Decompress::new(false)));
    restart(
        &mut decompress,
        history.into_iter().flat_map(History::parts),
    );
    decompress
}

/// Begins a stream anew, after what was inflated before.
pub(super) fn restart<'p>(decompress: &mut Decompress, before: impl Iterator<Item = &'p [u8]>) {
    decompress.reset(false);
    for part in before.filter(|part| !part.is_empty()) {
        // This cannot fail for a stream without a header. If it did, the message would not be
        // inflated, because it refers to what is missing.
        let _ = decompress.set_dictionary(part);
    }
}

pub(super) fn give_back_decompressor(decompress: Box<Decompress>) {
    let mut kept = DECOMPRESSORS.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < *KEPT {
        kept.push(decompress);
    }
}

/// The parts, compressed by themselves, in a buffer without room.
pub(super) fn packed(parts: [&[u8]; 2]) -> Vec<u8> {
    let (level, bits) = (COMPRESSION_LEVEL, COMPRESSION_WINDOW_BITS);
    let mut compressor = Compressor::take(&StreamId(0), level, bits, None);
    let mut packed = Vec::new();
    if compressor.compress(parts) {
        packed.extend_from_slice(&compressor.output);
        compressor.give_back(None);
    }
    packed
}

/// What [`packed`] was given, of `size` bytes at most.
pub(super) fn unpacked(packed: &[u8], size: usize) -> Vec<u8> {
    let mut decompress = take_decompressor(None);
    let mut unpacked = Vec::with_capacity(size);
    // This cannot fail, because the data was compressed here.
    let _ = decompress.decompress_vec(packed, &mut unpacked, FlushDecompress::Sync);
    give_back_decompressor(decompress);
    unpacked
}
