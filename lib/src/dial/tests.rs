//! Dialing over real sockets: deadlines, refusals, proxies and TLS.

mod deadlines;
mod proxies;
mod tls;

use std::io;
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
use crate::reports::RedactedUrl;
use crate::{defaults, ws};

/// Long enough for any handshake on a loaded machine.
const AMPLE: Duration = Duration::from_secs(30);
/// For steps that never end.
const SHORT: Duration = Duration::from_millis(700);

fn options() -> DialOptions {
    DialOptions {
        tls: None,
        proxy: None,
        connector: None,
        subprotocols: Vec::new(),
        subprotocol_required: true,
        compression: None,
        hello: None,
        session: Wanted::Never,
        connect_timeout: AMPLE,
    }
}

fn target(url: &str) -> Target {
    Target::parse(&RedactedUrl::new(url)).unwrap()
}

async fn dial_to(url: &str, options: &DialOptions) -> Result<Upgraded, ConnectError> {
    dial(&target(url), options, async { Ok(HeaderMap::new()) }).await
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

/// A server that answers each connection's request with `answer(head)`, then echoes, and reports
/// the heads.
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
    let target = target(&format!("ws://alice:pw@{address}/"));
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
            "does not fit the key",
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
    // Bound but not listening, so that nothing else can take the port.
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

/// Once a server that repeated the request's query or token in its refusal put it into the error,
/// and from there into logs.
#[tokio::test]
async fn no_error_repeats_a_secret_that_the_server_repeats() {
    let repeating = |head: &str| {
        let text = head.replace("\r\n", " ");
        let length = text.len();
        format!(
            "HTTP/1.1 404 Not Found\r\nlocation: /a?{length}&t=s3cr3t-query\r\n\
             content-length: {length}\r\n\r\n{text}"
        )
        .into_bytes()
    };
    let (address, _heads) = server(repeating).await;
    let target = target(&format!("ws://user:s3cr3tpw@{address}/a?t=s3cr3t-query"));
    let mut headers = HeaderMap::new();
    headers.insert("x-token", HeaderValue::from_static("s3cr3t-header"));
    headers.insert("cookie", HeaderValue::from_static("id=s3cr3t-cookie"));
    let error = dial(&target, &options(), async { Ok(headers) })
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("GET /a?…"), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
    let basic = "dXNlcjpzM2NyM3Rwdw==";
    assert!(!text.contains(basic), "{text}");
}

/// Once a token among the offered subprotocols, where browsers' clients have to put it, was printed.
#[tokio::test]
async fn a_token_among_the_subprotocols_is_not_printed() {
    let token = "bearer.".to_owned() + &"s3cr3t".repeat(20);
    let chosen = token.clone();
    let (address, _heads) = server(move |head| {
        switching(head, &format!("sec-websocket-protocol: x{chosen}\r\n")).into_bytes()
    })
    .await;
    let options = DialOptions {
        subprotocols: vec!["v1".into(), token.clone()],
        ..options()
    };
    let error = dial_to(&format!("ws://{address}/"), &options)
        .await
        .unwrap_err();
    let client = crate::Client::new("ws://h/").subprotocol(&token);
    let text = format!("{error} {error:?} {client:?}");
    assert!(text.contains("v1") && text.contains("bearer"), "{text}");
    assert!(!text.contains(&token), "{text}");
}
