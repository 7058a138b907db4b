//! Compares this library's reading and writing with tungstenite's, over sockets that yield and take any
//! number of bytes at a time.

use std::{
    collections::VecDeque,
    io::{self, Cursor, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{Role, WebSocketConfig},
};

use super::{Failure, Received, Side, WebSocket};
use crate::{defaults::PACKED_BYTES, messages::kind, settings::Options};
use unstall_proto::Records;

const LIMIT: usize = 100_000;

/// Yields its input and takes its output in the given steps, over and over.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) input: VecDeque<u8>,
    pub(super) output: Vec<u8>,
    pub(super) steps: Vec<usize>,
    pub(super) at: usize,
}

impl Steps {
    fn step(&mut self) -> usize {
        self.at += 1;
        self.steps[self.at % self.steps.len()]
    }
}

impl AsyncRead for Steps {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.step().min(buffer.remaining()).min(self.input.len());
        self.input
            .drain(..size)
            .for_each(|byte| buffer.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Steps {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let limit = self.step();
        let before = self.output.len();
        for slice in slices {
            let left = limit - (self.output.len() - before);
            self.output
                .extend_from_slice(&slice[..left.min(slice.len())]);
        }
        Poll::Ready(Ok(self.output.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A blocking socket with all its input there.
struct Whole(Cursor<Vec<u8>>);

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub(super) struct FrameParts {
    pub(super) first: u8,
    pub(super) payload: Vec<u8>,
}

/// What a peer may send: mostly as it should be.
fn frames() -> impl Strategy<Value = Vec<FrameParts>> {
    let length = prop_oneof![
        4 => 0..130usize,
        2 => 4_000..4_200usize,
        2 => 8_000..9_000usize,
        1 => 60_000..70_000usize,
    ];
    let data = (prop_oneof![Just(0x81u8), Just(0x82)], length.clone());
    let part = (
        prop_oneof![Just(0x01u8), Just(0x02), Just(0x00), Just(0x80)],
        length.clone(),
    );
    let control = (prop_oneof![Just(0x89u8), Just(0x8a)], 0..126usize);
    let wild = (any::<u8>(), length);
    let head = prop_oneof![12 => data, 3 => part, 3 => control, 1 => wild];
    let frame = (head, any::<u8>()).prop_map(|((first, length), seed)| {
        // Text stays ASCII, or not.
        let top = if seed < 250 { 0x7f } else { 0xff };
        let byte = |at: usize| (at as u8).wrapping_mul(31).wrapping_add(seed) & top;
        let payload = (0..length).map(byte).collect();
        FrameParts { first, payload }
    });
    let close = FrameParts {
        first: 0x88,
        payload: b"\x03\xe8bye".to_vec(),
    };
    (
        prop::collection::vec(frame, 1..20),
        any::<bool>(),
        0..20usize,
    )
        .prop_map(move |(mut frames, closes, at)| {
            if closes {
                frames.insert(at.min(frames.len()), close.clone());
            }
            frames
        })
}

pub(super) fn encode(frames: &[FrameParts], masked: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        let mask = if masked { 0x80 } else { 0 };
        bytes.push(frame.first);
        match frame.payload.len() {
            length @ ..126 => bytes.push(mask | length as u8),
            length @ ..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let key = if masked { [7, 11, 13, 17] } else { [0; 4] };
        if masked {
            bytes.extend(key);
        }
        let keys = key.into_iter().cycle();
        bytes.extend(frame.payload.iter().zip(keys).map(|(byte, key)| byte ^ key));
    }
    bytes
}

fn by_tungstenite(input: Vec<u8>, role: Role) -> Vec<String> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let whole = Whole(Cursor::new(input));
    let mut ws = tungstenite::WebSocket::from_raw_socket(whole, role, Some(config));
    let mut seen = Vec::new();
    loop {
        match ws.read() {
            Ok(message) => seen.push(match message {
                Message::Text(text) => format!("text {:?}", text.as_bytes()),
                Message::Binary(payload) => format!("binary {payload:?}"),
                Message::Ping(_) => "ping".into(),
                Message::Pong(payload) => format!("pong {payload:?}"),
                Message::Close(frame) => format!("{:?}", super::adopted::close(frame)),
                Message::Frame(_) => unreachable!(),
            }),
            Err(error) => {
                seen.push(format!("{:?}", super::adopted::failure(error)));
                return seen;
            }
        }
    }
}

fn by_unstall(input: Vec<u8>, side: Side, leftover: usize, steps: Vec<usize>) -> Vec<String> {
    let leftover = leftover.min(input.len());
    let (first, rest) = input.split_at(leftover);
    let io = Steps {
        input: rest.iter().copied().collect(),
        steps,
        ..Steps::default()
    };
    let options = Options::default().max_message_bytes(LIMIT);
    let mut ws = WebSocket::new(io, Bytes::copy_from_slice(first), side, &options);
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    loop {
        let received = ws.poll_read(&mut cx);
        match received {
            Poll::Ready(Ok(received)) => seen.push(match received {
                Received::Message { text, payload } => {
                    let payload = payload.into_bytes();
                    match text {
                        true => format!("text {:?}", &payload[..]),
                        false => format!("binary {payload:?}"),
                    }
                }
                Received::Ping => "ping".into(),
                Received::Pong(payload) => format!("pong {payload:?}"),
                Received::Close(close) => format!("{close:?}"),
                Received::Part(_) => continue,
            }),
            Poll::Ready(Err(why)) => {
                seen.push(format!("{why:?}"));
                return seen;
            }
            Poll::Pending => panic!("a read that waits for nothing"),
        }
    }
}

/// Whether both yield the same and fail at the same place. This library reports a broken rule as soon as
/// its byte arrives. tungstenite waits for the whole frame, and may meet the limit or the end first. What
/// comes after the peer's close frame does not matter.
fn agree(ours: &[String], theirs: &[String]) -> bool {
    let closed = |seen: &String| seen.starts_with("Close {");
    if let Some(at) = ours.iter().position(closed) {
        return theirs.get(..=at) == Some(&ours[..=at]);
    }
    let (Some((our_end, ours)), Some((theirs, their_end))) =
        (ours.split_last(), theirs.split_at_checked(ours.len() - 1))
    else {
        return false;
    };
    let their_end = their_end.first().map_or("", String::as_str);
    let early = [
        "Broken(Protocol",
        "Broken(InvalidText",
        "Broken(MessageTooLarge",
    ];
    ours == theirs
        && (our_end == their_end
            || early.iter().any(|kind| our_end.starts_with(kind)) && their_end.starts_with("Broken")
            // tungstenite answers a code that may not be sent as if the peer had sent 1002.
            || our_end.starts_with(early[0]) && their_end.contains("Protocol violation"))
}

pub(super) fn steps() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(
        prop_oneof![1..20usize, 4_000..5_000usize, Just(1 << 20)],
        1..6,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_is_read_as_tungstenite_reads_it_however_it_is_cut(
        frames in frames(),
        server in any::<bool>(),
        masked_as_due in prop::bool::weighted(0.95),
        leftover in 0..50usize,
        steps in steps(),
    ) {
        let input = encode(&frames, server == masked_as_due);
        let (role, side) = match server {
            true => (Role::Server, Side::Server),
            false => (Role::Client, Side::Client),
        };
        let theirs = by_tungstenite(input.clone(), role);
        let ours = by_unstall(input, side, leftover, steps);
        prop_assert!(agree(&ours, &theirs), "ours {:?}\ntheirs {:?}", ours, theirs);
    }

    #[test]
    fn what_is_written_is_read_by_tungstenite_however_little_the_socket_takes(
        messages in prop::collection::vec((any::<bool>(), prop_oneof![0..300usize, 3_000..70_000usize], any::<bool>()), 1..12),
        packed in any::<bool>(),
        server in any::<bool>(),
        fragment in prop_oneof![Just(1024usize), Just(256 << 10)],
        steps in steps(),
    ) {
        let options = Options::default().fragment_bytes(fragment);
        let side = if server { Side::Server } else { Side::Client };
        let io = Steps { steps, ..Steps::default() };
        let mut ws = WebSocket::new(io, Bytes::new(), side, &options);
        let mut cx = Context::from_waker(Waker::noop());
        let mut expected = Vec::new();
        for (text, length, flushes) in messages {
            let payload: Vec<u8> = (0..length).map(|at| (at * 7) as u8 & 0x7f).collect();
            expected.push(match text {
                true => format!("text {payload:?}"),
                false => format!("binary {:?}", Bytes::from(payload.clone())),
            });
            if packed && ws.writes_packed() && length <= PACKED_BYTES {
                let mut packet = Records::default().for_frames();
                for copy in 0..3 {
                    prop_assert!(packet.push_bytes(kind(text), &payload));
                    expected.extend((copy > 0).then(|| expected[expected.len() - 1].clone()));
                }
                ws.write_packed(packet).unwrap();
            } else if length < 1000 {
                ws.write_short(text, &payload).unwrap();
                ws.ping(*b"12345678").unwrap();
            } else {
                let payload = Bytes::from(payload);
                let mut offset = 0;
                while offset < length {
                    offset = ws.write(text, &payload, offset).unwrap();
                }
            }
            if flushes {
                prop_assert!(matches!(ws.poll_flush(&mut cx), Poll::Ready(Ok(()))));
            }
        }
        let flushed = ws.poll_flush(&mut cx);
        prop_assert!(matches!(flushed, Poll::Ready(Ok(()))));
        let super::Engine::Own(own) = ws.engine else { unreachable!() };
        let role = if server { Role::Client } else { Role::Server };
        let mut seen = by_tungstenite(own.into_io().output, role);
        prop_assert!(seen.pop().unwrap().contains("EndOfStream"));
        // Pings are left out, because they come later if data fills the buffer.
        seen.retain(|seen| seen != "ping");
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn a_length_beyond_all_bounds_is_an_error() {
    let mut input = vec![0x82, 127];
    input.extend((u64::MAX >> 1).to_be_bytes());
    let seen = by_unstall(input.clone(), Side::Client, 0, vec![100]);
    assert_eq!(seen, by_tungstenite(input, Role::Client));
    assert!(seen[0].contains("MessageTooLarge"), "{seen:?}");
}

#[test]
fn characters_may_lie_across_fragments_and_what_is_none_is_found_at_once() {
    let fragments = |parts: &[(u8, &[u8])]| {
        let frames = parts.iter().map(|(first, payload)| FrameParts {
            first: *first,
            payload: payload.to_vec(),
        });
        let input = encode(&frames.collect::<Vec<_>>(), false);
        let seen = by_unstall(input.clone(), Side::Client, 0, vec![1, 3]);
        assert_eq!(seen, by_tungstenite(input, Role::Client));
        seen
    };
    let seen = fragments(&[
        (0x01, b"a\xe2"),
        (0x00, b"\x82"),
        (0x89, b""),
        (0x80, b"\xac!"),
    ]);
    assert_eq!(
        seen[..2],
        ["ping".to_owned(), format!("text {:?}", "a€!".as_bytes())]
    );
    let seen = fragments(&[(0x01, b"a\xe2"), (0x00, b"a"), (0x89, b""), (0x80, b"")]);
    assert_eq!(seen, ["Broken(InvalidText)"]);
    let seen = fragments(&[(0x01, b"a\xe2"), (0x80, b"\x82")]);
    assert_eq!(seen, ["Broken(InvalidText)"]);
}

#[test]
fn nothing_is_written_after_a_close_frame() {
    let io = Steps {
        steps: vec![1 << 20],
        ..Steps::default()
    };
    let mut ws = WebSocket::new(io, Bytes::new(), Side::Server, &Options::default());
    ws.close(crate::reports::CloseCode::NORMAL, "bye").unwrap();
    let refused = ws.write_short(false, b"late");
    assert!(matches!(refused, Err(Failure::Closed)), "{refused:?}");
    let mut packet = Records::default().for_frames();
    packet.push("late");
    let refused = ws.write_packed(packet);
    assert!(matches!(refused, Err(Failure::Closed)), "{refused:?}");
}

/// A client masks, a compressing side compresses, and short fragments are asked for: then messages of
/// a packet are written one by one.
#[test]
fn packets_become_frames_only_where_frames_hold_the_messages_as_they_are() {
    let writes_packed = |side, options: &Options| {
        WebSocket::new(Steps::default(), Bytes::new(), side, options).writes_packed()
    };
    let usual = Options::default();
    assert!(writes_packed(Side::Server, &usual));
    assert!(!writes_packed(Side::Client, &usual));
    let short = Options::default().fragment_bytes(PACKED_BYTES - 1);
    assert!(!writes_packed(Side::Server, &short));
}

/// Once the length that a header announced was allocated before its bytes came.
#[test]
fn memory_for_a_message_follows_what_has_come_of_it() {
    const MIB: usize = 1 << 20;
    for step in [10, 1000, 4096, 60_000, MIB] {
        let mut input = vec![0x82, 127];
        input.extend((1u64 << 40).to_be_bytes());
        input.resize(input.len() + 5 * MIB.min(20_000 * step), 7);
        let total = input.len() as u64;
        let io = Steps {
            input: input.into(),
            steps: vec![step],
            ..Steps::default()
        };
        let options = Options::default().max_message_bytes(usize::MAX);
        let mut ws = WebSocket::new(io, Bytes::new(), Side::Client, &options);
        let account = crate::settings::Account::default();
        ws.charge(&account);
        let mut cx = Context::from_waker(Waker::noop());
        while ws.bytes_read() < total {
            let part = ws.poll_read(&mut cx);
            assert!(
                matches!(part, Poll::Ready(Ok(Received::Part(_)))),
                "{part:?}"
            );
            let come = ws.bytes_read() as usize;
            let trusted = if come < 64 << 10 { 64 << 10 } else { MIB };
            let most = trusted.max(2 * come);
            // Steps of the account round up by a quarter at the most.
            assert!(
                account.held() <= most + most / 4,
                "{come}: {}",
                account.held()
            );
        }
    }
}
