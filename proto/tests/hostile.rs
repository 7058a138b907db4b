//! A hostile peer: whatever bytes come, in whatever state, nothing panics, and nothing is held
//! beyond the limits.

mod world;

use std::time::Duration;

use bytes::Bytes;
use unstall_proto::limits::{MAX_GO_AWAY, MAX_RETRY_AFTER, MIN_MAX_MESSAGE, MIN_WINDOW};
use unstall_proto::{
    CloseFrame, Config, EndReason, ErrorCode, Event, Generation, HandleError, Hello, Incoming,
    Offset, Packet, ProtocolError, Rejection, Seq, Session, SessionId, Time, Token, Welcome,
};
use world::Random;

const NOW: Time = Time::ORIGIN;

fn config() -> Config {
    Config::new()
        .window(MIN_WINDOW)
        .max_window(2 * MIN_WINDOW)
        .max_message(MIN_MAX_MESSAGE)
}

/// Real packets of both sides of a session, to be mangled.
fn corpus() -> Vec<Bytes> {
    let (mut client, on_client, mut server, on_server, mut packets) = opened();
    for end in [&mut client, &mut server] {
        end.send("text").unwrap();
        end.send(&[0xff; 300][..]).unwrap();
        end.send(&[7; 60_000][..]).unwrap();
        end.ping();
    }
    server.go_away(std::time::Duration::from_secs(1), "why");
    client.close(
        NOW,
        CloseFrame::new(1000, "bye"),
        std::time::Duration::from_secs(9),
    );
    for _ in 0..3 {
        while let Some(packet) = client.poll_transmit(NOW, on_client) {
            packets.push(packet.clone());
            server.handle_packet(NOW, on_server, packet).unwrap();
        }
        while let Some(packet) = server.poll_transmit(NOW, on_server) {
            packets.push(packet.clone());
            client.handle_packet(NOW, on_client, packet).unwrap();
        }
        for end in [&mut client, &mut server] {
            while let Some(Incoming::Messages(batch)) = end.recv() {
                assert!(end.taken(NOW, batch.end()));
            }
        }
    }
    assert!(client.is_over() && server.is_over());
    packets
}

fn opened() -> (Session, Generation, Session, Generation, Vec<Bytes>) {
    let mut client = Session::client(config(), SessionId([1; 16]), Token([2; 16]));
    let on_client = client.attach(NOW).unwrap();
    let hello = client.poll_transmit(NOW, on_client).unwrap();
    let epoch = unstall_proto::Epoch(std::num::NonZeroU64::MIN);
    let parsed = Hello::from_packet(hello.clone()).unwrap();
    let (mut server, on_server) =
        Session::server(config(), &parsed, epoch, Token([3; 16])).unwrap();
    let welcome = server.poll_transmit(NOW, on_server).unwrap();
    client
        .handle_packet(NOW, on_client, welcome.clone())
        .unwrap();
    (client, on_client, server, on_server, vec![hello, welcome])
}

fn mangle(random: &mut Random, packet: &Bytes) -> Bytes {
    let mut bytes = packet.to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len().max(1) as u64) as usize;
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = random.next() as u8,
            _ => bytes.extend_from_slice(&random.bytes()),
        }
    }
    bytes.into()
}

#[test]
fn no_mangled_packet_panics_or_passes_a_limit() {
    let corpus = corpus();
    let mut accepted = 0;
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let (client, on_client, server, on_server, _) = opened();
        let (mut session, generation) = match random.chance(50) {
            true => (client, on_client),
            false => (server, on_server),
        };
        session.send("mine").unwrap();
        for _ in 0..40 {
            let packet = &corpus[random.below(corpus.len() as u64) as usize];
            let packet = mangle(&mut random, packet);
            let _ = Hello::from_packet(packet.clone());
            accepted += u64::from(session.handle_packet(NOW, generation, packet).is_ok());
            if random.chance(30) {
                while let Some(Incoming::Messages(batch)) = session.recv() {
                    let end = batch.end();
                    for message in batch {
                        assert!(
                            message.payload.len() as u64 <= MIN_MAX_MESSAGE,
                            "seed {seed}"
                        );
                    }
                    assert!(session.taken(NOW, end));
                }
            }
            while session.poll_transmit(NOW, generation).is_some() {}
            while session.poll_event().is_some() {}
            let stats = session.stats();
            let bound = 2 * MIN_WINDOW + MIN_MAX_MESSAGE + 64;
            assert!(stats.untaken_cost <= bound, "seed {seed}: {stats:?}");
        }
        session.undelivered().for_each(drop);
    }
    assert!(
        accepted > 1_000,
        "the mangled packets reach beyond the decoder: {accepted}"
    );
}

#[test]
fn a_server_refuses_any_mangled_hello_and_keeps_its_session() {
    let (mut client, on_client, mut server, on_server, packets) = opened();
    for seed in 0..20_000 {
        let packet = mangle(&mut Random(seed), &packets[0]);
        let Ok(hello) = Hello::from_packet(packet) else {
            continue;
        };
        // The generation of the packet may be mangled into a newer one, which is then granted.
        let mut server = server.clone();
        if let Err(rejection) = server.resume(&hello, Token([4; 16])) {
            assert!(!rejection.is_retryable(), "seed {seed}");
            assert!(
                server.is_current(on_server),
                "seed {seed}: a rejection changes nothing"
            );
        }
    }
    client.send("still here").unwrap();
    while let Some(packet) = client.poll_transmit(NOW, on_client) {
        server.handle_packet(NOW, on_server, packet).unwrap();
    }
    assert!(matches!(server.recv(), Some(Incoming::Messages(_))));
}

#[test]
fn nothing_comes_after_the_end_from_a_peer_that_sends_on_after_its_close() {
    // Seen: records after CLOSE were an error, and were handed over all the same. The application
    // had been told that nothing comes any more, and then got a message.
    let (_client, _, mut server, on_server, _) = opened();
    let close = Packet::Close {
        last: Seq::ZERO,
        within_millis: 5_000,
        frame: CloseFrame::new(1000, "bye"),
    };
    server
        .handle_packet(NOW, on_server, close.to_bytes())
        .unwrap();
    assert!(matches!(server.recv(), Some(Incoming::Closed(_))));
    let more = Packet::Data {
        first: Seq::new(1),
        records: Bytes::from_static(&[0]),
    };
    let refused = server.handle_packet(NOW, on_server, more.to_bytes());
    let unexpected = ProtocolError::Unexpected("records after CLOSE");
    assert_eq!(refused, Err(HandleError::Protocol(unexpected)));
    let after = server.recv();
    assert!(after.is_none(), "{after:?}");
}

/// The longest time that a packet can name.
const TEN_YEARS: Duration = Duration::from_millis(315_360_000_000);

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Once a server that was full could keep a client away for ten years.
#[test]
fn a_server_that_is_full_keeps_a_client_away_for_a_day_at_most() {
    let milli = Duration::from_millis(1);
    for (said, waits) in [
        (Duration::ZERO, None),
        (milli, Some(milli)),
        (MAX_RETRY_AFTER, Some(MAX_RETRY_AFTER)),
        (MAX_RETRY_AFTER + milli, Some(MAX_RETRY_AFTER)),
        (TEN_YEARS, Some(MAX_RETRY_AFTER)),
    ] {
        let mut client = Session::client(config(), SessionId([1; 16]), Token([2; 16]));
        let on_client = client.attach(NOW).unwrap();
        client.poll_transmit(NOW, on_client).unwrap();
        let full = Rejection::Full {
            retry_after_millis: millis(said),
        };
        match client.handle_packet(NOW, on_client, full.to_packet()) {
            Err(HandleError::Rejected(rejection)) => assert_eq!(rejection.retry_after(), waits),
            other => panic!("{other:?}"),
        }
        assert!(client.wants_connection());
    }
}

/// Once a server's window of ten years was handed to the application as it came.
#[test]
fn a_server_that_goes_away_gives_an_hour_at_most() {
    let milli = Duration::from_millis(1);
    for (said, told) in [
        (Duration::ZERO, Duration::ZERO),
        (MAX_GO_AWAY, MAX_GO_AWAY),
        (MAX_GO_AWAY + milli, MAX_GO_AWAY),
        (TEN_YEARS, MAX_GO_AWAY),
    ] {
        let (mut client, on_client, ..) = opened();
        while client.poll_event().is_some() {}
        let go_away = Packet::GoAway {
            within_millis: millis(said),
            reason: String::new(),
        };
        client
            .handle_packet(NOW, on_client, go_away.to_bytes())
            .unwrap();
        let within = match client.poll_event() {
            Some(Event::GoAway { within, .. }) => within,
            other => panic!("{other:?}"),
        };
        assert_eq!(within, told);
    }
}

#[test]
fn a_servers_life_lengthens_no_session() {
    let own = Duration::from_secs(30);
    let milli = Duration::from_millis(1);
    for (said, lives) in [
        (Duration::ZERO, Duration::ZERO),
        (own - milli, own - milli),
        (own, own),
        (own + milli, own),
        (TEN_YEARS, own),
    ] {
        let config = config().session_life(own);
        let mut client = Session::client(config, SessionId([1; 16]), Token([2; 16]));
        let on_client = client.attach(NOW).unwrap();
        client.poll_transmit(NOW, on_client).unwrap();
        let welcome = Packet::Welcome(Welcome {
            token: Token([3; 16]),
            epoch: unstall_proto::Epoch(std::num::NonZeroU64::MAX),
            generation: on_client,
            received: Seq::ZERO,
            acked: Seq::ZERO,
            credit: Offset::new(MIN_WINDOW),
            max_message: MIN_MAX_MESSAGE,
            life_millis: millis(said),
        });
        client
            .handle_packet(NOW, on_client, welcome.to_bytes())
            .unwrap();
        client.detach(NOW, on_client);
        assert_eq!(client.poll_timeout(), Some(NOW.after(lives)), "{said:?}");
        client.handle_timeout(NOW.after(lives));
        while let Some(event) = client.poll_event() {
            if let Event::Ended(reason) = event {
                assert_eq!(reason, EndReason::Expired);
            }
        }
        assert!(client.is_over());
    }
}

#[test]
fn the_largest_numbers_that_a_peer_can_name_overflow_nothing() {
    const ALL: Offset = Offset::new(u64::MAX);
    let last = Generation::new(u64::MAX);
    let mut hello = Hello {
        id: SessionId([1; 16]),
        token: Token([2; 16]),
        epoch: None,
        generation: Generation::new(1),
        received: Seq::ZERO,
        acked: Seq::ZERO,
        credit: ALL,
        max_message: unstall_proto::limits::MAX_MAX_MESSAGE,
    };
    let epoch = unstall_proto::Epoch(std::num::NonZeroU64::MAX);
    let (mut server, first) = Session::server(config(), &hello, epoch, Token([3; 16])).unwrap();
    server.poll_transmit(NOW, first).unwrap();
    assert_eq!(server.stats().credit, u64::MAX);
    assert_eq!(server.max_send_message(), MIN_MAX_MESSAGE, "its own limit");
    let ping = Packet::Ping(u64::MAX);
    for packet in [Packet::Credit(ALL), Packet::Blocked(ALL), ping] {
        server.handle_packet(NOW, first, packet.to_bytes()).unwrap();
    }
    assert!(server.stats().window <= 2 * MIN_WINDOW);
    for _ in 0..100 {
        server.send(&[7; 60_000][..]).unwrap();
    }
    let packets = std::iter::from_fn(|| server.poll_transmit(NOW, first));
    assert_eq!(packets.filter(|it| it[0] == 0x10).count(), 100);
    assert_eq!(server.stats().credit, u64::MAX - 100 * 60_064);

    // The last generation there is: no other connection can follow, and the session expires.
    hello.epoch = Some(epoch);
    hello.token = Token([3; 16]);
    hello.generation = last;
    assert_eq!(server.resume(&hello, Token([4; 16])), Ok(last));
    assert_eq!(
        server.resume(&hello, Token([5; 16])),
        Err(Rejection::Superseded)
    );
    server.detach(NOW, last);
    let at = server.poll_timeout().expect("it expires");
    server.handle_timeout(at);
    assert!(server.is_over());
}

/// Once a text message in a session closed the connection only: the session lived on, and the peer
/// was not told.
#[test]
fn a_text_message_ends_the_session_on_both_sides() {
    for text_to_client in [true, false] {
        let (client, on_client, server, on_server, _) = opened();
        let ((mut broken, on_broken), (mut peer, on_peer)) = match text_to_client {
            true => ((client, on_client), (server, on_server)),
            false => ((server, on_server), (client, on_client)),
        };
        broken.send("mine").unwrap();
        assert_eq!(broken.close_code(), 1000);
        let malformed = ProtocolError::Malformed("a text message");
        let error = broken.handle_text(NOW, on_broken).unwrap_err();
        assert_eq!(error, HandleError::Protocol(malformed.clone()));
        assert!(!error.is_resumable());
        assert_eq!((error.close_code(), broken.close_code()), (1002, 1002));
        let ended = std::iter::from_fn(|| broken.poll_event()).last();
        assert_eq!(ended, Some(Event::Ended(EndReason::Protocol(malformed))));
        assert_eq!(broken.undelivered().count(), 1);

        let abort = broken.poll_transmit(NOW, on_broken).expect("ABORT");
        assert!(broken.is_over() && broken.poll_transmit(NOW, on_broken).is_none());
        peer.handle_packet(NOW, on_peer, abort).unwrap();
        match std::iter::from_fn(|| peer.poll_event()).last() {
            Some(Event::Ended(EndReason::AbortedByPeer { code, .. })) => {
                assert_eq!(code, ErrorCode::MALFORMED);
            }
            other => panic!("{other:?}"),
        }
        assert!(peer.is_over());
        assert_eq!(peer.close_code(), 1000, "the fault was the other side's");
    }
}

#[test]
fn a_text_message_before_welcome_is_not_answered() {
    let mut client = Session::client(config(), SessionId([1; 16]), Token([2; 16]));
    let on_client = client.attach(NOW).unwrap();
    client.poll_transmit(NOW, on_client).unwrap();
    assert!(client.handle_text(NOW, on_client).is_err());
    assert!(client.is_over() && !client.wants_transmit());
    assert_eq!(client.close_code(), 1002);
}

#[test]
fn a_text_message_on_an_older_connection_ends_nothing() {
    let (mut client, on_client, ..) = opened();
    client.detach(NOW, on_client);
    assert!(client.attach(NOW).is_some());
    let refused = client.handle_text(NOW, on_client);
    assert_eq!(refused, Err(HandleError::Superseded));
    assert!(!client.is_over() && client.wants_transmit());
}

#[test]
fn only_a_peer_that_broke_the_protocol_is_closed_as_one_that_did() {
    let gap = Packet::Data {
        first: Seq::new(2),
        records: Bytes::from_static(&[0]),
    };
    let (_, _, mut server, on_server, _) = opened();
    let error = server.handle_packet(NOW, on_server, gap.to_bytes());
    let error = error.unwrap_err();
    assert!(error.is_resumable());
    assert_eq!((error.close_code(), server.close_code()), (1002, 1000));

    assert_eq!(HandleError::Superseded.close_code(), 1000);
    assert_eq!(HandleError::Rejected(Rejection::Expired).close_code(), 1000);

    let (_, _, mut server, ..) = opened();
    server.abort("enough");
    assert_eq!(server.close_code(), 1000);
}

/// Once a packet that could not be read still broke a session that had ended well: END had come
/// before it, and ABORT was sent to a peer that was done.
#[test]
fn what_comes_after_the_end_cannot_break_it_even_when_it_cannot_be_read() {
    let (_, _, mut server, on_server, _) = opened();
    let close = Packet::Close {
        last: Seq::ZERO,
        within_millis: 5_000,
        frame: CloseFrame::new(1000, "bye"),
    };
    for packet in [
        close.to_bytes(),
        Packet::End.to_bytes(),
        Bytes::new(),
        Bytes::from_static(&[5]),
    ] {
        server.handle_packet(NOW, on_server, packet).unwrap();
    }
    server.handle_text(NOW, on_server).unwrap();
    let packets = std::iter::from_fn(|| server.poll_transmit(NOW, on_server));
    let packets: Vec<_> = packets.map(|it| Packet::decode(it).unwrap()).collect();
    assert_eq!(packets, [close, Packet::End]);
    assert!(server.is_over());
}

/// A limit below what can be announced was raised to that: messages of 64 KiB came through a limit of
/// 1,000 bytes.
#[test]
fn a_limit_below_the_smallest_that_can_be_announced_is_kept() {
    for (size, taken) in [(999, true), (1000, true), (1001, false), (65_536, false)] {
        let mut client = Session::client(config(), SessionId([1; 16]), Token([2; 16]));
        let on_client = client.attach(NOW).unwrap();
        let hello = client.poll_transmit(NOW, on_client).unwrap();
        let hello = Hello::from_packet(hello).unwrap();
        let small = config().max_message(1000);
        let epoch = unstall_proto::Epoch(std::num::NonZeroU64::MIN);
        let (mut server, on_server) =
            Session::server(small, &hello, epoch, Token([3; 16])).unwrap();
        let welcome = server.poll_transmit(NOW, on_server).unwrap();
        client.handle_packet(NOW, on_client, welcome).unwrap();
        assert_eq!(client.max_send_message(), MIN_MAX_MESSAGE);
        client.send(&vec![7; size][..]).unwrap();
        let mut result = Ok(());
        while let Some(packet) = client.poll_transmit(NOW, on_client) {
            result = result.and(server.handle_packet(NOW, on_server, packet));
        }
        match taken {
            true => assert!(result.is_ok(), "{size}: {result:?}"),
            false => assert_eq!(
                result,
                Err(HandleError::Protocol(ProtocolError::MessageTooLarge {
                    limit: 1000
                }))
            ),
        }
    }
}
