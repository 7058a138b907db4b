//! What a client promises to its application.

use unstall_proto::topics::{
    ClientConfig, ClientEvent, Delivery, GapReason, LogId, Start, StoredAt, SubscriptionEnd,
    TopicPacket,
};

use crate::common::*;

fn starts(packets: &[TopicPacket]) -> Vec<Start> {
    let starts = packets.iter().filter_map(|packet| match packet {
        TopicPacket::Subscribe(subscribe) => Some(subscribe.start),
        _ => None,
    });
    starts.collect()
}

fn short(deliveries: Vec<Delivery>) -> Vec<String> {
    let mut told = Vec::new();
    for delivery in deliveries {
        match delivery {
            Delivery::Messages(batch) => {
                told.extend(batch.map(|message| message.offset.to_string()));
            }
            Delivery::Gap { gap, .. } => {
                told.push(format!(
                    "gap {:?} {}-{}",
                    gap.reason, gap.after, gap.through
                ));
            }
            Delivery::CaughtUp { position } => told.push(format!("caught up {}", position.offset)),
            Delivery::Progress { position } => told.push(format!("progress {}", position.offset)),
            Delivery::Ended { reason, .. } => told.push(format!("ended {reason:?}")),
            other => told.push(format!("{other:?}")),
        }
    }
    told
}

#[test]
fn a_subscription_goes_on_behind_the_last_whole_message_at_any_node() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::Last(5));
    assert_eq!(client.position(id), None);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 4))
        .unwrap();
    let long = vec![0; 70_000];
    let packet = messages(&[message(1, "a", b"x"), message(2, "a", b"y")]);
    client.handle_packet(NOW, packet).unwrap();
    // The first record of a long message: it comes whole on the next connection.
    let packet = messages(&[message(3, "a", &long)]);
    client.handle_packet(NOW, packet).unwrap();
    assert_eq!(client.position(id), Some(at(2)));
    let again = connect(&mut client, LOG);
    assert_eq!(starts(&again), [Start::After(at(2))]);
    client
        .handle_packet(NOW, subscribed(1, 2, time(2), 4))
        .unwrap();
    client
        .handle_packet(NOW, messages(&[message(3, "a", b"z")]))
        .unwrap();
    client.handle_packet(NOW, caught_up(4)).unwrap();
    assert_eq!(
        short(delivered(&mut client, id)),
        ["1", "2", "3", "caught up 4"]
    );
}

#[test]
fn before_the_first_answer_the_first_start_is_sent_again() {
    let (mut client, _) = client(ClientConfig::new(), ">", Start::Last(5));
    assert_eq!(starts(&connect(&mut client, LOG)), [Start::Last(5)]);
}

#[test]
fn a_snapshot_that_was_cut_off_goes_on_as_one_and_then_as_a_position() {
    let (mut client, _) = client(ClientConfig::new(), ">", Start::Latest(None));
    client.handle_packet(NOW, snapshot_up_to(9)).unwrap();
    client
        .handle_packet(NOW, messages(&[message(4, "a", b"x")]))
        .unwrap();
    let again = connect(&mut client, LOG);
    assert_eq!(starts(&again), [latest(9, 4)]);
    client.handle_packet(NOW, snapshot_up_to(12)).unwrap();
    client.handle_packet(NOW, caught_up(12)).unwrap();
    assert_eq!(starts(&connect(&mut client, LOG)), [Start::After(at(12))]);
}

#[test]
fn the_end_of_a_snapshot_is_named_again_until_the_next_one_has_begun() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::Latest(None));
    let sent = |number| messages(&[message(number, "a", b"x")]);
    client.handle_packet(NOW, snapshot_up_to(9)).unwrap();
    assert_eq!(starts(&connect(&mut client, LOG)), [latest(9, 0)]);
    client.handle_packet(NOW, snapshot_up_to(12)).unwrap();
    // The gap that may come next is lost with the connection.
    assert_eq!(starts(&connect(&mut client, LOG)), [latest(9, 0)]);
    client.handle_packet(NOW, snapshot_up_to(12)).unwrap();
    client.handle_packet(NOW, sent(4)).unwrap();
    assert_eq!(starts(&connect(&mut client, LOG)), [latest(12, 4)]);
    client.handle_packet(NOW, snapshot_up_to(15)).unwrap();
    client.handle_packet(NOW, gap(3, 4, 0)).unwrap();
    assert_eq!(starts(&connect(&mut client, LOG)), [latest(15, 0)]);
    assert_eq!(short(delivered(&mut client, id)), ["4", "gap Diverged 4-0"]);
}

#[test]
fn another_log_is_a_gap_and_the_old_position_is_kept_until_it_comes() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::After(at(7)));
    let other = LogId([8; 16]);
    for _ in 0..2 {
        assert_eq!(starts(&connect(&mut client, other)), [Start::After(at(7))]);
        client
            .handle_packet(NOW, subscribed(1, 2, StoredAt::UNKNOWN, 5))
            .unwrap();
        assert_eq!(client.position(id), Some(at(7)));
    }
    client.handle_packet(NOW, gap(2, 7, 2)).unwrap();
    let place = client.position(id).unwrap();
    assert_eq!((place.log, place.offset), (other, offset(2)));
    assert_eq!(short(delivered(&mut client, id)), ["gap AnotherLog 7-2"]);
}

#[test]
fn gaps_and_marks_between_two_messages_are_joined() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 4))
        .unwrap();
    client.handle_packet(NOW, gap(1, 0, 2)).unwrap();
    client.handle_packet(NOW, caught_up(4)).unwrap();
    for number in 2..1_000 {
        client
            .handle_packet(NOW, gap(1, 2 * number, 2 * number + 1))
            .unwrap();
        client
            .handle_packet(NOW, caught_up(2 * number + 2))
            .unwrap();
    }
    // The gap stands before the mark, which says that nothing else is missing.
    let expected = ["gap Removed 0-1999", "caught up 2000"];
    assert_eq!(short(delivered(&mut client, id)), expected);
}

#[test]
fn a_final_message_ends_the_subscription_although_its_end_was_lost() {
    let (mut client, id) = client(ClientConfig::new(), "a", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 4))
        .unwrap();
    let mut last = message(2, "a", b"x");
    last.is_final = true;
    client.handle_packet(NOW, messages(&[last])).unwrap();
    assert!(starts(&connect(&mut client, LOG)).is_empty());
    assert_eq!(short(delivered(&mut client, id)), ["2", "ended Final"]);
}

#[test]
fn credit_is_renewed_by_halves_as_the_application_takes() {
    let config = ClientConfig::new().window(262_144);
    let (mut client, id) = client(config, ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 9))
        .unwrap();
    let payload = vec![0; 65_000];
    let mut costs = Vec::new();
    for number in 1..=3 {
        client
            .handle_packet(NOW, messages(&[message(number, "a", &payload)]))
            .unwrap();
        for delivery in delivered(&mut client, id) {
            let Delivery::Messages(batch) = delivery else {
                panic!("a message")
            };
            costs.push(batch.cost());
        }
    }
    assert_eq!(costs, [65_065; 3]);
    assert!(sent_by(&mut client).is_empty());
    client.taken(id, costs[0]);
    client.taken(id, costs[1]);
    assert!(sent_by(&mut client).is_empty(), "130,130 is less than half");
    client.taken(id, costs[2]);
    let limit = 262_144 + 3 * 65_065;
    let credit = TopicPacket::Credit {
        subscription: 1,
        limit,
    };
    assert_eq!(sent_by(&mut client), [credit]);
}

#[test]
fn what_is_not_taken_of_old_connections_lessens_the_first_credit() {
    let config = ClientConfig::new().window(262_144);
    let (mut client, id) = client(config, ">", Start::Beginning);
    let payload = vec![0; 65_000];
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 9))
        .unwrap();
    client
        .handle_packet(NOW, messages(&[message(1, "a", &payload)]))
        .unwrap();
    let credits = |packets: &[TopicPacket]| -> Vec<u64> {
        let credits = packets.iter().filter_map(|packet| match packet {
            TopicPacket::Subscribe(subscribe) => Some(subscribe.credit),
            _ => None,
        });
        credits.collect()
    };
    assert_eq!(credits(&connect(&mut client, LOG)), [262_144 - 65_065]);
    client
        .handle_packet(NOW, subscribed(1, 1, time(1), 9))
        .unwrap();
    for number in [2, 3] {
        client
            .handle_packet(NOW, messages(&[message(number, "a", &payload)]))
            .unwrap();
    }
    assert!(
        credits(&connect(&mut client, LOG)).is_empty(),
        "too little is free"
    );
    client.taken(id, 2 * 65_065);
    assert_eq!(credits(&sent_by(&mut client)), [262_144 - 65_065]);
}

#[test]
fn a_long_message_renews_the_credit_that_it_uses_up() {
    let config = ClientConfig::new().window(262_144).max_message(1 << 20);
    let (mut client, id) = client(config, ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 1))
        .unwrap();
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
    let mut credits = 0;
    for number in 0..16 {
        client
            .handle_packet(NOW, record(number == 0, number < 15))
            .unwrap();
        credits += sent_by(&mut client).len();
    }
    assert!(credits >= 6, "{credits}");
    let all = delivered(&mut client, id);
    let [Delivery::Messages(batch)] = &all[..] else {
        panic!("{all:?}")
    };
    let message = batch.clone().next().unwrap();
    assert!(message.payload.len() == 1 << 20 && message.cost == (1 << 20) + 1 + 16 * 64);
}

#[test]
fn a_subscription_that_ended_goes_on_from_its_position_when_asked_to() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 4))
        .unwrap();
    client
        .handle_packet(NOW, messages(&[message(2, "a", b"x")]))
        .unwrap();
    client.handle_packet(NOW, hex("27 00000001 07")).unwrap();
    assert_eq!(
        short(delivered(&mut client, id)),
        ["2", "ended Unavailable"]
    );
    assert!(sent_by(&mut client).is_empty());
    client.resubscribe(id);
    assert_eq!(starts(&sent_by(&mut client)), [Start::After(at(2))]);
}

#[test]
fn what_comes_after_unsubscribing_is_ignored() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 4))
        .unwrap();
    client.unsubscribe(id);
    assert_eq!(sent_by(&mut client), [TopicPacket::Unsubscribe(1)]);
    for packet in [
        hex("22 00000001 ff"),
        gap(2, 9, 1),
        caught_up(1),
        hex("27 00000001 01"),
    ] {
        client.handle_packet(NOW, packet).unwrap();
    }
    assert!(delivered(&mut client, id).is_empty());
    let error = client.handle_packet(NOW, caught_up(1));
    assert!(error.is_err(), "ENDED has come");
}

#[test]
fn subscriptions_go_out_right_behind_hello() {
    use unstall_proto::topics::{AccessToken, Client, Filter, SubscribeOptions};
    let mut client = Client::new(ClientConfig::new());
    for _ in 0..3 {
        client.subscribe(Filter::all(), Start::Now, SubscribeOptions::new());
    }
    client.attach(NOW, AccessToken::NONE);
    assert_eq!(sent_by(&mut client).len(), 4);
}

#[test]
fn readable_is_told_once_until_everything_was_read() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 9))
        .unwrap();
    for number in 1..=2 {
        client
            .handle_packet(NOW, messages(&[message(number, "a", b"x")]))
            .unwrap();
    }
    assert_eq!(events(&mut client), [ClientEvent::Readable(id)]);
    assert_eq!(short(delivered(&mut client, id)), ["1", "2"]);
    client
        .handle_packet(NOW, messages(&[message(3, "a", b"x")]))
        .unwrap();
    assert_eq!(events(&mut client), [ClientEvent::Readable(id)]);
}

#[test]
fn a_log_that_lost_its_end_is_told_even_if_it_grew_again() {
    let (mut client, id) = client(ClientConfig::new(), ">", Start::After(at(7)));
    connect(&mut client, LOG);
    client
        .handle_packet(NOW, subscribed(1, 7, time(99), 7))
        .unwrap();
    client.handle_packet(NOW, gap(3, 7, 7)).unwrap();
    let all = delivered(&mut client, id);
    let [Delivery::Gap { gap, position }] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!((gap.reason, position.time), (GapReason::Diverged, time(99)));
    let ended = hex("27 00000001 02");
    client.handle_packet(NOW, ended).unwrap();
    let all = delivered(&mut client, id);
    let final_end = matches!(
        all[..],
        [Delivery::Ended {
            reason: SubscriptionEnd::Final,
            ..
        }]
    );
    assert!(final_end);
}
