//! Compressed messages through the whole engine, and the traps that other implementations fell into.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Engine, Failure, Received, Side, WebSocket,
    extension::CompressionAgreed,
    tests::{FrameParts, Steps, encode, steps},
};
use crate::{
    defaults::{INFLATE_RESTART_COST, INFLATE_STEP_BYTES},
    reports::ConnectionError,
    settings::{Account, Compression, Options},
};

const LIMIT: usize = 100_000;

fn agreed() -> CompressionAgreed {
    CompressionAgreed::new(Compression::default().smallest(0))
}

fn websocket(side: Side, agreed: &CompressionAgreed, options: &Options) -> WebSocket<Steps> {
    let io = Steps {
        steps: vec![1 << 20],
        ..Steps::default()
    };
    WebSocket::new(io, Bytes::new(), side, options).compressed(Some(agreed))
}

fn io(ws: &mut WebSocket<Steps>) -> &mut Steps {
    match &mut ws.engine {
        Engine::Own(own) => own.io(),
        Engine::Adopted(_) => unreachable!(),
    }
}

/// Writes a message as the pump does. Returns the bytes that reach the socket.
fn written(ws: &mut WebSocket<Steps>, text: bool, message: &[u8]) -> Vec<u8> {
    if message.len() < 1000 {
        ws.write_short(text, message).unwrap();
    } else {
        let message = Bytes::copy_from_slice(message);
        let mut offset = 0;
        while offset < message.len() {
            offset = ws.write(text, &message, offset).unwrap();
        }
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(ws.poll_flush(&mut cx), Poll::Ready(Ok(()))));
    std::mem::take(&mut io(ws).output)
}

#[derive(Debug, PartialEq)]
enum Seen {
    Message(bool, Vec<u8>),
    Control,
    Ends(String),
}

/// Everything that the bytes say, to the end or the first error.
fn read(ws: &mut WebSocket<Steps>, bytes: &[u8]) -> Vec<Seen> {
    io(ws).input.extend(bytes);
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    loop {
        let Poll::Ready(received) = ws.poll_read(&mut cx) else {
            panic!("a read that waits for nothing");
        };
        match received {
            Ok(Received::Message { text, payload }) => {
                seen.push(Seen::Message(text, payload.to_vec()));
            }
            Ok(Received::Part(bytes)) => {
                assert!(
                    bytes <= 2 * INFLATE_STEP_BYTES,
                    "a turn is bounded: {bytes}"
                );
            }
            Ok(_) => seen.push(Seen::Control),
            Err(Failure::Broken(ConnectionError::EndOfStream)) => return seen,
            Err(why) => {
                seen.push(Seen::Ends(format!("{why:?}")));
                return seen;
            }
        }
    }
}

/// First bytes and payloads.
type Frames<'f> = &'f [(u8, &'f [u8])];

/// What a client sees of these frames of a server.
fn read_frames(limit: usize, frames: Frames<'_>) -> Vec<Seen> {
    let [whole, pieces @ ..] = read_in_pieces(limit, frames);
    for cut in pieces {
        assert_eq!(whole, cut, "whole, and in pieces");
    }
    whole
}

/// The same for each of some sizes of reads.
fn read_in_pieces(limit: usize, frames: Frames<'_>) -> [Vec<Seen>; 3] {
    [1 << 20, 1, 7].map(|step| {
        let options = Options::default().max_message_bytes(limit);
        let mut ws = websocket(Side::Client, &agreed(), &options);
        io(&mut ws).steps = vec![step];
        let frames = frames.iter().map(|(first, payload)| FrameParts {
            first: *first,
            payload: payload.to_vec(),
        });
        read(&mut ws, &encode(&frames.collect::<Vec<_>>(), false))
    })
}

fn text(text: &str) -> Seen {
    Seen::Message(true, text.as_bytes().to_vec())
}

fn is_refused(seen: &[Seen], why: &str) -> bool {
    matches!(seen.last(), Some(Seen::Ends(told)) if told.contains(why))
}

fn random(length: usize) -> Vec<u8> {
    (0..length).map(|_| fastrand::u8(..)).collect()
}

/// Raw deflate by another hand: level 9, window 15, ended by a sync flush without its tail.
fn deflated(data: &[u8]) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut out = Vec::with_capacity(data.len() + 1000);
    let flush = flate2::FlushCompress::Sync;
    compress.compress_vec(data, &mut out, flush).unwrap();
    out.truncate(out.len() - 4);
    out
}

/// JSON, words, zeros, or noise.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        6 => 0..700usize,
        2 => 3_000..9_000usize,
        1 => 60_000..99_000usize,
    ];
    (length, 0..4u8, any::<u64>()).prop_map(|(length, kind, seed)| {
        let mut rng = fastrand::Rng::with_seed(seed);
        match kind {
            0 => vec![b'0'; length],
            1 => (0..length).map(|_| rng.u8(..128)).collect(),
            _ => {
                let mut json = String::new();
                while json.len() < length {
                    let price = rng.u32(..1000);
                    json += &format!("{{\"s\":\"BTCUSDT\",\"p\":\"{price}\",\"m\":true}}");
                }
                json.truncate(length);
                json.into_bytes()
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_compressed_is_inflated_whatever_was_agreed_and_however_it_is_cut(
        messages in prop::collection::vec((any::<bool>(), payloads(), 0..4u8), 1..14),
        bits in 8..=15u8,
        takeover: bool,
        level in 1..=9u32,
        client: bool,
        fragment in prop_oneof![Just(1024usize), Just(256 << 10)],
        steps in steps(),
    ) {
        let compression = Compression::default()
            .window_bits(bits)
            .context_takeover(takeover)
            .level(level)
            .smallest(50);
        let agreed = CompressionAgreed::new(compression);
        let options = Options::default().max_message_bytes(LIMIT).fragment_bytes(fragment);
        let (from, to) = match client {
            true => (Side::Client, Side::Server),
            false => (Side::Server, Side::Client),
        };
        let mut writer = websocket(from, &agreed, &options);
        let mut reader = websocket(to, &agreed, &options);
        io(&mut writer).steps = steps.clone();
        io(&mut reader).steps = steps;
        for (text, payload, idle) in messages {
            let bytes = written(&mut writer, text, &payload);
            let seen = read(&mut reader, &bytes);
            prop_assert_eq!(seen, [Seen::Message(text, payload)]);
            // Either side may be idle meanwhile, and give back what it can.
            for _ in 0..idle {
                writer.shrink();
                reader.shrink();
            }
        }
    }

    #[test]
    fn any_compressed_bytes_are_a_message_or_refused(
        frames in prop::collection::vec((0..6usize, prop::collection::vec(any::<u8>(), 0..300)), 1..8),
        limit in prop_oneof![Just(LIMIT), 0..2000usize],
    ) {
        let firsts = [0xc1, 0xc2, 0x41, 0x42, 0x00, 0x80];
        let frames: Vec<_> = frames
            .iter()
            .map(|(first, payload)| (firsts[*first], &payload[..]))
            .collect();
        let seen = read_in_pieces(limit, &frames);
        let messages = seen.each_ref().map(|seen| {
            let messages = seen.iter().filter_map(|seen| match seen {
                Seen::Message(_, payload) => Some(payload),
                _ => None,
            });
            messages.collect::<Vec<_>>()
        });
        prop_assert!(messages.iter().flatten().all(|it| it.len() <= limit));
        // Why the rest was refused may depend on what was seen first.
        prop_assert_eq!(&messages[0], &messages[1]);
        prop_assert_eq!(&messages[0], &messages[2]);
    }
}

/// RFC 7692 section 7.2.3, each example.
#[test]
fn examples_of_the_rfc_are_read_as_it_says() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(read_frames(LIMIT, &[(0xc1, hello)]), [text("Hello")]);
    // In fragments, with a ping in between.
    let fragments: [(u8, &[u8]); 3] = [(0x41, &hello[..3]), (0x89, b"ping"), (0x80, &hello[3..])];
    assert_eq!(
        read_frames(LIMIT, &fragments),
        [Seen::Control, text("Hello")]
    );
    // The window of the message before.
    let again: [(u8, &[u8]); 2] = [(0xc1, hello), (0xc1, b"\xf2\x00\x11\x00\x00")];
    assert_eq!(read_frames(LIMIT, &again), [text("Hello"), text("Hello")]);
    // A block without compression.
    let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
    assert_eq!(read_frames(LIMIT, &[(0xc1, stored)]), [text("Hello")]);
    // A last block, after which the next message goes on.
    let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
    let twice: [(u8, &[u8]); 2] = [(0xc1, last), (0xc1, b"\xf2\x00\x11\x00\x00")];
    assert_eq!(read_frames(LIMIT, &twice), [text("Hello"), text("Hello")]);
    // Two blocks.
    let two = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    assert_eq!(read_frames(LIMIT, &[(0xc1, two)]), [text("Hello")]);
    // An empty message.
    assert_eq!(read_frames(LIMIT, &[(0xc1, b"\x00")]), [text("")]);
}

#[test]
fn empty_messages_come_in_every_form() {
    let frames: [(u8, &[u8]); 6] = [
        (0xc1, b"\x00"),
        (0xc1, b""),
        (0x81, b""),
        (0x41, b""),
        (0x00, b""),
        (0x80, b"\x02\x00"),
    ];
    assert_eq!(
        read_frames(LIMIT, &frames),
        [text(""), text(""), text(""), text("")]
    );
    let mut writer = websocket(Side::Server, &agreed(), &Options::default());
    assert_eq!(written(&mut writer, true, b""), [0x81, 0]);
}

#[test]
fn last_blocks_end_no_message_and_what_follows_is_read() {
    let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00";
    let unterminated: [(u8, &[u8]); 2] = [(0xc1, last), (0xc1, last)];
    assert_eq!(
        read_frames(LIMIT, &unterminated),
        [text("Hello"), text("Hello")]
    );
    let several = [&last[..], last, b"\xf2\x48\xcd\xc9\xc9\x07\x00"].concat();
    let seen = read_frames(LIMIT, &[(0xc1, &several)]);
    assert_eq!(seen, [text("HelloHelloHello")]);
    let apart: [(u8, &[u8]); 3] = [(0x41, last), (0x00, b""), (0x80, last)];
    assert_eq!(read_frames(LIMIT, &apart), [text("HelloHello")]);
}

#[test]
fn only_the_first_frame_of_a_message_is_marked_as_compressed() {
    let hello: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let cases: [(&str, Frames<'_>); 7] = [
        ("a ping", &[(0xc9, b"")]),
        ("a pong", &[(0xca, b"")]),
        ("a close", &[(0xc8, b"\x03\xe8")]),
        ("a continuation", &[(0x41, hello), (0xc0, b"")]),
        (
            "a continuation of what is not compressed",
            &[(0x01, b"a"), (0xc0, hello)],
        ),
        ("RSV2", &[(0xa1, b"a")]),
        ("RSV3", &[(0x91, b"a")]),
    ];
    for (what, frames) in cases {
        assert!(
            is_refused(&read_frames(LIMIT, frames), "Protocol"),
            "{what}"
        );
    }
    let interleaved: [Frames<'_>; 3] = [
        &[(0x41, hello), (0x81, b"a")],
        &[(0x41, hello), (0xc1, hello)],
        &[(0x01, b"a"), (0xc1, hello)],
    ];
    for frames in interleaved {
        assert!(is_refused(&read_frames(LIMIT, frames), "within another"));
    }
    let alone = read_frames(LIMIT, &[(0x80, hello)]);
    assert!(is_refused(&alone, "continues no message"), "{alone:?}");
}

#[test]
fn data_that_stops_within_a_block_is_refused() {
    let mut cases: Vec<Vec<u8>> = vec![
        b"\x00\x0a\x00\xf5\xffabc".to_vec(),
        // One byte is missing, or as many as the tail has.
        b"\x00\x05\x00\xfa\xffHell".to_vec(),
        b"\x00\x05\x00\xfa\xffH".to_vec(),
        b"\x00\x05".to_vec(),
        b"\x00\x00\x00\xff\xff".to_vec(),
        b"\xff\xff".to_vec(),
    ];
    let whole = deflated(&b"once upon a time, ".repeat(20));
    cases.extend((1..whole.len()).map(|end| whole[..end].to_vec()));
    for data in cases {
        let seen = read_frames(LIMIT, &[(0xc2, &data)]);
        assert!(is_refused(&seen, "compressed data"), "{data:x?}: {seen:?}");
    }
}

#[test]
fn message_is_refused_at_the_limit_and_not_one_byte_later() {
    for (limit, extra) in [
        (1000, 0),
        (1000, 1),
        (512, 1),
        (65_536, 1),
        (65_536, 0),
        (0, 1),
    ] {
        let message = vec![b'x'; limit + extra];
        let expected = match extra {
            0 => Seen::Message(true, message.clone()),
            _ => {
                let size = limit + 1;
                Seen::Ends(format!(
                    "Broken(MessageTooLarge {{ size: {size}, limit: {limit} }})"
                ))
            }
        };
        let by_others = deflated(&message);
        let seen = read_frames(limit, &[(0xc1, &by_others)]);
        assert_eq!(seen, [expected], "{limit} and {extra}");
    }
    // The sum over fragments counts.
    let data = deflated(&[7; 1200]);
    let parts: [(u8, &[u8]); 2] = [
        (0x42, &data[..data.len() / 2]),
        (0x80, &data[data.len() / 2..]),
    ];
    assert!(is_refused(&read_frames(1000, &parts), "MessageTooLarge"));
    // More compressed data than any message within the limit needs.
    let padding = b"\x00\x00\x00\xff\xff".repeat(400);
    assert!(is_refused(
        &read_frames(1000, &[(0xc2, &padding)]),
        "MessageTooLarge"
    ));
}

/// 16 MiB of zeros in 16 KiB, and 1 GiB that would be. Memory follows what was inflated, up to the
/// limit, and no step is long.
#[test]
fn bomb_of_a_thousand_to_one_stops_at_the_limit() {
    const MIB: usize = 1 << 20;
    let bomb = deflated(&vec![0; 64 * MIB]);
    assert!(bomb.len() < 64 * MIB / 1000);
    let options = Options::default().max_message_bytes(4 * MIB);
    let mut ws = websocket(Side::Client, &agreed(), &options);
    let account = Account::default();
    ws.charge(&account);
    let frame = FrameParts {
        first: 0xc2,
        payload: bomb,
    };
    io(&mut ws).input.extend(encode(&[frame], false));
    let mut cx = Context::from_waker(Waker::noop());
    let (mut steps, mut most) = (0, 0);
    let why = loop {
        let received = ws.poll_read(&mut cx);
        most = most.max(account.held());
        match received {
            Poll::Ready(Ok(Received::Part(bytes))) => {
                steps += 1;
                assert!(bytes <= 2 * INFLATE_STEP_BYTES, "{bytes}");
            }
            Poll::Ready(Err(why)) => break why,
            other => panic!("{other:?}"),
        }
    };
    let too_large = ConnectionError::MessageTooLarge {
        size: 4 * MIB + 1,
        limit: 4 * MIB,
    };
    assert!(matches!(&why, Failure::Broken(told) if told.to_string() == too_large.to_string()));
    assert!(steps >= 4 * MIB / INFLATE_STEP_BYTES, "{steps}");
    assert!(most > 4 * MIB && most < 6 * MIB, "{most}");
    ws.discard_received();
    assert!(account.held() < 64 << 10, "{}", account.held());
}

/// Two bytes can ask for a new stream.
#[test]
fn flood_of_last_blocks_is_work_that_counts() {
    const BLOCKS: usize = 20_000;
    let flood = FrameParts {
        first: 0xc2,
        payload: b"\x03\x00".repeat(BLOCKS),
    };
    let mut ws = websocket(Side::Client, &agreed(), &Options::default());
    io(&mut ws).input.extend(encode(&[flood], false));
    let mut cx = Context::from_waker(Waker::noop());
    let mut parts = 0;
    let size = loop {
        match ws.poll_read(&mut cx) {
            Poll::Ready(Ok(Received::Part(_))) => parts += 1,
            Poll::Ready(Ok(Received::Message { payload, .. })) => break payload.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(size, 0);
    let most = INFLATE_STEP_BYTES / INFLATE_RESTART_COST;
    assert!(parts >= BLOCKS / (most + 1), "{parts}");
}

#[test]
fn text_that_is_not_utf8_is_refused_before_its_frame_is_whole() {
    let mut bad = vec![b'a'; 100];
    bad.push(0xff);
    let first = deflated(&bad);
    let mut ws = websocket(Side::Client, &agreed(), &Options::default());
    // A frame of 60,000 bytes, of which a hundred came.
    let mut bytes = vec![0xc1, 126];
    bytes.extend(60_000u16.to_be_bytes());
    bytes.extend(first);
    assert!(is_refused(&read(&mut ws, &bytes), "InvalidText"));
    // A character across two fragments, and half of one.
    let data = deflated("é".as_bytes());
    let halves: [(u8, &[u8]); 2] = [(0x41, &data[..2]), (0x80, &data[2..])];
    assert_eq!(read_frames(LIMIT, &halves), [text("é")]);
    let half = deflated(&"é".as_bytes()[..1]);
    assert!(is_refused(
        &read_frames(LIMIT, &[(0xc1, &half)]),
        "InvalidText"
    ));
}

/// Once an implementation spoke of a window of 256 bytes and used one of 512, because zlib has none.
#[test]
fn a_window_of_256_bytes_is_kept_to() {
    for level in 1..=9 {
        let compression = Compression::default()
            .window_bits(8)
            .level(level)
            .smallest(0);
        let mut writer = websocket(
            Side::Server,
            &CompressionAgreed::new(compression),
            &Options::default(),
        );
        // Repeats itself at every distance up to a thousand.
        let noise = random(500);
        let mut strict = zlib_rs::Inflate::new(false, 8);
        let mut compressed = 0;
        for distance in (200..500).step_by(7) {
            let message = [&noise[..distance], &noise[..distance], &noise[..40]].concat();
            let bytes = written(&mut writer, false, &message);
            if bytes[0] & 0x40 == 0 {
                continue;
            }
            compressed += 1;
            let head = if bytes[1] == 126 { 4 } else { 2 };
            let data = [&bytes[head..], &[0, 0, 0xff, 0xff]].concat();
            let (mut at, mut inflated) = (0, Vec::new());
            // One byte at a time, so that nothing but the window can be referred to.
            while at < data.len() || inflated.len() < message.len() {
                let mut byte = [0];
                let (taken, made) = (strict.total_in(), strict.total_out());
                let flush = zlib_rs::InflateFlush::SyncFlush;
                let step = strict.decompress(&data[at..], &mut byte, flush);
                step.unwrap_or_else(|why| panic!("level {level}, {distance}: {why:?}"));
                at += (strict.total_in() - taken) as usize;
                if strict.total_out() > made {
                    inflated.push(byte[0]);
                }
            }
            assert_eq!(inflated, message);
        }
        assert!(compressed > 5, "level {level}: {compressed}");
    }
}

#[test]
fn what_does_not_become_smaller_goes_out_as_it_is_and_leaves_the_context_alone() {
    let mut writer = websocket(Side::Server, &agreed(), &Options::default());
    let mut reader = websocket(Side::Client, &agreed(), &Options::default());
    let json = br#"{"s":"BTCUSDT","p":"43000.17","q":"0.01221","m":true}"#.repeat(3);
    let noise = random(3000);
    let mut sizes = Vec::new();
    for message in [&json, &noise, &json, &noise, &json] {
        let bytes = written(&mut writer, false, message);
        let compressed = bytes[0] & 0x40 != 0;
        assert_eq!(compressed, message.len() < 3000);
        if !compressed {
            assert_eq!(bytes.len(), 4 + 3000);
        }
        sizes.push(bytes.len());
        let seen = read(&mut reader, &bytes);
        assert_eq!(seen, [Seen::Message(false, message.to_vec())]);
    }
    assert!(sizes[2] < 20, "the first message is still known: {sizes:?}");
    assert!(sizes[4] < 20, "{sizes:?}");
}

#[test]
fn messages_below_the_smallest_go_out_as_they_are() {
    let smallest = CompressionAgreed::new(Compression::default().smallest(100));
    let mut writer = websocket(Side::Server, &smallest, &Options::default());
    assert_eq!(written(&mut writer, true, &[b'a'; 99])[0], 0x81);
    assert_eq!(written(&mut writer, true, &[b'a'; 100])[0], 0xc1);
}

/// More connections than the process keeps compressors, in turns.
#[test]
fn connections_share_compressors_and_each_keeps_its_own_context() {
    let mut pairs: Vec<_> = (0..40)
        .map(|_| {
            let end = |side| websocket(side, &agreed(), &Options::default());
            (end(Side::Server), end(Side::Client))
        })
        .collect();
    for round in 0..4 {
        for (number, (writer, reader)) in pairs.iter_mut().enumerate() {
            let message =
                format!("{{\"connection\":{number},\"says\":\"the same again\"}}").repeat(2);
            let bytes = written(writer, true, message.as_bytes());
            if round > 0 {
                assert!(
                    bytes.len() < 20,
                    "it refers to the round before: {}",
                    bytes.len()
                );
            }
            assert_eq!(read(reader, &bytes), [text(&message)]);
        }
    }
}

#[test]
fn contexts_count_in_the_account_and_an_idle_connection_gives_them_back() {
    let json: Vec<u8> = (0..600)
        .flat_map(|at| format!("{{\"price\":{at}}}").into_bytes())
        .collect();
    let (mut writer, mut reader) = (
        websocket(Side::Server, &agreed(), &Options::default()),
        websocket(Side::Client, &agreed(), &Options::default()),
    );
    let (sent, received) = (Account::default(), Account::default());
    writer.charge(&sent);
    reader.charge(&received);
    for _ in 0..3 {
        let bytes = written(&mut writer, true, &json);
        assert_eq!(read(&mut reader, &bytes).len(), 1);
    }
    assert!(sent.held() >= 4096, "{}", sent.held());
    assert!(received.held() >= 4096, "{}", received.held());
    for _ in 0..2 {
        writer.shrink();
        reader.shrink();
    }
    assert_eq!(sent.held(), 0);
    // The peer may still refer to what it sent, so that is kept, compressed.
    assert!(received.held() <= 4096, "{}", received.held());
    let held = match &reader.engine {
        Engine::Own(own) => own.held(),
        Engine::Adopted(_) => unreachable!(),
    };
    assert!(held < 1500, "{held}");
    let bytes = written(&mut writer, true, &json);
    assert_eq!(read(&mut reader, &bytes), [Seen::Message(true, json)]);
}
