//! What both sides promise for published messages.

use bytes::Bytes;
use unstall_proto::topics::{
    AccessToken, Client, ClientConfig, ClientEvent, Outcome, PublishError, Refusal, ServerConfig,
    ServerEvent, Topic, TopicPacket, published_runs,
};
use unstall_proto::{Kind, Time};

use crate::common::*;

/// PUBLISH of binary messages to `a`, one record each.
fn publish(first: u64, payloads: &[&[u8]]) -> Bytes {
    let mut packet = [&[0x30][..], &first.to_be_bytes()].concat();
    for payload in payloads {
        packet.extend(
            0x8000_0000u32
                .wrapping_add((payload.len() as u32) << 3)
                .to_be_bytes(),
        );
        packet.extend([1, b'a']);
        packet.extend(*payload);
    }
    packet.into()
}

fn published(server: &mut unstall_proto::topics::Server) -> Vec<u64> {
    match server.poll_event() {
        Some(ServerEvent::Publish(requests)) => requests.iter().map(|it| it.number).collect(),
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_go_out_in_the_order_of_the_numbers_in_runs() {
    let mut server = welcomed(ServerConfig::new());
    server.handle_packet(publish(7, &[&b"x"[..]; 5])).unwrap();
    assert_eq!(published(&mut server), [7, 8, 9, 10, 11]);
    for (number, at) in [(9, Some(22)), (8, Some(21)), (11, None), (10, Some(40))] {
        server.published(number, Outcome::Stored(at.map(offset)));
    }
    assert!(
        sent(&mut server).is_empty(),
        "the first one is not answered"
    );
    server.published(7, Outcome::Stored(Some(offset(20))));
    server.published(7, Outcome::refused(Refusal::Full));
    let packets = sent(&mut server);
    let [TopicPacket::Published { first, runs, .. }] = &packets[..] else {
        panic!("{packets:?}");
    };
    let runs: Vec<_> = published_runs(runs)
        .map(|run| (run.count, run.offset))
        .collect();
    assert_eq!(*first, 7);
    assert_eq!(
        runs,
        [(3, Some(offset(20))), (1, Some(offset(40))), (1, None)]
    );
}

#[test]
fn an_invalid_topic_refuses_its_message_alone() {
    let mut server = welcomed(ServerConfig::new());
    let packet = concat(&[
        &publish(1, &[b"x"]),
        &hex("08 03 612e2e 78"),
        &hex("08 01 61 78"),
    ]);
    server.handle_packet(packet).unwrap();
    assert_eq!(published(&mut server), [1, 3]);
    server.published(1, Outcome::Stored(Some(offset(1))));
    server.published(3, Outcome::Stored(Some(offset(2))));
    let packets = sent(&mut server);
    assert!(matches!(
        packets[1],
        TopicPacket::Refused {
            number: 2,
            reason: Refusal::InvalidTopic,
            ..
        }
    ));
    assert_eq!(packets.len(), 3);
}

#[test]
fn nothing_is_stored_behind_a_refusal_until_the_client_has_it() {
    // Once a message was refused, the one behind it was stored, and both answers were lost. The
    // client sent both again, and the first one's number counted as stored before.
    let mut server = welcomed(ServerConfig::new());
    server.handle_packet(publish(1, &[b"x"])).unwrap();
    assert_eq!(published(&mut server), [1]);
    server.published(1, Outcome::refused(Refusal::Full));
    server.handle_packet(publish(2, &[b"y"])).unwrap();
    assert_eq!(published(&mut server), [0; 0], "it waits");
    let packets = sent(&mut server);
    let [
        TopicPacket::Refused { number: 1, .. },
        TopicPacket::Ping(ping),
    ] = packets[..]
    else {
        panic!("{packets:?}");
    };
    server
        .handle_packet(TopicPacket::Pong(ping + 1).to_bytes())
        .unwrap();
    assert_eq!(published(&mut server), [0; 0], "that is not its answer");
    server
        .handle_packet(TopicPacket::Pong(ping).to_bytes())
        .unwrap();
    assert_eq!(published(&mut server), [2]);
}

fn publisher() -> Client {
    let mut client = Client::new(ClientConfig::new().publisher(PUBLISHER));
    connect(&mut client, LOG);
    client
}

fn push(client: &mut Client, payload: &'static [u8]) -> Result<u64, PublishError> {
    let topic = Topic::new("a").unwrap();
    client.publish(topic, Kind::Binary, false, Bytes::from_static(payload))
}

fn numbers_sent(packets: &[TopicPacket]) -> Vec<u64> {
    let numbers = packets.iter().filter_map(|packet| match packet {
        TopicPacket::Publish { first, .. } => Some(*first),
        _ => None,
    });
    numbers.collect()
}

#[test]
fn what_has_no_answer_is_sent_again_with_the_same_number() {
    let mut client = publisher();
    for payload in [b"x", b"y", b"z"] {
        push(&mut client, payload).unwrap();
    }
    let first = sent_by(&mut client);
    client
        .handle_packet(NOW, hex("31 01 0000000000000001 01 05"))
        .unwrap();
    assert!(matches!(
        events(&mut client)[..],
        [ClientEvent::Published {
            first: 1,
            count: 1,
            ..
        }]
    ));
    let again = connect(&mut client, LOG);
    assert_eq!(numbers_sent(&first), [1]);
    assert_eq!(numbers_sent(&again), [2]);
}

#[test]
fn a_refusal_of_what_an_earlier_connection_brought_is_not_a_verdict() {
    // Once a message was stored, its answer was lost, and the token expired. Sent again, it was
    // refused, and its publisher was told that it is not stored.
    let mut client = publisher();
    push(&mut client, b"x").unwrap();
    sent_by(&mut client);
    connect(&mut client, LOG);
    push(&mut client, b"y").unwrap();
    sent_by(&mut client);
    for number in ["01", "02"] {
        let refused = hex(&format!("32 00000000000000{number} 06"));
        client.handle_packet(NOW, refused).unwrap();
    }
    let told: Vec<_> = events(&mut client)
        .into_iter()
        .map(|event| match event {
            ClientEvent::Refused {
                number,
                may_be_stored,
                ..
            } => (number, may_be_stored),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(1, true), (2, false)]);
}

#[test]
fn a_message_whose_first_sending_is_too_long_ago_is_not_sent_again() {
    let mut client = publisher();
    client.attach(NOW, AccessToken::NONE);
    sent_by(&mut client);
    client.handle_packet(NOW, welcome(LOG, 1_000)).unwrap();
    push(&mut client, b"x").unwrap();
    sent_by(&mut client);
    client.detach(NOW);
    push(&mut client, b"y").unwrap();
    events(&mut client);
    assert_eq!(client.poll_timeout(), Some(Time::from_millis(1_000)));
    client.handle_timeout(Time::from_millis(999));
    assert!(events(&mut client).is_empty());
    client.handle_timeout(Time::from_millis(1_000));
    let unknown = ClientEvent::Unknown { first: 1, count: 1 };
    assert_eq!(events(&mut client), [unknown]);
    assert_eq!(numbers_sent(&connect(&mut client, LOG)), [2]);
}

#[test]
fn what_expires_among_messages_that_are_sent_again_keeps_its_number_and_loses_its_bytes() {
    let mut client = publisher();
    client.attach(NOW, AccessToken::NONE);
    sent_by(&mut client);
    client.handle_packet(NOW, welcome(LOG, 1_000)).unwrap();
    static LONG: [u8; 65_536] = [7; 65_536];
    let mut numbers = Vec::new();
    while let Ok(number) = push(&mut client, &LONG) {
        numbers.push(number);
    }
    assert_eq!(numbers.len(), 63, "4 MiB");
    assert_eq!(sent_by(&mut client).len(), 3, "a window of 262,144");
    client.detach(NOW);
    client.attach(NOW, AccessToken::NONE);
    sent_by(&mut client);
    client.handle_packet(NOW, welcome(LOG, 1_000)).unwrap();
    // Only the first one goes out again in time.
    assert!(client.poll_transmit(NOW).is_some());
    events(&mut client);
    let late = Time::from_millis(1_000);
    client.handle_timeout(late);
    assert!(
        events(&mut client).is_empty(),
        "their numbers have to be sent"
    );
    assert_eq!(client.poll_timeout(), None);
    let packet = client.poll_transmit(late).unwrap().into_bytes();
    let TopicPacket::Publish { first: 2, records } = TopicPacket::decode(packet).unwrap() else {
        panic!("the second one");
    };
    assert_eq!(
        records,
        hex("00 00 00 00"),
        "two records without topic and payload"
    );
    client
        .handle_packet(late, hex("31 01 0000000000000001 01 05"))
        .unwrap();
    client
        .handle_packet(late, hex("32 0000000000000002 02"))
        .unwrap();
    let unknown = ClientEvent::Unknown { first: 2, count: 1 };
    let told = events(&mut client);
    assert!(told.contains(&unknown), "{told:?}");
}

#[test]
fn without_a_publishers_id_nothing_is_sent_twice() {
    let mut client = Client::new(ClientConfig::new());
    connect(&mut client, LOG);
    push(&mut client, b"x").unwrap();
    sent_by(&mut client);
    push(&mut client, b"y").unwrap();
    client.detach(NOW);
    let unknown = ClientEvent::Unknown { first: 1, count: 1 };
    assert_eq!(events(&mut client), [unknown]);
    assert_eq!(numbers_sent(&connect(&mut client, LOG)), [2]);
}

#[test]
fn publishing_is_refused_when_too_much_has_no_answer_and_there_is_room_again() {
    let mut client = Client::new(ClientConfig::new().publisher(PUBLISHER).unanswered(200));
    connect(&mut client, LOG);
    static LONG: [u8; 1_000] = [7; 1_000];
    assert_eq!(push(&mut client, &LONG), Ok(1), "a single one always");
    assert_eq!(push(&mut client, b"x"), Err(PublishError::Full));
    let too_large = PublishError::TooLarge { limit: 65_536 };
    static LARGE: [u8; 65_537] = [7; 65_537];
    assert_eq!(push(&mut client, &LARGE), Err(too_large));
    assert_eq!(client.unanswered().0, 1, "nothing was taken");
    sent_by(&mut client);
    client
        .handle_packet(NOW, hex("31 01 0000000000000001 01 05"))
        .unwrap();
    assert_eq!(events(&mut client)[1..], [ClientEvent::Room]);
    assert_eq!(push(&mut client, b"x"), Ok(2));
}

#[test]
fn who_gives_up_learns_of_each_message_whether_it_may_be_stored() {
    let mut client = publisher();
    push(&mut client, b"x").unwrap();
    sent_by(&mut client);
    push(&mut client, b"y").unwrap();
    let given = client.give_up(NOW);
    let fates: Vec<_> = given
        .iter()
        .map(|it| (it.number, it.may_be_stored))
        .collect();
    assert_eq!(fates, [(1, true), (2, false)]);
    assert_eq!(push(&mut client, b"z"), Ok(3), "numbers are not used again");
}

#[test]
fn with_another_token_no_message_begins_before_those_with_the_old_one_are_answered() {
    let mut client = publisher();
    push(&mut client, b"x").unwrap();
    sent_by(&mut client);
    client.set_token(AccessToken::new("another").unwrap());
    push(&mut client, b"y").unwrap();
    let token = sent_by(&mut client);
    assert!(matches!(token[..], [TopicPacket::Token(_)]), "{token:?}");
    client
        .handle_packet(NOW, hex("32 0000000000000001 06"))
        .unwrap();
    assert_eq!(numbers_sent(&sent_by(&mut client)), [2]);
}
