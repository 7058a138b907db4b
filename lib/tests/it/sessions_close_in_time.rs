//! Closing a session keeps its deadline, whatever is undelivered and even if nobody reads. Both sides
//! learn exactly what did not arrive. A side that vanishes is noticed.

use std::time::Duration;

use crate::common::{
    clock::hurried,
    events::disconnected,
    frames::listen,
    limit,
    net::{bind, bind_again, serve, unused_address},
    plain,
    proxy::{Mode, Proxy},
    sessions::{client, foreign, pair, text, up_to_the_loss},
    until,
};
use tokio::time::Instant;
use unstall::{
    CloseCode, CloseReport, Connection, ConnectionError, DeliveryError, Gap, Incoming, Message,
    Options, Server, SessionLoss,
};

/// A deadline, and what a loaded machine may need in addition.
const DEADLINE: Duration = Duration::from_millis(1500);
const SLACK: Duration = Duration::from_secs(5);

fn options() -> Options {
    Options::default().close_timeout(DEADLINE)
}

async fn both() -> (Server, Connection, Connection) {
    let server = bind(Server::builder().options(options())).await;
    let (client, session) = pair(&server, client(server.local_addr()).options(options())).await;
    (server, client, session)
}

async fn closed(connection: &Connection) -> CloseReport {
    let start = Instant::now();
    let report = limit(connection.close(CloseCode::NORMAL, "bye")).await;
    let took = start.elapsed();
    assert!(took < DEADLINE + SLACK, "the close took {took:?}");
    report
}

async fn read_to_end(mut connection: Connection) -> (Vec<Message>, Connection) {
    let mut messages = Vec::new();
    while let Ok(Some(incoming)) = limit(connection.recv()).await {
        messages.extend(incoming.into_message());
    }
    (messages, connection)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Message> {
    range
        .map(|number| Message::from(number.to_string().as_str()))
        .collect()
}

async fn send_numbers(connection: &Connection, range: std::ops::Range<u32>) {
    for message in numbers(range) {
        limit(connection.send(message)).await.unwrap();
    }
}

/// Once, messages that the closed side had accepted and had no room for came back as unsent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_under_way_both_ways_is_delivered_first() {
    for server_closes in [false, true] {
        let (_server, client, session) = both().await;
        send_numbers(&client, 0..500).await;
        send_numbers(&session, 0..500).await;
        let (closer, other) = if server_closes {
            (session, client)
        } else {
            (client, session)
        };
        let (sender, mut receiver) = closer.split();
        let reading = tokio::spawn(read_to_end(other));
        let closing = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "bye").await });
        let mut own = Vec::new();
        while let Ok(Some(Incoming::Message(message))) = limit(receiver.recv()).await {
            own.push(message);
        }
        let (others, other) = reading.await.unwrap();
        let report = limit(closing).await.unwrap();
        assert!(report.clean && report.unsent.is_empty() && report.maybe_delivered.is_empty());
        let report = limit(other.close(CloseCode::NORMAL, "")).await;
        assert!(
            report.unsent.is_empty() && report.maybe_delivered.is_empty(),
            "{report:?}"
        );
        assert!(report.clean, "{report:?}");
        assert_eq!(report.peer.unwrap().reason, "bye");
        assert!(own == numbers(0..500) && others == numbers(0..500));
    }
}

/// The same with far more messages in the queue than the replay has room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_room_when_the_peer_closes_is_delivered_too() {
    let options = Options::default()
        .replay_bytes(1)
        .max_message_bytes(64 << 10)
        .window_bytes(256 << 10)
        .outbox_bytes(8 << 20);
    let server = bind(Server::builder().options(options.clone())).await;
    for server_closes in [false, true] {
        let (client, session) = pair(
            &server,
            client(server.local_addr()).options(options.clone()),
        )
        .await;
        let (closer, other) = if server_closes {
            (session, client)
        } else {
            (client, session)
        };
        for index in 0..80_u8 {
            other.send(vec![index; 60_000]).await.unwrap();
        }
        let reading = tokio::spawn(read_to_end(other));
        let (sender, mut receiver) = closer.split();
        let closing = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "bye").await });
        for index in 0..80_u8 {
            let message = plain(limit(receiver.recv()).await);
            assert_eq!(message.as_bytes(), vec![index; 60_000]);
        }
        assert!(matches!(limit(receiver.recv()).await, Ok(None)));
        assert!(limit(closing).await.unwrap().clean);
        let (_, other) = reading.await.unwrap();
        let report = limit(other.close(CloseCode::NORMAL, "")).await;
        assert!(
            report.clean && report.unsent.is_empty(),
            "{}",
            report.unsent.len()
        );
        assert!(other.send("late").await.is_err());
    }
}

/// Once a session that no server had agreed to counted as closed cleanly, although all its messages came
/// back.
#[tokio::test]
async fn a_close_that_gives_messages_back_is_not_clean() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // The server agrees to a session, and leaves.
            let _ = foreign(tcp, true).await;
        }
    });
    let client = client(address).options(options()).connect().await.unwrap();
    send_numbers(&client, 0..10).await;
    let report = hurried(closed(&client)).await;
    assert_eq!(report.unsent, numbers(0..10));
    assert!(!report.clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_may_close_at_once() {
    for _ in 0..20 {
        let (_server, client, session) = both().await;
        let (one, two) = tokio::join!(closed(&client), closed(&session));
        assert!(one.clean && two.clean, "{one:?} {two:?}");
    }
}

/// Once the last message of `recv` was never reported as taken. The peer waited until the deadline, and
/// got it back as undelivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_last_counts_as_taken_by_a_close_and_by_a_drop() {
    for by_drop in [false, true] {
        let (_server, client, mut session) = both().await;
        client.send("last").await.unwrap();
        assert_eq!(text(&mut session).await, "last");
        let closing = tokio::spawn(async move {
            if !by_drop {
                assert!(closed(&session).await.clean);
            }
        });
        let (sender, mut receiver) = client.split();
        if by_drop {
            // After 1001 a client may come back. The session itself has ended cleanly.
            limit(sender.delivered()).await.unwrap();
        } else {
            assert!(matches!(limit(receiver.recv()).await, Ok(None)));
        }
        closing.await.unwrap();
        assert!(sender.take_undelivered().is_empty());
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_gets_the_deadline_and_the_closer_gets_the_rest_back() {
    let (_server, client, session) = both().await;
    send_numbers(&client, 0..100).await;
    until("all have come", || session.stats().inbox.messages == 100).await;
    let report = hurried(closed(&client)).await;
    assert!(!report.clean);
    let mut back = report.maybe_delivered;
    back.extend(report.unsent);
    assert_eq!(back, numbers(0..100));
    let lost = report.error.expect("a reason");
    assert!(matches!(
        *lost,
        ConnectionError::SessionLost(SessionLoss::CloseTimedOut)
    ));
    // The messages that had arrived are still received, then the reason.
    let mut session = session;
    let (messages, why) = up_to_the_loss(&mut session).await;
    assert_eq!(messages, numbers(0..100));
    assert!(
        matches!(
            why,
            SessionLoss::AbortedByPeer(_) | SessionLoss::CloseTimedOut
        ),
        "{why:?}"
    );
}

/// Once a close waited for room in the session before it began, and its deadline began only then. With a
/// full replay and no peer it lasted for the session's whole life.
#[tokio::test]
async fn a_full_replay_without_a_connection_keeps_the_deadline() {
    let server = bind(Server::builder().options(options())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let options = options()
        .replay_bytes(1)
        .max_message_bytes(64 << 10)
        .outbox_bytes(1 << 20);
    let (client, _session) = pair(&server, client(proxy.address).options(options)).await;
    let mut sent = 0;
    while client.try_send(vec![sent as u8; 20_000]).is_ok() || client.stats().outbox.bytes < 500_000
    {
        sent += 1;
        tokio::task::yield_now().await;
    }
    let mut events = client.events();
    proxy.set(Mode::Cut);
    disconnected(&mut events).await;
    let queued = client.stats().outbox.messages;
    let report = hurried(closed(&client)).await;
    assert!(!report.clean && queued > 0);
    assert!(
        report.unsent.len() >= queued,
        "{} of {queued}",
        report.unsent.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_while_detached_is_completed_when_the_connection_is_back() {
    let server = bind(Server::builder().options(Options::default())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let (client, session) = pair(&server, client(proxy.address)).await;
    let mut events = client.events();
    proxy.set(Mode::Cut);
    disconnected(&mut events).await;
    send_numbers(&client, 0..10).await;
    let closing = tokio::spawn(async move { client.close(CloseCode::NORMAL, "").await });
    proxy.set(Mode::Forward);
    let (messages, _session) = read_to_end(session).await;
    assert_eq!(messages, numbers(0..10));
    assert!(limit(closing).await.unwrap().clean);
}

/// Once messages that a handler had not received were acknowledged when the handler ended. The producer
/// believed that they were delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_ends_or_panics_acknowledges_only_what_it_received() {
    for panics in [false, true] {
        let server = bind(Server::builder().options(options())).await;
        let serving = server.clone();
        let (arrived, mut all) = tokio::sync::mpsc::channel::<()>(1);
        tokio::spawn(async move {
            serving
                .serve(move |mut session| {
                    let arrived = arrived.clone();
                    async move {
                        for _ in 0..3 {
                            session.recv().await.unwrap();
                        }
                        // The rest waits in the receiver's hand when the handler ends.
                        until("the rest", || session.stats().messages_received == 10).await;
                        arrived.send(()).await.unwrap();
                        assert!(!panics, "the handler panics as it should");
                    }
                })
                .await;
        });
        let client = client(server.local_addr())
            .options(options())
            .without_fresh_session();
        let mut client = client.connect().await.unwrap();
        send_numbers(&client, 0..10).await;
        limit(all.recv()).await.unwrap();
        let start = Instant::now();
        let (_, why) = up_to_the_loss(&mut client).await;
        assert!(start.elapsed() < DEADLINE + SLACK);
        let SessionLoss::AbortedByPeer(why) = why else {
            panic!("{why:?}")
        };
        assert!(why.contains(if panics { "1011" } else { "1001" }), "{why}");
        let report = limit(client.close(CloseCode::NORMAL, "")).await;
        assert_eq!(report.maybe_delivered, numbers(3..10), "panics: {panics}");
        assert!(report.unsent.is_empty());
    }
}

/// Once a task that was dropped lost the messages that it had accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_cut_gives_everything_back_and_the_other_side_knows_at_once() {
    let server = bind(Server::builder()).await;
    let client = client(server.local_addr()).without_fresh_session();
    let (mut client, session) = pair(&server, client).await;
    send_numbers(&session, 0..20).await;
    session.flush().await.unwrap();
    let (sender, receiver) = session.split();
    let report = limit(server.shutdown(Duration::ZERO)).await;
    assert_eq!(report.aborted, 1);
    let ended = limit(sender.ended()).await;
    let mut back = ended.maybe_delivered;
    back.extend(ended.unsent);
    assert_eq!(back, numbers(0..20));
    drop(receiver);
    let mut events = client.events();
    disconnected(&mut events).await;
    // This side had received all of them, so it gets them, whatever becomes of the session.
    for index in 0..20 {
        assert_eq!(text(&mut client).await, index.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_handles_deliver_what_they_sent() {
    for server_drops in [false, true] {
        let (_server, client, session) = both().await;
        let (dropped, kept) = if server_drops {
            (session, client)
        } else {
            (client, session)
        };
        send_numbers(&dropped, 0..100).await;
        drop(dropped);
        let mut kept = kept;
        for index in 0..100 {
            assert_eq!(text(&mut kept).await, index.to_string());
        }
    }
}

/// The other side sends without end, and this side has no receiver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_end_to_a_dropped_receiver_does_not_hold_the_close_up() {
    for _ in 0..20 {
        let (_server, client, session) = both().await;
        let (endless, _unread) = session.split();
        let streaming = tokio::spawn(async move {
            while endless.send(vec![0; 16 << 10]).await.is_ok() {}
            endless
        });
        let (sender, mut receiver) = client.split();
        limit(receiver.recv()).await.unwrap();
        drop(receiver);
        let start = Instant::now();
        let report = limit(sender.close(CloseCode::NORMAL, "enough")).await;
        let took = start.elapsed();
        assert!(report.clean && took < DEADLINE, "{took:?} {report:?}");
        limit(streaming).await.unwrap();
    }
}

/// Once all clients came back to the next server at the same moment. And what they sent from then on was
/// refused, because the peer's close had closed their outbox.
///
/// Once, on a fast machine, the report had 18 closed connections of 20. Two had ended after they were
/// asked to close and before they were counted.
#[tokio::test]
async fn shutdown_delivers_and_sends_the_clients_elsewhere_spread_over_the_window() {
    const CLIENTS: usize = 20;
    let address = unused_address();
    let old = Server::bind(address).await.unwrap();
    let mut clients = Vec::new();
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS {
        let (client, session) = pair(&old, client(address)).await;
        session.send("last words").await.unwrap();
        clients.push(client);
        sessions.push(tokio::spawn(read_to_end(session)));
    }
    let reading = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            assert_eq!(text(&mut client).await, "last words");
            let gap = limit(client.recv()).await;
            assert!(
                matches!(gap, Ok(Some(Incoming::Gap(Gap::SessionLost { .. })))),
                "{gap:?}"
            );
            client.send("here again").await.unwrap();
            client
        })
    });
    let reading: Vec<_> = reading.collect();
    let report = limit(old.shutdown(Duration::from_secs(10))).await;
    assert_eq!((report.closed, report.aborted), (CLIENTS, 0));
    drop(old);
    let start = Instant::now();
    let new = bind_again(Server::builder(), address).await;
    let (mut arrivals, mut kept) = (Vec::new(), Vec::new());
    hurried(async {
        for _ in 0..CLIENTS {
            let mut session = limit(new.accept()).await.unwrap();
            arrivals.push(start.elapsed());
            assert_eq!(text(&mut session).await, "here again");
            kept.push(session);
        }
    })
    .await;
    for client in reading {
        let _ = client.await.unwrap();
    }
    // The window is ten seconds. The first and the last of twenty random moments in it are far from each
    // other, except one time in ten million.
    let spread = *arrivals.last().unwrap() - arrivals[0];
    println!("{CLIENTS} clients came back over {spread:?}");
    assert!(spread > Duration::from_secs(3), "{arrivals:?}");
}

/// Once a handler that split its connection and returned early acknowledged what nobody had
/// received: its receiver is dropped a moment before its sender. The client's `delivered` was done,
/// and its close was clean.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_splits_and_returns_took_only_what_it_took() {
    for panics in [false, true] {
        let server = bind(Server::builder().options(options())).await;
        serve(&server, move |session| async move {
            let (_sender, mut receiver) = session.split();
            for _ in 0..3 {
                receiver.recv().await.unwrap();
            }
            until("the rest", || receiver.stats().messages_received == 10).await;
            assert!(!panics, "the handler panics as it should");
        });
        let client = client(server.local_addr())
            .options(options())
            .without_fresh_session();
        let mut client = client.connect().await.unwrap();
        send_numbers(&client, 0..10).await;
        let delivered = limit(client.delivered()).await;
        assert!(
            matches!(delivered, Err(DeliveryError::Lost { messages: 7 })),
            "{delivered:?}"
        );
        up_to_the_loss(&mut client).await;
        let report = limit(client.close(CloseCode::NORMAL, "")).await;
        assert!(!report.clean);
        assert_eq!(report.maybe_delivered, numbers(3..10), "panics: {panics}");
    }
}
