//! Clients that break the rules are refused and told, and harm nobody else.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use unstall::Options;
use unstall_proto::{
    ErrorCode,
    topics::{Refusal, SubscriptionEnd, TopicPacket},
};
use unstall_topics::{Limits, Log, Node, Start};

use crate::common::{
    Served,
    bent::Bent,
    client, log, message, number, numbered, publish_numbered,
    raw::{
        Raw, credit, further, hello, last, ping, publish, record, subscribe, subscribe_from, token,
        unsubscribe,
    },
    until,
};

const MIN_CREDIT: u64 = 262_144;

/// A node, and an honest client that has a subscription there.
struct World {
    log: Log,
    served: Served,
    honest: unstall_topics::Topics,
    feed: unstall_topics::Subscription,
    at: u64,
}

impl World {
    async fn new() -> World {
        World::of(log().await).await
    }

    async fn of(log: Log) -> World {
        let served = Served::node(Node::new(&log)).await;
        let honest = client(served.address);
        let feed = honest.subscribe("honest", Start::Now).unwrap();
        World {
            log,
            served,
            honest,
            feed,
            at: 0,
        }
    }

    /// The honest client publishes and receives as ever.
    async fn goes_on(&mut self) {
        for _ in 0..10 {
            let at = self.at;
            self.honest
                .publish("honest", numbered(at, 100))
                .await
                .unwrap();
            assert_eq!(number(&message(&mut self.feed).await), at);
            self.at += 1;
        }
    }
}

/// What breaks the protocol is answered by ABORT, with the code that the rules name.
#[tokio::test]
async fn broken_packets_end_their_connection_with_a_reason() {
    let mut world = World::new().await;
    let address = world.served.address;
    let long = vec![7; 70_000];
    let cases: Vec<(&str, Vec<Bytes>, ErrorCode)> = vec![
        ("an empty packet", vec![Bytes::new()], ErrorCode::MALFORMED),
        (
            "an unknown kind",
            vec![vec![0x7f, 1, 2].into()],
            ErrorCode::UNKNOWN_KIND,
        ),
        (
            "a packet that only servers send",
            vec![vec![0x27, 0, 0, 0, 1, 1].into()],
            ErrorCode::UNEXPECTED,
        ),
        ("a second hello", vec![hello(7, "")], ErrorCode::UNEXPECTED),
        (
            "garbage",
            vec![Bytes::from_static(b"\x20garbage")],
            ErrorCode::MALFORMED,
        ),
        (
            "a packet that is too long",
            vec![long.clone().into()],
            ErrorCode::MALFORMED,
        ),
        (
            "a token with spaces",
            vec![token(b"a b")],
            ErrorCode::MALFORMED,
        ),
        (
            "a token that is too long",
            vec![token(&long[..9000])],
            ErrorCode::MALFORMED,
        ),
        (
            "no credit",
            vec![subscribe(1, 0, b"n")],
            ErrorCode::MALFORMED,
        ),
        (
            "little credit",
            vec![subscribe(1, 1000, b"n")],
            ErrorCode::MALFORMED,
        ),
        (
            "a number that is in use",
            vec![
                subscribe(1, MIN_CREDIT, b"n"),
                subscribe(1, MIN_CREDIT, b"m"),
            ],
            ErrorCode::UNEXPECTED,
        ),
        (
            "the last none",
            vec![subscribe_from(1, MIN_CREDIT, &last(0), b"n")],
            ErrorCode::MALFORMED,
        ),
        (
            "an unknown start",
            vec![subscribe_from(1, MIN_CREDIT, &[9], b"n")],
            ErrorCode::MALFORMED,
        ),
        (
            "nothing published",
            vec![publish(1, &[])],
            ErrorCode::MALFORMED,
        ),
        (
            "a number left out",
            vec![
                publish(1, &[&record(b"n", false, false, b"x")]),
                publish(3, &[&record(b"n", false, false, b"x")]),
            ],
            ErrorCode::SEQUENCE_GAP,
        ),
        (
            "text that is none",
            vec![publish(1, &[&record(b"n", true, false, b"\xff\xfe")])],
            ErrorCode::INVALID_TEXT,
        ),
        (
            "a message that changes its kind",
            vec![publish(
                1,
                &[
                    &record(b"n", true, true, b"x"),
                    &further(false, false, b"y"),
                ],
            )],
            ErrorCode::MALFORMED,
        ),
        (
            "a piece of nothing",
            vec![publish(1, &[&record(b"n", true, true, b"")])],
            ErrorCode::MALFORMED,
        ),
    ];
    let count = cases.len();
    for (name, packets, code) in cases {
        println!("{name}");
        let mut raw = Raw::welcome(address).await;
        for packet in packets {
            raw.say(packet).await;
        }
        raw.aborted(code).await;
    }
    assert_eq!(count, 18);
    let mut raw = Raw::welcome(address).await;
    crate::common::in_time(raw.connection.send("text"))
        .await
        .unwrap();
    raw.aborted(ErrorCode::MALFORMED).await;
    world.goes_on().await;
    // Nobody but the honest one is left.
    world.served.open(1).await;
    // One message came before its sender broke the rules. It has no answer, so it is stored or not.
    assert!(matches!(world.log.bounds().last.get(), 10 | 11));
}

#[tokio::test]
async fn whoever_does_not_begin_with_hello_is_not_served() {
    let mut world = World::new().await;
    for first in [
        ping(1),
        subscribe(1, MIN_CREDIT, b"n"),
        Bytes::new(),
        vec![0x80].into(),
    ] {
        let mut raw = Raw::connect(world.served.address).await;
        raw.say(first).await;
        assert_eq!(raw.packet().await, None);
    }
    world.goes_on().await;
}

/// Once a connection that never said HELLO stayed for ever, whoever it was.
#[tokio::test(start_paused = true)]
async fn whoever_never_says_hello_is_sent_away() {
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let mut raw = Raw::connect(served.address).await;
    let welcome = client(served.address);
    let mut feed = welcome.subscribe("n", Start::Now).unwrap();
    crate::common::next(&mut feed).await;
    assert_eq!(served.server.stats().open, 2);
    assert_eq!(raw.packet().await, None);
    served.open(1).await;
}

/// Names that are not names end their subscription or refuse their message, and nothing else.
#[tokio::test]
async fn names_that_are_none_are_refused_alone() {
    let mut world = World::new().await;
    let mut raw = Raw::welcome(world.served.address).await;
    let endless = "a".repeat(60_000);
    let deep = "a.".repeat(33) + "a";
    let filters = [
        "", ".", "a..b", ".a", "a.", "a b", "a\u{a0}b", "a\nb", "a*", "*a.b", "a.>.b", ">a",
        "\u{85}", &endless, &deep,
    ];
    for (number, filter) in filters.iter().enumerate() {
        raw.say(subscribe(number as u32, MIN_CREDIT, filter.as_bytes()))
            .await;
        let ended = raw.packet().await.unwrap();
        let TopicPacket::Ended {
            subscription,
            reason,
            ..
        } = ended
        else {
            panic!("{filter:?}: {ended:?}");
        };
        assert_eq!(
            (subscription, reason),
            (number as u32, SubscriptionEnd::InvalidFilter)
        );
    }
    raw.say(subscribe(1, MIN_CREDIT, b"\xff\xfe")).await;
    assert!(matches!(
        raw.packet().await,
        Some(TopicPacket::Ended { .. })
    ));
    let topics = [
        "",
        ".",
        "a..b",
        "a.",
        "a b",
        "a\0b",
        "*",
        ">",
        "a.>",
        "a.*.b",
        &deep[..60],
    ];
    for (nth, topic) in topics.iter().enumerate() {
        let number = nth as u64 + 1;
        raw.say(publish(
            number,
            &[&record(topic.as_bytes(), false, false, b"x")],
        ))
        .await;
        let answer = raw.packet().await.unwrap();
        let valid = nth == topics.len() - 1 && unstall_topics::Topic::new(topic).is_ok();
        match answer {
            TopicPacket::Refused {
                number: told,
                reason: Refusal::InvalidTopic,
                ..
            } => {
                assert_eq!(told, number);
            }
            TopicPacket::Published { .. } if valid => {}
            other => panic!("{topic:?}: {other:?}"),
        }
    }
    raw.alive().await;
    world.goes_on().await;
}

/// A million subscriptions on one connection: a thousand are open, the rest are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_subscriptions_are_a_thousand() {
    let mut world = World::new().await;
    let raw = Raw::welcome(world.served.address).await;
    let (sender, mut receiver) = raw.connection.split();
    const COUNT: u32 = 1_000_000;
    let asking = tokio::spawn(async move {
        for number in 0..COUNT {
            sender
                .send(subscribe(number, MIN_CREDIT, b"n.*"))
                .await
                .unwrap();
        }
        sender
    });
    let (mut open, mut refused) = (0, 0);
    while open + refused < COUNT {
        let received = crate::common::in_time(receiver.recv())
            .await
            .unwrap()
            .unwrap();
        let unstall::Incoming::Message(packet) = received else {
            panic!("{received:?}");
        };
        match TopicPacket::decode(packet.into_bytes()).unwrap() {
            TopicPacket::Subscribed { .. } => open += 1,
            TopicPacket::Ended { reason, .. } => {
                assert_eq!(reason, SubscriptionEnd::TooMany);
                refused += 1;
            }
            TopicPacket::CaughtUp { .. } => {}
            other => panic!("{other:?}"),
        }
        if (open + refused) % 250_000 == 0 {
            world.goes_on().await;
        }
    }
    assert_eq!((open, refused), (1000, COUNT - 1000));
    asking.await.unwrap();
    world.goes_on().await;
}

/// Messages that came to a subscription: their payloads' bytes, and whether it is still open.
async fn received(raw: &mut Raw, subscription: u32) -> usize {
    raw.say(ping(5)).await;
    let mut bytes = 0;
    loop {
        match raw.packet().await.expect("it goes on") {
            TopicPacket::Messages {
                subscription: of,
                records,
            } => {
                assert_eq!(of, subscription);
                bytes += records.len();
            }
            TopicPacket::Pong(5) => return bytes,
            _ => {}
        }
    }
}

/// Credit that is never raised, lowered, absurd, or of a subscription that is not there.
#[tokio::test]
async fn credit_games_stall_only_their_player() {
    let mut world = World::new().await;
    publish_numbered(&world.log, 0..3000, 1000, |_| "n".into()).await;
    let mut raw = Raw::welcome(world.served.address).await;
    raw.say(subscribe(1, MIN_CREDIT, b"n")).await;
    raw.seek(|packet| matches!(packet, TopicPacket::Messages { .. }))
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    received(&mut raw, 1).await;
    assert_eq!(received(&mut raw, 1).await, 0, "no more than the credit");
    for limit in [0, 1, MIN_CREDIT - 1, MIN_CREDIT] {
        raw.say(credit(1, limit)).await;
        raw.say(credit(99, u64::MAX >> 2)).await;
        assert_eq!(
            received(&mut raw, 1).await,
            0,
            "credit does not fall or come again"
        );
    }
    raw.say(credit(1, MIN_CREDIT + 100)).await;
    assert_eq!(received(&mut raw, 1).await, 0, "too little for a record");
    world.goes_on().await;
    raw.say(credit(1, u64::MAX)).await;
    let mut bytes = 0;
    while bytes < 2_500_000 {
        bytes += received(&mut raw, 1).await;
    }
    // Lowered again: what was granted stays.
    raw.say(credit(1, 0)).await;
    publish_numbered(&world.log, 0..10, 1000, |_| "n".into()).await;
    raw.seek(|packet| matches!(packet, TopicPacket::Messages { .. }))
        .await;
    world.goes_on().await;
}

/// More than the window of messages without an answer is too much, unless it is one message.
#[tokio::test]
async fn publishing_beyond_the_window_ends_the_connection() {
    let (store, bends) = Bent::new(Limits::default());
    let mut world = World::of(Log::with_store(store).await.unwrap()).await;
    world.goes_on().await;
    bends.append_late.store(500, Relaxed);
    let mut raw = Raw::welcome(world.served.address).await;
    let long = vec![7; 60_000];
    for number in 1..40 {
        raw.say(publish(number, &[&record(b"n", false, false, &long)]))
            .await;
    }
    raw.aborted(ErrorCode::CREDIT_EXCEEDED).await;
    // What was taken before that is stored, and the rest is not.
    bends.append_late.store(0, Relaxed);
    world.goes_on().await;
    let stored = world.log.bounds().last.get();
    assert!((21..40).contains(&stored), "{stored}");
}

/// A message whose pieces never end is refused when it is larger than the log takes.
#[tokio::test]
async fn a_message_that_never_ends_is_ended() {
    let mut world = World::new().await;
    let mut raw = Raw::welcome(world.served.address).await;
    let piece = vec![7; 65_536];
    raw.say(publish(1, &[&record(b"n", false, true, &piece)]))
        .await;
    for _ in 0..400 {
        raw.say(publish(1, &[&further(false, true, &piece)])).await;
    }
    raw.aborted(ErrorCode::MESSAGE_TOO_LARGE).await;
    world.goes_on().await;
    assert_eq!(world.log.bounds().last.get(), 10);
}

/// A client that floods and never reads is stopped by TCP, and holds up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_whoever_never_reads_are_stopped() {
    type Flood = fn(u32) -> Vec<Bytes>;
    let floods: [(&str, Flood); 5] = [
        ("PING", |_| vec![ping(1)]),
        ("TOKEN", |nth| vec![token(nth.to_string().as_bytes())]),
        ("SUBSCRIBE", |nth| vec![subscribe(nth, MIN_CREDIT, b"n.*")]),
        ("SUBSCRIBE and UNSUBSCRIBE", |nth| {
            vec![
                subscribe_from(nth, MIN_CREDIT, &last(1000), b"n.*"),
                unsubscribe(nth),
            ]
        }),
        ("PUBLISH", |nth| {
            let number = u64::from(nth) + 1;
            vec![publish(number, &[&record(b"*", false, false, b"")])]
        }),
    ];
    for (name, flood) in floods {
        let mut world = World::new().await;
        publish_numbered(&world.log, 0..2000, 100, |at| format!("n.{}", at % 5)).await;
        let options = Options::default().inbox_bytes(1);
        let raw = Raw::with(world.served.address, options).await;
        raw.say(hello(7, "")).await;
        let (sender, receiver) = raw.connection.split();
        let flooding = tokio::spawn(async move {
            for nth in 0..300_000 {
                for packet in flood(nth) {
                    let sent = sender.send(packet);
                    // Stopped: nothing was taken for a second.
                    if !matches!(
                        tokio::time::timeout(Duration::from_secs(1), sent).await,
                        Ok(Ok(()))
                    ) {
                        return;
                    }
                }
            }
        });
        while !flooding.is_finished() {
            world.goes_on().await;
        }
        println!("{name}: done or stopped");
        flooding.await.unwrap();
        drop(receiver);
        world.goes_on().await;
        world.served.open(1).await;
    }
}

/// Once each SUBSCRIBE began a search in the store that UNSUBSCRIBE did not end, without a bound.
#[tokio::test]
async fn searches_in_the_store_are_bounded() {
    let (store, bends) = Bent::new(Limits::default());
    let world = World::of(Log::with_store(store).await.unwrap()).await;
    bends.seek_late.store(60_000, Relaxed);
    let raw = Raw::welcome(world.served.address).await;
    let flooding = async {
        for number in 0..20_000 {
            raw.say(subscribe_from(number, MIN_CREDIT, &last(9), b"n.*"))
                .await;
            raw.say(unsubscribe(number)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), flooding).await;
    let seeks = bends.seeks.load(Relaxed);
    assert!((1..=128).contains(&seeks), "{seeks} searches at a time");
    bends.seek_late.store(0, Relaxed);
    let mut world = world;
    world.goes_on().await;
}

/// Once a connection that broke the rules and read no answer stayed open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_rules_and_does_not_read_is_cut_all_the_same() {
    let mut world = World::new().await;
    publish_numbered(&world.log, 0..20_000, 1000, |_| "n".into()).await;
    let options = Options::default().inbox_bytes(1);
    let raw = Raw::with(world.served.address, options).await;
    raw.say(hello(7, "")).await;
    raw.say(subscribe(1, u64::MAX, b"n")).await;
    // The node has filled the connection.
    tokio::time::sleep(Duration::from_secs(1)).await;
    raw.say(Bytes::from_static(b"\x7f")).await;
    world.goes_on().await;
    until("it is cut", || world.served.server.stats().open == 1).await;
    drop(raw);
}

/// Packets of kinds that a later version may have are passed over.
#[tokio::test]
async fn kinds_that_may_be_ignored_are_ignored() {
    let mut world = World::new().await;
    let mut raw = Raw::welcome(world.served.address).await;
    for kind in 0x80..=0xff {
        raw.say(vec![kind, 1, 2, 3]).await;
    }
    raw.alive().await;
    world.goes_on().await;
}

/// Random bytes, by seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_packets_never_harm_the_node() {
    let mut world = World::new().await;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut raw = Raw::connect(world.served.address).await;
        if rng.u32(0..10) > 0 {
            raw.say(hello(rng.u8(0..3), "")).await;
        }
        for _ in 0..rng.usize(1..20) {
            let mut packet = match rng.u32(0..8) {
                0 => subscribe(rng.u32(0..3), MIN_CREDIT, b"n.>").to_vec(),
                1 => subscribe_from(rng.u32(0..3), MIN_CREDIT, &last(3), b">").to_vec(),
                2 => credit(rng.u32(0..3), rng.u64(..)).to_vec(),
                3 => unsubscribe(rng.u32(0..3)).to_vec(),
                4 => publish(
                    rng.u64(1..4),
                    &[&record(b"n", rng.bool(), rng.bool(), b"xyz")],
                )
                .to_vec(),
                5 => token(b"t").to_vec(),
                6 => ping(rng.u64(..)).to_vec(),
                _ => (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect(),
            };
            if rng.u32(0..4) == 0 && !packet.is_empty() {
                let at = rng.usize(..packet.len());
                packet[at] ^= 1 << rng.u32(0..8);
            }
            raw.say(packet).await;
        }
        if rng.bool() {
            let _ = tokio::time::timeout(Duration::from_millis(5), raw.packet()).await;
        }
    }
    world.goes_on().await;
    world.served.open(1).await;
    assert_eq!(world.served.server.stats().handler_panics, 0);
}

/// A client that says GOODBYE by ABORT.
#[tokio::test]
async fn a_client_that_gives_up_is_let_go() {
    let mut world = World::new().await;
    let mut raw = Raw::welcome(world.served.address).await;
    let mut packet = bytes::BytesMut::new();
    let abort = TopicPacket::Abort {
        code: ErrorCode::APPLICATION,
        reason: "enough".into(),
    };
    abort.encode(&mut packet);
    raw.say(packet.freeze()).await;
    assert_eq!(raw.packet().await, None);
    world.served.open(1).await;
    world.goes_on().await;
}
