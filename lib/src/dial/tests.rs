//! Dialing over real sockets: what it promises of deadlines, refusals, proxies and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::ws;

/// Long enough for any handshake on a loaded machine.
const AMPLE: Duration = Duration::from_secs(30);
/// For steps that never end.
const SHORT: Duration = Duration::from_millis(700);

fn options() -> DialOptions {
    DialOptions {
        tls: None,
        proxy: None,
        subprotocols: Vec::new(),
        connect_timeout: AMPLE,
    }
}

async fn dial_to(url: &str, options: &DialOptions) -> Result<Upgraded, ConnectError> {
    dial(&Target::parse(url).unwrap(), options, async {
        Ok(HeaderMap::new())
    })
    .await
}

/// Reads up to the end of an HTTP head.
async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

fn switching(head: &str, more: &str) -> String {
    let accept = ws::accept_key(header(head, "sec-websocket-key").unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\n{more}\r\n"
    )
}

/// A server that answers each connection's request with what `answer` makes of its head, echoes
/// afterwards, and reports the heads.
async fn server(
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heads) = mpsc::unbounded_channel();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(answer_one(tcp, answer.clone(), seen.clone()));
        }
    });
    (address, heads)
}

async fn answer_one<IO: AsyncRead + AsyncWrite + Unpin>(
    mut io: IO,
    answer: Arc<impl Fn(&str) -> Vec<u8>>,
    seen: mpsc::UnboundedSender<String>,
) {
    let head = read_head(&mut io).await;
    let _ = io.write_all(&answer(&head)).await;
    let _ = io.flush().await;
    let _ = seen.send(head);
    let (mut read, mut write) = tokio::io::split(io);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn answering(text: &'static str) -> SocketAddr {
    server(move |_| text.as_bytes().to_vec()).await.0
}

async fn refused_with(answer: &'static str) -> ConnectError {
    let address = answering(answer).await;
    dial_to(&format!("ws://{address}/"), &options())
        .await
        .unwrap_err()
}

async fn echoes(upgraded: &mut Upgraded) {
    upgraded.transport.write_all(b"hello").await.unwrap();
    upgraded.transport.flush().await.unwrap();
    let mut back = [0; 5];
    upgraded.transport.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn what_the_server_sends_right_behind_its_101_is_not_lost() {
    let (address, mut heads) = server(|head| {
        let mut answer = switching(head, "x-server: yes\r\n").into_bytes();
        answer.extend_from_slice(b"\x81\x02hi");
        answer
    })
    .await;
    let mut upgraded = dial_to(&format!("ws://{address}/a?b"), &options())
        .await
        .unwrap();
    let mut first = upgraded.leftover.to_vec();
    // The kernel may deliver the frame with the head or after it.
    while first.len() < 4 {
        first.push(upgraded.transport.read_u8().await.unwrap());
    }
    assert_eq!(first, b"\x81\x02hi");
    assert_eq!(
        upgraded.response.as_ref().unwrap().headers()["x-server"],
        "yes"
    );
    assert_eq!(upgraded.peer, Some(address));
    echoes(&mut upgraded).await;
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "host"), Some(address.to_string().as_str()));
    assert_eq!(header(&head, "sec-websocket-version"), Some("13"));
}

#[tokio::test]
async fn sockets_have_no_delay_and_keepalive() {
    let (address, _heads) = server(|head| switching(head, "").into_bytes()).await;
    let upgraded = dial_to(&format!("ws://{address}/"), &options())
        .await
        .unwrap();
    let socket = socket2::SockRef::from(upgraded.transport.tcp().unwrap());
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
}

#[tokio::test]
async fn headers_and_credentials_are_sent_and_those_of_the_handshake_are_refused() {
    let (address, mut heads) = server(|head| switching(head, "").into_bytes()).await;
    let target = Target::parse(&format!("ws://alice:pw@{address}/")).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-token", HeaderValue::from_static("7"));
    dial(&target, &options(), async { Ok(headers) })
        .await
        .unwrap();
    let head = heads.recv().await.unwrap();
    assert_eq!(header(&head, "x-token"), Some("7"));
    assert_eq!(header(&head, "authorization"), Some("Basic YWxpY2U6cHc="));

    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer b"));
    dial(&target, &options(), async { Ok(headers) })
        .await
        .unwrap();
    let head = heads.recv().await.unwrap();
    assert_eq!(header(&head, "authorization"), Some("Bearer b"));

    let mut headers = HeaderMap::new();
    headers.insert("sec-websocket-key", HeaderValue::from_static("mine"));
    let error = dial(&target, &options(), async { Ok(headers) })
        .await
        .unwrap_err();
    assert!(matches!(&error, ConnectError::Header { name, .. } if name == "sec-websocket-key"));

    let error = dial(&target, &options(), async { Err("no token today".into()) }).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, ConnectError::HeaderFunction(_)) && error.is_retryable(),
        "{error}"
    );
}

#[tokio::test]
async fn a_refusal_that_no_retry_can_mend_says_so_with_status_and_body() {
    for (status, answer) in [
        (
            401,
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 12\r\n\r\nbad token\r\n\r\n",
        ),
        (
            403,
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 12\r\n\r\nbad token\r\n\r\n",
        ),
        (
            404,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 12\r\n\r\nbad token\r\n\r\n",
        ),
        (
            400,
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nbad token",
        ),
        (200, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbad token"),
    ] {
        let error = refused_with(answer).await;
        let ConnectError::Refused {
            status: found,
            body,
            retry_after,
            ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((found.as_u16(), retry_after), (status, &None));
        assert!(body.starts_with("bad token"), "{body:?}");
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("bad token"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_for_the_moment_carries_its_retry_after() {
    let error = refused_with("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n");
    let error = error.await;
    assert_eq!(
        (error.is_retryable(), error.retry_after()),
        (true, Some(Duration::from_secs(7)))
    );
    let error = refused_with(
        "HTTP/1.1 429 Slow\r\nretry-after: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n",
    );
    let error = error.await;
    assert_eq!(
        (error.is_retryable(), error.retry_after()),
        (true, Some(Duration::ZERO))
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_where_it_points() {
    let error = refused_with(
        "HTTP/1.1 301 Moved\r\nlocation: wss://new.example/\r\ncontent-length: 0\r\n\r\n",
    );
    let error = error.await;
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("wss://new.example/"), "{error}");
}

#[tokio::test]
async fn of_an_endless_refusal_only_the_beginning_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            .await
            .unwrap();
        // Ends when the client closes.
        while tcp.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    let error = dial_to(&format!("ws://{address}/"), &options())
        .await
        .unwrap_err();
    let ConnectError::Refused { body, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(body, "x".repeat(defaults::REFUSAL_BODY_BYTES));
    server.await.unwrap();
}

#[tokio::test]
async fn a_refusal_whose_body_never_comes_is_reported_all_the_same() {
    let error = refused_with("HTTP/1.1 403 Forbidden\r\ncontent-length: 100\r\n\r\nonly").await;
    let ConnectError::Refused { body, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(body, "only");
}

#[tokio::test]
async fn the_agreed_subprotocol_is_known() {
    let (address, mut heads) =
        server(|head| switching(head, "sec-websocket-protocol: b\r\n").into_bytes()).await;
    let options = DialOptions {
        subprotocols: vec!["a".into(), "b".into()],
        ..options()
    };
    let upgraded = dial_to(&format!("ws://{address}/"), &options)
        .await
        .unwrap();
    assert_eq!(upgraded.subprotocol.as_deref(), Some("b"));
    let head = heads.recv().await.unwrap();
    assert_eq!(header(&head, "sec-websocket-protocol"), Some("a, b"));
}

#[tokio::test]
async fn a_subprotocol_that_was_not_offered_is_an_error() {
    let (address, _heads) =
        server(|head| switching(head, "sec-websocket-protocol: c\r\n").into_bytes()).await;
    for offered in [vec![], vec!["a".to_owned()]] {
        let options = DialOptions {
            subprotocols: offered.clone(),
            ..options()
        };
        let error = dial_to(&format!("ws://{address}/"), &options)
            .await
            .unwrap_err();
        assert!(!error.is_retryable());
        let ConnectError::Subprotocol {
            offered: ours,
            chosen,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((ours, chosen.as_deref()), (offered, Some("c")));
    }
}

#[tokio::test]
async fn a_server_that_agrees_to_no_subprotocol_is_an_error_where_one_was_offered() {
    let (address, _heads) = server(|head| switching(head, "").into_bytes()).await;
    let options = DialOptions {
        subprotocols: vec!["a".into()],
        ..options()
    };
    let error = dial_to(&format!("ws://{address}/"), &options)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectError::Subprotocol { chosen: None, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("agreed to no subprotocol"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_the_handshake_is_not_taken_for_a_websocket() {
    type Spoil = fn(String) -> String;
    let spoilt: [(Spoil, &str); 5] = [
        (
            |a| a.replace("accept: ", "accept: A"),
            "does not answer our key",
        ),
        (
            |a| a.replace("upgrade: websocket", "upgrade: h2c"),
            "Upgrade: websocket",
        ),
        (
            |a| a.replace("connection: upgrade", "connection: close"),
            "Connection: Upgrade",
        ),
        (
            |a| a.replace("\r\n\r\n", "\r\nsec-websocket-extensions: x\r\n\r\n"),
            "extension",
        ),
        (|_| "SSH-2.0-OpenSSH_9.9\r\n\r\n".into(), "not HTTP/1.1"),
    ];
    for (spoil, why) in spoilt {
        let (address, _heads) = server(move |head| spoil(switching(head, "")).into_bytes()).await;
        let error = dial_to(&format!("ws://{address}/"), &options())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::NotWebSocket { .. }),
            "{error:?}"
        );
        assert!(!error.is_retryable());
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn an_endless_response_head_is_cut_at_its_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\n")
            .await
            .unwrap();
        let mut sent = 0_usize;
        while tcp
            .write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
            .await
            .is_ok()
        {
            sent += 50;
        }
        sent
    });
    let error = dial_to(&format!("ws://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::NotWebSocket { .. }),
        "{error:?}"
    );
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_the_connection_during_the_handshake_is_worth_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_head(&mut tcp).await;
    });
    let error = dial_to(&format!("ws://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Interrupted { .. }),
        "{error:?}"
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn nobody_listening_is_a_tcp_error_worth_a_retry() {
    // Bound and not listening: nothing else can take the port meanwhile.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let error = dial_to(&format!("ws://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(error.is_retryable());
    let ConnectError::Tcp { to, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!(to, address.to_string());
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    // RFC 6761 section 6.4 reserves the domain for names that never resolve.
    let error = dial_to("ws://nowhere.invalid/", &options())
        .await
        .unwrap_err();
    let ConnectError::Dns { host, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(host, "nowhere.invalid");
}

// ---- Deadlines ----

/// Accepts connections and says nothing, for ever.
async fn mute() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    address
}

async fn phase_of_timeout(url: &str, options: &DialOptions) -> ConnectPhase {
    let options = DialOptions {
        connect_timeout: SHORT,
        ..options.clone()
    };
    let error = dial_to(url, &options).await.unwrap_err();
    assert!(error.is_retryable());
    let ConnectError::Timeout { phase, after } = error else {
        panic!("{error:?}")
    };
    assert_eq!(after, SHORT);
    phase
}

#[tokio::test]
async fn whoever_hangs_is_cut_by_the_deadline_and_named() {
    let mute = mute().await;
    let proxied = |kind: &str| {
        let proxy = Some(Proxy::parse(&format!("{kind}://{mute}")).unwrap());
        DialOptions { proxy, ..options() }
    };
    let (plain, secure) = (format!("ws://{mute}/"), format!("wss://{mute}/"));
    let (direct, http, socks) = (options(), proxied("http"), proxied("socks5"));
    let target = Target::parse(&plain).unwrap();
    let short = DialOptions {
        connect_timeout: SHORT,
        ..options()
    };
    let (upgrade, tls, http, socks, headers) = tokio::join!(
        phase_of_timeout(&plain, &direct),
        phase_of_timeout(&secure, &direct),
        phase_of_timeout("ws://server.invalid/", &http),
        phase_of_timeout("ws://server.invalid/", &socks),
        dial(&target, &short, std::future::pending()),
    );
    assert_eq!(upgrade, ConnectPhase::Upgrade);
    assert_eq!(tls, ConnectPhase::Tls);
    assert_eq!((http, socks), (ConnectPhase::Proxy, ConnectPhase::Proxy));
    let error = headers.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                phase: ConnectPhase::Headers,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_deadline_spans_all_the_steps() {
    let start = Instant::now();
    let deadline = Deadline::new(Duration::from_secs(10));
    let step = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(())
    };
    deadline.cover(ConnectPhase::Dns, step).await.unwrap();
    let hung = deadline
        .cover(ConnectPhase::Tls, std::future::pending::<Result<(), _>>())
        .await;
    assert!(matches!(
        hung,
        Err(ConnectError::Timeout {
            phase: ConnectPhase::Tls,
            ..
        })
    ));
    assert_eq!(start.elapsed().as_secs(), 10);
}

/// A listener whose queue is full, so that the kernel drops every further SYN: a black hole on
/// loopback. Holds what keeps it so.
struct BlackHole(
    SocketAddr,
    #[allow(dead_code)] Socket,
    #[allow(dead_code)] Vec<TcpStream>,
);

impl BlackHole {
    async fn at(address: SocketAddr) -> BlackHole {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            held.push(connected.unwrap());
            assert!(held.len() < 100, "the queue of the listener never fills");
        }
        BlackHole(address, socket, held)
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_swallows_packets_is_cut_in_the_tcp_phase() {
    let hole = BlackHole::at("127.0.0.1:0".parse().unwrap()).await;
    let phase = phase_of_timeout(&format!("ws://{}/", hole.0), &options()).await;
    assert_eq!(phase, ConnectPhase::Tcp);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dead_address_family_does_not_hold_up_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap();
    let dead = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), alive.port());
    let hole = BlackHole::at(dead).await;
    let tcp = connect_tcp(
        "h",
        alive.port(),
        vec![hole.0, alive],
        &Deadline::new(AMPLE),
    )
    .await
    .unwrap();
    assert_eq!(tcp.peer_addr().unwrap(), alive);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dead_address_leaves_time_for_the_next_of_its_family() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap();
    let dead = SocketAddr::new(std::net::Ipv4Addr::new(127, 0, 0, 2).into(), alive.port());
    let hole = BlackHole::at(dead).await;
    let deadline = Deadline::new(Duration::from_secs(4));
    let tcp = connect_tcp("h", alive.port(), vec![hole.0, alive], &deadline)
        .await
        .unwrap();
    assert_eq!(tcp.peer_addr().unwrap(), alive);
}

// ---- TLS ----

struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    fn of(names: &[&str]) -> Authority {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(
            directory.path().join("key.pem"),
            signing_key.serialize_pem(),
        )
        .unwrap();
        Authority { directory }
    }

    fn client(&self) -> Arc<ClientConfig> {
        tls::client_config_from_pem(self.directory.path().join("cert.pem")).unwrap()
    }

    async fn server(&self) -> SocketAddr {
        let path = self.directory.path();
        let config =
            tls::server_config_from_pem(&path.join("cert.pem"), &path.join("key.pem")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let answer = Arc::new(|head: &str| switching(head, "").into_bytes());
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(transport) = tls::accept(config.clone(), tcp).await else {
                    continue;
                };
                tokio::spawn(answer_one(
                    transport,
                    answer.clone(),
                    mpsc::unbounded_channel().0,
                ));
            }
        });
        address
    }
}

#[tokio::test]
async fn tls_carries_the_websocket() {
    let authority = Authority::of(&["localhost"]);
    let address = authority.server().await;
    let url = format!("wss://localhost:{}/", address.port());
    let mut upgraded = dial_to(
        &url,
        &DialOptions {
            tls: Some(authority.client()),
            ..options()
        },
    )
    .await
    .unwrap();
    assert_eq!(upgraded.peer, Some(address));
    echoes(&mut upgraded).await;
}

#[tokio::test]
async fn a_configuration_shared_with_an_http2_client_still_agrees_on_http1() {
    let authority = Authority::of(&["localhost"]);
    let address = authority.server().await;
    let mut config = (*authority.client()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let url = format!("wss://localhost:{}/", address.port());
    dial_to(
        &url,
        &DialOptions {
            tls: Some(Arc::new(config)),
            ..options()
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_stops_at_once() {
    let authority = Authority::of(&["localhost"]);
    let other = Authority::of(&["localhost"]);
    let address = authority.server().await;
    let untrusted = DialOptions {
        tls: Some(other.client()),
        ..options()
    };
    let misnamed = DialOptions {
        tls: Some(authority.client()),
        ..options()
    };
    for (url, options) in [
        (format!("wss://localhost:{}/", address.port()), untrusted),
        (format!("wss://{address}/"), misnamed),
    ] {
        let error = dial_to(&url, &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn tls_to_a_port_that_speaks_plain_http_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let error = dial_to(&format!("wss://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("may not speak TLS"), "{error}");
}

#[tokio::test]
async fn a_connection_cut_during_tls_is_worth_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let error = dial_to(&format!("wss://{address}/"), &options())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert!(error.is_retryable(), "{error}");
}

// ---- Proxies ----

/// An HTTP proxy for one user that knows where `server.invalid` is.
async fn http_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut tcp).await;
                let answer = match head.lines().next().unwrap() {
                    _ if header(&head, "proxy-authorization") != Some("Basic dXNlcjpwdw==") => {
                        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 3\r\n\r\nwho"
                    }
                    "CONNECT server.invalid:80 HTTP/1.1"
                    | "CONNECT server.invalid:443 HTTP/1.1" => {
                        tcp.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
                            .await
                            .unwrap();
                        let mut on = TcpStream::connect(server).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut tcp, &mut on).await;
                        return;
                    }
                    _ => "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
                };
                tcp.write_all(answer.as_bytes()).await.unwrap();
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

/// A SOCKS5 proxy (RFC 1928, RFC 1929) for one user that knows where `server.invalid` is.
async fn socks_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socks_one(tcp, server).await;
            });
        }
    });
    address
}

async fn socks_one(mut tcp: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut methods = vec![
        0;
        {
            tcp.read_u8().await?;
            tcp.read_u8().await?
        } as usize
    ];
    tcp.read_exact(&mut methods).await?;
    if !methods.contains(&2) {
        tcp.write_all(&[5, 0xff]).await?;
        tcp.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    tcp.write_all(&[5, 2]).await?;
    tcp.read_u8().await?;
    let mut user = vec![0; tcp.read_u8().await? as usize];
    tcp.read_exact(&mut user).await?;
    let mut password = vec![0; tcp.read_u8().await? as usize];
    tcp.read_exact(&mut password).await?;
    if (user.as_slice(), password.as_slice()) != (b"user", b"pw") {
        tcp.write_all(&[1, 1]).await?;
        tcp.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    tcp.write_all(&[1, 0]).await?;
    let mut request = [0; 4];
    tcp.read_exact(&mut request).await?;
    // CONNECT to a domain name: the name comes to the proxy unresolved.
    assert_eq!(request, [5, 1, 0, 3]);
    let mut name = vec![0; tcp.read_u8().await? as usize];
    tcp.read_exact(&mut name).await?;
    tcp.read_u16().await?;
    if name != b"server.invalid" {
        tcp.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        tcp.read_to_end(&mut Vec::new()).await?;
        return Ok(());
    }
    tcp.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await?;
    let mut on = TcpStream::connect(server).await?;
    tokio::io::copy_bidirectional(&mut tcp, &mut on).await?;
    Ok(())
}

fn through(kind: &str, credentials: &str, proxy: SocketAddr) -> DialOptions {
    let proxy = Proxy::parse(&format!("{kind}://{credentials}{proxy}")).unwrap();
    DialOptions {
        proxy: Some(proxy),
        ..options()
    }
}

#[tokio::test]
async fn both_kinds_of_proxy_connect_and_resolve_the_name_themselves() {
    let (plain, mut heads) = server(|head| switching(head, "").into_bytes()).await;
    let authority = Authority::of(&["server.invalid"]);
    let secure = authority.server().await;
    for (kind, to_plain, to_secure) in [
        ("http", http_proxy(plain).await, http_proxy(secure).await),
        (
            "socks5",
            socks_proxy(plain).await,
            socks_proxy(secure).await,
        ),
    ] {
        let options = through(kind, "user:pw@", to_plain);
        let mut upgraded = dial_to("ws://server.invalid/", &options).await.unwrap();
        echoes(&mut upgraded).await;
        let head = heads.recv().await.unwrap();
        assert_eq!(header(&head, "host"), Some("server.invalid"));
        assert_eq!(
            header(&head, "proxy-authorization"),
            None,
            "that was the proxy's to know"
        );

        let options = through(kind, "user:pw@", to_secure);
        let options = DialOptions {
            tls: Some(authority.client()),
            ..options
        };
        let mut upgraded = dial_to("wss://server.invalid/", &options).await.unwrap();
        echoes(&mut upgraded).await;
    }
}

#[tokio::test]
async fn a_proxy_that_wants_other_credentials_stops_at_once() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let (http, socks) = (http_proxy(nowhere).await, socks_proxy(nowhere).await);
    for (kind, credentials, proxy) in [
        ("http", "", http),
        ("http", "user:wrong@", http),
        ("socks5", "", socks),
        ("socks5", "user:wrong@", socks),
    ] {
        let options = through(kind, credentials, proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(!error.is_retryable(), "{error}");
        assert!(
            !error.to_string().contains("wrong"),
            "a password in {error}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_server_is_worth_a_retry() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    for (kind, proxy, why) in [
        ("http", http_proxy(nowhere).await, "502"),
        ("socks5", socks_proxy(nowhere).await, "host unreachable"),
    ] {
        let options = through(kind, "user:pw@", proxy);
        let error = dial_to("ws://elsewhere.invalid/", &options)
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_up_is_worth_a_retry() {
    for kind in ["http", "socks5"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        let options = through(kind, "", proxy);
        let error = dial_to("ws://server.invalid/", &options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error:?}");
        assert!(error.is_retryable(), "{error}");
    }
}
