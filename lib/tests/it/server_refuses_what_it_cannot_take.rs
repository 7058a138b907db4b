//! A server stays within its limits whatever arrives. It tells the clients that it refuses, and counts
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::common::{
    frames::upgrade,
    limit,
    net::{Certificate, answer, bind, connect_plain, is_alive, one_of_many, status, to_end},
    until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::{sync::watch, task::JoinSet};
use unstall::{ConnectError, Server, ServerLimits};

async fn limited(limits: ServerLimits) -> Server {
    bind(Server::builder().limits(limits)).await
}

fn limits() -> ServerLimits {
    ServerLimits::default()
}

#[tokio::test]
async fn a_connection_over_the_limit_gets_503_and_retry_after() {
    let retry_after = Duration::from_secs(7);
    let server = limited(limits().max_connections(2).retry_after(retry_after)).await;
    let address = server.local_addr();
    let (one, two) = (connect_plain(address).await, connect_plain(address).await);
    let accepted = (
        server.accept().await.unwrap(),
        server.accept().await.unwrap(),
    );
    assert_eq!(server.stats().open, 2);

    let third = unstall::Client::new(format!("ws://{address}/")).plain();
    let error = third.connect().await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.retry_after(), Some(retry_after));
    let ConnectError::Refused { status, body, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(status, 503);
    assert!(body.contains("reached its limit of connections"), "{body}");
    assert_eq!(server.stats().refused.connections, 1);

    // A place that is given back can be taken again.
    drop((one, accepted.0));
    until("a place is free", || server.stats().open == 1).await;
    let _three = connect_plain(address).await;
    drop((two, accepted.1));
    assert_eq!(server.stats().accepted, 3);
}

#[tokio::test]
async fn over_tls_too_a_connection_over_the_limit_gets_503() {
    let certificate = Certificate::new();
    let builder = Server::builder().limits(limits().max_connections(1));
    let server = bind(certificate.serve(builder)).await;
    let url = format!("wss://localhost:{}/", server.local_addr().port());
    let client = || {
        unstall::Client::new(&url)
            .tls(certificate.client())
            .plain()
            .connect()
    };
    let _one = client().await.unwrap();
    let error = client().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused { status, .. } if status == 503),
        "{error:?}"
    );
}

/// Once, when a fleet came back, every client over the limit of handshakes was sent away for seconds.
#[tokio::test]
async fn clients_beyond_the_limit_of_handshakes_wait_while_places_come_free() {
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (under_way.clone(), most.clone());
    let (all_there, gate) = watch::channel(false);
    let builder = Server::builder()
        .limits(limits().max_handshakes(4).handshakes_per_address(4))
        .authenticate(move |request| {
            let (now, peak, mut gate) = (now.clone(), peak.clone(), gate.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.wait_for(|open| *open).await.unwrap();
                now.fetch_sub(1, SeqCst);
                Ok(request)
            }
        });
    let server = bind(builder).await;
    let address = server.local_addr();
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        clients.spawn(one_of_many(address));
    }
    until("four are under way, and all others wait", || {
        under_way.load(SeqCst) == 4 && server.stats().waiting == 96
    })
    .await;
    all_there.send_replace(true);
    while let Some(client) = clients.join_next().await {
        assert_eq!(client.unwrap().0.upgraded, 1);
    }
    assert_eq!(most.load(SeqCst), 4);
    assert_eq!(server.stats().refused.handshakes, 0);
}

#[tokio::test]
async fn whoever_says_nothing_or_too_slowly_is_cut_at_the_handshakes_deadline() {
    let timeout = Duration::from_millis(500);
    let plain = limited(limits().handshake_timeout(timeout)).await;
    let builder = Server::builder().limits(limits().handshake_timeout(timeout));
    let tls = bind(Certificate::new().serve(builder)).await;

    let mut mute = TcpStream::connect(plain.local_addr()).await.unwrap();
    let mut mute_tls = TcpStream::connect(tls.local_addr()).await.unwrap();
    let slow = TcpStream::connect(plain.local_addr()).await.unwrap();
    let (mut read, mut write) = slow.into_split();
    // A header that never ends, byte by byte. There is always progress, and never a request.
    let dribble = tokio::spawn(async move {
        let _ = write.write_all(b"GET / HTTP/1.1\r\nx: ").await;
        while write.write_all(b"x").await.is_ok() {
            // The pace of this client.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(to_end(&mut mute).await, "");
    assert_eq!(to_end(&mut mute_tls).await, "");
    let mut rest = Vec::new();
    // The stream may end with a reset.
    let _ = limit(read.read_to_end(&mut rest)).await;
    dribble.await.unwrap();

    until("both were counted", || {
        plain.stats().handshakes.timed_out == 2
    })
    .await;
    until("it was counted", || tls.stats().handshakes.timed_out == 1).await;
    assert_eq!(plain.stats().handshaking, 0);
    is_alive(&plain).await;
}

#[tokio::test]
async fn an_endless_head_is_refused_at_its_limit() {
    let server = limited(limits().header_bytes(16 * 1024)).await;
    let endless = upgrade(&format!("x-cookie: {}\r\n", "c".repeat(64 * 1024)));
    let refused = answer(server.local_addr(), &endless).await;
    // The answer may be lost, because the client is still sending when the server closes.
    if !refused.is_empty() {
        assert_eq!(status(&refused), 431);
    }
    until("it was counted", || server.stats().handshakes.failed == 1).await;

    let many: String = (0..1000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let refused = answer(server.local_addr(), &upgrade(&many)).await;
    if !refused.is_empty() {
        assert_eq!(status(&refused), 431);
    }
    until("it was counted", || server.stats().handshakes.failed == 2).await;
    is_alive(&server).await;
}

#[tokio::test]
async fn what_is_no_websocket_request_gets_a_clear_answer() {
    let server = limited(limits()).await;
    let address = server.local_addr();
    let page = answer(address, "GET /page HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(status(&page), 426);
    assert!(page.contains("This is a WebSocket endpoint"), "{page}");
    assert!(page.to_lowercase().contains("upgrade: websocket"), "{page}");

    let post = upgrade("").replace("GET", "POST");
    assert_eq!(status(&answer(address, &post).await), 405);
    let old = upgrade("").replace("version: 13", "version: 8");
    let old = answer(address, &old).await;
    assert_eq!(status(&old), 426);
    assert!(
        old.to_lowercase().contains("sec-websocket-version: 13"),
        "{old}"
    );
    let keyless = upgrade("").replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    assert_eq!(status(&answer(address, &keyless).await), 400);
    let with_body = upgrade("content-length: 5\r\n") + "hello";
    assert_eq!(status(&answer(address, &with_body).await), 400);
    assert_eq!(server.stats().refused.requests, 5);

    assert_eq!(
        status(&answer(address, "SSH-2.0-OpenSSH_9.9\r\n\r\n").await),
        400
    );
    assert_eq!(server.stats().handshakes.failed, 1);
    is_alive(&server).await;
}
