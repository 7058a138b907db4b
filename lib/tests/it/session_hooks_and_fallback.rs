//! The hook runs once for each fresh session, and a failed run leaves no trace. A server without
//! sessions gets a plain connection. Sessions and plain connections work through TLS and proxies.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::common::{
    echo, echoed,
    events::{disconnected, event, resumed},
    frames::{listen, read_head},
    limit,
    net::{Certificate, bind, echo_server},
    proxy::{Mode, Proxy},
    sessions::{client, foreign, pair, quick, quick_client, text},
    until,
};
use axum::{Router, extract::State, response::Response, routing::any};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};
use unstall::{
    Client, CloseCode, ConnectError, Connection, ConnectionError, Event, Gap, Incoming, Message,
    Options, Server, SessionLoss, Sessions, axum::Upgrade,
    tokio_tungstenite::tungstenite::protocol::CloseFrame,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_runs_once_for_a_session_and_not_when_it_resumes() {
    let server = bind(Server::builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let client = client(proxy.address).on_connect(move |mut setup| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            setup.send("subscribe").await?;
            assert_eq!(setup.recv().await?.as_text(), Some("subscribed"));
            Ok(())
        }
    });
    let (mut client, mut session) = pair(&server, client).await;
    let mut events = client.events();
    client.send("queued").await.unwrap();
    assert_eq!(text(&mut session).await, "subscribe", "the hook goes first");
    session.send("subscribed").await.unwrap();
    session.send("first").await.unwrap();
    assert_eq!(text(&mut session).await, "queued");
    assert_eq!(
        text(&mut client).await,
        "first",
        "the hook took its own answer"
    );
    for round in 0..3 {
        proxy.set(Mode::Cut);
        disconnected(&mut events).await;
        proxy.set(Mode::Forward);
        resumed(&mut events).await;
        client.send(format!("up {round}")).await.unwrap();
        session.send(format!("down {round}")).await.unwrap();
        assert_eq!(text(&mut session).await, format!("up {round}"));
        assert_eq!(text(&mut client).await, format!("down {round}"));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let (closed, end) = tokio::join!(
        limit(client.close(CloseCode::NORMAL, "")),
        limit(session.recv())
    );
    assert!(matches!(end, Ok(None)));
    assert!(closed.clean);
}

/// Once, after a hook had failed, its messages came back from `take_undelivered`. Those that still waited
/// for the session were sent again in the next one. And its flushed messages counted as the
/// application's, so the statistics of the outbox fell below zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_leaves_nothing_behind() {
    let server = bind(Server::builder()).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let client = quick_client(server.local_addr()).on_connect(move |setup| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            setup.send(format!("hook {run}")).await?;
            if run < 3 {
                setup.flush().await?;
                // This is more than the credit, so much of it is never sent.
                for _ in 0..20 {
                    setup.send(vec![7; 100_000]).await?;
                }
                return Err("not today".into());
            }
            Ok(())
        }
    });
    let mut client = client.connect().await.unwrap();
    client.send("the application's").await.unwrap();
    let mut lost = 0;
    let mut session = loop {
        let mut session = limit(server.accept()).await.unwrap();
        match limit(session.recv()).await {
            Ok(Some(Incoming::Message(message))) if message.as_text() == Some("hook 3") => {
                break session;
            }
            Ok(Some(Incoming::Message(message))) => {
                assert_eq!(message.as_text(), Some(format!("hook {lost}").as_str()));
                lost += 1;
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(text(&mut session).await, "the application's");
    session.send("down").await.unwrap();
    // Nobody has read, so the lost sessions are one gap.
    let gap = limit(client.recv()).await;
    assert!(
        matches!(gap, Ok(Some(Incoming::Gap(Gap::SessionLost { .. })))),
        "{gap:?}"
    );
    assert_eq!(text(&mut client).await, "down");
    assert_eq!(client.stats().outbox.messages, 0);
    let (delivered, _) = tokio::join!(
        limit(client.delivered()),
        tokio::time::timeout(Duration::from_millis(500), session.recv())
    );
    delivered.unwrap();
    let (sender, _receiver) = client.split();
    assert!(sender.take_undelivered().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_in_the_hook_begins_another_session() {
    let server = bind(Server::builder()).await;
    let proxy = Arc::new(Proxy::to(server.local_addr()).await);
    let runs = Arc::new(AtomicU32::new(0));
    let (counted, cutting) = (runs.clone(), proxy.clone());
    let client = client(proxy.address).on_connect(move |mut setup| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let cutting = cutting.clone();
        async move {
            setup.send("hello").await?;
            if first {
                setup.flush().await?;
                cutting.set(Mode::Cut);
                setup.recv().await?;
            }
            Ok(())
        }
    });
    let mut client = client.connect().await.unwrap();
    client.send("mine").await.unwrap();
    let mut events = client.events();
    disconnected(&mut events).await;
    proxy.set(Mode::Forward);
    until("both runs", || runs.load(Ordering::SeqCst) == 2).await;
    let mut session = limit(server.accept()).await.unwrap();
    // The first session may have opened before the cut.
    if server.stats().accepted > 1 {
        let second = tokio::time::timeout(Duration::from_secs(2), server.accept()).await;
        session = second.ok().flatten().unwrap_or(session);
    }
    assert_eq!(text(&mut session).await, "hello");
    assert_eq!(text(&mut session).await, "mine", "once, and after the hook");
    session.send("down").await.unwrap();
    let first = limit(client.recv()).await.unwrap().unwrap();
    if let Incoming::Gap(_) = first {
        assert_eq!(text(&mut client).await, "down");
    }
}

/// A foreign server that echoes. `agrees`: it accepts the first subprotocol that is offered.
async fn foreign_echo(agrees: bool) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut ws) = foreign(tcp, agrees).await else {
                    return;
                };
                while let Some(Ok(message)) = ws.next().await {
                    if message.is_text() || message.is_binary() {
                        ws.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

/// Once the client took the echo of its HELLO for a broken session, and tried for ever. Later it fell
/// back to a plain connection and told nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_server_gets_a_plain_connection() {
    for agrees in [false, true] {
        let address = foreign_echo(agrees).await;
        let mut connection = quick_client(address).connect().await.unwrap();
        echoed(&mut connection, "one").await;
        echoed(&mut connection, "two").await;
        assert!(!connection.is_session(), "agrees: {agrees}");
        if agrees {
            let told = |event: &Event| matches!(event, Event::SessionNotSpoken);
            event(&mut connection.events(), told).await;
        }
        assert!(connection.delivered().await.is_err());

        let required = quick_client(address).require_session().connect().await;
        match (agrees, required) {
            (false, Err(ConnectError::Subprotocol { .. })) => {}
            (true, Ok(mut connection)) => {
                // The echo of the HELLO may come before the message or after it.
                let sent = connection.send("for sessions only").await;
                let end = limit(connection.recv()).await;
                let expected = ConnectionError::SessionLost(SessionLoss::NotSpoken);
                assert_eq!(end.unwrap_err().to_string(), expected.to_string());
                let report = connection.close(CloseCode::NORMAL, "").await;
                let refused = sent.err().map(|error| error.message);
                let given_back: Vec<_> = refused.into_iter().chain(report.unsent).collect();
                assert_eq!(given_back, [Message::from("for sessions only")]);
            }
            (_, other) => panic!("agrees: {agrees}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_serves_both() {
    let server = echo_server(Server::builder()).await;
    let mut session = quick_client(server.local_addr()).connect().await.unwrap();
    let mut plainly = quick_client(server.local_addr())
        .plain()
        .connect()
        .await
        .unwrap();
    for (connection, is_session) in [(&mut session, true), (&mut plainly, false)] {
        assert_eq!(connection.is_session(), is_session);
        echoed(connection, "both").await;
    }
    let plain_server = echo_server(Server::builder().plain()).await;
    let mut connection = quick_client(plain_server.local_addr())
        .connect()
        .await
        .unwrap();
    assert!(!connection.is_session());
    echoed(&mut connection, "plain").await;
    let required = client(plain_server.local_addr()).connect().await;
    assert!(matches!(required, Err(ConnectError::Subprotocol { .. })));
}

/// Sends while the connection is cut, and expects everything back.
async fn survives_a_cut(mut connection: Connection, proxy: &Proxy) {
    let mut events = connection.events();
    assert!(connection.is_session());
    echoed(&mut connection, "before").await;
    proxy.set(Mode::Cut);
    disconnected(&mut events).await;
    connection.send("during").await.unwrap();
    proxy.set(Mode::Forward);
    assert_eq!(text(&mut connection).await, "during");
    assert_eq!(connection.stats().resumes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_resume_through_axum() {
    async fn route(State(sessions): State<Sessions>, upgrade: Upgrade) -> Response {
        upgrade.sessions(&sessions).on_upgrade(echo)
    }
    let sessions = Sessions::default();
    let app = Router::new()
        .route("/", any(route))
        .with_state(sessions.clone());
    let (listener, address) = listen().await;
    let proxy = Proxy::to(address).await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    let connection = client(proxy.address).connect().await.unwrap();
    survives_a_cut(connection, &proxy).await;
    until("the session is gone with its client", || {
        sessions.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_resume_over_tls() {
    let certificate = Certificate::new();
    let server = echo_server(certificate.serve(Server::builder())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let connection = Client::new(format!("wss://localhost:{}/", proxy.address.port()))
        .tls(certificate.client())
        .require_session()
        .reconnect(quick());
    survives_a_cut(connection.connect().await.unwrap(), &proxy).await;
}

/// A proxy for CONNECT and SOCKS5 that forwards to the requested address.
async fn tunnel(socks: bool) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let target = match socks {
                    true => socks_target(&mut client).await,
                    false => connect_target(&mut client).await,
                };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

async fn connect_target(client: &mut TcpStream) -> SocketAddr {
    let head = read_head(client).await;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn socks_target(client: &mut TcpStream) -> SocketAddr {
    assert_eq!(client.read_u8().await.unwrap(), 5);
    let methods = client.read_u8().await.unwrap();
    client
        .read_exact(&mut vec![0; methods.into()])
        .await
        .unwrap();
    client.write_all(&[5, 0]).await.unwrap();
    let mut request = [0; 4];
    client.read_exact(&mut request).await.unwrap();
    let host = match request[3] {
        1 => {
            let mut ip = [0; 4];
            client.read_exact(&mut ip).await.unwrap();
            std::net::Ipv4Addr::from(ip).to_string()
        }
        3 => {
            let mut name = vec![0; client.read_u8().await.unwrap().into()];
            client.read_exact(&mut name).await.unwrap();
            String::from_utf8(name).unwrap()
        }
        other => panic!("address type {other}"),
    };
    let port = client.read_u16().await.unwrap();
    client
        .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    format!("{host}:{port}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_resume_through_connect_and_socks5() {
    for (socks, scheme) in [(false, "http"), (true, "socks5")] {
        let server = echo_server(Server::builder()).await;
        let proxy = Proxy::to(server.local_addr()).await;
        let tunnel = tunnel(socks).await;
        let connection = client(proxy.address).proxy(format!("{scheme}://{tunnel}"));
        survives_a_cut(connection.connect().await.unwrap(), &proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_word_of_a_session_is_plain_too() {
    let server = bind(Server::builder()).await;
    let (mut client, session) = pair(&server, client(server.local_addr())).await;
    session.send("bye").await.unwrap();
    let closing = tokio::spawn(async move { session.close(CloseCode::NORMAL, "done").await });
    assert_eq!(text(&mut client).await, "bye");
    assert!(matches!(limit(client.recv()).await, Ok(None)));
    let report = limit(closing).await.unwrap();
    assert!(report.clean && report.maybe_delivered.is_empty());
}

/// What a server does on a client's first connection, which has agreed to a session, after HELLO.
#[derive(Clone, Copy)]
enum Beginning {
    /// It says nothing.
    Silence,
    /// It closes with this code.
    Close(u16),
}

/// Where the first connection goes like that, and all others go to `server`.
async fn badly_begun(server: &Server, beginning: Beginning) -> SocketAddr {
    let (listener, address) = listen().await;
    let to = server.local_addr();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut first = foreign(tcp, true).await.unwrap();
        let _hello = first.next().await;
        if let Beginning::Close(code) = beginning {
            let (code, reason) = (code.into(), "".into());
            first
                .close(Some(CloseFrame { code, reason }))
                .await
                .unwrap();
        }
        let first = async { while let Some(Ok(_)) = first.next().await {} };
        let others = async {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    // Either may be cut.
                    let _ = copy_bidirectional(&mut tcp, &mut server).await;
                });
            }
        };
        tokio::join!(first, others);
    });
    address
}

/// Once a server that left HELLO unanswered for ten seconds made the connection plain for as long
/// as it lived, and a close with 1008 before WELCOME turned sessions off: an overloaded server cost
/// the promises of a session, in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_slow_or_refuses_by_its_policy_is_asked_for_a_session_again() {
    for beginning in [Beginning::Silence, Beginning::Close(1008)] {
        let server = bind(Server::builder()).await;
        let address = badly_begun(&server, beginning).await;
        let options = Options::default().connect_timeout(Duration::from_millis(500));
        let connecting = quick_client(address).options(options).connect();
        let client = limit(connecting).await.unwrap();
        let mut events = client.events();
        client.send("sent meanwhile").await.unwrap();
        let why = disconnected(&mut events).await;
        match beginning {
            Beginning::Silence => {
                assert!(matches!(*why, ConnectionError::HelloUnanswered(_)), "{why}");
            }
            Beginning::Close(_) => {
                assert!(matches!(*why, ConnectionError::ClosedByPeer(_)), "{why}");
            }
        }
        let mut session = limit(server.accept()).await.unwrap();
        assert!(session.is_session());
        assert_eq!(text(&mut session).await, "sent meanwhile");
        limit(client.flush()).await.unwrap();
        assert!(client.is_session());
    }
}

/// The sibling: where a server does not speak what it agreed to, the next connection is plain, but
/// not all that follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_one_plain_connection_a_session_is_asked_for_again() {
    let server = bind(Server::builder()).await;
    let address = badly_begun(&server, Beginning::Close(1002)).await;
    let connecting = quick_client(address).connect();
    let mut client = limit(connecting).await.unwrap();
    let plain = limit(server.accept()).await.unwrap();
    assert!(!plain.is_session());
    drop(plain);
    let session = limit(server.accept()).await.unwrap();
    assert!(session.is_session());
    session.send("in a session").await.unwrap();
    let received = async {
        loop {
            match client.recv().await.unwrap().unwrap() {
                Incoming::Message(message) => return message,
                Incoming::Gap(gap) => assert!(matches!(gap, Gap::Reconnected { .. }), "{gap:?}"),
            }
        }
    };
    assert_eq!(limit(received).await.as_text(), Some("in a session"));
    assert!(client.is_session());
}
