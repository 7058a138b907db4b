//! The axum extractor: the same handshake and the same connection inside an axum application.

use std::net::SocketAddr;

use crate::common::{
    client, echo, echoed,
    frames::{read_head, upgrade},
    limit,
    net::{answer, ask, status, to_end},
};
use axum::Router;
use axum::response::Response;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use unstall::axum::Upgrade;
use unstall::{Client, Options, TrustedProxies};

async fn feed(upgrade: Upgrade) -> Response {
    upgrade
        .options(Options::default().inbox_bytes(1 << 20))
        .subprotocols(["v1"])
        .on_upgrade(|connection| async move {
            assert_eq!(connection.request().unwrap().uri().path(), "/feed");
            assert!(connection.peer_addr().is_some());
            echo(connection).await;
        })
}

async fn application() -> SocketAddr {
    let app: Router = Router::new().route("/feed", any(feed));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn a_connection_in_axum_is_a_connection() {
    let url = format!("ws://{}/feed", application().await);
    let mut client = Client::new(&url)
        .subprotocol("v2")
        .subprotocol("v1")
        .connect()
        .await
        .unwrap();
    assert_eq!(client.subprotocol().as_deref(), Some("v1"));
    for _ in 0..3 {
        echoed(&mut client, "hello").await;
    }
}

#[tokio::test]
async fn frames_sent_together_with_the_request_are_not_lost() {
    let mut tcp = TcpStream::connect(application().await).await.unwrap();
    // A masked text frame "hi", sent together with the request. RFC 6455 allows frames only after the
    // 101, but one that arrives early must not be lost.
    let mut bytes = upgrade("").replace("GET / ", "GET /feed ").into_bytes();
    bytes.extend_from_slice(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    tcp.write_all(&bytes).await.unwrap();
    read_head(&mut tcp).await;
    let mut frame = [0; 4];
    tcp.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_rejected() {
    let address = application().await;
    let close = "connection: close\r\n";
    let page = answer(
        address,
        &format!("GET /feed HTTP/1.1\r\nhost: h\r\n{close}\r\n"),
    )
    .await;
    assert_eq!(status(&page), 426);
    assert!(page.contains("This is a WebSocket endpoint"), "{page}");
}

/// Once the extractor accepted the pages of every site, and no option could change that.
#[tokio::test]
async fn pages_of_other_sites_do_not_connect_unless_that_is_allowed() {
    let app: Router = Router::new()
        .route(
            "/",
            any(|upgrade: Upgrade| async { upgrade.on_upgrade(echo) }),
        )
        .route(
            "/open",
            any(|upgrade: Upgrade| async { upgrade.allow_any_origin().on_upgrade(echo) }),
        )
        .route(
            "/listed",
            any(|upgrade: Upgrade| async {
                upgrade.origins(["https://app.example"]).on_upgrade(echo)
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    for (path, origin, expected) in [
        ("/", "https://test", 101),
        ("/", "https://evil.example", 403),
        ("/open", "https://evil.example", 101),
        ("/listed", "https://app.example", 101),
        ("/listed", "https://test", 403),
    ] {
        let request = upgrade(&format!("origin: {origin}\r\n"));
        let request = request.replace("GET / ", &format!("GET {path} "));
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let head = ask(&mut tcp, &request).await;
        assert_eq!(status(&head), expected, "{path} from {origin}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_tells_the_clients_address() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |upgrade: Upgrade| {
        let tell = tell.clone();
        async move {
            let proxies = TrustedProxies::new(["127.0.0.1"]).unwrap();
            upgrade
                .trusted_proxies(&proxies.x_forwarded_for())
                .on_upgrade(|connection| async move {
                    tell.send(connection.peer_addr()).unwrap();
                    echo(connection).await;
                })
        }
    };
    let app: Router = Router::new().route("/", any(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = upgrade("x-forwarded-for: 6.6.6.6, 192.0.2.1\r\n");
    assert_eq!(status(&ask(&mut tcp, &request).await), 101);
    let peer = told.recv().await.unwrap().unwrap();
    assert_eq!(peer.ip().to_string(), "192.0.2.1");
}

#[tokio::test]
async fn a_panicking_handler_ends_its_own_connection_and_nothing_else() {
    let url = format!("ws://{}/feed", application().await);
    let open = || Client::new(&url).without_reconnect().connect();
    let mut bystander = open().await.unwrap();
    echoed(&mut bystander, "hello").await;
    let mut victim = open().await.unwrap();
    victim.send("panic").await.unwrap();
    let end = limit(victim.recv()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    echoed(&mut bystander, "hello again").await;
    echoed(&mut open().await.unwrap(), "new").await;
}

/// A stream that axum serves and that this library does not know, such as another TLS library's.
struct Foreign(TcpListener);

impl axum::serve::Listener for Foreign {
    type Io = tokio::io::Join<tokio::net::tcp::OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (tcp, peer) = self.0.accept().await.unwrap();
        let (read, write) = tcp.into_split();
        (tokio::io::join(read, write), peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn streams_of_a_foreign_kind_work_as_well() {
    let handler = |upgrade: Upgrade| async move { upgrade.on_upgrade(echo) };
    let app: Router = Router::new().route("/", any(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(Foreign(listener), app).await });
    let client = client(address, Options::default());
    let mut client = client.connect().await.unwrap();
    echoed(&mut client, "hello").await;
    let _ = client.close(unstall::CloseCode::NORMAL, "").await;
    let mut mute = TcpStream::connect(address).await.unwrap();
    mute.shutdown().await.unwrap();
    assert_eq!(to_end(&mut mute).await, "");
}
