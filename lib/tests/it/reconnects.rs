//! A lost connection is made again. Messages stay in order, and nothing is lost in silence.

mod away;
mod hook;

use crate::common::{
    clock::leap,
    echoed,
    events::{disconnected, ended, moving, reconnecting, rest, stalled, wait_for},
    frames::{header, listen, read_head, switching},
    limit,
    net::{echo_server, unused_address},
    proxy::Proxy,
    until,
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use unstall::{
    Client, CloseCode, ConnectError, Connection, ConnectionError, Event, Events, Gap, Incoming,
    Message, Options, Reconnect, SendRefusal, StallCause,
    tokio_tungstenite::{
        self, WebSocketStream,
        tungstenite::{Message as WsMessage, protocol::CloseFrame},
    },
};

/// Reconnects after a few milliseconds.
fn fast() -> Reconnect {
    Reconnect::default()
        .first(Duration::from_millis(5))
        .max(Duration::from_millis(20))
}

fn client(address: SocketAddr) -> Client {
    Client::new(format!("ws://{address}/feed"))
        .reconnect(fast())
        .options(Options::default().close_timeout(Duration::from_millis(700)))
}

type Server = WebSocketStream<TcpStream>;

async fn upgrade(listener: &TcpListener) -> Server {
    let (tcp, _) = listener.accept().await.unwrap();
    tokio_tungstenite::accept_async(tcp).await.unwrap()
}

/// An hour.
fn far() -> Reconnect {
    let hour = Duration::from_secs(3600);
    Reconnect::default().first(hour).max(hour)
}

/// Connects the client and the server's end of its first connection.
async fn connect(client: Client, listener: &TcpListener) -> (Connection, Server) {
    let (connection, server) = tokio::join!(client.connect(), upgrade(listener));
    (connection.unwrap(), server)
}

/// The next text on the server's end.
async fn text(server: &mut Server) -> String {
    loop {
        match server
            .next()
            .await
            .expect("the connection is open")
            .unwrap()
        {
            WsMessage::Text(text) => return text.to_string(),
            WsMessage::Ping(_) | WsMessage::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn say(server: &mut Server, text: &str) {
    server.send(WsMessage::text(text)).await.unwrap();
}

/// Answers the close frame that is read next, and closes.
async fn closes(mut server: Server) -> CloseFrame {
    let frame = match server.next().await {
        Some(Ok(WsMessage::Close(Some(frame)))) => frame,
        other => panic!("{other:?}"),
    };
    while let Some(Ok(_)) = server.next().await {}
    frame
}

async fn close_with(mut server: Server, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "told so".into(),
    };
    server.close(Some(frame)).await.unwrap();
    while let Some(Ok(_)) = server.next().await {}
}

/// Answers the next request with a plain HTTP answer.
async fn refuse(listener: &TcpListener, answer: &str) -> String {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let head = read_head(&mut tcp).await;
    tcp.write_all(answer.as_bytes()).await.unwrap();
    tcp.shutdown().await.unwrap();
    head
}

async fn expect_gap(connection: &mut Connection) -> Arc<ConnectionError> {
    match connection.recv().await {
        Ok(Some(Incoming::Gap(Gap::Reconnected { why, .. }))) => why,
        other => panic!("a gap was due, not {other:?}"),
    }
}

async fn expect(connection: &mut Connection, wanted: &str) {
    match connection.recv().await {
        Ok(Some(Incoming::Message(message))) => assert_eq!(message.as_text(), Some(wanted)),
        other => panic!("{wanted:?} was due, not {other:?}"),
    }
}

#[tokio::test]
async fn loss_is_marked_in_its_place_and_told_in_order() {
    limit(async {
        let (listener, address) = listen().await;
        let (mut connection, mut server) = connect(client(address), &listener).await;
        let mut events = connection.events();
        say(&mut server, "before").await;
        say(&mut server, "also before").await;
        // The reader is slow. The gap comes after the messages before it.
        drop(server);
        let mut server = upgrade(&listener).await;
        say(&mut server, "after").await;
        expect(&mut connection, "before").await;
        expect(&mut connection, "also before").await;
        let why = expect_gap(&mut connection).await;
        assert!(
            matches!(*why, ConnectionError::EndOfStream | ConnectionError::Io(_)),
            "{why:?}"
        );
        expect(&mut connection, "after").await;
        assert_eq!(connection.stats().connections, 2);
        let _ = tokio::join!(connection.close(CloseCode::NORMAL, ""), closes(server));
        let told = rest(&mut events)
            .await
            .into_iter()
            .map(|event| match event {
                Event::Connected { generation } => format!("connected {generation}"),
                Event::Disconnected { .. } => "disconnected".to_owned(),
                Event::Reconnecting { attempt, .. } => format!("reconnecting {attempt}"),
                Event::PeerClosed(_) => "peer closed".to_owned(),
                Event::Ended { why: None } => "ended".to_owned(),
                other => format!("{other:?}"),
            });
        let told: Vec<_> = told.collect();
        let order = [
            "connected 1",
            "disconnected",
            "reconnecting 1",
            "connected 2",
            "peer closed",
            "ended",
        ];
        assert_eq!(told, order);
    })
    .await;
}

#[tokio::test]
async fn headers_are_made_for_each_attempt() {
    limit(async {
        let (listener, address) = listen().await;
        let client = client(address).headers_with(|attempt| async move {
            let failed = attempt.last_error.is_some();
            let mut headers = HeaderMap::new();
            let token = format!("token {} {failed}", attempt.number);
            headers.insert("authorization", HeaderValue::try_from(token)?);
            Ok(headers)
        });
        let serve = async {
            let mut tokens = Vec::new();
            for status in ["101", "503", "503", "101"] {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let head = read_head(&mut tcp).await;
                tokens.push(header(&head, "authorization").unwrap().to_owned());
                let answer = match status {
                    "101" => switching(&head, ""),
                    _ => "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
            tokens
        };
        let (connection, tokens) = tokio::join!(client.connect(), serve);
        assert_eq!(
            tokens,
            [
                "token 1 false",
                "token 1 false",
                "token 2 true",
                "token 3 true"
            ]
        );
        drop(connection);
    })
    .await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    const WAIT: Duration = Duration::from_secs(20);
    limit(async {
        let (listener, address) = listen().await;
        let (connection, server) = connect(client(address), &listener).await;
        drop(server);
        let answer = "HTTP/1.1 503 Later\r\nretry-after: 20\r\ncontent-length: 0\r\n\r\n";
        refuse(&listener, answer).await;
        let mut events = connection.events();
        let told = wait_for(&mut events, |event| match event {
            Event::Reconnecting { attempt: 2, after } => Some(*after),
            _ => None,
        });
        let told = told.await;
        assert!(told >= WAIT, "{told:?}");
        // A moment before the end of the wait, no client has connected.
        let moment = Duration::from_millis(100);
        leap(told - moment).await;
        let early = tokio::time::timeout(moment / 2, listener.accept()).await;
        assert!(early.is_err(), "too early");
        leap(moment).await;
        let _server = upgrade(&listener).await;
    })
    .await;
}

#[tokio::test]
async fn refusals_that_no_retry_can_mend_stop_at_once_with_status_and_body() {
    for status in [401_u16, 403, 404] {
        limit(async {
            let (listener, address) = listen().await;
            let (mut connection, server) = connect(client(address), &listener).await;
            connection.send("queued").await.unwrap();
            drop(server);
            let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 9\r\n\r\nnot here.");
            refuse(&listener, &answer).await;
            let why = loop {
                match connection.recv().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a normal end"),
                    Err(why) => break why,
                }
            };
            let ConnectionError::Reconnect(why) = why else {
                panic!("{why:?}");
            };
            let ConnectError::Refused {
                status: seen, body, ..
            } = &*why
            else {
                panic!("{why:?}");
            };
            assert_eq!(
                (*seen, body.as_str()),
                (StatusCode::from_u16(status).unwrap(), "not here.")
            );
            assert!(connection.try_send("late").is_err());
        })
        .await;
    }
}

#[tokio::test]
async fn wrong_subprotocol_stops_at_once() {
    limit(async {
        let (listener, address) = listen().await;
        let connection = client(address).subprotocol("v2").connect_lazy().unwrap();
        let (mut tcp, _) = listener.accept().await.unwrap();
        let head = read_head(&mut tcp).await;
        let answer = switching(&head, "sec-websocket-protocol: v1\r\n");
        tcp.write_all(answer.as_bytes()).await.unwrap();
        let (sender, mut receiver) = connection.split();
        let why = receiver.recv().await.unwrap_err();
        let ConnectionError::Reconnect(why) = why else {
            panic!("{why:?}");
        };
        assert!(matches!(&*why, ConnectError::Subprotocol { .. }), "{why:?}");
        assert!(sender.ended().await.error.is_some());
    })
    .await;
}

#[tokio::test]
async fn close_with_1000_ends_and_others_reconnect() {
    limit(async {
        let (listener, address) = listen().await;
        let (mut connection, mut server) = connect(client(address), &listener).await;
        for code in [1001, 1011, 1012, 1013, 4000] {
            tokio::spawn(close_with(server, code));
            server = upgrade(&listener).await;
            let why = expect_gap(&mut connection).await;
            let ConnectionError::ClosedByPeer(close) = &*why else {
                panic!("{why:?}");
            };
            assert_eq!(close.code.unwrap().as_u16(), code);
            assert_eq!(close.reason, "told so");
        }
        close_with(server, 1000).await;
        assert!(matches!(connection.recv().await, Ok(None)));
        let (sender, _) = connection.split();
        let report = sender.ended().await;
        assert!(report.clean && report.error.is_none(), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn policy_violation_is_not_retried() {
    limit(async {
        let (listener, address) = listen().await;
        let (mut connection, server) = connect(client(address), &listener).await;
        close_with(server, 1008).await;
        let end = connection.recv().await;
        assert!(
            matches!(end, Err(ConnectionError::ClosedByPeer(_))),
            "{end:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_client_that_makes_only_sessions_again_ends_with_its_plain_connection() {
    limit(async {
        let (listener, address) = listen().await;
        let client = client(address).reconnect_sessions_only();
        let (mut connection, server) = connect(client, &listener).await;
        close_with(server, 1011).await;
        let end = connection.recv().await;
        assert!(
            matches!(end, Err(ConnectionError::ClosedByPeer(_))),
            "{end:?}"
        );
    })
    .await;
    // A session is made again.
    let server = echo_server(unstall::Server::builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let client = Client::new(format!("ws://{}/", proxy.address)).reconnect_sessions_only();
    let mut session = client.connect().await.unwrap();
    echoed(&mut session, "before the cut").await;
    proxy.cut();
    echoed(&mut session, "after a cut").await;
    assert_eq!(session.stats().resumes, 1);
}

#[tokio::test]
async fn attempts_are_limited_and_the_unsent_comes_back() {
    limit(async {
        let address = unused_address();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let client = client(address).reconnect(fast().attempts(3));
        let (mut connection, server) = connect(client, &listener).await;
        let mut events = connection.events();
        drop(listener);
        drop(server);
        disconnected(&mut events).await;
        // Either the message is queued, or the three attempts were already over.
        let queued = connection.send("queued").await.is_ok();
        let end = connection.recv().await;
        assert!(matches!(end, Err(ConnectionError::Reconnect(_))), "{end:?}");
        let (sender, _) = connection.split();
        assert_eq!(sender.ended().await.unsent.len(), usize::from(queued));
        let rest = rest(&mut events).await.into_iter();
        let failed = rest.filter(|event| matches!(event, Event::AttemptFailed { .. }));
        assert_eq!(failed.count(), 3);
    })
    .await;
}

/// Once a first message did not count as proof if it came in one TCP packet with the upgrade's answer.
///
/// If a server accepts and closes again and again, the bound of the wait doubles with each loss. It
/// starts anew only after a connection that lasted and received something.
#[tokio::test]
async fn waits_start_anew_only_after_a_connection_that_proved_itself() {
    limit(async {
        let (listener, address) = listen().await;
        let proof = Duration::from_millis(300);
        let reconnect = Reconnect::default()
            .first(Duration::from_nanos(1))
            .max(Duration::from_secs(1000))
            .proof(proof);
        let (connection, mut server) =
            connect(client(address).reconnect(reconnect), &listener).await;
        let mut events = connection.events();
        // 2^20 ns is a millisecond: still fast, and far from the first nanosecond.
        for _ in 0..20 {
            drop(server);
            server = upgrade(&listener).await;
        }
        // It lasted, but nothing was received.
        until("the last one", || connection.stats().connections == 21).await;
        leap(proof).await;
        drop(server);
        server = upgrade(&listener).await;
        // Something was received, and it lasted.
        say(&mut server, "proof").await;
        until("it came", || connection.stats().messages_received == 1).await;
        leap(proof).await;
        drop(server);
        let _server = upgrade(&listener).await;
        let mut waits = Vec::new();
        while waits.len() < 22 {
            waits.push(reconnecting(&mut events).await);
        }
        let (proven, earlier) = waits.split_last().unwrap();
        assert!(*proven <= Duration::from_nanos(1), "{waits:?}");
        // Each of the last ten was drawn from at least 2^10 ns: all below 2 ns is beyond chance.
        assert!(
            earlier[11..]
                .iter()
                .any(|wait| *wait > Duration::from_nanos(2)),
            "{waits:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn connect_fails_where_the_first_attempt_fails() {
    limit(async {
        let (listener, address) = listen().await;
        let answer = "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n";
        let (connected, _) = tokio::join!(client(address).connect(), refuse(&listener, answer));
        let error = connected.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    })
    .await;
}
