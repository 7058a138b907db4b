//! A shutdown asks every connection to close, and ends in time. A handler's panic ends only its own
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    AMPLE, echo, echoed,
    frames::upgrade,
    limit,
    net::{bind, connect_plain, serve, to_end, unused_address},
    sessions::Raw,
    until,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use unstall::{ConnectionError, Server, Sessions};
use unstall_proto::Packet;

#[tokio::test]
async fn every_connection_is_closed_with_1001_and_every_handler_ends() {
    let server = bind(Server::builder()).await;
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let serve = serve(&server, move |connection| {
        let count = count.clone();
        async move {
            echo(connection).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = connect_plain(server.local_addr()).await;
        echoed(&mut client, "hello").await;
        clients.push(client);
    }
    let report = server.shutdown(AMPLE).await;
    assert_eq!((report.closed, report.aborted), (5, 0));
    assert_eq!(
        ended.load(Ordering::SeqCst),
        5,
        "shutdown waits for the handlers"
    );
    for mut client in clients {
        assert!(
            matches!(client.recv().await, Ok(None)),
            "1001 is a normal end"
        );
        let (sender, _receiver) = client.split();
        let peer = sender.ended().await.peer.expect("the server's close frame");
        assert_eq!(peer.code.unwrap().as_u16(), 1001);
        assert_eq!(peer.reason, "the server shuts down");
    }
    serve.await.unwrap();
    assert!(server.accept().await.is_none());
    assert!(
        TcpStream::connect(server.local_addr()).await.is_err(),
        "nothing listens any more"
    );
}

#[tokio::test]
async fn a_peer_that_does_not_close_and_a_handler_that_does_not_end_are_cut_at_the_deadline() {
    let server = bind(Server::builder()).await;
    let serve = serve(&server, |connection| async move {
        let _connection = connection;
        std::future::pending().await
    });
    // This peer answers no close frame.
    let mut stubborn = TcpStream::connect(server.local_addr()).await.unwrap();
    stubborn.write_all(upgrade("").as_bytes()).await.unwrap();
    let polite = connect_plain(server.local_addr()).await;
    until("both are open", || server.stats().open == 2).await;
    let start = Instant::now();
    let report = server.shutdown(Duration::from_millis(300)).await;
    assert_eq!((report.closed, report.aborted), (0, 2));
    // The deadline, a second of grace, and a loaded machine. The stubborn peer alone would take the 5 s
    // of the close timeout, and the handlers would never end.
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(server.stats().open, 0);
    // The close frame comes, then the end.
    to_end(&mut stubborn).await;
    serve.await.unwrap();
    drop(polite);
}

#[tokio::test]
async fn serving_until_a_signal_ends_in_a_shutdown() {
    let server = bind(Server::builder()).await;
    let (end, ended) = tokio::sync::oneshot::channel();
    let serving = server.clone();
    let serve = tokio::spawn(async move {
        let signal = async { ended.await.unwrap() };
        serving.serve_until(echo, signal, AMPLE).await
    });
    let mut client = connect_plain(server.local_addr()).await;
    echoed(&mut client, "hello").await;
    end.send(()).unwrap();
    let report = serve.await.unwrap();
    assert_eq!((report.closed, report.aborted), (1, 0));
    assert!(matches!(client.recv().await, Ok(None)));
}

/// Two servers, such as one with TLS and one without, may share their sessions.
#[tokio::test]
async fn a_session_goes_on_at_another_server_that_shares_it_until_its_own_shuts_down() {
    let sessions = Sessions::default();
    let bind = || Server::builder().sessions(&sessions).bind("127.0.0.1:0");
    let (one, two) = (bind().await.unwrap(), bind().await.unwrap());
    let serving = serve(&one, echo);
    let mut raw = Raw::new(one.local_addr(), 1);
    assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    let mut elsewhere = raw.thief().to(two.local_addr());
    drop(raw);
    assert!(matches!(elsewhere.attach().await, Packet::Welcome(_)));
    until("it is there", || two.stats().open == 1).await;
    assert_eq!((one.stats().sessions, two.stats().sessions), (1, 1));
    assert_eq!(
        two.shutdown(Duration::ZERO).await.aborted,
        0,
        "it is not its session"
    );
    let report = one.shutdown(Duration::ZERO).await;
    assert_eq!((report.closed, report.aborted), (0, 1));
    assert!(sessions.is_empty());
    serving.await.unwrap();
}

#[tokio::test]
async fn connections_that_nobody_accepted_are_closed_too() {
    let server = bind(Server::builder()).await;
    let mut client = connect_plain(server.local_addr()).await;
    until("it is open", || server.stats().open == 1).await;
    let mut mute = TcpStream::connect(server.local_addr()).await.unwrap();
    until("its handshake is under way", || {
        server.stats().handshaking == 1
    })
    .await;
    let report = server.shutdown(AMPLE).await;
    assert_eq!((report.closed, report.aborted), (1, 0));
    assert!(matches!(client.recv().await, Ok(None)));
    assert_eq!(to_end(&mut mute).await, "");
    assert!(server.accept().await.is_none());
}

#[tokio::test]
async fn a_shutdown_that_was_dropped_can_be_waited_for_again() {
    let server = bind(Server::builder()).await;
    let _client = connect_plain(server.local_addr()).await;
    let connection = server.accept().await.unwrap();
    // One poll begins the shutdown. Then it is dropped while it waits.
    let begun = server.shutdown(AMPLE);
    tokio::select! {
        biased;
        _ = begun => panic!("a connection is open"),
        () = std::future::ready(()) => {}
    }
    assert!(server.accept().await.is_none());
    drop(connection);
    let report = server.shutdown(AMPLE).await;
    assert_eq!((report.closed, report.aborted), (1, 0));
}

#[tokio::test]
async fn a_panicking_handler_ends_its_own_connection_and_nothing_else() {
    let server = bind(Server::builder()).await;
    serve(&server, echo);
    let mut bystander = connect_plain(server.local_addr()).await;
    echoed(&mut bystander, "hello").await;
    let mut victim = connect_plain(server.local_addr()).await;
    victim.send("panic").await.unwrap();
    let end = limit(victim.recv()).await;
    // 1011: "a server is terminating the connection because it encountered an unexpected
    // condition" (RFC 6455 section 7.4.1).
    let Err(ConnectionError::ClosedByPeer(close)) = end else {
        panic!("{end:?}")
    };
    assert_eq!(close.code.unwrap().as_u16(), 1011);
    until("its place is free", || server.stats().open == 1).await;
    assert_eq!(server.stats().handler_panics, 1);
    echoed(&mut bystander, "hello").await;
    let mut newcomer = connect_plain(server.local_addr()).await;
    echoed(&mut newcomer, "hello").await;
}

#[tokio::test]
async fn several_tasks_may_accept_and_one_that_is_cut_loses_nothing() {
    let server = bind(Server::builder()).await;
    // Each `accept` is polled once and dropped. None may lose a connection.
    for _ in 0..3 {
        let accept = server.accept();
        tokio::select! {
            biased;
            _ = accept => panic!("nobody has connected"),
            () = std::future::ready(()) => {}
        }
    }
    let accept = |server: Server| tokio::spawn(async move { server.accept().await.is_some() });
    let waiting: Vec<_> = (0..4).map(|_| accept(server.clone())).collect();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(connect_plain(server.local_addr()).await);
    }
    for task in waiting {
        assert!(limit(task).await.unwrap(), "each gets one");
    }
    let ends = accept(server.clone());
    server.shutdown(AMPLE).await;
    assert!(!ends.await.unwrap());
}

#[tokio::test]
async fn dropping_the_server_stops_the_listening() {
    let server = bind(Server::builder()).await;
    let address = server.local_addr();
    let mut client = connect_plain(address).await;
    let accepted = server.accept().await.unwrap();
    drop(server);
    until("nothing listens", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    // Connections that were handed over go on.
    accepted.send("still here").await.unwrap();
    assert!(client.recv().await.unwrap().is_some());
}

/// Once `shutdown` returned while its listener was still open, and a server that took over the address
/// at once failed with `AddrInUse`.
#[tokio::test]
async fn when_a_shutdown_returns_another_server_can_listen_on_the_address() {
    let address = unused_address();
    let server = Server::builder().bind(address).await.unwrap();
    limit(server.shutdown(AMPLE)).await;
    // No await from here on: nothing can close the listener any more. A child process that another
    // test starts has a copy of it, until it runs its own program.
    let began = Instant::now();
    while let Err(error) = std::net::TcpListener::bind(address) {
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(began.elapsed() < AMPLE / 10, "the listener is open");
        std::thread::sleep(Duration::from_millis(1));
    }
}
