//! A server's places belong to open connections. A session without a connection takes none, and a
//! client that resumes its session always finds one.

use std::time::Duration;

use crate::common::{
    echo,
    events::reconnecting,
    frames::upgrade,
    limit,
    net::{answer, ask, bind, connect_plain, serve, status},
    sessions::{Raw, client, pair, text},
    until,
};
use tokio::net::TcpStream;
use unstall::{CloseCode, Connection, Server, ServerLimits, SessionLimits};
use unstall_proto::{Packet, Rejection};

async fn full(connections: usize) -> Server {
    let limits = ServerLimits::default().max_connections(connections);
    bind(Server::builder().limits(limits)).await
}

fn is_full(answer: &Packet) -> bool {
    matches!(answer, Packet::Reject(Rejection::Full { .. }))
}

/// Once the handler of a session kept the place of its first connection. The second connection needed
/// another place, and got 503 until the session had expired.
#[tokio::test]
async fn a_session_resumes_at_a_server_that_has_room_for_one_connection() {
    let server = full(1).await;
    serve(&server, echo);
    let mut raw = Raw::new(server.local_addr(), 1);
    assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    for round in 0..3 {
        drop(raw.ws.take());
        let answer = raw.attach().await;
        assert!(matches!(answer, Packet::Welcome(_)), "{round}: {answer:?}");
    }
    until("the older ones are gone", || server.stats().open == 1).await;
    let stats = server.stats();
    assert_eq!((stats.sessions_resumed, stats.sessions), (3, 1));
}

/// Once, above half of the places, sessions that were cut together could not all resume.
#[tokio::test]
async fn of_a_full_server_all_sessions_come_back_though_others_took_their_places() {
    const SESSIONS: u8 = 20;
    let limits = ServerLimits::default()
        .max_connections(SESSIONS.into())
        .connections_per_address(SESSIONS.into());
    let server = bind(Server::builder().limits(limits)).await;
    serve(&server, echo);
    let address = server.local_addr();
    let mut raws: Vec<_> = (0..SESSIONS).map(|id| Raw::new(address, id)).collect();
    for raw in &mut raws {
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    }
    assert!(is_full(&Raw::new(address, SESSIONS).attach().await));
    raws.iter_mut().for_each(|raw| drop(raw.ws.take()));
    until("their places are free", || server.stats().open == 0).await;
    let mut others = Vec::new();
    for _ in 0..SESSIONS {
        others.push(connect_plain(address).await);
    }
    assert_eq!(status(&answer(address, &upgrade("")).await), 503);
    for raw in &mut raws {
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    }
    let stats = server.stats();
    assert_eq!(stats.open, 2 * usize::from(SESSIONS));
    assert_eq!(stats.sessions_resumed, SESSIONS.into());
    assert_eq!(stats.refused.connections, 2, "a session and a plain one");
    assert!(
        is_full(&Raw::new(address, SESSIONS).attach().await),
        "it is as full as before"
    );
}

/// Once 10,000 sessions that were opened and left locked out every client, their own too.
#[tokio::test]
async fn sessions_without_a_connection_take_no_place() {
    const SESSIONS: u8 = 100;
    let server = full(4).await;
    serve(&server, echo);
    let address = server.local_addr();
    let mut raws: Vec<_> = (0..SESSIONS).map(|id| Raw::new(address, id)).collect();
    for raw in &mut raws {
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
        drop(raw.ws.take());
        until("its place is free", || server.stats().open == 0).await;
    }
    assert_eq!(server.stats().sessions, usize::from(SESSIONS));
    let plain = connect_plain(address).await;
    for raw in &mut raws {
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    }
    assert_eq!(server.stats().open, 1 + usize::from(SESSIONS));
    drop(plain);
}

#[tokio::test]
async fn a_new_session_at_a_full_server_is_told_so_after_hello_and_when_to_come_back() {
    let limits = ServerLimits::default()
        .max_connections(1)
        .retry_after(Duration::from_secs(7));
    let server = bind(Server::builder().limits(limits)).await;
    let address = server.local_addr();
    let open = connect_plain(address).await;
    let mut raw = Raw::new(address, 1);
    let retry_after_millis = 7_000;
    let full = Packet::Reject(Rejection::Full { retry_after_millis });
    assert_eq!(raw.attach().await, full);
    drop(open);
    drop(server.accept().await);
    until("the place is free", || server.stats().open == 0).await;
    assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    assert_eq!(server.stats().refused.connections, 1);
}

/// A client of the library waits as long as the server says, and then resumes its session.
#[tokio::test]
async fn a_client_waits_for_a_place_at_a_full_server() {
    let limits = ServerLimits::default()
        .max_connections(1)
        .retry_after(Duration::from_secs(1));
    let server = bind(Server::builder().limits(limits)).await;
    let open = connect_plain(server.local_addr()).await;
    drop(server.accept().await);
    let mut client = client(server.local_addr()).connect().await.unwrap();
    let mut events = client.events();
    reconnecting(&mut events).await;
    drop(open);
    let session = limit(server.accept()).await.unwrap();
    session.send("welcome").await.unwrap();
    assert_eq!(text(&mut client).await, "welcome");
}

/// A handler may outlive its connection. A client cannot make more such handlers than there are places.
#[tokio::test]
async fn a_plain_connection_keeps_its_place_until_its_handler_has_ended() {
    let server = full(1).await;
    let (ends, end) = tokio::sync::watch::channel(false);
    serve(&server, move |connection| {
        let mut end = end.clone();
        async move {
            drop::<Connection>(connection);
            let _ = end.wait_for(|end| *end).await;
        }
    });
    let mut first = TcpStream::connect(server.local_addr()).await.unwrap();
    let head = ask(&mut first, &upgrade("")).await;
    assert_eq!(status(&head), 101);
    drop(first);
    let refused = answer(server.local_addr(), &upgrade("")).await;
    assert_eq!(status(&refused), 503);
    assert_eq!(server.stats().open, 1);
    ends.send(true).unwrap();
    until("the place is free", || server.stats().open == 0).await;
    let _ = connect_plain(server.local_addr()).await;
}

/// The same for a session, whose handler may go on when the session has ended.
#[tokio::test]
async fn handlers_that_outlive_their_session_are_no_more_than_twice_the_sessions() {
    let sessions = SessionLimits::default().sessions(3);
    let server = bind(Server::builder().sessions(sessions)).await;
    serve(&server, |connection: Connection| async move {
        let _ = connection.close(CloseCode::NORMAL, "").await;
        std::future::pending().await
    });
    let mut opened = 0;
    for id in 0..10 {
        let mut raw = Raw::new(server.local_addr(), id);
        if is_full(&raw.attach().await) {
            break;
        }
        opened += 1;
        drop(raw.ws.take());
        until("it is without a connection, or gone", || {
            server.stats().open == 0
        })
        .await;
    }
    assert!((3..=6).contains(&opened), "{opened} handlers");
}

/// Once `stats().open` and the report of `shutdown` counted only the first connection of a session.
#[tokio::test]
async fn a_resumed_session_counts_as_open_and_is_closed_by_the_shutdown() {
    let server = bind(Server::builder()).await;
    let (client, session) = pair(&server, client(server.local_addr())).await;
    let mut raw = Raw::new(server.local_addr(), 1);
    assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    let resumed = limit(server.accept()).await.unwrap();
    drop(raw.ws.take());
    until("it is without a connection", || server.stats().open == 1).await;
    assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    until("it is counted again", || server.stats().open == 2).await;
    let detached = {
        let mut raw = Raw::new(server.local_addr(), 2);
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
        limit(server.accept()).await.unwrap()
    };
    until("it is without a connection", || server.stats().open == 2).await;
    // One client answers. The raw one and the one that has left do not.
    drop((session, resumed, detached));
    let report = limit(server.shutdown(Duration::from_millis(500))).await;
    assert_eq!((report.closed, report.aborted), (1, 2));
    assert_eq!((server.stats().open, server.stats().sessions), (0, 0));
    drop(client);
}
