//! A router answers requests that ask for no WebSocket, on the same port and within the same limits.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use unstall::{Client, Server, ServerBuilder, ServerLimits, TrustedProxies};

use crate::common::{
    AMPLE, echoed,
    frames::{header, upgrade},
    limit,
    net::{answer, ask, connect, echo_server, status, to_end},
    until,
};

/// `/echo` answers with the body, `/who` with the client's address, and `/endless` without an end.
fn router() -> Router {
    let endless = || async {
        let more = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        let first = futures_util::stream::iter([Ok(Bytes::from_static(b"first"))]);
        Body::from_stream(futures_util::StreamExt::chain(first, more))
    };
    let who = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() };
    Router::new()
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/who", get(who))
        .route("/endless", get(endless))
}

fn builder() -> ServerBuilder {
    Server::builder().router(router())
}

async fn open(server: &Server) -> TcpStream {
    TcpStream::connect(server.local_addr()).await.unwrap()
}

fn request(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: test\r\n{more}\r\n")
}

/// A whole exchange. Its status and body.
async fn exchange(tcp: &mut TcpStream, request: &str) -> (u16, String) {
    let head = ask(tcp, request).await;
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    limit(tcp.read_exact(&mut body)).await.unwrap();
    (status(&head), String::from_utf8(body).unwrap())
}

/// A connection whose answer has begun, and has no end.
async fn endless(server: &Server) -> TcpStream {
    let mut tcp = open(server).await;
    let head = ask(&mut tcp, &request("GET /endless", "")).await;
    assert_eq!(status(&head), 200);
    tcp
}

#[tokio::test]
async fn one_port_answers_requests_and_carries_websockets() {
    let server = echo_server(builder()).await;
    let mut tcp = open(&server).await;
    for text in ["one", "", "three"] {
        let length = format!("content-length: {}\r\n", text.len());
        let posted = request("POST /echo", &length) + text;
        assert_eq!(exchange(&mut tcp, &posted).await, (200, text.to_owned()));
        let who = exchange(&mut tcp, &request("GET /who", "")).await;
        assert_eq!(who, (200, "127.0.0.1".to_owned()));
    }
    assert_eq!(exchange(&mut tcp, &request("GET /no", "")).await.0, 404);
    let mut connection = connect(server.local_addr()).await;
    echoed(&mut connection, "a session").await;
    let url = format!("ws://{}/any", server.local_addr());
    let mut plain = Client::new(url).plain().connect().await.unwrap();
    echoed(&mut plain, "a plain connection").await;
}

/// A reverse proxy uses one connection for one client after the other.
#[tokio::test]
async fn a_connection_that_answered_requests_becomes_a_websocket() {
    let server = echo_server(builder()).await;
    let mut tcp = open(&server).await;
    for _ in 0..3 {
        let who = exchange(&mut tcp, &request("GET /who", "")).await;
        assert_eq!(who.0, 200);
    }
    let head = ask(&mut tcp, &upgrade("")).await;
    assert_eq!(status(&head), 101);
    // A masked text frame "hi", and its echo.
    tcp.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .await
        .unwrap();
    let mut frame = [0; 4];
    limit(tcp.read_exact(&mut frame)).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
    until("only the WebSocket has a place", || {
        server.stats().open == 1
    })
    .await;
    drop(tcp);
    until("its place is free", || server.stats().open == 0).await;
}

#[tokio::test]
async fn a_request_takes_a_place_and_gives_it_back() {
    let limits = ServerLimits::default().max_connections(1);
    let server = echo_server(builder().limits(limits)).await;
    let first = endless(&server).await;
    assert_eq!((server.stats().open, server.stats().handshaking), (1, 0));
    let address = server.local_addr();
    assert_eq!(status(&answer(address, &upgrade("")).await), 503);
    let refused = answer(address, &request("GET /who", "")).await;
    assert_eq!(status(&refused), 503);
    assert!(header(&refused, "retry-after").is_some(), "{refused}");
    drop(first);
    until("the place is free", || server.stats().open == 0).await;
    let mut tcp = open(&server).await;
    assert_eq!(status(&ask(&mut tcp, &upgrade("")).await), 101);
    let refused = answer(address, &request("GET /who", "")).await;
    assert_eq!(status(&refused), 503);
    assert_eq!(server.stats().refused.connections, 3);
}

/// Only one handshake may be under way. Answers without an end are none.
#[tokio::test]
async fn a_request_holds_no_place_among_the_handshakes() {
    let limits = ServerLimits::default().max_handshakes(1);
    let server = echo_server(builder().limits(limits)).await;
    let held = [endless(&server).await, endless(&server).await];
    echoed(&mut connect(server.local_addr()).await, "hello").await;
    drop(held);
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed_before_and_after_a_request() {
    let limits = ServerLimits::default().handshake_timeout(Duration::from_millis(100));
    let server = echo_server(builder().limits(limits)).await;
    let mut silent = open(&server).await;
    assert_eq!(to_end(&mut silent).await, "");
    let mut idle = open(&server).await;
    assert_eq!(exchange(&mut idle, &request("GET /who", "")).await.0, 200);
    to_end(&mut idle).await;
    until("its place is free", || server.stats().open == 0).await;
}

#[tokio::test]
async fn a_shutdown_closes_the_idle_waits_for_the_busy_and_cuts_the_endless() {
    let server = echo_server(builder()).await;
    let mut idle = open(&server).await;
    assert_eq!(exchange(&mut idle, &request("GET /who", "")).await.0, 200);
    let mut busy = open(&server).await;
    // Half of the body is there, so the request is under way.
    let begun = request("POST /echo", "content-length: 2\r\n") + "a";
    busy.write_all(begun.as_bytes()).await.unwrap();
    let mut endless = endless(&server).await;
    until("all have their places", || server.stats().open == 3).await;
    let down = tokio::spawn(async move { server.shutdown(Duration::from_secs(2)).await });
    assert_eq!(to_end(&mut idle).await, "");
    busy.write_all(b"b").await.unwrap();
    let answer = to_end(&mut busy).await;
    assert!(answer.ends_with("\r\n\r\nab"), "{answer}");
    to_end(&mut endless).await;
    let report = tokio::time::timeout(AMPLE, down).await.unwrap().unwrap();
    assert_eq!((report.closed, report.aborted), (2, 1));
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_request_has_its_own_client() {
    let proxies = TrustedProxies::new(["127.0.0.1"]).unwrap();
    let server = echo_server(builder().trusted_proxies(proxies.x_forwarded_for())).await;
    let mut tcp = open(&server).await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        let forwarded = format!("x-forwarded-for: {client}\r\n");
        let who = exchange(&mut tcp, &request("GET /who", &forwarded)).await;
        assert_eq!(who, (200, client.to_owned()));
    }
}
