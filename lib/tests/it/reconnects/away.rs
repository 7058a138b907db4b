//! While there is no connection, sent messages wait, and a close ends in time.

use super::*;

/// A client that has lost its connection and waits for a long time before the next attempt.
async fn away(options: Options) -> (Connection, Events) {
    let (listener, address) = listen().await;
    let client = client(address).options(options).reconnect(far());
    let (connection, server) = connect(client, &listener).await;
    let mut events = connection.events();
    drop(server);
    reconnecting(&mut events).await;
    (connection, events)
}

#[tokio::test]
async fn messages_queued_while_away_wait_for_the_next_connection_in_order() {
    limit(async {
        let (listener, address) = listen().await;
        let client = client(address).reconnect(
            fast()
                .first(Duration::from_millis(200))
                .max(Duration::from_millis(200)),
        );
        let (connection, server) = connect(client, &listener).await;
        let mut events = connection.events();
        drop(server);
        disconnected(&mut events).await;
        for index in 0..100 {
            connection.send(format!("{index}")).await.unwrap();
        }
        let mut server = upgrade(&listener).await;
        for index in 0..100 {
            assert_eq!(text(&mut server).await, format!("{index}"));
        }
        connection.flush().await.unwrap();
    })
    .await;
}

/// Once expired messages kept their room in the outbox until the next attempt to connect.
#[tokio::test]
async fn messages_expire_while_away_and_make_room() {
    limit(async {
        let options = Options::default()
            .outbox_bytes(4096)
            .close_timeout(Duration::from_millis(300));
        let (connection, mut events) = away(options).await;
        let payload = "x".repeat(1000);
        for _ in 0..3 {
            connection
                .send_within(&*payload, Duration::from_millis(50))
                .await
                .unwrap();
        }
        // There is no room until they expire.
        connection.send("stays").await.unwrap();
        let later = leap(Duration::from_secs(1));
        tokio::join!(connection.send(payload), later).0.unwrap();
        let expired = wait_for(&mut events, |event| match event {
            Event::Expired { messages } => Some(*messages),
            _ => None,
        });
        assert_eq!(expired.await, 3);
        assert_eq!(connection.stats().expired, 3);
        let report = connection.close(CloseCode::NORMAL, "").await;
        assert_eq!(report.unsent.len(), 2);
        assert_eq!(report.unsent[0], Message::from("stays"));
    })
    .await;
}

#[tokio::test]
async fn lazy_connection_accepts_before_there_is_a_server() {
    limit(async {
        // Bound, but not listening: the port stays this test's own.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let options = Options::default().stall_after(Duration::from_millis(50));
        let connection = client(address).options(options).connect_lazy().unwrap();
        let mut events = connection.events();
        connection.send("early").await.unwrap();
        stalled(&mut events, StallCause::Connecting).await;
        let listener = socket.listen(16).unwrap();
        let mut server = upgrade(&listener).await;
        assert_eq!(text(&mut server).await, "early");
        moving(&mut events, StallCause::Connecting).await;
    })
    .await;
    assert!(Client::new("ftp://nowhere").connect_lazy().is_err());
}

/// A long close timeout: a close that waits for it does not end in time.
fn patient() -> Options {
    Options::default().close_timeout(Duration::from_secs(30))
}

/// In each state without a connection, `close` returns in time with the unsent messages.
async fn closes_while_away(connection: Connection, queued: usize) {
    for index in 0..queued {
        connection.send(format!("{index}")).await.unwrap();
    }
    let started = Instant::now();
    let report = connection.close(CloseCode::NORMAL, "bye").await;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let unsent: Vec<_> = report
        .unsent
        .iter()
        .map(|message| message.as_text().unwrap())
        .collect();
    let wanted: Vec<_> = (0..queued).map(|index| index.to_string()).collect();
    assert_eq!(unsent, wanted);
    assert!(report.error.is_none(), "{report:?}");
}

#[tokio::test]
async fn close_during_the_backoff_returns_at_once_with_the_unsent() {
    limit(async {
        let (connection, _events) = away(patient()).await;
        closes_while_away(connection, 3).await;
    })
    .await;
}

#[tokio::test]
async fn close_during_the_dial_returns_at_once_with_the_unsent() {
    limit(async {
        let (listener, address) = listen().await;
        let client = client(address).options(patient());
        let connection = client.connect_lazy().unwrap();
        // The server never answers the request.
        let _silent = listener.accept().await.unwrap();
        closes_while_away(connection, 3).await;
    })
    .await;
}

/// Once the peer received the close code of the hook instead of the application's.
#[tokio::test]
async fn close_during_the_hook_returns_in_time_with_the_unsent() {
    limit(async {
        let (listener, address) = listen().await;
        let client = client(address).on_connect(|_setup| std::future::pending());
        let (connection, server) = connect(client, &listener).await;
        let ((), frame) = tokio::join!(closes_while_away(connection, 3), closes(server));
        assert_eq!(
            (u16::from(frame.code), frame.reason.as_str()),
            (1000, "bye")
        );
    })
    .await;
}

#[tokio::test]
async fn dropped_handles_end_the_task_while_away() {
    limit(async {
        let (connection, mut events) = away(Options::default()).await;
        drop(connection);
        ended(&mut events).await;
    })
    .await;
}
