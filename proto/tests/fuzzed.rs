//! The fuzz targets (`fuzz/`) as plain tests: what was found stays found, and the targets run on
//! a stable toolchain.

#![allow(unreachable_pub)]

#[allow(dead_code)]
mod targets;

use std::num::NonZeroU64;

use bytes::{BufMut, Bytes, BytesMut};
use unstall_proto::limits::{MIN_MAX_MESSAGE, MIN_WINDOW};
use unstall_proto::{
    CloseFrame, Config, Epoch, Generation, Hello, Packet, Seq, Session, SessionId, Time, Token,
};

const NOW: Time = Time::ORIGIN;

fn server() -> (Session, Generation) {
    let config = Config::new()
        .window(MIN_WINDOW)
        .max_window(MIN_WINDOW)
        .max_message(MIN_MAX_MESSAGE);
    let hello = Hello {
        id: SessionId([1; 16]),
        token: Token([2; 16]),
        epoch: None,
        generation: Generation::new(1),
        received: Seq::ZERO,
        acked: Seq::ZERO,
        credit: unstall_proto::Offset::new(MIN_WINDOW),
        max_message: MIN_MAX_MESSAGE,
    };
    let epoch = Epoch(NonZeroU64::MIN);
    let (mut session, generation) = Session::server(config, &hello, epoch, Token([3; 16])).unwrap();
    session.poll_transmit(NOW, generation).unwrap();
    (session, generation)
}

/// A data packet of records that are not text, each with its continue bit and length.
fn data(first: u64, records: &[(bool, usize)]) -> Bytes {
    let mut buf = BytesMut::new();
    buf.put_u8(0x10);
    buf.put_u64(first);
    for (continues, length) in records {
        let word = (*length as u32) << 2 | u32::from(*continues) << 1;
        buf.put_u32(0x8000_0000 | word);
        buf.put_bytes(b'x', *length);
    }
    Bytes::copy_from_slice(&buf)
}

/// What the session holds of that many packets, in bytes.
fn held_after(packets: u64, packet: impl Fn(u64) -> Bytes) -> u64 {
    let (mut session, generation) = server();
    let held = allocation_counter::measure(|| {
        for number in 1..=packets {
            let packet = packet(number);
            session.handle_packet(NOW, generation, packet).unwrap();
        }
    });
    u64::try_from(held.bytes_current).unwrap()
}

/// Scripts of random bytes.
fn scripts(count: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|seed| {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed >> 40) as u8
        })
        .take(30 + seed as usize % 200)
        .collect()
    })
}

#[test]
fn the_targets_hold_for_scripts_of_random_bytes() {
    for script in scripts(300) {
        targets::decode::run(&script);
        targets::session::run(&script);
        targets::pair::run(&script);
        targets::topics_decode::run(&script);
    }
    for script in scripts(5_000) {
        targets::topics_peer::run(&script);
    }
}

#[test]
fn a_hello_that_comes_after_its_session_is_over_harms_nobody() {
    // Seen: the first HELLO was late, the second one opened the session, the server ended it and
    // forgot it, and then the first one opened an empty session with the same id. The client's
    // next HELLO met that one, and was `not yours` where `expired` was meant. Both are final, and
    // each side gets back what it has to.
    let script = hex(
        "0200030f0c06091215181b02000306090c0ffcff00606300000f952a2d383635383c3f423d02b500\
         00005154575a5d606366696c6f7275787b7e818c878a8d909396999c9fa2a5a83138343c3f424548\
         4b4e5154575a5d296366696c726f7f787b7e8184878a8d999c9fa2a5a82124272a2d30333639f0f3\
         f62a2d30",
    );
    targets::pair::run(&script);
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[test]
fn nothing_that_comes_after_the_end_can_break_the_connection() {
    // Seen: END, and then a CLOSE that names a record never sent. That was a gap, for which a
    // connection is made anew, of a session that was over.
    let (mut session, generation) = server();
    let close = |last| Packet::Close {
        last: Seq::new(last),
        within_millis: 5_000,
        frame: CloseFrame::new(1000, "done"),
    };
    for packet in [close(0), Packet::End, close(1), Packet::End] {
        let packet = packet.to_bytes();
        assert_eq!(session.handle_packet(NOW, generation, packet), Ok(()));
        assert!(!session.is_over(), "it has not sent its own END");
    }
    while session.poll_transmit(NOW, generation).is_some() {}
    assert!(session.is_over());
}

#[test]
fn a_new_record_behind_a_duplicate_holds_only_itself() {
    // Seen: a packet of a known record of 60,000 bytes and a new, empty one. The empty message
    // was a slice of the packet and kept all of it in memory, for 64 bytes of credit: a window of
    // 256 KiB let a peer occupy 240 MB.
    let held = held_after(500, |number| match number {
        1 => data(1, &[(false, 60_000)]),
        next => data(next - 1, &[(false, 60_000), (false, 0)]),
    });
    assert!(held < 2 * MIN_WINDOW, "{held} bytes");
}

#[test]
fn a_message_that_was_put_together_holds_only_itself() {
    // Seen: the buffer of a message of many records doubles as it grows, and the whole message
    // kept that room while it waited for the application.
    let held = held_after(7, |number| {
        data(2 * number - 1, &[(true, 30_000), (false, 1)])
    });
    assert!(held < 7 * 31_000 + 10_000, "{held} bytes");
}
