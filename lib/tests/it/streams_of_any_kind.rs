//! Connectors and listeners of the application's own, and Unix sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use unstall::{
    Client, ConnectError, ConnectPhase, Connection, Incoming, Listener, Options, PeerAddr, Server,
    ServerBuilder, ServerLimits, TrustedProxies,
};

use crate::common::{
    echo, echoed,
    events::resumed,
    limit,
    net::{Certificate, echo_server, serve},
    plain,
    sessions::quick,
};

/// Connections within the process.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(pipe) => Ok((pipe, None)),
            None => std::future::pending().await,
        }
    }
}

/// A server that echoes over pipes, and what connects to it.
fn piped(builder: ServerBuilder) -> (Server, mpsc::Sender<DuplexStream>) {
    let (send, receive) = mpsc::channel(1);
    let server = builder.listener(Pipes(receive)).unwrap();
    serve(&server, echo);
    (server, send)
}

/// A client whose streams are pipes of 64 KiB. The other ends go to `pipes`.
fn over(pipes: mpsc::Sender<DuplexStream>, url: &str) -> Client {
    Client::new(url).reconnect(quick()).connector(move |_| {
        let pipes = pipes.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 << 10);
            pipes.send(far).await.map_err(io::Error::other)?;
            Ok(near)
        }
    })
}

/// A session and a plain connection, over which messages came back.
async fn both_kinds(client: Client) -> (Connection, Connection) {
    let session = limit(client.clone().require_session().connect()).await;
    let plain = limit(client.plain().connect()).await;
    let (mut session, mut plain) = (session.unwrap(), plain.unwrap());
    for text in ["one", "two"] {
        echoed(&mut session, text).await;
        echoed(&mut plain, text).await;
    }
    (session, plain)
}

#[tokio::test]
async fn client_and_server_talk_over_streams_of_their_own() {
    let (server, pipes) = piped(Server::builder());
    assert_eq!(server.local_addr(), "0.0.0.0:0".parse().unwrap());
    let (_session, connection) = both_kinds(over(pipes, "ws://anywhere/")).await;
    assert_eq!(connection.peer_addr(), None);
    assert_eq!(server.stats().open, 2);
}

#[tokio::test]
async fn tls_runs_over_a_stream_of_the_applications_own() {
    let certificate = Certificate::new();
    let (_server, pipes) = piped(certificate.serve(Server::builder()));
    let client = over(pipes, "wss://localhost/").tls(certificate.client());
    echoed(&mut limit(client.connect()).await.unwrap(), "hello").await;
}

/// A session goes on over the next stream when one is cut.
#[tokio::test]
async fn session_resumes_over_the_next_stream_of_a_connector() {
    let (_server, pipes) = piped(Server::builder());
    let (send, mut receive) = mpsc::channel::<DuplexStream>(1);
    let cut = std::sync::Arc::new(tokio::sync::Notify::new());
    let cuts = cut.clone();
    tokio::spawn(async move {
        while let Some(mut client) = receive.recv().await {
            let (mut near, far) = tokio::io::duplex(64 << 10);
            pipes.send(far).await.unwrap();
            let cut = cuts.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut near) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    let client = over(send, "ws://anywhere/").require_session();
    let mut session = limit(client.connect()).await.unwrap();
    let mut events = session.events();
    for round in 0..5 {
        echoed(&mut session, &round.to_string()).await;
        cut.notify_waiters();
        session
            .send(format!("sent at the cut {round}"))
            .await
            .unwrap();
        resumed(&mut events).await;
        let back = plain(limit(session.recv()).await);
        assert_eq!(back.as_text(), Some(&*format!("sent at the cut {round}")));
    }
}

#[tokio::test]
async fn connector_is_told_where_to_and_its_failure_is_worth_a_retry() {
    for (url, host, port, tls) in [
        ("ws://feed.example/", "feed.example", 80, false),
        ("wss://[2001:db8::1]:9/", "2001:db8::1", 9, true),
    ] {
        let client = Client::new(url).connector(move |to| {
            assert_eq!((&*to.host, to.port, to.tls), (host, port, tls));
            async { Err::<TcpStream, _>(io::Error::other("the tunnel is closed")) }
        });
        let error = limit(client.connect()).await.map(|_| ()).unwrap_err();
        assert!(error.is_retryable());
        match error {
            ConnectError::Connector { source, .. } => {
                assert_eq!(source.to_string(), "the tunnel is closed");
            }
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn connector_that_hangs_is_cut_by_the_deadline_and_named() {
    let options = Options::default().connect_timeout(Duration::from_millis(100));
    let client = Client::new("ws://feed.example/")
        .options(options)
        .connector(|_| std::future::pending::<io::Result<TcpStream>>());
    match limit(client.connect()).await.map(|_| ()).unwrap_err() {
        ConnectError::Timeout { phase, .. } => assert_eq!(phase, ConnectPhase::Connector),
        error => panic!("{error:?}"),
    }
}

/// TCP that a connector opens is known as TCP: its addresses, and the kernel's account of it.
#[tokio::test]
async fn tcp_of_a_connector_is_known_as_tcp() {
    let server = echo_server(Server::builder()).await;
    let address = server.local_addr();
    let client = Client::new("ws://feed.example/").connector(move |_| TcpStream::connect(address));
    let mut connection = limit(client.connect()).await.unwrap();
    echoed(&mut connection, "hello").await;
    assert_eq!(connection.peer_addr(), Some(address));
    assert!(connection.local_addr().is_some());
}

#[cfg(unix)]
mod unix_sockets {
    use std::path::PathBuf;

    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        (directory, path)
    }

    async fn bind(builder: ServerBuilder, path: &PathBuf) -> Server {
        let server = builder.bind_unix(path).await.unwrap();
        serve(&server, echo);
        server
    }

    #[tokio::test]
    async fn messages_pass_with_and_without_tls_and_sessions() {
        let certificate = Certificate::new();
        for tls in [false, true] {
            let (_directory, path) = path();
            let builder = match tls {
                false => Server::builder(),
                true => certificate.serve(Server::builder()),
            };
            let server = bind(builder, &path).await;
            let client = match tls {
                false => Client::new("ws://localhost/any"),
                true => Client::new("wss://localhost/any").tls(certificate.client()),
            };
            let _open = both_kinds(client.unix_socket(&path)).await;
            assert_eq!(server.stats().open, 2);
        }
    }

    /// The clients of a Unix socket have no address, so no limit of one address stops them.
    #[tokio::test]
    async fn limits_of_one_address_do_not_apply() {
        let limits = ServerLimits::default()
            .connections_per_address(1)
            .handshakes_per_address(1);
        let (_directory, path) = path();
        let builder = Server::builder()
            .limits(limits)
            .authenticate(|request| async {
                assert!(request.extensions().get::<PeerAddr>().is_none());
                Ok(request)
            });
        let _server = bind(builder, &path).await;
        let client = Client::new("ws://localhost/").unix_socket(&path).plain();
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(limit(client.connect()).await.unwrap());
        }
        for connection in &mut all {
            echoed(connection, "hello").await;
        }
    }

    #[tokio::test]
    async fn proxy_on_a_unix_socket_tells_addresses_if_it_is_trusted() {
        for (trusted, expected) in [("unix:", Some("192.0.2.1:0")), ("127.0.0.1", None)] {
            let (_directory, path) = path();
            let proxies = TrustedProxies::new([trusted]).unwrap().x_forwarded_for();
            let server = Server::builder().trusted_proxies(proxies);
            let server = server.bind_unix(&path).await.unwrap();
            let client = Client::new("ws://localhost/")
                .unix_socket(&path)
                .header("x-forwarded-for", "6.6.6.6, 192.0.2.1");
            let client = limit(client.connect()).await.unwrap();
            let mut accepted = limit(server.accept()).await.unwrap();
            let told = accepted.peer_addr().map(|address| address.to_string());
            assert_eq!(told.as_deref(), expected);
            client.send("hello").await.unwrap();
            assert!(matches!(
                limit(accepted.recv()).await,
                Ok(Some(Incoming::Message(_)))
            ));
        }
    }

    #[tokio::test]
    async fn socket_of_a_server_that_has_ended_is_replaced_and_nothing_else_is() {
        let (_directory, path) = path();
        let first = bind(Server::builder(), &path).await;
        let taken = Server::builder().bind_unix(&path).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(taken.to_string().contains("socket"), "{taken}");
        first.shutdown(Duration::from_secs(30)).await;
        let _second = bind(Server::builder(), &path).await;
        let client = Client::new("ws://localhost/").unix_socket(&path);
        echoed(&mut limit(client.connect()).await.unwrap(), "hello").await;

        let file = path.with_extension("txt");
        std::fs::write(&file, "precious").unwrap();
        Server::builder().bind_unix(&file).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
