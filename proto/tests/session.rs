//! What a session promises, on a quiet wire and on a broken one.

mod world;

use std::time::Duration;

use unstall_proto::limits::{MIN_WINDOW, record_cost};
use unstall_proto::{
    Acknowledge, Config, EndReason, Event, Fate, HandleError, Incoming, Kind, Payload, Rejection,
    SendError, Seq, Session, Token, Wait,
};
use world::{World, texts};

fn world() -> World {
    World::new(1, Config::new(), Config::new())
}

/// A world whose session is open.
fn opened() -> World {
    World::opened(Config::new(), Config::new())
}

/// Sends messages of that length while there is room: how many.
fn fill(session: &mut Session, length: usize) -> usize {
    let message = vec![0; length];
    let mut sent = 0;
    while session.room() >= record_cost(length) {
        session.send(&message[..]).unwrap();
        sent += 1;
    }
    assert_eq!(session.send(&message[..]), Err(SendError::Full));
    sent
}

#[test]
fn messages_arrive_both_ways_and_empty_ones_too() {
    let mut world = opened();
    world.client.session.send("a").unwrap();
    world.client.session.send("").unwrap();
    world.server().session.send(&[1, 2][..]).unwrap();
    world.run_for(100);
    assert_eq!(
        world.server().received,
        [(Kind::Text, b"a".to_vec()), (Kind::Text, Vec::new())]
    );
    assert_eq!(world.client.received, [(Kind::Binary, vec![1, 2])]);
    assert_eq!(world.client.session.acknowledged(), Seq::new(2));
}

#[test]
fn what_is_sent_before_the_first_connection_is_delivered() {
    let mut world = world();
    world.client.session.send("early").unwrap();
    assert_eq!(world.client.session.waits_for(), Some(Wait::Connection));
    world.connect();
    world.run_for(100);
    assert_eq!(texts(&world.server().received), ["early"]);
}

#[test]
fn a_message_of_many_packets_arrives_whole_also_when_larger_than_the_window() {
    let config = Config::new().window(MIN_WINDOW).max_window(MIN_WINDOW);
    let mut world = World::new(1, config.clone(), config);
    world.connect();
    world.run_for(100);
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    world.client.session.send(&large[..]).unwrap();
    world.client.session.send("after").unwrap();
    world.run_for(2_000);
    assert_eq!(world.server().received.len(), 2);
    assert!(world.server().received[0].1 == large);
}

#[test]
fn every_cut_of_the_resume_exchange_is_survived() {
    // The wire's delay is 5 ms: HELLO, WELCOME and the confirmation are cut in turn.
    for cut_after in 0..25 {
        for (client_notices, server_notices) in [(true, true), (true, false)] {
            let mut world = world();
            world.client.session.send("one").unwrap();
            for round in 0..3 {
                world.connect();
                world.run_for(cut_after);
                world.cut(client_notices, server_notices);
                if let Some(server) = &mut world.server {
                    server.session.send(&*format!("s{round}")).unwrap();
                }
                world.run_for(20);
            }
            world.client.session.send("two").unwrap();
            world.connect();
            world.run_for(200);
            assert_eq!(
                texts(&world.server().received),
                ["one", "two"],
                "cut after {cut_after} ms"
            );
            let all: Vec<_> = (3 - world.client.received.len()..3)
                .map(|r| format!("s{r}"))
                .collect();
            assert_eq!(texts(&world.client.received), all);
            assert!(world.errors.is_empty() && world.rejections.is_empty());
        }
    }
}

#[test]
fn credit_is_renewed_after_a_resume_that_lost_it() {
    let config = Config::new().window(MIN_WINDOW).max_window(MIN_WINDOW);
    let mut world = World::new(1, config.clone(), config);
    world.connect();
    world.run_for(100);
    world.server().takes = false;
    for _ in 0..40 {
        world.client.session.send(&[0; 60_000][..]).unwrap();
    }
    world.run_for(100);
    assert_eq!(world.client.session.waits_for(), Some(Wait::Credit));
    world.cut(true, true);
    world.server().takes = true;
    world.run_for(10);
    world.connect();
    world.run_for(2_000);
    assert_eq!(world.server().received.len(), 40);
    assert_eq!(
        world.client.session.acknowledged(),
        world.client.session.accepted()
    );
}

#[test]
fn a_receiver_that_does_not_take_is_never_sent_more_than_its_window() {
    let config = Config::new().window(MIN_WINDOW).max_window(MIN_WINDOW);
    let mut world = World::new(1, config.clone(), config);
    world.connect();
    world.run_for(100);
    world.server().takes = false;
    fill(&mut world.client.session, 0);
    world.run_for(1_000);
    let stats = world.server().session.stats();
    assert!(
        stats.untaken_cost <= MIN_WINDOW && stats.untaken_cost > MIN_WINDOW / 2,
        "{}",
        stats.untaken_cost
    );
    // Control does not wait: a ping is answered although data is held back.
    world.client.session.ping();
    world.run_for(100);
    assert!(
        world
            .client
            .events
            .iter()
            .any(|event| matches!(event, Event::Pong { .. }))
    );
}

#[test]
fn the_window_grows_when_the_wire_is_long_and_the_application_keeps_up() {
    let mut world = opened();
    world.delay = Duration::from_millis(50);
    for _ in 0..200 {
        world.client.session.send(&[0; 60_000][..]).unwrap();
    }
    world.run_for(10_000);
    assert_eq!(world.server().received.len(), 200);
    assert!(world.server().session.stats().window > 1 << 20);
}

#[test]
fn full_gives_the_message_back_and_writable_comes_when_there_is_room() {
    let mut world = opened();
    world.server().takes = false;
    let sent = fill(&mut world.client.session, 60_000);
    world.run_for(1_000);
    assert!(!world.client.events.contains(&Event::Writable));
    world.server().takes = true;
    world.run_for(10_000);
    assert!(world.client.events.contains(&Event::Writable));
    world.client.session.send(&[0; 60_000][..]).unwrap();
    world.run_for(10_000);
    assert_eq!(world.server().received.len(), sent + 1);
}

#[test]
fn a_message_larger_than_the_peer_accepts_is_refused_at_the_sender() {
    let mut world = World::new(1, Config::new(), Config::new().max_message(100_000));
    assert_eq!(
        world.client.session.send(&[0; 100_001][..]),
        Err(SendError::Full)
    );
    world.connect();
    world.run_for(100);
    assert!(world.client.events.contains(&Event::Writable));
    assert_eq!(
        world.client.session.send(&[0; 100_001][..]),
        Err(SendError::TooLarge {
            size: 100_001,
            limit: 100_000
        })
    );
    world.client.session.send(&[0; 100_000][..]).unwrap();
    world.run_for(1_000);
    assert_eq!(world.server().received.len(), 1);
}

#[test]
fn acknowledging_by_hand_means_processed() {
    let by_hand = Config::new().acknowledge(Acknowledge::ByHand);
    let mut world = World::new(1, Config::new(), by_hand);
    world.connect();
    world.client.session.send("a").unwrap();
    world.client.session.send("b").unwrap();
    world.run_for(1_000);
    assert_eq!(world.server().received.len(), 2);
    assert_eq!(world.client.session.acknowledged(), Seq::ZERO);
    let now = world.now;
    let first = world.server().ends[0];
    assert!(world.server().session.acknowledge(now, first));
    world.run_for(1_000);
    assert_eq!(world.client.session.acknowledged(), Seq::new(1));
}

#[test]
fn a_newer_connection_fences_the_older_one_at_once() {
    let mut world = opened();
    let old = world.client.session.generation();
    // The client gave up a connection that the server still holds.
    world.client.session.detach(world.now, old);
    world.connect();
    world.run_for(100);
    let now = world.now;
    let server = &mut world.server().session;
    assert!(!server.is_current(old));
    assert!(server.is_current(old.next().unwrap()));
    let packet = unstall_proto::Packet::Ping(1).to_bytes();
    assert_eq!(
        server.handle_packet(now, old, packet),
        Err(HandleError::Superseded)
    );
    assert_eq!(server.poll_transmit(now, old), None);
}

#[test]
fn rejections_carry_their_reason() {
    let mut world = opened();
    world.cut(true, true);
    let now = world.now;

    let mut stranger = Session::client(Config::new(), world.client.session.id(), Token([9; 16]));
    let generation = stranger.attach(now).unwrap();
    let hello = stranger.poll_transmit(now, generation).unwrap();
    let hello = unstall_proto::Hello::from_packet(hello).unwrap();
    let answer = world.server().session.resume(&hello, Token([8; 16]));
    assert_eq!(answer, Err(Rejection::NotYours));

    // The server let the session go after its life.
    world.run_for(130_000);
    assert_eq!(world.server().ended(), Some(&EndReason::Expired));
}

#[test]
fn a_restarted_server_says_unknown_and_the_messages_come_back() {
    let mut world = opened();
    world.client.session.send("delivered").unwrap();
    world.run_for(100);
    world.client.session.send("maybe").unwrap();
    world.step();
    world.cut(true, true);
    world.client.session.send("not sent").unwrap();
    world.server = None;
    world.epoch = unstall_proto::Epoch(std::num::NonZeroU64::new(2).unwrap());
    world.connect();
    world.run_for(100);
    assert_eq!(
        world.client.ended(),
        Some(&EndReason::Rejected(Rejection::Unknown))
    );
    let back: Vec<_> = world
        .client
        .session
        .undelivered()
        .map(|m| (m.payload.to_vec(), m.fate))
        .collect();
    assert_eq!(
        back,
        [
            (b"maybe".to_vec(), Fate::MaybeDelivered),
            (b"not sent".to_vec(), Fate::NotSent)
        ]
    );
    assert!(matches!(
        world.client.last,
        Some(Incoming::Discontinuity(_))
    ));
    assert!(world.client.session.attach(world.now).is_none());
}

#[test]
fn a_server_that_does_not_answer_hello_is_given_up() {
    let mut world = world();
    world.connect();
    world.cut(false, false);
    world.run_for(10_001);
    assert!(matches!(
        world.client.events[..],
        [Event::HandshakeTimedOut(_)]
    ));
    assert!(world.client.session.wants_connection());
    world.connect();
    world.run_for(100);
    assert!(world.client.session.is_attached());
}

#[test]
fn go_away_reaches_the_client_with_its_window() {
    let mut world = opened();
    world
        .server()
        .session
        .go_away(Duration::from_secs(30), "deploy");
    world.run_for(100);
    let expected = Event::GoAway {
        within: Duration::from_secs(30),
        reason: "deploy".to_owned(),
    };
    assert!(world.client.events.contains(&expected));
}

#[test]
fn a_broken_peer_ends_the_session_and_is_told_why() {
    let mut world = opened();
    let now = world.now;
    let generation = world.client.session.generation();
    let server = &mut world.server().session;
    server.send("mine").unwrap();
    let beyond = unstall_proto::Packet::Ack(Seq::new(5)).to_bytes();
    let error = server.handle_packet(now, generation, beyond).unwrap_err();
    assert!(!error.is_resumable());
    world.run_for(100);
    assert!(matches!(
        world.server().ended(),
        Some(EndReason::Protocol(_))
    ));
    assert!(matches!(
        world.client.ended(),
        Some(EndReason::AbortedByPeer {
            code: unstall_proto::ErrorCode::INVALID_ACK,
            ..
        })
    ));
    assert_eq!(world.server().session.undelivered().count(), 1);
}

#[test]
fn a_gap_loses_the_connection_and_not_the_session() {
    let mut world = opened();
    let now = world.now;
    let generation = world.client.session.generation();
    let server = &mut world.server().session;
    let mut packet = vec![0x10, 0, 0, 0, 0, 0, 0, 0, 2];
    packet.extend([4, 7]);
    let error = server
        .handle_packet(now, generation, packet.into())
        .unwrap_err();
    assert!(error.is_resumable());
    assert!(!server.is_attached());
    world.client.session.detach(now, generation);
    world
        .client
        .session
        .send(Payload::Text("still here"))
        .unwrap();
    world.connect();
    world.run_for(100);
    assert_eq!(texts(&world.server().received), ["still here"]);
}
