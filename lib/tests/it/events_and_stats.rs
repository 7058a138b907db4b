//! Statistics and events are exact: counts, depths, ages and waits.

use crate::common::{
    clock::leap,
    events::{event, moving, rest, wait_for},
    frames::{BINARY, PING, PONG, RawPeer, frame, listen},
    limit,
    memory::ENGINES,
    pair, plain,
    proxy::{Mode, Proxy},
    raw, until,
};
use std::time::Duration;
use tokio::time::sleep;
use unstall::{
    Client, CloseCode, Event, Events, Options, Reconnect, StallCause, Stats,
    defaults::MESSAGE_OVERHEAD_BYTES,
    tokio_tungstenite::{accept_async, tungstenite::protocol::Role},
};

const STALL_AFTER: Duration = Duration::from_millis(100);
/// By so much messages grow older.
const AGE: Duration = Duration::from_secs(2);

fn options() -> Options {
    Options::default().stall_after(STALL_AFTER)
}

/// Waits for the event of a wait, and checks that it does not come too early.
async fn stalled(events: &mut Events, wanted: StallCause) {
    let since = wait_for(events, |event| match event {
        Event::Stalled { cause, since } if *cause == wanted => Some(*since),
        Event::Moving { cause, .. } if *cause == wanted => panic!("moving before it was stalled"),
        _ => None,
    });
    let since = since.await;
    assert!(since >= STALL_AFTER, "{since:?}");
}

fn stall(stats: &Stats, cause: StallCause) -> unstall::StallStats {
    let stall = stats.stalls[cause as usize];
    assert_eq!(stall.cause, cause);
    stall
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_bytes_are_counted_exactly_both_ways() {
    limit(async {
        let (mut client, mut server) = pair(options().outbox_bytes(4 << 20)).await;
        let sizes = [0, 1, 70, 71, 126, 70_000, 1 << 20];
        let bytes = sizes.iter().sum::<usize>() as u64;
        for size in sizes {
            client.send(vec![1; size]).await.unwrap();
            client.send("x".repeat(size)).await.unwrap();
            server.send(vec![2; size]).await.unwrap();
        }
        for size in sizes {
            assert_eq!(plain(server.recv().await).len(), size);
            assert_eq!(plain(server.recv().await).len(), size);
            assert_eq!(plain(client.recv().await).len(), size);
        }
        client.flush().await.unwrap();
        server.flush().await.unwrap();
        let count = sizes.len() as u64;
        // Messages are counted a moment after they are handed over.
        until("all is counted", || {
            client.stats().messages_received == count
                && server.stats().messages_received == count * 2
        })
        .await;
        let client = client.stats();
        assert_eq!(
            (client.messages_sent, client.bytes_sent),
            (count * 2, bytes * 2)
        );
        assert_eq!(
            (client.messages_received, client.bytes_received),
            (count, bytes)
        );
        let server = server.stats();
        assert_eq!((server.messages_sent, server.bytes_sent), (count, bytes));
        assert_eq!(
            (server.messages_received, server.bytes_received),
            (count * 2, bytes * 2)
        );
        for queue in [client.inbox, client.outbox, server.outbox] {
            assert!(
                queue.high_water > 0 && queue.high_water <= queue.limit,
                "{queue:?}"
            );
        }
        assert_eq!((client.outbox.messages, client.outbox.bytes), (0, 0));
        assert_eq!(
            (client.connections, client.overflowed, client.expired),
            (1, 0, 0)
        );
    })
    .await;
}

#[tokio::test]
async fn inbox_tells_its_depth_its_high_water_mark_and_the_age_of_the_oldest() {
    const COST: usize = 100 + MESSAGE_OVERHEAD_BYTES;
    limit(async {
        let (mut client, mut raw) = raw::client(options()).await;
        assert_eq!(client.stats().inbox.oldest, None);
        for _ in 0..10 {
            raw.say(frame(BINARY, [0; 100])).await;
        }
        until("all ten wait", || client.stats().inbox.messages == 10).await;
        leap(AGE).await;
        let inbox = client.stats().inbox;
        assert_eq!((inbox.bytes, inbox.high_water), (10 * COST, 10 * COST));
        assert!(inbox.oldest.unwrap() >= AGE, "{inbox:?}");
        for _ in 0..10 {
            plain(client.recv().await);
        }
        raw.say(frame(BINARY, [0; 100])).await;
        plain(client.recv().await);
        let inbox = client.stats().inbox;
        // The last message counts until the application asks for more.
        assert!((10 * COST..=11 * COST).contains(&inbox.high_water));
        assert_eq!(inbox.messages, 0);
        assert_eq!(inbox.oldest, None);
    })
    .await;
}

#[tokio::test]
async fn outbox_tells_its_depth_and_the_age_of_what_waits_for_a_full_socket() {
    limit(async {
        let (client, mut raw) = raw::client(options().outbox_bytes(64 << 20)).await;
        let mut events = client.events();
        for _ in 0..40 {
            client.send(vec![1; 512 << 10]).await.unwrap();
        }
        stalled(&mut events, StallCause::SocketFull).await;
        leap(AGE).await;
        client.send("young").await.unwrap();
        let stats = client.stats();
        let waiting = 41 - stats.messages_sent as usize;
        assert_eq!(stats.outbox.messages, waiting);
        let cost = (waiting - 1) * ((512 << 10) + MESSAGE_OVERHEAD_BYTES);
        assert_eq!(
            stats.outbox.bytes,
            cost + "young".len() + MESSAGE_OVERHEAD_BYTES
        );
        assert!(
            stats.outbox.oldest.unwrap() >= STALL_AFTER + AGE,
            "{:?}",
            stats.outbox
        );
        while raw.see_beyond_heartbeats().await.unwrap().payload != b"young" {}
        client.flush().await.unwrap();
        let outbox = client.stats().outbox;
        assert_eq!((outbox.messages, outbox.bytes, outbox.oldest), (0, 0, None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trip_is_that_of_the_last_answered_ping() {
    const DELAY: Duration = Duration::from_millis(150);
    limit(async {
        let (client, mut raw) =
            raw::client(options().ping_interval(Duration::from_millis(400))).await;
        let ping = raw.see().await.unwrap();
        assert_eq!(ping.opcode, PING);
        assert_eq!(client.stats().round_trip, None);
        raw.say(frame(PONG, "something else")).await;
        // The peer takes this long to answer, which is what is measured.
        sleep(DELAY).await;
        assert_eq!(client.stats().round_trip, None);
        raw.say(frame(PONG, ping.payload)).await;
        until("an answer", || client.stats().round_trip.is_some()).await;
        let round_trip = client.stats().round_trip.unwrap();
        assert!(
            round_trip >= DELAY - Duration::from_millis(5),
            "{round_trip:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_that_does_not_read_is_the_cause_until_it_reads() {
    limit(async {
        let (mut client, mut raw) = raw::client(options().inbox_bytes(1000)).await;
        let mut events = client.events();
        for _ in 0..10 {
            raw.say(frame(BINARY, [0; 500])).await;
        }
        stalled(&mut events, StallCause::ApplicationNotReading).await;
        let stats = client.stats();
        let waits: Vec<_> = stats.stalled_by().collect();
        assert_eq!(waits, [StallCause::ApplicationNotReading]);
        for _ in 0..10 {
            plain(client.recv().await);
        }
        let after = moving(&mut events, StallCause::ApplicationNotReading).await;
        assert!(after >= STALL_AFTER);
        // A small inbox is full again and again, until everything is read.
        until("nothing waits", || {
            client.stats().stalled_by().next().is_none()
        })
        .await;
        let stats = client.stats();
        let stall = stall(&stats, StallCause::ApplicationNotReading);
        assert!(stall.total >= after && stall.now.is_none(), "{stall:?}");
        for cause in [StallCause::SocketFull, StallCause::Connecting] {
            assert_eq!(
                self::stall(&stats, cause).total,
                Duration::ZERO,
                "{cause:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_socket_is_the_cause_until_the_peer_reads() {
    limit(async {
        let (client, mut raw) = raw::client(options().outbox_bytes(32 << 20)).await;
        let mut events = client.events();
        client.send(vec![1; 15 << 20]).await.unwrap();
        stalled(&mut events, StallCause::SocketFull).await;
        let before = stall(&client.stats(), StallCause::SocketFull);
        assert!(
            before.total >= STALL_AFTER && before.now.is_some(),
            "{before:?}"
        );
        let read = async {
            let mut received = 0;
            while received < 15 << 20 {
                received += raw.see_beyond_heartbeats().await.unwrap().payload.len();
            }
        };
        let (after, ()) = tokio::join!(moving(&mut events, StallCause::SocketFull), read);
        assert!(after >= STALL_AFTER);
        client.flush().await.unwrap();
        let stall = stall(&client.stats(), StallCause::SocketFull);
        assert!(stall.total >= after && stall.now.is_none(), "{stall:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peer_is_the_cause_until_it_speaks() {
    limit(async {
        let options = options().ping_interval(Duration::from_millis(50));
        let (client, mut raw) = raw::client(options).await;
        let mut events = client.events();
        stalled(&mut events, StallCause::PeerSilent).await;
        assert!(stall(&client.stats(), StallCause::PeerSilent).now.is_some());
        // Any received byte ends the silence.
        raw.say(frame(BINARY, "here")).await;
        let after = moving(&mut events, StallCause::PeerSilent).await;
        assert!(after >= STALL_AFTER);
        assert!(stall(&client.stats(), StallCause::PeerSilent).total >= after);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_is_the_cause_until_there_is_a_connection() {
    limit(async {
        let (listener, address) = listen().await;
        let proxy = Proxy::to(address).await;
        let again = Reconnect::default()
            .first(Duration::from_millis(10))
            .max(Duration::from_millis(50));
        let client = Client::new(format!("ws://{}", proxy.address))
            .options(options())
            .reconnect(again);
        let (client, raw) = tokio::join!(client.connect(), RawPeer::accept(&listener));
        let client = client.unwrap();
        let mut events = client.events();
        proxy.set(Mode::Cut);
        stalled(&mut events, StallCause::Connecting).await;
        assert_eq!(
            client.stats().stalled_by().collect::<Vec<_>>(),
            [StallCause::Connecting]
        );
        drop(raw);
        proxy.set(Mode::Forward);
        // The listener gets the connections that the proxy cut before the next whole one.
        let accepted = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    if let Ok(_upgraded) = accept_async(tcp).await {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        let after = moving(&mut events, StallCause::Connecting).await;
        assert!(after >= STALL_AFTER);
        let stall = stall(&client.stats(), StallCause::Connecting);
        assert!(stall.total >= after && stall.now.is_none(), "{stall:?}");
        event(&mut events, |event| {
            matches!(event, Event::Connected { generation: 2 })
        })
        .await;
        accepted.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_end_after_the_end_and_a_late_listener_gets_them_all() {
    limit(async {
        let (client, _server) = pair(options()).await;
        let _ = client.close(CloseCode::NORMAL, "").await;
        let mut events = client.events();
        let told = rest(&mut events).await;
        assert!(
            matches!(told.first(), Some(Event::Connected { generation: 1 })),
            "{told:?}"
        );
        assert!(
            matches!(told.last(), Some(Event::Ended { why: None })),
            "{told:?}"
        );
        assert!(events.recv().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn queues_of_an_unread_adopted_stream_are_told_too() {
    let (connection, mut raw) = raw::adopted(Role::Server, options()).await;
    raw.say(frame(BINARY, [0; 100])).await;
    until("it waits", || connection.stats().inbox.messages == 1).await;
}

/// Once the end of a wait was not told when the same turn began the next: a peer that spoke at the
/// moment of a ping counted as silent from the first ping on.
#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_and_begins_in_one_turn_is_told_to_have_ended() {
    const PING: Duration = Duration::from_millis(50);
    for engine in ENGINES {
        let (server, mut raw) = engine.before_raw(options().ping_interval(PING)).await;
        let mut events = server.events();
        stalled(&mut events, StallCause::PeerSilent).await;
        // It speaks, and before that is read the next ping is due.
        raw.say(frame(BINARY, "here")).await;
        tokio::time::advance(PING * 2).await;
        let after = moving(&mut events, StallCause::PeerSilent).await;
        assert!(
            (STALL_AFTER..PING * 5).contains(&after),
            "{after:?}, {engine:?}"
        );
    }
}
