//! The fuzz target of what inflates messages (`fuzz/`). The tests here run it too, on the stable
//! toolchain.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Received, Side, WebSocket,
    deflate::TAIL,
    extension::{CompressionAgreed, Direction},
};
use crate::{
    defaults::{DECOMPRESSOR_BYTES, INFLATE_STEP_BYTES},
    settings::{Account, Compression, Options},
};

/// First bytes of frames of compressed messages: text and binary, whole, begun, and how they go on.
/// Some are wrong after others.
const FIRSTS: [u8; 8] = [0xc1, 0xc2, 0x41, 0x42, 0x00, 0x80, 0x89, 0x82];

/// Limits of a message.
const LIMITS: [usize; 4] = [100_000, 5_000, 100, 0];

/// What a connection holds besides messages: the read window, the decompressor, the history.
const HELD_BESIDES: usize = (64 << 10) + DECOMPRESSOR_BYTES + (32 << 10) + 1024;

/// A message, and whether it is text.
type Message = (bool, Vec<u8>);

/// Reads a script. Its first byte says what was agreed. Then come frames: a byte that chooses the first
/// byte, the length, and the payload.
///
/// # Panics
/// A promise is broken: a message is longer than the limit, is not UTF-8, is not what another inflater
/// makes of it, or depends on how its bytes arrive; or a connection holds too much.
#[allow(unreachable_pub)]
pub fn run(script: &[u8]) {
    let mut script = script;
    let options = take(&mut script);
    let limit = LIMITS[usize::from(options & 3)];
    let direction = Direction {
        window_bits: 8 + (options >> 2 & 7),
        takeover: options & 0x20 != 0,
    };
    let frames = frames(script);
    let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
    let [whole, pieces @ ..] = [1 << 20, 1, 7].map(|step| read(&bytes, step, limit, direction));
    for cut in pieces {
        assert_eq!(whole, cut, "whole, and in pieces");
    }
    for (text, message) in &whole {
        assert!(message.len() <= limit, "{} of {limit}", message.len());
        assert!(!text || std::str::from_utf8(message).is_ok());
    }
    if let ([(0xc1 | 0xc2, payload), ..], [(_, message), ..]) = (&frames[..], &whole[..])
        && let Some(expected) = inflated(payload)
    {
        assert_eq!(*message, expected, "another inflater");
    }
}

fn take(script: &mut &[u8]) -> u8 {
    script.try_get_u8().unwrap_or(0)
}

fn frames(mut script: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while !script.is_empty() {
        let first = FIRSTS[usize::from(take(&mut script) & 7)];
        // The payload of a ping has at most 125 bytes.
        let most = if first == 0x89 {
            125
        } else {
            usize::from(u16::MAX)
        };
        let length = script.try_get_u16().unwrap_or(0);
        let (payload, rest) = script.split_at(usize::from(length).min(most).min(script.len()));
        frames.push((first, payload));
        script = rest;
    }
    frames
}

/// The frame of a server.
fn encoded((first, payload): &(u8, &[u8])) -> Vec<u8> {
    let mut frame = vec![*first];
    match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => frame.push(length),
        _ => {
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// What a client reads, if each read of the socket brings so many bytes: messages until the end or an
/// error.
fn read(bytes: &[u8], step: usize, limit: usize, direction: Direction) -> Vec<Message> {
    let options = Options::default().max_message_bytes(limit);
    let agreed = CompressionAgreed {
        outgoing: direction,
        incoming: direction,
        compression: Compression::default(),
    };
    let socket = Socket { bytes, step };
    let mut ws = WebSocket::new(socket, Bytes::new(), Side::Client, &options);
    ws = ws.compressed(Some(&agreed));
    let account = Account::default();
    ws.charge(&account);
    let mut cx = Context::from_waker(Waker::noop());
    let mut messages = Vec::new();
    while let Poll::Ready(Ok(received)) = ws.poll_read(&mut cx) {
        match received {
            Received::Message { text, payload } => messages.push((text, payload.to_vec())),
            Received::Part(work) => assert!(work <= 2 * INFLATE_STEP_BYTES, "{work} in a turn"),
            _ => {}
        }
        // A whole message takes its buffer with it, and its share.
        assert!(
            account.held() <= 2 * limit + HELD_BESIDES,
            "{}",
            account.held()
        );
    }
    messages
}

/// The message by another hand. `None` if it is invalid, or its stream ends before its last byte.
fn inflated(payload: &[u8]) -> Option<Vec<u8>> {
    let (mut decompress, mut message) = (Decompress::new(false), Vec::with_capacity(LIMITS[0] + 1));
    let input = [payload, &TAIL].concat();
    let status = decompress.decompress_vec(&input, &mut message, FlushDecompress::Sync);
    let is_whole = decompress.total_in() == input.len() as u64;
    (matches!(status, Ok(Status::Ok)) && is_whole).then_some(message)
}

/// Brings its bytes in steps, then the end. Takes everything.
struct Socket<'b> {
    bytes: &'b [u8],
    step: usize,
}

impl AsyncRead for Socket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.step.min(buffer.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(size);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payloads of compressed messages. `fuzz/seeds.py` reads them from here.
    const SEEDS: [&str; 14] = [
        // RFC 7692 section 7.2.3: "Hello", the same again, stored, as a last block, in two blocks.
        "f248cdc9c90700",
        "f200110000",
        "000500faff48656c6c6f00",
        "f348cdc9c9070000",
        "f24805000000ffffcac9c90700",
        // Nothing: an empty block, an empty last block, and no byte at all.
        "00",
        "0300",
        "",
        // Stops within a stored block, within its length, and within a code.
        "000500faff4865",
        "0005",
        "f248cd",
        // A block of the reserved kind, and a distance beyond everything.
        "06",
        "4b040a",
        // Ten thousand zeros.
        "ecc1010d000000c2a04aef9fce1c6e40010000000000000000c0bf01",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(pair).collect()
    }

    /// A frame of a script.
    fn frame(script: &mut Vec<u8>, kind: u8, payload: &[u8]) {
        script.push(kind);
        script.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        script.extend_from_slice(payload);
    }

    #[test]
    fn the_target_holds_for_its_seeds_in_every_order() {
        for options in 0..64 {
            for first in SEEDS.map(bytes) {
                for second in SEEDS.map(bytes) {
                    let mut script = vec![options];
                    frame(&mut script, 0, &first);
                    frame(&mut script, 3, &second[..second.len() / 2]);
                    frame(&mut script, 5, &second[second.len() / 2..]);
                    run(&script);
                }
            }
        }
    }

    #[test]
    fn the_target_holds_for_scripts_of_random_bytes() {
        let mut rng = fastrand::Rng::with_seed(13);
        for _ in 0..3_000 {
            let mut script = vec![rng.u8(..)];
            for _ in 0..rng.usize(1..5) {
                // Noise, or a seed of which a byte is broken.
                let mut payload = match rng.bool() {
                    true => (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
                    false => bytes(SEEDS[rng.usize(..SEEDS.len())]),
                };
                if let Some(last) = payload.len().checked_sub(1) {
                    payload[rng.usize(..=last)] ^= 1 << rng.u8(..8);
                }
                frame(&mut script, rng.u8(..), &payload);
            }
            run(&script);
        }
    }
}
