//! Clients that break the protocol.

use unstall_proto::ErrorCode;
use unstall_proto::topics::{Opening, Server, ServerConfig, TopicPacket};

use crate::common::*;

/// The code with which a packet ends the connection.
fn code(server: &mut Server, packet: bytes::Bytes) -> ErrorCode {
    let error = server.handle_packet(packet).unwrap_err();
    assert!(server.is_over());
    let packets = sent(server);
    let [TopicPacket::Abort { code, .. }] = packets[..] else {
        panic!("{packets:?}");
    };
    assert_eq!(code, error.code());
    assert_eq!(
        server.handle_packet(hex("ff")),
        Ok(()),
        "nothing matters any more"
    );
    code
}

#[test]
fn each_broken_rule_ends_the_connection_with_its_code() {
    let record = "08 01 61 78";
    let cases = [
        ("", ErrorCode::MALFORMED),
        ("05", ErrorCode::UNKNOWN_KIND),
        ("33", ErrorCode::UNKNOWN_KIND),
        ("02", ErrorCode::MALFORMED),
        ("04 20", ErrorCode::MALFORMED),
        ("14 00000000000000", ErrorCode::MALFORMED),
        ("26 0000000100", ErrorCode::MALFORMED),
        (
            "24 00000001 0000000000000001 0000000000000000",
            ErrorCode::UNEXPECTED,
        ),
        ("30 0000000000000000 08016178", ErrorCode::MALFORMED),
        ("30 0000000000000001", ErrorCode::MALFORMED),
        ("30 0000000000000001 02 01 61", ErrorCode::MALFORMED),
        ("30 0000000000000001 10 01 61 78", ErrorCode::MALFORMED),
        ("30 0000000000000001 0901 61 ff", ErrorCode::INVALID_TEXT),
        (
            "30 0000000000000001 0a 01 61 78 09 78",
            ErrorCode::MALFORMED,
        ),
        (
            "30 0000000000000001 0a 01 61 78 0c 78",
            ErrorCode::MALFORMED,
        ),
        (
            "20 00000001 000000000001ffff 0000000000000000 00 3e",
            ErrorCode::MALFORMED,
        ),
        (
            "20 00000001 0000000000020000 0000000000000000 06 3e",
            ErrorCode::MALFORMED,
        ),
        (
            "20 00000001 0000000000020000 0000000000000000 03 0000000000000000 3e",
            ErrorCode::MALFORMED,
        ),
    ];
    for (packet, expected) in cases {
        let mut server = welcomed(ServerConfig::new());
        assert_eq!(code(&mut server, hex(packet)), expected, "{packet}");
    }
    let mut server = welcomed(ServerConfig::new());
    server
        .handle_packet(hex(&format!("30 0000000000000005 {record}")))
        .unwrap();
    for number in ["4", "5", "7"] {
        let mut server = welcomed(ServerConfig::new());
        server
            .handle_packet(hex(&format!("30 0000000000000005 {record}")))
            .unwrap();
        let packet = hex(&format!("30 000000000000000{number} {record}"));
        assert_eq!(code(&mut server, packet), ErrorCode::SEQUENCE_GAP);
    }
    let mut server = welcomed(ServerConfig::new());
    server.handle_packet(subscribe(1, CREDIT, ">")).unwrap();
    assert_eq!(
        code(&mut server, subscribe(1, CREDIT, "a")),
        ErrorCode::UNEXPECTED
    );
    let mut server = welcomed(ServerConfig::new());
    assert_eq!(
        code(&mut server, hello(None, 65_536)),
        ErrorCode::UNEXPECTED
    );
}

#[test]
fn a_first_packet_that_is_not_hello_ends_the_connection_without_a_word() {
    for packet in ["20", "80", "01", "14 0000000000000001"] {
        let mut server = Server::new(ServerConfig::new().into());
        assert!(server.handle_packet(hex(packet)).is_err());
        assert!(server.is_over() && sent(&mut server).is_empty());
    }
    let mut server = Server::new(ServerConfig::new().into());
    assert!(server.handle_text().is_err());
}

#[test]
fn what_no_longer_exists_and_what_is_unknown_from_0x80_on_does_no_harm() {
    let mut server = welcomed(ServerConfig::new());
    for packet in [
        "26 00000009",
        "25 00000009 0000000000000001",
        "80 ff",
        "15 0000000000000001",
    ] {
        server.handle_packet(hex(packet)).unwrap();
    }
    assert!(sent(&mut server).is_empty());
    server.handle_packet(hex("14 0000000000000007")).unwrap();
    assert_eq!(sent(&mut server), [TopicPacket::Pong(7)]);
}

#[test]
fn more_than_the_publish_window_is_refused_but_a_single_message_is_not() {
    let record = |first: bool, continues: bool| {
        let word = 0x8000_0000u32 | 65_536 << 3 | u32::from(continues) << 1;
        let topic = if first { hex("01 61") } else { hex("") };
        concat(&[
            &hex("30 0000000000000001"),
            &word.to_be_bytes(),
            &topic,
            &[7; 65_536],
        ])
    };
    let mut server = welcomed(ServerConfig::new().publish_window(262_144));
    for number in 0..8 {
        server
            .handle_packet(record(number == 0, number < 7))
            .unwrap();
    }
    let next = hex("30 0000000000000002 08 01 61 78");
    assert_eq!(code(&mut server, next), ErrorCode::CREDIT_EXCEEDED);

    let mut server = welcomed(ServerConfig::new().max_message(131_072));
    for number in 0..2 {
        server.handle_packet(record(number == 0, true)).unwrap();
    }
    assert_eq!(
        code(&mut server, record(false, false)),
        ErrorCode::MESSAGE_TOO_LARGE
    );
}

#[test]
fn a_million_subscriptions_are_refused_and_the_server_reads_no_more() {
    let mut server = welcomed(ServerConfig::new().subscriptions(10));
    let mut packets = 0;
    for number in 1..=1_000_000 {
        if !server.wants_input() {
            break;
        }
        server
            .handle_packet(subscribe(number, CREDIT, ">"))
            .unwrap();
        packets += 1;
    }
    assert!(packets < 100, "{packets} packets without reading an answer");
    while let Some(event) = server.poll_event() {
        let unstall_proto::topics::ServerEvent::Subscribe(request) = event else {
            panic!("{event:?}");
        };
        server.subscribed(request.key, Opening::now(&bounds(1, 0)));
    }
    assert_eq!(server.subscriptions().count(), 10);
    sent(&mut server);
    assert!(server.wants_input(), "once the answers are gone");
}

#[test]
fn credit_that_turns_back_or_is_endless_changes_nothing() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, u64::MAX, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 1)));
    sent(&mut server);
    server
        .handle_packet(hex("25 00000001 0000000000000000"))
        .unwrap();
    let read = server.poll_read().unwrap();
    assert!(
        read.max_bytes <= 256 << 10,
        "a read is bounded all the same"
    );
}
