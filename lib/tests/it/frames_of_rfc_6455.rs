//! Which frames a raw peer may send, which it may not, and what it gets back.
//!
//! Every case runs in both roles and with both engines. A raw peer checks of every frame that a client
//! masked it and that a server did not.

use crate::common::{
    frames::{
        BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, RawPeer, StreamEnd, TEXT, close, frame,
        part,
    },
    limit,
    net::bind,
    plain, raw,
};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use unstall::{
    Close, CloseCode, Connection, ConnectionError, Incoming, Message, Options, Server,
    tokio_tungstenite::tungstenite::protocol::Role,
};

/// This library's end of the connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Client,
    Server,
    AdoptedClient,
    AdoptedServer,
}

const ENDS: [End; 4] = [
    End::Client,
    End::Server,
    End::AdoptedClient,
    End::AdoptedServer,
];

async fn connect(end: End, options: Options) -> (Connection, RawPeer) {
    match end {
        End::Client => raw::client(options).await,
        End::Server => {
            let server = bind(Server::builder().options(options)).await;
            let address = server.local_addr();
            let (server, raw) = tokio::join!(server.accept(), RawPeer::connect(address));
            (server.unwrap(), raw)
        }
        End::AdoptedClient => raw::adopted(Role::Client, options).await,
        End::AdoptedServer => raw::adopted(Role::Server, options).await,
    }
}

/// Runs a case on every kind of end, all at the same time.
async fn on_every_end<F: Future<Output = ()>>(case: impl Fn(End) -> F) {
    limit(join_all(ENDS.map(case))).await;
}

/// Checks how our end closes: the peer gets a close frame with this code, then the end of the stream.
async fn ends(
    ours: &mut Connection,
    raw: &mut RawPeer,
    code: Option<u16>,
    what: &str,
) -> Result<Option<Incoming>, ConnectionError> {
    let peer = async {
        let seen = raw.see_beyond_heartbeats().await.expect(what);
        assert_eq!(seen.opcode, CLOSE, "{what}: {seen:?}");
        assert_eq!(seen.close_code(), code, "{what}");
        sees_fin(raw, what).await;
    };
    tokio::join!(ours.recv(), peer).0
}

/// The server closes the TCP connection first (RFC 6455 section 7.1.1), then the client.
async fn sees_fin(raw: &mut RawPeer, what: &str) {
    if raw.is_client {
        assert_eq!(raw.see().await, Err(StreamEnd::Fin), "{what}");
        raw.io.shutdown().await.unwrap();
    } else {
        raw.io.shutdown().await.unwrap();
        assert_eq!(raw.see().await, Err(StreamEnd::Fin), "{what}");
    }
}

#[tokio::test]
async fn fragments_make_one_message_and_pings_between_them_are_answered() {
    on_every_end(|end| async move {
        let (mut ours, mut raw) = connect(end, Options::default()).await;
        raw.say(part(TEXT, "Hel")).await;
        raw.say(frame(PING, "between")).await;
        assert_eq!(
            raw.see().await,
            Ok(Frame {
                masked: !raw.is_client,
                ..frame(PONG, "between")
            })
        );
        raw.say(part(CONTINUATION, "")).await;
        raw.say(part(CONTINUATION, "l")).await;
        raw.say(frame(PONG, "that nobody asked for")).await;
        raw.say(frame(CONTINUATION, "o")).await;
        raw.say(frame(BINARY, [])).await;
        raw.say(frame(TEXT, "")).await;
        assert_eq!(plain(ours.recv().await), Message::from("Hello"));
        assert_eq!(plain(ours.recv().await), Message::binary(vec![]));
        assert_eq!(plain(ours.recv().await), Message::from(""));
    })
    .await;
}

#[tokio::test]
async fn pings_of_every_length_are_answered_with_their_payload() {
    on_every_end(|end| async move {
        let (_ours, mut raw) = connect(end, Options::default()).await;
        for len in [0, 1, 124, 125] {
            raw.say(frame(PING, vec![len as u8; len])).await;
            let seen = raw.see().await.unwrap();
            assert_eq!((seen.opcode, seen.payload), (PONG, vec![len as u8; len]));
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_rfc_forbids_ends_the_connection_with_1002() {
    let wrong = |change: fn(&mut Frame)| {
        let mut wrong = frame(TEXT, "wrong");
        change(&mut wrong);
        vec![wrong]
    };
    let mut cases: Vec<(String, Vec<Frame>)> = vec![
        (
            "RSV1 without an extension".into(),
            wrong(|frame| frame.reserved = 4),
        ),
        ("RSV2".into(), wrong(|frame| frame.reserved = 2)),
        ("RSV3".into(), wrong(|frame| frame.reserved = 1)),
        ("a ping of 126 bytes".into(), vec![frame(PING, [0; 126])]),
        (
            "a pong of 70,000 bytes".into(),
            vec![frame(PONG, vec![0; 70_000])],
        ),
        (
            "a ping in fragments".into(),
            vec![part(PING, "a"), frame(CONTINUATION, "b")],
        ),
        ("a close in fragments".into(), vec![part(CLOSE, [3, 232])]),
        (
            "a continuation of nothing".into(),
            vec![frame(CONTINUATION, "a")],
        ),
        (
            "a message inside a message".into(),
            vec![part(TEXT, "a"), frame(TEXT, "b")],
        ),
        ("a close frame of one byte".into(), vec![frame(CLOSE, [3])]),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((format!("opcode {opcode}"), vec![frame(opcode, "a")]));
    }
    let cases = &cases;
    on_every_end(|end| {
        join_all(cases.iter().map(move |(what, frames)| async move {
            let what = &format!("{what}, {end:?}");
            let (mut ours, mut raw) = connect(end, Options::default()).await;
            raw.say(frame(TEXT, "good")).await;
            for frame in frames {
                raw.say(frame.clone()).await;
            }
            assert_eq!(plain(ours.recv().await), Message::from("good"), "{what}");
            let ended = ends(&mut ours, &mut raw, Some(1002), what).await;
            assert!(
                matches!(ended, Err(ConnectionError::Protocol(_))),
                "{what}: {ended:?}"
            );
        }))
        .then_unit()
    })
    .await;
}

#[tokio::test]
async fn wrong_masking_ends_the_connection_with_1002() {
    on_every_end(|end| async move {
        let (mut ours, mut raw) = connect(end, Options::default()).await;
        let masked = !raw.is_client;
        raw.say_as_is(&Frame {
            masked,
            ..frame(TEXT, "wrong")
        })
        .await;
        let ended = ends(&mut ours, &mut raw, Some(1002), &format!("{end:?}")).await;
        assert!(
            matches!(ended, Err(ConnectionError::Protocol(_))),
            "{end:?}: {ended:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn close_codes_are_answered_alike_and_reported() {
    let codes = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 4999,
    ];
    on_every_end(|end| {
        join_all(codes.map(move |code| async move {
            let (mut ours, mut raw) = connect(end, Options::default()).await;
            raw.say(frame(TEXT, "last")).await;
            raw.say(close(code, "because")).await;
            assert_eq!(plain(ours.recv().await), Message::from("last"));
            let ended = ends(&mut ours, &mut raw, Some(code), &format!("{code}")).await;
            match code {
                1000 | 1001 => assert!(matches!(ended, Ok(None)), "{code}: {ended:?}"),
                _ => {
                    let Err(ConnectionError::ClosedByPeer(Close {
                        code: Some(seen),
                        reason,
                        ..
                    })) = ended
                    else {
                        panic!("{code}: {ended:?}");
                    };
                    assert_eq!((seen.as_u16(), reason.as_str()), (code, "because"));
                }
            }
            let (sender, _receiver) = ours.split();
            let report = sender.ended().await;
            assert!(report.clean, "{code}: {report:?}");
            assert_eq!(report.peer.unwrap().code.unwrap().as_u16(), code);
        }))
        .then_unit()
    })
    .await;
}

#[tokio::test]
async fn close_without_a_code_is_a_normal_end() {
    on_every_end(|end| async move {
        let (mut ours, mut raw) = connect(end, Options::default()).await;
        raw.say(frame(CLOSE, [])).await;
        let ended = ends(&mut ours, &mut raw, None, "no code").await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
    })
    .await;
}

#[tokio::test]
async fn close_codes_that_must_not_be_sent_end_the_connection_with_1002() {
    let codes = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535];
    on_every_end(|end| {
        join_all(codes.map(move |code| async move {
            let (mut ours, mut raw) = connect(end, Options::default()).await;
            raw.say(close(code, "")).await;
            let ended = ends(&mut ours, &mut raw, Some(1002), &format!("{code}")).await;
            assert!(ended.is_err(), "{code}: {ended:?}");
        }))
        .then_unit()
    })
    .await;
}

#[tokio::test]
async fn our_close_arrives_with_its_code_and_reason() {
    on_every_end(|end| async move {
        let (ours, mut raw) = connect(end, Options::default()).await;
        ours.send("last words").await.unwrap();
        // A character has 3 bytes, so 41 fit into the 123 bytes of a reason.
        let reason = "€".repeat(60);
        let code = CloseCode::new(4001).unwrap();
        let answer = async {
            assert_eq!(raw.see().await.unwrap().payload, b"last words");
            let seen = raw.see().await.unwrap();
            assert_eq!(seen.close_code(), Some(4001));
            assert_eq!(seen.payload[2..], *"€".repeat(41).as_bytes());
            raw.say(frame(TEXT, "crossed your close")).await;
            raw.say(close(4001, "yes")).await;
            sees_fin(&mut raw, "our close").await;
        };
        let (report, ()) = tokio::join!(ours.close(code, &reason), answer);
        assert!(report.clean, "{end:?} {report:?}");
        assert_eq!(report.peer.unwrap().reason, "yes");
        assert!(report.unsent.is_empty() && report.in_flight == 0);
        let (_, mut receiver) = ours.split();
        assert_eq!(
            plain(receiver.recv().await),
            Message::from("crossed your close")
        );
        assert!(matches!(receiver.recv().await, Ok(None)));
    })
    .await;
}

/// Once only an adopted stream's own limit counted, whatever the options said.
#[tokio::test]
async fn messages_over_the_limit_end_the_connection_with_1009() {
    const LIMIT: usize = 1000;
    let cases: [(&str, Vec<Frame>); 2] = [
        ("one frame", vec![frame(BINARY, [0; LIMIT + 1])]),
        (
            "fragments",
            vec![part(BINARY, [0; LIMIT]), frame(CONTINUATION, [0])],
        ),
    ];
    let cases = &cases;
    on_every_end(|end| {
        join_all(cases.iter().map(move |(what, frames)| async move {
            let what = &format!("{what}, {end:?}");
            let (mut ours, mut raw) =
                connect(end, Options::default().max_message_bytes(LIMIT)).await;
            raw.say(frame(BINARY, [1; LIMIT])).await;
            for frame in frames {
                raw.say(frame.clone()).await;
            }
            assert_eq!(plain(ours.recv().await).len(), LIMIT, "{what}");
            let ended = ends(&mut ours, &mut raw, Some(1009), what).await;
            let Err(ConnectionError::MessageTooLarge { size, limit }) = ended else {
                panic!("{what}: {ended:?}");
            };
            assert_eq!((size, limit), (LIMIT + 1, LIMIT), "{what}");
        }))
        .then_unit()
    })
    .await;
}

#[tokio::test]
async fn announced_frame_over_the_limit_is_refused_before_a_byte_of_it_came() {
    on_every_end(|end| async move {
        let (mut ours, mut raw) = connect(end, Options::default()).await;
        let mut header = frame(BINARY, []).encode();
        header[1] = if raw.is_client { 0x80 | 127 } else { 127 };
        header.extend_from_slice(&(1_u64 << 62).to_be_bytes());
        header.extend_from_slice(&[0; 4][..if raw.is_client { 4 } else { 0 }]);
        raw.io.write_all(&header).await.unwrap();
        let ended = ends(&mut ours, &mut raw, Some(1009), &format!("{end:?}")).await;
        assert!(
            matches!(ended, Err(ConnectionError::MessageTooLarge { .. })),
            "{ended:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_the_connection_with_1007() {
    let cases: Vec<(&str, Vec<Frame>)> = vec![
        ("a stray byte", vec![frame(TEXT, [b'a', 0xff])]),
        ("an end inside a character", vec![frame(TEXT, [0xe2, 0x82])]),
        ("a surrogate", vec![frame(TEXT, [0xed, 0xa0, 0x80])]),
        (
            "a character broken across fragments",
            vec![part(TEXT, [0xe2, 0x82]), frame(CONTINUATION, "a")],
        ),
        ("a close reason", vec![frame(CLOSE, [3, 232, 0xff])]),
    ];
    let cases = &cases;
    on_every_end(|end| {
        join_all(cases.iter().map(move |(what, frames)| async move {
            let what = &format!("{what}, {end:?}");
            let (mut ours, mut raw) = connect(end, Options::default()).await;
            // The same character in valid fragments.
            raw.say(part(TEXT, [0xe2])).await;
            raw.say(part(CONTINUATION, [0x82])).await;
            raw.say(frame(CONTINUATION, [0xac])).await;
            for frame in frames {
                raw.say(frame.clone()).await;
            }
            assert_eq!(plain(ours.recv().await), Message::from("€"), "{what}");
            let ended = ends(&mut ours, &mut raw, Some(1007), what).await;
            assert!(
                matches!(ended, Err(ConnectionError::InvalidText)),
                "{what}: {ended:?}"
            );
        }))
        .then_unit()
    })
    .await;
}

/// The head of a frame whose length takes so many bytes. The mask of zeros leaves payloads unchanged.
fn head(first: u8, masked: bool, in_bytes: usize, length: u64) -> Vec<u8> {
    let mask_bit = u8::from(masked) << 7;
    let mut head = vec![first];
    match in_bytes {
        1 => head.push(mask_bit | length as u8),
        2 => {
            head.push(mask_bit | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head.resize(head.len() + 4 * usize::from(masked), 0);
    head
}

/// Writes each of these byte strings on a connection of its own, masked or not, and checks that the
/// connection ends with that code. Adopted streams are left out: tungstenite waits for more bytes, or
/// accepts these.
async fn own_ends_refuse(code: u16, cases: impl Fn(bool) -> Vec<(String, Vec<u8>)>) {
    let refused = |end: End, what: String, bytes: Vec<u8>| async move {
        let (mut ours, mut raw) = connect(end, Options::default()).await;
        raw.io.write_all(&bytes).await.unwrap();
        let what = format!("{what}, {end:?}");
        let ended = ends(&mut ours, &mut raw, Some(code), &what).await;
        match code {
            1002 => assert!(matches!(ended, Err(ConnectionError::Protocol(_))), "{what}"),
            _ => assert!(matches!(ended, Err(ConnectionError::InvalidText)), "{what}"),
        }
    };
    let all = [(End::Client, false), (End::Server, true)].map(|(end, masked)| {
        let cases = cases(masked).into_iter();
        join_all(cases.map(move |(what, bytes)| refused(end, what, bytes)))
    });
    limit(join_all(all)).await;
}

/// Once a length was accepted in any form. "In all cases, the minimal number of bytes MUST be used"
/// (section 5.2).
#[tokio::test]
async fn lengths_that_are_not_in_their_shortest_form_end_the_connection_with_1002() {
    own_ends_refuse(1002, |masked| {
        let mut cases = Vec::new();
        for (in_bytes, length) in [(2, 0), (2, 125), (8, 5), (8, 126), (8, 65_535)] {
            for first in [0x82, 0x02, 0x89] {
                let what = format!("{length} in {in_bytes} bytes after {first:#x}");
                cases.push((what, head(first, masked, in_bytes, length)));
            }
        }
        cases
    })
    .await;
}

#[tokio::test]
async fn lengths_in_their_shortest_form_are_taken_up_to_the_edges() {
    on_every_end(|end| async move {
        let (mut ours, mut raw) = connect(end, Options::default()).await;
        for (in_bytes, length) in [(1, 125), (2, 126), (2, 65_535), (8, 65_536)] {
            let mut bytes = head(0x82, raw.is_client, in_bytes, length);
            bytes.resize(bytes.len() + length as usize, 7);
            raw.io.write_all(&bytes).await.unwrap();
            assert_eq!(plain(ours.recv().await).len() as u64, length);
        }
    })
    .await;
}

#[tokio::test]
async fn length_with_its_most_significant_bit_set_ends_the_connection_with_1002() {
    own_ends_refuse(1002, |masked| {
        let lengths = [1 << 63, u64::MAX].into_iter();
        lengths
            .map(|length| (format!("{length:#x}"), head(0x82, masked, 8, length)))
            .collect()
    })
    .await;
}

/// A broken rule ends the connection when its byte has arrived, not when the frame is whole.
#[tokio::test]
async fn what_breaks_a_rule_is_refused_before_the_rest_has_come() {
    own_ends_refuse(1002, |masked| {
        let mask_bit = u8::from(masked) << 7;
        let cases = [
            ("reserved bits", vec![0xc2]),
            ("a reserved opcode", vec![0x83]),
            ("a ping in fragments", vec![0x09]),
            ("a ping of 126 bytes", vec![0x89, mask_bit | 126]),
            ("a wrong mask", vec![0x82, mask_bit ^ 0x80]),
            ("a continuation of nothing", head(0x80, masked, 1, 100)),
        ];
        cases.map(|(what, bytes)| (what.to_owned(), bytes)).into()
    })
    .await;
}

/// Once a text was checked only when its frame was whole. 16 MiB of invalid bytes were accepted first.
#[tokio::test]
async fn text_that_is_not_utf_8_is_refused_before_its_frame_or_message_is_whole() {
    own_ends_refuse(1007, |masked| {
        let mut in_a_frame = head(0x81, masked, 8, 1 << 20);
        in_a_frame.extend_from_slice(b"so far so good \xff");
        let mut in_a_fragment = head(0x01, masked, 1, 3);
        in_a_fragment.extend_from_slice("€".as_bytes());
        in_a_fragment.extend(head(0x00, masked, 1, 2));
        in_a_fragment.extend_from_slice(&[0xe2, 0x28]);
        let mut across_fragments = head(0x01, masked, 1, 1);
        across_fragments.push(0xe2);
        across_fragments.extend(head(0x00, masked, 8, 1 << 20));
        across_fragments.push(b'a');
        vec![
            ("in a frame".to_owned(), in_a_frame),
            ("in a fragment".to_owned(), in_a_fragment),
            ("across fragments".to_owned(), across_fragments),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_messages_travel_as_fragments_and_pongs_pass_between_them() {
    const FRAGMENT: usize = 16 << 10;
    const LEN: usize = 15 << 20;
    on_every_end(|end| async move {
        let (ours, mut raw) = connect(end, Options::default().fragment_bytes(FRAGMENT)).await;
        let payload: Vec<u8> = (0..LEN).map(|index| (index / 7) as u8).collect();
        ours.send(payload.clone()).await.unwrap();
        // The first fragment has arrived, so the message has begun. It cannot be complete, because it
        // does not fit into the kernel's buffers.
        let first = raw.see().await.unwrap();
        assert_eq!(
            (first.fin, first.opcode, first.payload.len()),
            (false, BINARY, FRAGMENT)
        );
        raw.say(frame(PING, "while you write")).await;
        let (mut received, mut answered_at) = (first.payload, None);
        loop {
            let seen = raw.see().await.unwrap();
            match seen.opcode {
                PONG => {
                    assert_eq!(seen.payload, b"while you write");
                    answered_at = Some(received.len());
                }
                CONTINUATION => {
                    received.extend_from_slice(&seen.payload);
                    assert!(seen.fin || seen.payload.len() == FRAGMENT);
                    if seen.fin {
                        break;
                    }
                }
                other => panic!("opcode {other}"),
            }
        }
        assert!(received == payload, "{end:?}: the payload arrived changed");
        let answered_at = answered_at.expect("the pong came before the message's end");
        println!("{end:?}: the pong passed {} bytes", LEN - answered_at);
        ours.send("after it").await.unwrap();
        assert_eq!(raw.see().await.unwrap().payload, b"after it");
    })
    .await;
}

/// Options for many connections at the same time.
trait ThenUnit: Future + Sized {
    fn then_unit(self) -> impl Future<Output = ()> {
        async {
            self.await;
        }
    }
}

impl<F: Future> ThenUnit for F {}
