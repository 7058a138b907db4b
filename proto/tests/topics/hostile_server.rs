//! Servers that break the protocol, or lie.

use bytes::Bytes;
use unstall_proto::topics::{ClientConfig, LogId, Position, Start, StoredAt, TopicPacket};
use unstall_proto::{ErrorCode, ProtocolError};

use crate::common::*;

/// What a client with one subscription from the beginning makes of these packets.
fn answer(packets: &[Bytes]) -> Result<(), ErrorCode> {
    answer_to(Start::Beginning, packets)
}

fn answer_to(start: Start, packets: &[Bytes]) -> Result<(), ErrorCode> {
    let (mut client, _) = client(ClientConfig::new().max_message(131_072), "a", start);
    for packet in packets {
        if let Err(error) = client.handle_packet(NOW, packet.clone()) {
            let packets = sent_by(&mut client);
            let [TopicPacket::Abort { code, .. }] = packets[..] else {
                panic!("{packets:?}");
            };
            assert_eq!(code, ProtocolError::code(&error));
            assert_eq!(client.handle_packet(NOW, hex("ff")), Ok(()));
            return Err(code);
        }
    }
    Ok(())
}

fn open() -> Bytes {
    subscribed(1, 0, StoredAt::UNKNOWN, 9)
}

fn of(packet: Bytes) -> Vec<Bytes> {
    vec![open(), packet]
}

#[test]
fn offsets_that_do_not_grow_and_places_that_turn_back_are_refused() {
    let two = messages(&[message(2, "a", b"x")]);
    let one = messages(&[message(1, "a", b"x")]);
    let inconsistent = Err(ErrorCode::INCONSISTENT);
    assert_eq!(answer(&[open(), one.clone(), two.clone()]), Ok(()));
    assert_eq!(answer(&[open(), two.clone(), two.clone()]), inconsistent);
    assert_eq!(answer(&[open(), two.clone(), one]), inconsistent);
    assert_eq!(answer(&of(caught_up(8))), inconsistent, "below the end");
    assert_eq!(answer(&[open(), caught_up(9), caught_up(9)]), Ok(()));
    assert_eq!(answer(&[open(), caught_up(9), two.clone()]), inconsistent);
    assert_eq!(answer(&[open(), caught_up(9), gap(1, 9, 9)]), Ok(()));
    assert_eq!(answer(&[open(), caught_up(9), gap(1, 8, 9)]), inconsistent);
    assert_eq!(answer(&[open(), gap(1, 5, 4)]), inconsistent);
    assert_eq!(
        answer(&[open(), two, gap(2, 2, 0)]),
        inconsistent,
        "not at the beginning"
    );
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let unexpected = Err(ErrorCode::UNEXPECTED);
    let one = messages(&[message(1, "a", b"x")]);
    assert_eq!(
        answer(std::slice::from_ref(&one)),
        unexpected,
        "before SUBSCRIBED"
    );
    assert_eq!(answer(&of(open())), unexpected, "a second SUBSCRIBED");
    assert_eq!(
        answer(&of(subscribed(2, 0, StoredAt::UNKNOWN, 9))),
        unexpected
    );
    assert_eq!(answer(&of(hex("27 00000002 01"))), unexpected);
    assert_eq!(
        answer(&[hex("27 00000001 07"), open()]),
        unexpected,
        "after ENDED"
    );
    assert_eq!(
        answer(&of(hex("26 00000001"))),
        unexpected,
        "only clients send that"
    );
    assert_eq!(answer(&of(welcome(LOG, 0))), unexpected, "a second WELCOME");
    let other = messages(&[message(1, "b", b"x")]);
    assert_eq!(
        answer(&of(other)),
        Err(ErrorCode::INCONSISTENT),
        "another topic"
    );
    let topic = messages(&[message(1, "a..b", b"x")]);
    assert_eq!(answer(&of(topic)), Err(ErrorCode::MALFORMED));
    assert_eq!(
        answer(&[subscribed(1, 9, StoredAt::UNKNOWN, 8)]),
        Err(ErrorCode::INCONSISTENT)
    );
}

#[test]
fn another_place_than_was_named_needs_its_gap_at_once() {
    let named = Start::After(at(5));
    let inconsistent = Err(ErrorCode::INCONSISTENT);
    let elsewhere = subscribed(1, 3, time(3), 3);
    assert_eq!(answer_to(named, &[elsewhere.clone(), gap(3, 5, 3)]), Ok(()));
    assert_eq!(
        answer_to(named, &[elsewhere.clone(), caught_up(5)]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[elsewhere.clone(), gap(1, 5, 6)]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[elsewhere.clone(), gap(3, 5, 2)]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[elsewhere.clone(), gap(2, 5, 3)]),
        inconsistent
    );
    for after in [3, 4, 6] {
        let gap = gap(3, after, 3);
        let answer = answer_to(named, &[elsewhere.clone(), gap]);
        assert_eq!(answer, inconsistent, "the client named 5, not {after}");
    }
    let there = subscribed(1, 5, time(5), 9);
    assert_eq!(
        answer_to(named, &[there.clone(), gap(2, 5, 5)]),
        inconsistent,
        "it is this log"
    );
    assert_eq!(
        answer_to(named, &[there, gap(3, 5, 5)]),
        Ok(()),
        "the message may be another"
    );
    let other_log = Start::After(Position {
        log: LogId([9; 16]),
        ..at(5)
    });
    let same_offset = subscribed(1, 5, time(5), 9);
    let message = messages(&[message(6, "a", b"x")]);
    assert_eq!(
        answer_to(other_log, &[same_offset.clone(), message]),
        inconsistent
    );
    let gap_behind = |after| answer_to(other_log, &[same_offset.clone(), gap(2, after, 5)]);
    assert_eq!(gap_behind(5), Ok(()));
    assert_eq!(gap_behind(4), inconsistent, "the client named 5");
}

#[test]
fn a_snapshot_of_another_log_or_of_one_that_ends_earlier_needs_its_gap_at_once() {
    let named = latest(9, 5);
    let inconsistent = Err(ErrorCode::INCONSISTENT);
    let message = messages(&[message(6, "a", b"x")]);
    assert_eq!(answer_to(named, &[snapshot_up_to(8), gap(3, 5, 0)]), Ok(()));
    assert_eq!(
        answer_to(named, &[snapshot_up_to(8), message.clone()]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[snapshot_up_to(8), caught_up(8)]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[snapshot_up_to(8), gap(2, 5, 0)]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[snapshot_up_to(8), gap(3, 9, 0)]),
        inconsistent
    );
    assert_eq!(
        answer_to(named, &[snapshot_up_to(9), message.clone()]),
        Ok(())
    );
    let may_differ = [snapshot_up_to(9), gap(3, 5, 0), message.clone()];
    assert_eq!(answer_to(named, &may_differ), Ok(()), "of another time");
    let behind = subscribed_up_to(1, (4, StoredAt::UNKNOWN), (9, time(9)));
    assert_eq!(
        answer_to(named, std::slice::from_ref(&behind)),
        inconsistent,
        "it begins behind a message"
    );
    assert_eq!(answer_to(Start::Latest(None), &[behind]), inconsistent);

    let mut of_other_log = cut(9, 5);
    of_other_log.end.log = LogId([9; 16]);
    let other_log = Start::Latest(Some(of_other_log));
    assert_eq!(
        answer_to(other_log, &[snapshot_up_to(9), gap(2, 5, 0)]),
        Ok(())
    );
    assert_eq!(
        answer_to(other_log, &[snapshot_up_to(9), message]),
        inconsistent
    );
}

#[test]
fn records_beyond_the_credit_are_refused() {
    let payload = vec![0; 65_000];
    let mut packets = vec![open()];
    for number in 1..=16 {
        packets.push(messages(&[message(number, "a", &payload)]));
    }
    assert_eq!(answer(&packets), Ok(()), "1 MiB");
    packets.push(messages(&[message(17, "a", &payload)]));
    assert_eq!(answer(&packets), Err(ErrorCode::CREDIT_EXCEEDED));
}

#[test]
fn a_message_within_a_message_and_one_that_is_too_large_are_refused() {
    let record = |first: bool, continues: bool| {
        let word = 0x8000_0000u32 | 65_536 << 3 | u32::from(continues) << 1;
        let head = if first { hex("01 01 01 61") } else { hex("") };
        concat(&[
            &hex("22 00000001"),
            &word.to_be_bytes(),
            &head,
            &[7; 65_536],
        ])
    };
    let unexpected = Err(ErrorCode::UNEXPECTED);
    assert_eq!(
        answer(&[open(), record(true, true), caught_up(9)]),
        unexpected
    );
    assert_eq!(
        answer(&[open(), record(true, true), gap(1, 0, 1)]),
        unexpected
    );
    assert_eq!(
        answer(&[open(), record(true, true), hex("27 00000001 07")]),
        Ok(())
    );
    let whole = [open(), record(true, true), record(false, false)];
    assert_eq!(answer(&whole), Ok(()));
    let larger = [
        open(),
        record(true, true),
        record(false, true),
        record(false, false),
    ];
    assert_eq!(answer(&larger), Err(ErrorCode::MESSAGE_TOO_LARGE));
    let text = hex("22 00000001 09 01 01 01 61 ff");
    assert_eq!(answer(&of(text)), Err(ErrorCode::INVALID_TEXT));
    let empty = hex("22 00000001 02 01 01 01 61");
    assert_eq!(answer(&of(empty)), Err(ErrorCode::MALFORMED));
}

#[test]
fn answers_to_messages_that_were_never_sent_are_refused() {
    let published =
        |number: u8, count: u8| hex(&format!("31 01 00000000000000{number:02x} {count:02x} 05"));
    let inconsistent = Err(ErrorCode::INCONSISTENT);
    assert_eq!(answer(&[published(1, 1)]), inconsistent);
    assert_eq!(answer(&[published(2, 1)]), inconsistent);
    assert_eq!(answer(&[hex("32 0000000000000001 04")]), inconsistent);
    assert_eq!(answer(&[published(0, 1)]), Err(ErrorCode::MALFORMED));
    assert_eq!(answer(&[published(1, 0)]), Err(ErrorCode::MALFORMED));
    let many = hex("31 01 ffffffffffffffff 02 05");
    assert_eq!(answer(&[many]), Err(ErrorCode::MALFORMED));
}

#[test]
fn nothing_but_an_answer_comes_before_welcome() {
    use unstall_proto::topics::{AccessToken, Client, ClientEvent};
    for (packet, accepted) in [
        ("14 0000000000000001", false),
        ("1b 0000000000000001", false),
        ("80", true),
        ("1a 0002", true),
        ("03 02 0000000000000005", true),
    ] {
        let mut client = Client::new(ClientConfig::new());
        client.attach(NOW, AccessToken::NONE);
        sent_by(&mut client);
        assert_eq!(
            client.handle_packet(NOW, hex(packet)).is_ok(),
            accepted,
            "{packet}"
        );
    }
    let mut client = Client::new(ClientConfig::new());
    client.attach(NOW, AccessToken::NONE);
    sent_by(&mut client);
    client
        .handle_packet(NOW, hex("03 02 ffffffffffffffff"))
        .unwrap_err();
    client.attach(NOW, AccessToken::NONE);
    sent_by(&mut client);
    client
        .handle_packet(NOW, hex("03 02 0000000000000005"))
        .unwrap();
    assert!(matches!(
        events(&mut client)[..],
        [ClientEvent::Rejected(_)]
    ));
    assert!(sent_by(&mut client).is_empty());
}
