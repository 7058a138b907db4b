//! Inflates the compressed messages that arrive (RFC 7692 section 7.2.2), in steps of bounded work.

use std::{
    ops::Range,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

use super::{
    contexts::{give_back_decompressor, restart, take_decompressor},
    deflate::TAIL,
    extension::Direction,
    header::{Header, Opcode},
    history::History,
};
use crate::{
    defaults::{DECOMPRESSOR_BYTES, INFLATE_RESTART_COST, INFLATE_STEP_BYTES, LENT_BYTES},
    reports::ConnectionError,
    settings::Share,
};

/// What follows the data of a message: the tail that the peer left out, and an empty last block. The
/// decompressor takes all of it, and makes nothing of it, only at the end of a block.
const END: [u8; 6] = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0x03, 0x00];

/// Inflates one connection's messages, one after the other.
pub(super) struct Inflater {
    /// What messages may refer to. `None`: each message is compressed by itself.
    history: Option<History>,
    message: Option<Inflating>,
    /// What was inflated of the message, and behind it room.
    output: Vec<u8>,
    filled: usize,
    /// Something was inflated since the last call of `shrink`.
    used: bool,
}

/// A compressed message that is not whole.
struct Inflating {
    text: bool,
    decompress: Box<Decompress>,
    stage: Stage,
    /// Compressed bytes of the message, as its frames announced them.
    compressed: usize,
    /// The frame of which bytes are due.
    frame: Option<Frame>,
}

/// A frame of a compressed message. Its payload is inflated as it arrives.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) mask: Option<[u8; 4]>,
    /// How many bytes of it are not inflated.
    pub(super) left: usize,
    is_final: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Takes the payload.
    Data,
    /// The peer has ended its stream. More payload begins a new one (section 7.2.3.4).
    Ended,
    /// The payload is done, and `END` follows.
    End,
}

/// A message that is whole.
pub(super) enum Inflated {
    Lent {
        text: bool,
        size: usize,
    },
    Owned {
        text: bool,
        payload: Bytes,
        capacity: usize,
    },
}

/// The outcome of a step.
#[derive(Debug)]
pub(super) struct Step {
    /// How many bytes of the input were taken.
    pub(super) taken: usize,
    /// Where the bytes lie that were inflated.
    fresh: Range<usize>,
    /// How much work it was, in bytes; zero if nothing could be done.
    pub(super) work: usize,
    pub(super) is_whole: bool,
}

impl Inflater {
    pub(super) fn new(direction: Direction) -> Inflater {
        Inflater {
            history: direction
                .takeover
                .then(|| History::new(direction.window_bits)),
            message: None,
            output: Vec::new(),
            filled: 0,
            used: false,
        }
    }

    /// How much memory it holds.
    pub(super) fn held(&self) -> usize {
        let history = self.history.as_ref().map_or(0, History::held);
        let decompressor = self.message.as_ref().map_or(0, |_| DECOMPRESSOR_BYTES);
        history + decompressor + self.output.capacity()
    }

    /// Whether a compressed message has begun and is not whole.
    pub(super) fn has_begun(&self) -> bool {
        self.message.is_some()
    }

    /// The frame that is being inflated.
    pub(super) fn frame(&mut self) -> Option<&mut Frame> {
        self.message.as_mut()?.frame.as_mut()
    }

    /// Whether the message that has begun is text.
    pub(super) fn is_text(&self) -> bool {
        self.message.as_ref().is_some_and(|it| it.text)
    }

    /// Begins a frame of a compressed message.
    ///
    /// # Errors
    /// The message is longer than `limit` allows.
    pub(super) fn begin_frame(
        &mut self,
        header: &Header,
        limit: usize,
    ) -> Result<(), ConnectionError> {
        let before = self.message.as_ref().map_or(0, |it| it.compressed);
        let size =
            usize::try_from(header.length).map_or(usize::MAX, |it| it.saturating_add(before));
        // No compressor makes more of a message. Without this bound, data that inflates to nothing
        // could go on for ever.
        if size > limit.saturating_add(limit / 8).saturating_add(64) {
            return Err(ConnectionError::MessageTooLarge { size, limit });
        }
        if let Some(history) = &mut self.history {
            history.unpack();
        }
        let history = self.history.as_ref();
        let message = self.message.get_or_insert_with(|| Inflating {
            text: header.opcode == Opcode::Text,
            decompress: take_decompressor(history),
            stage: Stage::Data,
            compressed: 0,
            frame: None,
        });
        message.compressed = size;
        message.frame = Some(Frame {
            mask: header.mask,
            left: size - before,
            is_final: header.is_final,
        });
        self.used = true;
        Ok(())
    }

    /// Makes room for what the next step inflates: at most twice what is there, and never more than
    /// the limit and one byte. `share` covers it, and the bytes that are held `besides`.
    pub(super) fn poll_room(
        &mut self,
        limit: usize,
        share: &mut Share,
        besides: usize,
        cx: &Context<'_>,
    ) -> Poll<()> {
        if self.filled < self.output.len() {
            return Poll::Ready(());
        }
        let left = self.frame().map_or(0, |frame| frame.left);
        let guess = match self.filled {
            0 => left
                .saturating_mul(4)
                .next_multiple_of(512)
                .min(INFLATE_STEP_BYTES),
            filled => filled.saturating_mul(2),
        };
        let size = guess.max(512).min(limit.saturating_add(1));
        if size > self.output.capacity() {
            let held = besides + self.held() - self.output.capacity() + size;
            ready!(share.poll_cover_urgently(held, cx));
            self.output.reserve_exact(size - self.output.len());
        }
        self.output.resize(size, 0);
        Poll::Ready(())
    }

    /// Inflates some of the input, which is what has arrived of the frame. There must be room.
    ///
    /// # Errors
    /// The data is invalid, or the message is longer than `limit`.
    pub(super) fn step(&mut self, input: &[u8], limit: usize) -> Result<Step, ConnectionError> {
        let begin = self.filled;
        let mut step = Step {
            fresh: begin..begin,
            taken: 0,
            work: 0,
            is_whole: false,
        };
        let Some(message) = &mut self.message else {
            return Ok(step);
        };
        let last = message.frame.filter(|frame| frame.is_final);
        while step.work < INFLATE_STEP_BYTES && !step.is_whole {
            let rest = &input[step.taken..];
            let is_over = last.is_some_and(|frame| frame.left == step.taken);
            if message.stage == Stage::Ended || message.compressed == 0 {
                // A peer that compresses an empty message may be left with no bytes at all.
                step.is_whole = is_over;
                if step.is_whole || rest.is_empty() {
                    break;
                }
                let history = self.history.iter().flat_map(History::parts);
                let before = history.chain([&self.output[..self.filled]]);
                restart(&mut message.decompress, before);
                message.stage = Stage::Data;
                step.work += INFLATE_RESTART_COST;
            }
            let source = match message.stage {
                Stage::End => &END[..],
                _ => &rest[..rest.len().min(INFLATE_STEP_BYTES)],
            };
            let end = self.output.len().min(self.filled + INFLATE_STEP_BYTES);
            let room = &mut self.output[self.filled..end];
            if room.is_empty() {
                break;
            }
            let (taken, made, ended) = inflate(&mut message.decompress, source, room)?;
            let (is_full, is_dry) = (made == room.len(), taken == source.len());
            self.filled += made;
            step.work += taken + made;
            if self.filled > limit {
                let size = self.filled;
                return Err(ConnectionError::MessageTooLarge { size, limit });
            }
            match message.stage {
                // Whatever else it makes of the end, the data stops within a block.
                Stage::End if made > 0 || !is_dry || !ended => return Err(invalid("is cut off")),
                Stage::End => step.is_whole = true,
                _ => {
                    step.taken += taken;
                    if ended {
                        message.stage = Stage::Ended;
                    } else if !is_full && !is_dry {
                        return Err(invalid("makes no progress"));
                    } else if !is_full && step.taken == input.len() {
                        // All that these bytes say was said.
                        let is_over = last.is_some_and(|frame| frame.left == step.taken);
                        if !is_over {
                            break;
                        }
                        message.stage = Stage::End;
                    }
                }
            }
        }
        step.fresh.end = self.filled;
        if let Some(frame) = &mut message.frame {
            frame.took(step.taken);
        }
        message
            .frame
            .take_if(|frame| frame.left == 0 && !frame.is_final);
        Ok(step)
    }

    /// What a step has inflated.
    pub(super) fn fresh(&self, step: &Step) -> &[u8] {
        &self.output[step.fresh.clone()]
    }

    /// The message is whole. A long one leaves with its buffer, a short one is lent by
    /// [`lent`](Inflater::lent).
    pub(super) fn finish(&mut self) -> Inflated {
        let text = self.is_text();
        if let Some(message) = self.message.take() {
            give_back_decompressor(message.decompress);
        }
        let size = std::mem::take(&mut self.filled);
        if let Some(history) = &mut self.history {
            history.push(&self.output[..size]);
        }
        if size < LENT_BYTES {
            return Inflated::Lent { text, size };
        }
        let mut payload = std::mem::take(&mut self.output);
        payload.truncate(size);
        if payload.capacity() > 2 * size {
            payload.shrink_to_fit();
        }
        let capacity = payload.capacity();
        Inflated::Owned {
            text,
            payload: payload.into(),
            capacity,
        }
    }

    /// The first bytes of the last message, until more is inflated.
    pub(super) fn lent(&self, size: usize) -> &[u8] {
        &self.output[..size]
    }

    /// Frees memory if nothing was inflated since the last call.
    pub(super) fn shrink(&mut self) {
        if std::mem::take(&mut self.used) || self.message.is_some() {
            return;
        }
        self.output = Vec::new();
        if let Some(history) = &mut self.history {
            history.pack();
        }
    }

    /// Forgets the message that has begun, because nothing more is read.
    pub(super) fn discard(&mut self) {
        self.message = None;
        self.history = None;
        self.output = Vec::new();
        self.filled = 0;
    }
}

impl Frame {
    fn took(&mut self, bytes: usize) {
        self.left -= bytes;
        if let Some(key) = &mut self.mask {
            key.rotate_left(bytes % 4);
        }
    }
}

/// Inflates as much as fits in `room`. Returns how many bytes it took, how many it made, and whether
/// the stream has ended.
fn inflate(
    decompress: &mut Decompress,
    input: &[u8],
    room: &mut [u8],
) -> Result<(usize, usize, bool), ConnectionError> {
    let (taken, made) = (decompress.total_in(), decompress.total_out());
    let status = decompress
        .decompress(input, room, FlushDecompress::Sync)
        .map_err(|_| invalid("is not valid"))?;
    let ended = status == Status::StreamEnd;
    let taken = decompress.total_in() - taken;
    let made = decompress.total_out() - made;
    Ok((taken as usize, made as usize, ended))
}

fn invalid(why: &str) -> ConnectionError {
    ConnectionError::Protocol(format!("the compressed data of a message {why}"))
}
