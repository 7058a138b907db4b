//! WebSockets over HTTP/2 (RFC 8441), in `Server` and in axum, plain and as sessions. The clients are
//! hyper, a gateway made of hyper, and haproxy, which turns WebSockets of HTTP/1.1 into streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, response::Response, routing::any};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use unstall::axum::Upgrade;
use unstall::tokio_tungstenite::tungstenite::{handshake::derive_accept_key, protocol::Role};
use unstall::{
    BearerToken, Client, Compression, Connection, Options, Principal, Rejection, Server,
    ServerLimits, Sessions,
};

use unstall_proto::{Config, Packet, Session, SessionId, Time, Token};

use crate::common::{
    adopt, echo, echoed,
    events::resumed,
    foreign::Foreign,
    frames::{Frame, RawPeer, TEXT, frame, read_head},
    limit,
    net::{Certificate, bind, echo_server, serve},
    plain, until,
};

type Requests = SendRequest<Empty<Bytes>>;

/// A client of HTTP/2 over this stream. The server's settings have arrived.
async fn http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Requests {
    let (mut requests, connection) = Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut get = Request::new(Empty::new());
    *get.uri_mut() = "http://test/no/websocket".parse().unwrap();
    limit(requests.send_request(get)).await.unwrap();
    requests
}

async fn http2_to(address: SocketAddr) -> Requests {
    http2(TcpStream::connect(address).await.unwrap()).await
}

/// Extended CONNECT for this path, with more headers.
fn connect(path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = format!("http://test{path}").parse().unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let all = request.headers_mut();
    all.insert(header::SEC_WEBSOCKET_VERSION, "13".parse().unwrap());
    for (name, value) in headers {
        let name = header::HeaderName::try_from(*name).unwrap();
        all.append(name, value.parse().unwrap());
    }
    request
}

/// The stream, after a 200.
async fn stream(
    requests: &mut Requests,
    request: Request<Empty<Bytes>>,
) -> Result<(HeaderMap, TokioIo<Upgraded>), StatusCode> {
    let mut response: http::Response<Incoming> =
        limit(requests.send_request(request)).await.unwrap();
    match response.status() {
        StatusCode::OK => {
            let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
            Ok((response.headers().clone(), TokioIo::new(upgraded)))
        }
        status => Err(status),
    }
}

/// A plain WebSocket over a stream of its own.
async fn open(requests: &mut Requests, path: &str) -> Connection {
    let (_, io) = stream(requests, connect(path, &[])).await.unwrap();
    adopt(io, Role::Client, Options::default()).await
}

async fn feed(upgrade: Upgrade, sessions: Sessions) -> Response {
    upgrade
        .sessions(sessions)
        .subprotocols(["v1"])
        .on_upgrade(|connection| async move {
            let request = connection.request().unwrap();
            assert_eq!(request.uri().to_string(), "/feed?a=b");
            assert_eq!(request.headers()["host"], "test");
            echo(connection).await;
        })
}

async fn application() -> SocketAddr {
    let sessions = Sessions::default();
    let handler = move |upgrade| feed(upgrade, sessions.clone());
    let app: Router = Router::new().route("/feed", any(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Once the extractor answered 426 to every request over HTTP/2.
#[tokio::test]
async fn extractor_takes_websockets_over_http2() {
    let mut requests = http2_to(application().await).await;
    let offer = [("sec-websocket-protocol", "v0, v1")];
    let (headers, io) = stream(&mut requests, connect("/feed?a=b", &offer))
        .await
        .unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "v1");
    assert!(!headers.contains_key("sec-websocket-accept"));
    let mut first = adopt(io, Role::Client, Options::default()).await;
    let mut second = open(&mut requests, "/feed?a=b").await;
    for text in ["one", "two"] {
        echoed(&mut first, text).await;
        echoed(&mut second, text).await;
    }
}

#[tokio::test]
async fn extractor_refuses_what_is_no_websocket_over_http2() {
    let mut requests = http2_to(application().await).await;
    let mut get = connect("/feed", &[]);
    *get.method_mut() = Method::GET;
    get.extensions_mut().remove::<Protocol>();
    let mut other = connect("/feed", &[]);
    other
        .extensions_mut()
        .insert(Protocol::from_static("connect-udp"));
    let mut version = connect("/feed", &[]);
    version.headers_mut().remove(header::SEC_WEBSOCKET_VERSION);
    let foreign = connect("/feed", &[("origin", "https://evil.example")]);
    let own = connect("/feed?a=b", &[("origin", "https://test")]);
    for (request, expected) in [(get, 400), (other, 400), (version, 400), (foreign, 403)] {
        let status = stream(&mut requests, request).await.unwrap_err();
        assert_eq!(status.as_u16(), expected);
    }
    stream(&mut requests, own).await.unwrap();
}

fn builder() -> unstall::ServerBuilder {
    Server::builder().http2()
}

#[tokio::test]
async fn server_carries_many_websockets_over_one_connection_of_http2() {
    let server = echo_server(builder().subprotocols(["v1"])).await;
    let mut requests = http2_to(server.local_addr()).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(open(&mut requests, "/any").await);
    }
    for (number, connection) in all.iter_mut().enumerate() {
        echoed(connection, &number.to_string()).await;
    }
    assert_eq!(server.stats().open, 100);
    assert_eq!(server.stats().accepted, 100);
    drop(all);
    until("every place is free", || server.stats().open == 0).await;
}

/// The 200 carries the agreement, as the 101 of HTTP/1.1 does.
#[tokio::test]
async fn messages_are_compressed_over_http2_too() {
    /// "Hello", as RFC 7692 section 7.2.3.1 has it.
    const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let options = Options::default().compression(Compression::default());
    let server = bind(builder().options(options)).await;
    serve(&server, echo);
    let mut requests = http2_to(server.local_addr()).await;
    let offer = [("sec-websocket-extensions", "permessage-deflate")];
    let (headers, io) = stream(&mut requests, connect("/", &offer)).await.unwrap();
    let agreed = headers["sec-websocket-extensions"].to_str().unwrap();
    assert!(agreed.starts_with("permessage-deflate"), "{agreed}");
    let mut raw = RawPeer::client(io);
    raw.say(Frame {
        reserved: 4,
        ..frame(TEXT, HELLO)
    })
    .await;
    let short = limit(raw.see_beyond_heartbeats()).await.unwrap();
    assert_eq!(
        (short.reserved, short.payload.as_slice()),
        (0, &b"Hello"[..])
    );
    raw.say(frame(TEXT, "x".repeat(1000))).await;
    let long = limit(raw.see_beyond_heartbeats()).await.unwrap();
    assert_eq!(long.reserved, 4, "RSV1: it is compressed");
    assert!(long.payload.len() < 100, "{} bytes", long.payload.len());
}

/// HELLO comes with the request, and WELCOME right behind the answer.
#[tokio::test]
async fn sessions_open_with_the_request_over_http2_too() {
    let server = echo_server(builder()).await;
    let mut requests = http2_to(server.local_addr()).await;
    let (id, token) = (SessionId([7; 16]), Token([7; 16]));
    let mut session = Session::client(Config::new(), id, token);
    let generation = session.attach(Time::ORIGIN).unwrap();
    let hello = session.poll_transmit(Time::ORIGIN, generation).unwrap();
    let hello = URL_SAFE_NO_PAD.encode(hello);
    let offer = [
        ("sec-websocket-protocol", "unstall.v1"),
        ("unstall-hello", &hello),
    ];
    let (headers, io) = stream(&mut requests, connect("/", &offer)).await.unwrap();
    assert_eq!(headers["unstall-hello"], "taken");
    let mut raw = RawPeer::client(io);
    let first = limit(raw.see_beyond_heartbeats()).await.unwrap();
    let packet = Packet::decode(first.payload.into()).unwrap();
    assert!(matches!(packet, Packet::Welcome(_)), "{packet:?}");
}

#[tokio::test]
async fn server_with_http2_still_takes_http1() {
    let server = echo_server(builder()).await;
    let client = Client::new(format!("ws://{}/", server.local_addr()));
    let mut session = client.require_session().connect().await.unwrap();
    echoed(&mut session, "hello").await;
    let client = Client::new(format!("ws://{}/", server.local_addr()));
    let mut connection = client.plain().connect().await.unwrap();
    echoed(&mut connection, "hello").await;
    let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut tcp).await;
    assert!(head.starts_with("HTTP/1.1 426"), "{head}");
}

#[tokio::test]
async fn server_takes_http2_only_where_that_is_enabled() {
    let server = echo_server(Server::builder()).await;
    let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let (mut requests, connection) = Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(tcp))
        .await
        .unwrap();
    tokio::spawn(connection);
    assert!(
        limit(requests.send_request(connect("/", &[])))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn tls_offers_http2_where_it_is_enabled() {
    let certificate = Certificate::new();
    for enabled in [true, false] {
        let builder = match enabled {
            true => builder(),
            false => Server::builder(),
        };
        let server = echo_server(certificate.serve(builder)).await;
        let mut config = (*certificate.client()).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = tls.connect(name, tcp).await.unwrap();
        let agreed = tls.get_ref().1.alpn_protocol();
        if !enabled {
            assert_eq!(agreed, Some(&b"http/1.1"[..]));
            continue;
        }
        assert_eq!(agreed, Some(&b"h2"[..]));
        let mut requests = http2(tls).await;
        echoed(&mut open(&mut requests, "/").await, "hello").await;
        let client = Client::new(format!("wss://localhost:{}/", server.local_addr().port()));
        let mut session = client.tls(certificate.client()).connect().await.unwrap();
        echoed(&mut session, "hello").await;
    }
}

#[tokio::test]
async fn limits_and_hooks_count_streams_as_they_count_connections() {
    let server = bind(
        builder()
            .limits(
                ServerLimits::default()
                    .max_connections(2)
                    .connections_per_address(2),
            )
            .authenticate(|mut request| async move {
                assert_eq!(request.method(), Method::CONNECT);
                assert_eq!(request.headers()["host"], "test");
                match request.uri().path() {
                    "/secret" => Err(Rejection::unauthorized("no")),
                    _ => {
                        request.extensions_mut().insert(Principal::new("ann"));
                        Ok(request)
                    }
                }
            }),
    )
    .await;
    serve(&server, echo);
    let mut requests = http2_to(server.local_addr()).await;
    let refused = stream(&mut requests, connect("/secret", &[])).await;
    assert_eq!(refused.unwrap_err(), StatusCode::UNAUTHORIZED);
    let mut first = open(&mut requests, "/").await;
    let _second = open(&mut requests, "/").await;
    let refused = stream(&mut requests, connect("/", &[])).await.unwrap_err();
    assert!([503, 429].contains(&refused.as_u16()), "{refused}");
    echoed(&mut first, "still here").await;
    assert_eq!(server.stats().refused.unauthenticated, 1);
}

/// The token of a page is among the subprotocols there, too.
#[tokio::test]
async fn a_token_among_the_subprotocols_is_taken_and_not_agreed_to() {
    let server = bind(builder().authenticate(|request| async move {
        match BearerToken::of(request.headers()) {
            Some(token) if token.is("s3cret?") => Ok(request),
            _ => Err(Rejection::unauthorized("a token is needed")),
        }
    }))
    .await;
    serve(&server, echo);
    let mut requests = http2_to(server.local_addr()).await;
    let mut ask = async |offers| {
        let request = connect("/", &[("sec-websocket-protocol", offers)]);
        let answer = stream(&mut requests, request).await;
        answer.map(|(headers, _)| headers.get("sec-websocket-protocol").cloned())
    };
    assert_eq!(ask("unstall.bearer.czNjcmV0Pw").await, Ok(None));
    let wrong = ask("unstall.bearer.czNjcmV0").await;
    assert_eq!(wrong, Err(StatusCode::UNAUTHORIZED));
}

/// The end of the stream of a slow reader does not hold up others.
#[tokio::test]
async fn stream_that_is_not_read_holds_up_no_other() {
    let server = bind(builder()).await;
    let mut requests = http2_to(server.local_addr()).await;
    let full = open(&mut requests, "/").await;
    let _never_reads = limit(server.accept()).await.unwrap();
    let mut other = open(&mut requests, "/").await;
    let mut accepted = limit(server.accept()).await.unwrap();
    // Until the queues of both sides and of HTTP/2 are full.
    let chunk = vec![0_u8; 64 << 10];
    while tokio::time::timeout(Duration::from_millis(300), full.send(chunk.clone()))
        .await
        .is_ok()
    {}
    for round in 0..10 {
        other.send(format!("{round}")).await.unwrap();
        let message = plain(limit(accepted.recv()).await);
        assert_eq!(message.as_text(), Some(&*round.to_string()));
        accepted.send(message).await.unwrap();
        plain(limit(other.recv()).await);
    }
}

#[tokio::test]
async fn connection_without_a_websocket_is_ended() {
    let server = echo_server(builder()).await;
    let mut requests = http2_to(server.local_addr()).await;
    let mut websocket = open(&mut requests, "/").await;
    until("the handshake is over", || server.stats().handshaking == 0).await;
    // An open WebSocket keeps the connection open for longer than the idle timeout.
    tokio::time::sleep(Duration::from_secs(6)).await;
    echoed(&mut websocket, "still here").await;
    assert!(!requests.is_closed());
    drop(websocket);
    until("the connection ends", || requests.is_closed()).await;

    let idle = http2_to(server.local_addr()).await;
    until("the connection without a WebSocket ends", || {
        idle.is_closed()
    })
    .await;
    until("its slot is free", || server.stats().handshaking == 0).await;
}

#[tokio::test]
async fn shutdown_closes_the_websockets_of_http2_and_then_the_connection() {
    let server = bind(builder()).await;
    serve(&server, echo);
    let mut requests = http2_to(server.local_addr()).await;
    let mut websocket = open(&mut requests, "/").await;
    echoed(&mut websocket, "hello").await;
    let shutdown = server.shutdown(Duration::from_secs(30));
    let (report, end) = tokio::join!(limit(shutdown), limit(websocket.recv()));
    assert_eq!((report.closed, report.aborted), (1, 0));
    assert!(matches!(end, Ok(None)), "1001 is a normal end: {end:?}");
    let close = websocket.ended().await.peer.unwrap();
    assert_eq!(close.code.unwrap().as_u16(), 1001);
    until("the connection ends", || requests.is_closed()).await;
}

/// A stream that a client resets during its handshake frees its slot and its place.
#[tokio::test]
async fn stream_that_is_reset_leaves_nothing_behind() {
    let server = echo_server(builder().authenticate(|request| async move {
        match request.uri().path() {
            "/slow" => std::future::pending().await,
            _ => Ok(request),
        }
    }))
    .await;
    let mut requests = http2_to(server.local_addr()).await;
    for _ in 0..20 {
        let slow = requests.send_request(connect("/slow", &[]));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), slow)
                .await
                .is_err()
        );
    }
    echoed(&mut open(&mut requests, "/").await, "hello").await;
    until("every slot is free", || server.stats().handshaking == 0).await;
    until("every place is free", || server.stats().open == 0).await;
}

/// A gateway that takes WebSockets by HTTP/1.1 and sends them on as streams of HTTP/2.
struct Gateway {
    address: SocketAddr,
    cut: Arc<tokio::sync::Notify>,
}

impl Gateway {
    async fn to(server: SocketAddr) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(tokio::sync::Notify::new());
        let cuts = cut.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let cut = cuts.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass_on(tcp, server) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Gateway { address, cut }
    }
}

async fn pass_on(mut tcp: TcpStream, server: SocketAddr) {
    let head = read_head(&mut tcp).await;
    let of = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    };
    let path = head.split(' ').nth(1).unwrap();
    let offer = of("sec-websocket-protocol").unwrap();
    let mut requests = http2_to(server).await;
    let request = connect(path, &[("sec-websocket-protocol", &offer)]);
    let (headers, mut io) = stream(&mut requests, request).await.unwrap();
    let agreed = headers["sec-websocket-protocol"].to_str().unwrap();
    let accept = derive_accept_key(of("sec-websocket-key").unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\nsec-websocket-protocol: {agreed}\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut tcp, &mut io).await;
}

#[tokio::test]
async fn sessions_run_over_http2_and_resume() {
    let server = echo_server(builder()).await;
    for (address, path) in [
        (server.local_addr(), "/"),
        (application().await, "/feed?a=b"),
    ] {
        let gateway = Gateway::to(address).await;
        let client = Client::new(format!("ws://{}{path}", gateway.address)).require_session();
        let mut session = limit(client.connect()).await.unwrap();
        let mut events = session.events();
        echoed(&mut session, "hello").await;
        for round in 0..3 {
            for number in 0..100 {
                session.send(format!("{round} {number}")).await.unwrap();
            }
            gateway.cut.notify_waiters();
            resumed(&mut events).await;
            for number in 0..100 {
                let message = plain(limit(session.recv()).await);
                assert_eq!(message.as_text(), Some(&*format!("{round} {number}")));
            }
        }
        assert!(session.stats().resumes >= 3);
    }
}

#[tokio::test]
async fn haproxy_sends_websockets_on_over_http2() {
    let certificate = Certificate::new();
    for tls in [false, true] {
        let server = match tls {
            false => echo_server(builder()).await,
            true => echo_server(certificate.serve(builder())).await,
        };
        let target = server.local_addr();
        let how = match tls {
            false => "proto h2",
            true => "ssl verify none alpn h2",
        };
        let configuration = |address: SocketAddr, _: &std::path::Path| {
            format!(
                "global\n  maxconn 100\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  \
                 timeout server 60s\n\
                 frontend in\n  bind {address}\n  default_backend out\n\
                 backend out\n  server one {target} {how} ws h2\n"
            )
        };
        let haproxy = Foreign::start("haproxy", &["-db", "-q", "-f"], configuration).await;
        let Some(haproxy) = haproxy else { return };
        let url = format!("ws://{}/", haproxy.address);
        let session = Client::new(&url).require_session().connect();
        let mut session = limit(session).await.unwrap();
        let mut connection = limit(Client::new(&url).plain().connect()).await.unwrap();
        for text in ["one", "two"] {
            echoed(&mut session, text).await;
            echoed(&mut connection, text).await;
        }
        assert_eq!(server.stats().open, 2);
    }
}
