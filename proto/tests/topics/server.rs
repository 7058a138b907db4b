//! What a server promises to its subscribers.

use std::sync::Arc;

use unstall_proto::topics::{
    Block, BlockBuilder, Filter, GapReason, Offset, Opening, ServerConfig, ServerEvent, StoredAt,
    SubscriptionEnd, TopicPacket, TopicRecord,
};

use crate::common::*;

/// The offsets of the messages that begin in packets, and the other packets in short.
fn told(packets: &[TopicPacket]) -> Vec<String> {
    let mut told = Vec::new();
    for packet in packets {
        match packet {
            TopicPacket::Messages { records, .. } => {
                let mut at = 0;
                let mut begins = true;
                while at < records.len() {
                    let record = TopicRecord::read_stored(&records[at..], begins).unwrap();
                    at += record.size;
                    begins = !record.continues;
                    if let Some(first) = record.first {
                        told.push(first.stored.0.to_string());
                    }
                }
            }
            TopicPacket::Subscribed { after, .. } => told.push(format!("subscribed {after}")),
            TopicPacket::Gap { gap, .. } => {
                told.push(format!(
                    "gap {:?} {}-{}",
                    gap.reason, gap.after, gap.through
                ));
            }
            TopicPacket::CaughtUp { offset, .. } => told.push(format!("caught up {offset}")),
            TopicPacket::Ended { reason, .. } => told.push(format!("ended {reason:?}")),
            other => told.push(format!("{other:?}")),
        }
    }
    told
}

#[test]
fn history_and_live_meet_without_a_seam_and_caught_up_stands_between() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(5, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 2)));
    assert_eq!(told(&sent(&mut server)), ["subscribed 0"]);
    let read = server.poll_read().unwrap();
    assert_eq!((read.after, read.through), (Offset::START, offset(2)));
    // The cache of the tail has more, and the log has grown meanwhile.
    let tail = block(&[
        message(1, "a", b"x"),
        message(2, "a", b"x"),
        message(3, "b", b"x"),
    ]);
    server.set_end(offset(3), time(3));
    server.read(read.key, tail, offset(3), Offset::START);
    assert_eq!(told(&sent(&mut server)), ["1", "2", "caught up 2", "3"]);
    assert!(server.poll_read().is_none());
}

#[test]
fn a_filter_that_matches_nothing_is_caught_up_and_learns_its_progress() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, "none"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 9)));
    sent(&mut server);
    let read = server.poll_read().unwrap();
    server.read(read.key, Arc::new(Block::new([])), offset(9), Offset::START);
    assert_eq!(told(&sent(&mut server)), ["caught up 9"]);
    for (end, expected) in [
        (100, vec![]),
        (4_105, vec!["caught up 4105"]),
        (4_200, vec![]),
    ] {
        server.set_end(offset(end), time(end));
        let read = server.poll_read().unwrap();
        server.read(
            read.key,
            Arc::new(Block::new([])),
            offset(end),
            Offset::START,
        );
        assert_eq!(told(&sent(&mut server)), expected);
    }
}

#[test]
fn a_subscription_without_credit_reads_nothing_and_holds_nothing() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 3)));
    sent(&mut server);
    let large = vec![0; 60_000];
    let all = [
        message(1, "a", &large),
        message(2, "a", &large),
        message(3, "a", &large),
    ];
    let read = server.poll_read().unwrap();
    server.read(read.key, block(&all), offset(3), Offset::START);
    assert_eq!(
        told(&sent(&mut server)),
        ["1", "2"],
        "131,072 take two of them"
    );
    assert_eq!(server.in_hand(), 0);
    assert!(server.poll_read().is_none());
    server.set_end(offset(4), time(4));
    assert!(server.poll_read().is_none(), "nor when the log grows");
    // Too little for the next message: it knows what that costs.
    server
        .handle_packet(hex("25 00000001 00000000 00021000"))
        .unwrap();
    assert_eq!(told(&sent(&mut server)), [""; 0]);
    assert!(server.poll_read().is_none());
    server
        .handle_packet(hex("25 00000001 00000000 00040000"))
        .unwrap();
    let read = server.poll_read().unwrap();
    assert_eq!(read.after, offset(2));
}

/// Once a subscriber that had stopped within a long message kept all of it, up to 1 MiB, for as long as
/// its connection lasted.
#[test]
fn a_heartbeat_of_a_client_that_has_stopped_frees_what_it_holds() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 1)));
    sent(&mut server);
    let read = server.poll_read().unwrap();
    let long = block(&[message(1, "a", &[7; 900_000])]);
    server.read(read.key, long.clone(), offset(1), Offset::START);
    let first = sent(&mut server);
    assert!(!first.is_empty() && server.in_hand() > 900_000);
    server.handle_packet(hex("14 0000000000000001")).unwrap();
    assert_eq!(server.in_hand(), 0);
    assert_eq!(Arc::strong_count(&long), 1, "the block is free");
    assert_eq!(sent(&mut server).len(), 1, "the PONG");
    assert!(server.poll_read().is_none(), "it has no credit");
}

#[test]
fn a_long_message_goes_on_where_the_credit_ended_after_it_was_released() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 1)));
    sent(&mut server);
    let long: Vec<_> = (0..200_000u32).map(|index| (index % 251) as u8).collect();
    let read = server.poll_read().unwrap();
    server.read(
        read.key,
        block(&[message(1, "a", &long)]),
        offset(1),
        Offset::START,
    );
    let first = sent(&mut server);
    assert!(
        server.in_hand() > 200_000,
        "it waits for credit in mid-message"
    );
    server.release();
    assert_eq!(server.in_hand(), 0);
    server
        .handle_packet(hex("25 00000001 00000000 00100000"))
        .unwrap();
    let read = server.poll_read().unwrap();
    assert_eq!(read.after, Offset::START, "it is read again");
    server.read(
        read.key,
        block(&[message(1, "a", &long)]),
        offset(1),
        Offset::START,
    );
    let mut payload = Vec::new();
    for packet in first.iter().chain(&sent(&mut server)) {
        if let TopicPacket::Messages { records, .. } = packet {
            let record = TopicRecord::read_stored(records, payload.is_empty()).unwrap();
            payload.extend_from_slice(record.payload);
        }
    }
    assert!(payload == long);
}

#[test]
fn a_message_that_vanishes_while_it_is_being_sent_ends_the_subscription() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 2)));
    sent(&mut server);
    let long = vec![0; 200_000];
    let read = server.poll_read().unwrap();
    server.read(
        read.key,
        block(&[message(1, "a", &long)]),
        offset(1),
        Offset::START,
    );
    sent(&mut server);
    server.release();
    server
        .handle_packet(hex("25 00000001 00000000 00100000"))
        .unwrap();
    let read = server.poll_read().unwrap();
    server.read(
        read.key,
        block(&[message(2, "a", b"x")]),
        offset(2),
        offset(2),
    );
    assert_eq!(told(&sent(&mut server)), ["ended Unavailable"]);
    assert_eq!(server.in_hand(), 0);
}

#[test]
fn what_retention_removed_while_it_was_read_is_a_gap() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 9)));
    sent(&mut server);
    let read = server.poll_read().unwrap();
    let all = [
        message(3, "a", b"x"),
        message(7, "a", b"x"),
        message(9, "a", b"x"),
    ];
    server.read(read.key, block(&all), offset(9), offset(5));
    let expected = ["gap Removed 0-4", "7", "9", "caught up 9"];
    assert_eq!(told(&sent(&mut server)), expected);
}

#[test]
fn messages_that_are_too_large_are_one_gap_and_the_rest_follows() {
    let mut server = welcomed_with(ServerConfig::new(), hello(None, 65_536));
    let request = asked(&mut server, subscribe(1, 1 << 20, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 4)));
    sent(&mut server);
    let large = vec![0; 65_537];
    let all = [
        message(1, "a", b"x"),
        message(2, "a", &large),
        message(3, "b", &large),
        message(4, "a", &large[1..]),
    ];
    let read = server.poll_read().unwrap();
    server.read(read.key, block(&all), offset(4), Offset::START);
    let expected = ["1", "gap TooLarge 1-3", "4", "caught up 4"];
    assert_eq!(told(&sent(&mut server)), expected);
}

#[test]
fn a_subscription_of_one_topic_ends_behind_a_final_message_and_a_wider_one_does_not() {
    for (filter, expected) in [
        ("a", vec!["1", "2", "ended Final"]),
        ("a.>", vec!["3", "caught up 3"]),
        (">", vec!["1", "2", "3", "caught up 3"]),
    ] {
        let mut server = welcomed(ServerConfig::new());
        let request = asked(&mut server, subscribe(1, CREDIT, filter));
        server.subscribed(request.key, Opening::beginning(&bounds(1, 3)));
        sent(&mut server);
        let mut last = message(2, "a", b"x");
        last.is_final = true;
        let read = server.poll_read().unwrap();
        let all = [message(1, "a", b"x"), last, message(3, "a.b", b"x")];
        server.read(read.key, block(&all), offset(3), Offset::START);
        assert_eq!(told(&sent(&mut server)), expected);
        let ended = matches!(
            server.poll_event(),
            Some(ServerEvent::Ended {
                reason: SubscriptionEnd::Final,
                ..
            })
        );
        assert_eq!(ended, filter == "a");
    }
}

#[test]
fn a_subscription_that_lags_is_moved_ahead_with_a_gap_but_not_within_a_snapshot() {
    let lag = |start: &[u8]| {
        let (number, credit) = (1u32.to_be_bytes(), CREDIT.to_be_bytes());
        concat(&[
            &[0x20],
            &number,
            &credit,
            &100u64.to_be_bytes(),
            start,
            b">",
        ])
    };
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, lag(&[0]));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 5)));
    assert!(server.poll_transmit(time(1_000)).is_some());
    let read = server.poll_read().unwrap();
    server.read(
        read.key,
        block(&[message(1, "a", b"x")]),
        offset(1),
        Offset::START,
    );
    let mut packets = Vec::new();
    while let Some(packet) = server.poll_transmit(time(1_000)) {
        packets.push(TopicPacket::decode(packet.into_bytes()).unwrap());
    }
    assert_eq!(told(&packets), ["gap MovedAhead 0-5", "caught up 5"]);

    let mut server = welcomed(ServerConfig::new());
    let latest = [&[4][..], &[0; 40]].concat();
    let request = asked(&mut server, lag(&latest));
    let opening = Opening::latest(&bounds(1, 1), None, StoredAt::UNKNOWN);
    server.subscribed(request.key, opening);
    assert!(server.poll_transmit(time(1_000)).is_some());
    let read = server.poll_read().unwrap();
    assert!(read.latest);
    server.read(
        read.key,
        block(&[message(1, "a", b"x")]),
        offset(1),
        offset(1),
    );
    let packet = server.poll_transmit(time(1_000)).unwrap().into_bytes();
    assert_eq!(told(&[TopicPacket::decode(packet).unwrap()]), ["1"]);
}

#[test]
fn a_packet_of_the_first_subscription_is_a_slice_of_the_block_and_others_share_its_records() {
    let payload = vec![1; 10_000];
    let shared = block(&[message(1, "a", &payload), message(2, "b", &payload)]);
    let mut heads = Vec::new();
    for number in [1, 2] {
        let mut server = welcomed(ServerConfig::new());
        let request = asked(&mut server, subscribe(number, CREDIT, ">"));
        server.subscribed(request.key, Opening::beginning(&bounds(1, 2)));
        sent(&mut server);
        let read = server.poll_read().unwrap();
        server.read(read.key, shared.clone(), offset(2), Offset::START);
        heads.push(server.poll_transmit(time(0)).unwrap());
    }
    assert!(heads[0].body.is_empty());
    assert_eq!(heads[1].head, hex("22 00000002"));
    assert_eq!(heads[0].head[5..].as_ptr(), heads[1].body.as_ptr());
}

#[test]
fn a_block_of_the_filter_needs_no_look_at_topics_and_gives_the_same() {
    let filter = Filter::new("a.*").unwrap();
    let mut builder = BlockBuilder::default().matching(filter);
    for number in 1..=3 {
        assert!(builder.push(message(number, "a.b", b"x")));
    }
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, "a.*"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 3)));
    sent(&mut server);
    let read = server.poll_read().unwrap();
    server.read(
        read.key,
        Arc::new(builder.finish()),
        offset(3),
        Offset::START,
    );
    assert_eq!(told(&sent(&mut server)), ["1", "2", "3", "caught up 3"]);
}

#[test]
fn subscriptions_read_in_turn_and_a_stalled_one_holds_up_no_other() {
    let mut server = welcomed(ServerConfig::new().reads(1).hand_bytes(1024));
    let long = vec![0; 200_000];
    for number in [1, 2, 3] {
        let request = asked(&mut server, subscribe(number, CREDIT, ">"));
        server.subscribed(request.key, Opening::beginning(&bounds(1, 1)));
    }
    sent(&mut server);
    // Each of them waits for credit within the long message, and its block is given up.
    for number in [1, 2, 3] {
        let read = server.poll_read().unwrap();
        assert_eq!(read.key.number(), number);
        assert!(server.poll_read().is_none(), "one read at a time");
        server.read(
            read.key,
            block(&[message(1, "a", &long)]),
            offset(1),
            Offset::START,
        );
        assert_eq!(sent(&mut server).len(), 1);
    }
}

#[test]
fn a_late_answer_meets_no_other_subscription_of_the_same_number() {
    let mut server = welcomed(ServerConfig::new());
    let first = asked(&mut server, subscribe(1, CREDIT, "a"));
    server.handle_packet(hex("26 00000001")).unwrap();
    assert_eq!(told(&sent(&mut server)), ["ended Unsubscribed"]);
    let second = asked_again(&mut server, subscribe(1, CREDIT, "b"));
    assert_ne!(first.key, second.key);
    server.subscribed(first.key, Opening::beginning(&bounds(1, 9)));
    assert_eq!(told(&sent(&mut server)), [""; 0]);
    server.subscribed(second.key, Opening::now(&bounds(1, 9)));
    assert_eq!(told(&sent(&mut server)), ["subscribed 9", "caught up 9"]);
}

fn asked_again(
    server: &mut unstall_proto::topics::Server,
    packet: bytes::Bytes,
) -> unstall_proto::topics::SubscribeRequest {
    let ended = server.poll_event();
    assert!(matches!(ended, Some(ServerEvent::Ended { .. })));
    asked(server, packet)
}

#[test]
fn a_token_that_expires_ends_subscriptions_and_refuses_messages_until_the_next_one() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::now(&bounds(1, 0)));
    sent(&mut server);
    server.expire();
    assert_eq!(told(&sent(&mut server)), ["ended Expired"]);
    server.handle_packet(subscribe(2, CREDIT, ">")).unwrap();
    assert_eq!(told(&sent(&mut server)), ["ended Expired"]);
    server.handle_packet(hex("04 7879")).unwrap();
    assert!(matches!(server.poll_event(), Some(ServerEvent::Token(_))));
    asked(&mut server, subscribe(3, CREDIT, ">"));
}

#[test]
fn a_log_that_cannot_be_read_in_part_is_a_gap_and_not_at_all_is_an_end() {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, CREDIT, ">"));
    server.subscribed(request.key, Opening::beginning(&bounds(1, 9)));
    sent(&mut server);
    let read = server.poll_read().unwrap();
    server.read_damaged(read.key, offset(4), true);
    assert_eq!(
        told(&sent(&mut server)),
        [format!("gap {:?} 0-4", GapReason::Damaged)]
    );
    let read = server.poll_read().unwrap();
    server.read_failed(read.key, "the disk does not answer");
    assert_eq!(told(&sent(&mut server)), ["ended Unavailable"]);
}

/// Once *latest* named no time. A client was cut in the midst of its snapshot, the log lost its end and grew
/// past the client's place, and the client kept messages that the log no longer had, in silence. Then it
/// named its place, with a time, but not the end of its snapshot. If the log lost no more than what was
/// behind that place, the server left out a topic of which the latest message was lost and the one
/// before had not been sent.
#[test]
fn a_snapshot_of_a_log_that_lost_its_end_and_grew_again_begins_anew_behind_a_gap() {
    let cut = |end, through| Some(cut(end, through));
    let bounds = bounds(1, 12);
    let goes_on = Opening::latest(&bounds, cut(11, 4), time(11));
    assert_eq!((goes_on.gap, goes_on.snapshot), (None, Some(offset(4))));
    // It is not known what is there, because it is removed.
    let removed = Opening::latest(&bounds, cut(11, 4), StoredAt::UNKNOWN);
    assert_eq!((removed.gap, removed.snapshot), (None, Some(offset(4))));
    let diverged = |snapshot, found| {
        let other = Opening::latest(&bounds, snapshot, found);
        assert_eq!(other.snapshot, Some(Offset::START));
        let gap = other.gap.unwrap();
        assert_eq!((gap.reason, gap.after), (GapReason::Diverged, offset(4)));
    };
    diverged(cut(11, 4), time(40));
    // Only what is behind the client's place is lost.
    diverged(cut(13, 4), StoredAt::UNKNOWN);
    // Its last message tells its time anyway.
    let mut other_time = cut(12, 4).unwrap();
    other_time.end.time = time(999);
    diverged(Some(other_time), StoredAt::UNKNOWN);
    // A gap went beyond the end.
    let beyond = Opening::latest(&bounds, cut(11, 13), time(11));
    assert_eq!(beyond.gap.unwrap().reason, GapReason::Diverged);
}
