//! How sessions end: by a close, by its deadline, by an abort, and without a connection.

mod world;

use std::time::Duration;

use unstall_proto::{
    Acknowledge, AnswerClose, CloseFrame, Config, EndReason, Event, Incoming, Kind, Packet,
    Records, SendError, Seq, Session, SessionId, Side, Time, Token,
};
use world::{World, texts};

/// The longest time that a packet can name.
const TEN_YEARS: Duration = Duration::from_millis(315_360_000_000);
const SECOND: u64 = 1_000;

fn opened() -> World {
    World::opened(Config::new(), Config::new())
}

fn bye() -> CloseFrame {
    CloseFrame::new(1000, "bye")
}

/// The client has closed and was cut when its CLOSE had just arrived: the server is finished, and
/// the client does not know.
fn finished_on_the_server(deadline: Duration) -> World {
    let mut world = opened();
    world.client.session.send("a").unwrap();
    let now = world.now;
    world.client.session.close(now, bye(), deadline);
    // The wire's delay is 5 ms.
    world.run_for(7);
    world.cut(true, true);
    world
}

/// Once a client closed with a deadline of ten years and left just before END. The server's session
/// was finished, for which expiry did not count: it was kept for ten years.
#[test]
fn a_finished_session_without_a_connection_expires() {
    let mut world = finished_on_the_server(TEN_YEARS);
    let server = world.server();
    assert_eq!(server.ended(), Some(&EndReason::Closed(bye())));
    assert!(!server.session.is_over(), "the client may come back");
    world.run_for(119 * SECOND);
    assert!(!world.server().session.is_over());
    world.run_for(SECOND);
    let server = world.server();
    assert!(server.session.is_over());
    assert_eq!(server.session.poll_timeout(), None);
    assert_eq!(server.session.undelivered().count(), 0);
    let ends = |event: &&Event| matches!(event, Event::Ended(_));
    let ends = server.events.iter().filter(ends).count();
    assert_eq!(ends, 1, "it was told once, when the session was finished");
}

/// The sibling: it finishes when it is without a connection already, and that stopped the expiry.
#[test]
fn a_session_that_is_finished_without_a_connection_expires_as_if_it_were_not() {
    let mut world = opened();
    world.client.session.send("a").unwrap();
    world.server().takes = false;
    let now = world.now;
    world.client.session.close(now, bye(), TEN_YEARS);
    world.run_for(7);
    world.cut(true, true);
    world.run_for(60 * SECOND);
    assert_eq!(world.server().ended(), None);
    world.server().takes = true;
    world.run_for(1);
    assert_eq!(
        world.server().ended(),
        Some(&EndReason::Closed(bye())),
        "its application has taken the last message"
    );
    world.run_for(59 * SECOND);
    assert!(!world.server().session.is_over());
    world.run_for(SECOND);
    assert!(world.server().session.is_over());
}

#[test]
fn a_client_that_is_finished_and_finds_no_server_expires() {
    let mut world = opened();
    let now = world.now;
    world.server().session.close(now, bye(), TEN_YEARS);
    world.run_for(7);
    assert_eq!(world.client.ended(), Some(&EndReason::Closed(bye())));
    world.cut(true, true);
    world.server = None;
    assert!(world.client.session.wants_connection());
    world.run_for(120 * SECOND);
    assert!(world.client.session.is_over());
    assert!(!world.client.session.wants_connection());
}

#[test]
fn a_closing_session_without_a_connection_expires_however_late_its_deadline_is() {
    let by_hand = Config::new().acknowledge(Acknowledge::ByHand);
    let mut world = World::opened(Config::new(), by_hand);
    world.client.session.send("a").unwrap();
    let now = world.now;
    world.client.session.close(now, bye(), TEN_YEARS);
    world.run_for(50);
    world.cut(true, true);
    world.run_for(119 * SECOND);
    assert_eq!(world.server().ended(), None);
    assert_eq!(world.client.ended(), None);
    world.run_for(2 * SECOND);
    assert_eq!(world.server().ended(), Some(&EndReason::Expired));
    assert_eq!(world.client.ended(), Some(&EndReason::Expired));
    assert!(world.client.session.is_over() && world.server().session.is_over());
}

#[test]
fn a_peer_that_comes_back_within_the_life_learns_that_all_was_delivered() {
    let mut world = finished_on_the_server(Duration::from_secs(200));
    world.run_for(119 * SECOND);
    assert_eq!(world.client.ended(), None);
    world.connect();
    world.run_for(100);
    assert_eq!(world.client.ended(), Some(&EndReason::Closed(bye())));
    assert!(world.client.session.is_over() && world.server().session.is_over());
}

#[test]
fn the_application_is_told_of_the_close_before_the_peer_says_end() {
    let mut world = finished_on_the_server(Duration::from_secs(5));
    assert_eq!(texts(&world.server().received), ["a"]);
    let told = &world.server().last;
    assert!(matches!(told, Some(Incoming::Closed(frame)) if *frame == bye()));
    assert_eq!(world.server().ended(), Some(&EndReason::Closed(bye())));
}

/// Once END stopped all timers, also where this side's own END could not be sent: a peer that said
/// END and read nothing any more kept the session for as long as its connection lived.
#[test]
fn a_peer_that_takes_nothing_after_its_end_does_not_keep_the_session() {
    let mut world = opened();
    let now = world.now;
    let server = &mut world.server().session;
    let generation = server.generation();
    for packet in [close(Seq::ZERO, TEN_YEARS), Packet::End] {
        server
            .handle_packet(now, generation, packet.to_bytes())
            .unwrap();
    }
    assert!(
        !server.is_over(),
        "its END is not sent, and nobody takes it"
    );
    let at = server.poll_timeout().expect("the close has a deadline");
    assert_eq!(at.since(now), Duration::from_secs(300));
    server.handle_timeout(at);
    assert!(server.is_over() && server.poll_timeout().is_none());
}

fn close(last: Seq, within: Duration) -> Packet {
    Packet::Close {
        last,
        within_millis: within.as_millis() as u64,
        frame: bye(),
    }
}

#[test]
fn the_deadline_of_a_peer_is_cut_to_our_own_bound() {
    const BOUND: Duration = Duration::from_secs(40);
    let milli = Duration::from_millis(1);
    for (said, kept) in [
        (Duration::ZERO, Duration::ZERO),
        (BOUND - milli, BOUND - milli),
        (BOUND, BOUND),
        (BOUND + milli, BOUND),
        (TEN_YEARS, BOUND),
    ] {
        let mut world = World::opened(Config::new(), Config::new().max_close(BOUND));
        let now = world.now;
        let server = &mut world.server().session;
        server.send("not acknowledged").unwrap();
        let generation = server.generation();
        let packet = close(Seq::ZERO, said).to_bytes();
        server.handle_packet(now, generation, packet).unwrap();
        assert_eq!(server.poll_timeout(), Some(now.after(kept)), "{said:?}");
        let packets = std::iter::from_fn(|| server.poll_transmit(now, generation));
        let packets: Vec<_> = packets.map(|it| Packet::decode(it).unwrap()).collect();
        let told = close(Seq::new(1), kept);
        assert_eq!(
            packets.last(),
            Some(&told),
            "its own CLOSE says what it keeps"
        );
    }
}

#[test]
fn the_deadline_of_the_application_here_is_not_cut() {
    let mut world = World::opened(Config::new().max_close(Duration::ZERO), Config::new());
    let now = world.now;
    world.cut(true, false);
    let session = &mut world.client.session;
    session.send("a").unwrap();
    session.close(now, bye(), Duration::from_secs(90));
    world.run_for(89 * SECOND);
    assert_eq!(world.client.ended(), None);
    world.run_for(SECOND);
    assert_eq!(world.client.ended(), Some(&EndReason::CloseTimedOut));
}

#[test]
fn close_delivers_everything_first_and_both_sides_end_cleanly() {
    for cut_after in 0..40 {
        let mut world = opened();
        world.client.session.send("a").unwrap();
        world.server().session.send("b").unwrap();
        let now = world.now;
        world
            .client
            .session
            .close(now, CloseFrame::new(1000, "bye"), Duration::from_secs(30));
        assert_eq!(world.client.session.send("late"), Err(SendError::Closed));
        world.run_for(cut_after);
        world.cut(true, true);
        world.run_for(10);
        world.connect();
        world.run_for(1_000);
        let closed = EndReason::Closed(CloseFrame::new(1000, "bye"));
        assert_eq!(
            world.client.ended(),
            Some(&closed),
            "cut after {cut_after} ms"
        );
        assert_eq!(
            world.server().ended(),
            Some(&closed),
            "cut after {cut_after} ms"
        );
        assert_eq!(texts(&world.server().received), ["a"]);
        assert_eq!(texts(&world.client.received), ["b"]);
        assert!(matches!(world.client.last, Some(Incoming::Closed(_))));
        assert!(matches!(world.server().last, Some(Incoming::Closed(_))));
        assert!(world.client.session.is_over() && world.server().session.is_over());
        assert!(world.client.session.poll_timeout().is_none());
    }
}

/// A side whose application had messages waiting for room when CLOSE came could not deliver them:
/// nothing was accepted any more, although the peer had asked for everything that was under way.
/// Later it was so for messages that were encoded already, in `send_records`: the close then took
/// its whole deadline, and failed.
#[test]
fn answering_by_hand_delivers_what_still_waited_when_the_peer_closed() {
    let server = Config::new().answer_close(AnswerClose::ByHand);
    for cut_after in [None, Some(3), Some(8), Some(13), Some(18)] {
        let mut world = World::new(1, Config::new(), server.clone());
        world.connect();
        world.run_for(100);
        world.server().session.send("a").unwrap();
        let now = world.now;
        let closed = CloseFrame::new(1000, "bye");
        world
            .client
            .session
            .close(now, closed.clone(), Duration::from_secs(30));
        if let Some(millis) = cut_after {
            world.run_for(millis);
            world.cut(true, true);
            world.connect();
        }
        world.run_for(1_000);
        assert!(
            world
                .server()
                .events
                .contains(&Event::Closing(closed.clone()))
        );
        assert_eq!(world.client.session.send("late"), Err(SendError::Closed));
        world.server().session.send("b").unwrap();
        let mut records = Records::default();
        assert!(records.push_bytes(Kind::Text, b"c"));
        world.server().session.send_records(&mut records).unwrap();
        world.run_for(1_000);
        assert_eq!(texts(&world.client.received), ["a", "b", "c"]);
        assert_eq!(world.client.ended(), None, "the answer is not given yet");
        world.server().session.answer_close();
        assert_eq!(world.server().session.send("late"), Err(SendError::Closed));
        world.run_for(1_000);
        let closed = EndReason::Closed(closed);
        assert_eq!(world.client.ended(), Some(&closed), "{cut_after:?}");
        assert_eq!(world.server().ended(), Some(&closed), "{cut_after:?}");
        assert!(world.client.session.is_over() && world.server().session.is_over());
    }
}

#[test]
fn an_answer_that_never_comes_ends_by_the_deadline() {
    let server = Config::new().answer_close(AnswerClose::ByHand);
    let mut world = World::new(1, Config::new(), server);
    world.connect();
    world.run_for(100);
    let now = world.now;
    let frame = CloseFrame::new(1000, "");
    world
        .client
        .session
        .close(now, frame, Duration::from_secs(1));
    world.run_for(500);
    assert!(world.client.ended().is_none() && world.server().ended().is_none());
    world.run_for(1_000);
    assert_eq!(world.client.ended(), Some(&EndReason::CloseTimedOut));
    assert!(matches!(
        world.server().ended(),
        Some(EndReason::AbortedByPeer { .. } | EndReason::CloseTimedOut)
    ));
}

#[test]
fn a_close_that_takes_too_long_ends_with_the_list() {
    let mut world = opened();
    world.server().takes = false;
    world.client.session.send("a").unwrap();
    let now = world.now;
    world
        .client
        .session
        .close(now, CloseFrame::new(1000, ""), Duration::from_secs(1));
    world.run_for(2_000);
    assert_eq!(world.client.ended(), Some(&EndReason::CloseTimedOut));
    assert_eq!(world.client.session.undelivered().count(), 1);
    // The server keeps the same deadline; the client's word may come first.
    assert!(matches!(
        world.server().ended(),
        Some(EndReason::AbortedByPeer { .. } | EndReason::CloseTimedOut)
    ));
    assert!(world.client.session.is_over() && world.server().session.is_over());
    // The server's application can still have what had arrived, and then learns of the end.
    world.server().takes = true;
    world.run_for(10);
    assert_eq!(texts(&world.server().received), ["a"]);
    assert!(matches!(
        world.server().last,
        Some(Incoming::Discontinuity(_))
    ));
}

#[test]
fn an_idle_session_is_kept_while_connected_and_expires_without_connection() {
    let mut world = opened();
    world.run_for(3_600_000);
    assert_eq!(world.client.ended(), None);
    world.cut(true, true);
    world.run_for(119_000);
    world.connect();
    world.run_for(100);
    assert!(world.client.session.is_attached());
    world.cut(true, true);
    world.run_for(121_000);
    assert_eq!(world.client.ended(), Some(&EndReason::Expired));
    assert_eq!(world.server().ended(), Some(&EndReason::Expired));
}

#[test]
fn an_abort_reaches_the_peer_and_gives_the_messages_back() {
    let mut world = opened();
    world.server().takes = false;
    world.client.session.send("a").unwrap();
    world.run_for(100);
    world.client.session.abort("enough");
    world.run_for(100);
    assert_eq!(world.client.session.undelivered().count(), 1);
    assert!(matches!(
        world.server().ended(),
        Some(EndReason::AbortedByPeer { .. })
    ));
    assert!(world.client.session.is_over());
}

#[test]
fn a_session_that_was_never_connected_closes_at_once() {
    let mut session = Session::client(Config::new(), SessionId([0; 16]), Token([0; 16]));
    session.close(
        Time::ORIGIN,
        CloseFrame::new(1000, ""),
        Duration::from_secs(1),
    );
    assert!(session.is_over());
    assert_eq!(session.side(), Side::Client);
}

/// Once a session was over, closing it again armed the close timer anew: a finished session kept
/// asking its driver to be woken.
#[test]
fn closing_a_session_that_is_over_leaves_no_timer() {
    let mut world = opened();
    let close = |world: &mut World| {
        let now = world.now;
        let frame = CloseFrame::new(1000, "bye");
        let session = &mut world.client.session;
        session.close(now, frame, Duration::from_secs(5));
    };
    close(&mut world);
    world.run_for(100);
    assert!(world.client.session.is_over());
    close(&mut world);
    assert_eq!(world.client.session.poll_timeout(), None);
}

/// Once an abort of a session that was over, and whose connection was not detached yet, owed the
/// peer an ABORT: the session was not over any more, and waited for a connection that never came.
/// A client that had END and had not sent its own was over as soon as it took another connection:
/// the timer for the answer to its HELLO stayed.
#[test]
fn a_client_whose_server_knows_that_all_is_done_takes_no_connection() {
    let mut world = opened();
    let now = world.now;
    let frame = CloseFrame::new(1000, "bye");
    let (client, server) = (&mut world.client, world.server.as_mut().unwrap());
    let (client, server) = (&mut client.session, &mut server.session);
    let generation = client.generation();
    client.close(now, frame, Duration::from_secs(5));
    while let Some(packet) = client.poll_transmit(now, generation) {
        server.handle_packet(now, generation, packet).unwrap();
    }
    while let Some(packet) = server.poll_transmit(now, generation) {
        client.handle_packet(now, generation, packet).unwrap();
    }
    assert!(client.wants_transmit(), "its own END");
    assert!(!client.wants_connection() && client.attach(now).is_none());
    client.detach(now, generation);
    assert!(client.is_over() && client.poll_timeout().is_none());
}

#[test]
fn aborting_a_session_that_is_over_changes_nothing() {
    let mut world = opened();
    let now = world.now;
    let frame = CloseFrame::new(1000, "bye");
    let session = &mut world.client.session;
    session.close(now, frame, Duration::from_secs(5));
    world.run_for(100);
    let session = &mut world.client.session;
    assert!(session.is_over() && session.is_attached());
    session.abort("too late");
    assert!(session.is_over() && !session.wants_transmit());
}

#[test]
fn a_session_that_ended_before_its_hello_does_not_ask_for_the_server() {
    // Seen: the client connected, aborted, and then sent HELLO all the same. The server opened a
    // session for it, and kept that for its whole life.
    let mut session = Session::client(Config::new(), SessionId([1; 16]), Token([2; 16]));
    let generation = session.attach(Time::ORIGIN).unwrap();
    session.abort("enough");
    assert!(session.is_over() && !session.wants_transmit());
    assert_eq!(session.poll_transmit(Time::ORIGIN, generation), None);
}
