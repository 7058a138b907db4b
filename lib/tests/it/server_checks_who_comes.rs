//! Origin, authentication, subprotocols and TLS decide before a handshake is answered with 101.

use std::time::Duration;

use crate::common::{
    clock::hurried,
    frames::upgrade,
    net::{Certificate, answer, ask, bind, connect, status},
    plain, until,
};
use http::{HeaderValue, header};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use unstall::{Acceptance, Client, ConnectError, PeerAddr, Rejection, Server, ServerLimits};

#[derive(Clone, Debug, PartialEq)]
struct User(String);

async fn guarded() -> Server {
    Server::builder()
        .authenticate(|mut request| async move {
            assert!(request.extensions().get::<PeerAddr>().is_some());
            let token = request
                .headers()
                .get("authorization")
                .and_then(|v| v.to_str().ok());
            match token.and_then(|token| token.strip_prefix("Bearer ")) {
                Some("panic") => panic!("a hook that panics, on purpose"),
                Some("wait") => std::future::pending().await,
                Some("banned") => Err(Rejection::forbidden("you are banned")),
                Some(user) => {
                    let user = User(user.to_owned());
                    request.extensions_mut().insert(user);
                    Ok(request)
                }
                None if request.uri().path() == "/nowhere" => {
                    Err(Rejection::not_found("no stream of that name"))
                }
                None => Err(Rejection::unauthorized("a token is needed").header(
                    http::header::WWW_AUTHENTICATE,
                    http::HeaderValue::from_static("Bearer"),
                )),
            }
        })
        .limits(ServerLimits::default().handshake_timeout(Duration::from_secs(2)))
        .bind("127.0.0.1:0")
        .await
        .unwrap()
}

#[tokio::test]
async fn the_hook_decides_and_its_answer_reaches_the_client() {
    let server = guarded().await;
    let address = server.local_addr();
    for (path, token, status, body) in [
        ("", None, 401, "a token is needed"),
        ("nowhere", None, 404, "no stream of that name"),
        ("", Some("Bearer banned"), 403, "you are banned"),
    ] {
        let mut client = Client::new(format!("ws://{address}/{path}"));
        if let Some(token) = token {
            client = client.header("authorization", token);
        }
        let error = client.connect().await.unwrap_err();
        assert!(!error.is_retryable());
        let ConnectError::Refused {
            status: found,
            body: text,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((found.as_u16(), text.as_str()), (status, body));
    }
    let plain = answer(address, &upgrade("")).await.to_lowercase();
    assert!(plain.contains("www-authenticate: bearer"), "{plain}");
    assert_eq!(server.stats().refused.unauthenticated, 4);
}

#[tokio::test]
async fn what_the_hook_found_out_reaches_the_handler() {
    let server = guarded().await;
    let client = Client::new(format!("ws://{}/feed?x=1", server.local_addr()))
        .header("authorization", "Bearer alice")
        .connect();
    let (client, accepted) = tokio::join!(client, server.accept());
    let (client, accepted) = (client.unwrap(), accepted.unwrap());
    let request = accepted.request().unwrap();
    assert_eq!(request.uri(), "/feed?x=1");
    assert_eq!(
        request.extensions().get::<User>(),
        Some(&User("alice".into()))
    );
    assert_eq!(accepted.peer_addr(), client.local_addr());
    assert_eq!(client.peer_addr(), Some(server.local_addr()));
    assert_eq!(client.response().unwrap().status(), 101);
}

#[tokio::test]
async fn a_hook_that_hangs_ends_in_503_and_one_that_panics_harms_nobody_else() {
    let server = guarded().await;
    let address = server.local_addr();
    let hanging = upgrade("authorization: Bearer wait\r\n");
    let hanging = hurried(answer(address, &hanging)).await;
    assert_eq!(status(&hanging), 503);
    assert!(
        hanging.contains("Authentication took too long"),
        "{hanging}"
    );
    assert_eq!(server.stats().handshakes.timed_out, 1);

    assert_eq!(
        answer(address, &upgrade("authorization: Bearer panic\r\n")).await,
        ""
    );
    until("it was counted", || server.stats().handshakes.failed == 1).await;
    let client = Client::new(format!("ws://{address}/")).header("authorization", "Bearer bob");
    let _ = client.connect().await.unwrap();
}

#[tokio::test]
async fn only_pages_of_the_allowed_origins_connect() {
    let server = bind(Server::builder().origins(["https://app.example"])).await;
    let address = server.local_addr();
    let from = |origin: &str| {
        Client::new(format!("ws://{address}/"))
            .header("origin", origin)
            .connect()
    };
    let _ = from("https://app.example").await.unwrap();
    let error = from("https://evil.example").await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused { status, .. } if status == 403),
        "{error:?}"
    );
    // A program sends no Origin.
    let _ = connect(address).await;
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.refused.origins), (2, 1));
}

/// Once any page could connect by default, with the cookies of the user who had it open.
#[tokio::test]
async fn pages_of_other_sites_do_not_connect_unless_that_is_allowed() {
    let from = |origin: &str| upgrade(&format!("origin: {origin}\r\n"));
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let refused = answer(server.local_addr(), &from("https://evil.example")).await;
    assert_eq!(status(&refused), 403);
    assert!(refused.contains("Only pages of this host"), "{refused}");
    assert_eq!(server.stats().refused.origins, 1);
    let open = Server::builder().allow_any_origin();
    let open = open.bind("127.0.0.1:0").await.unwrap();
    for (server, origin) in [(&server, "https://test"), (&open, "https://evil.example")] {
        let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
        assert_eq!(status(&ask(&mut tcp, &from(origin)).await), 101);
    }
}

/// RFC 6455 section 4.2.1, item 2. Once a request without Host, or with two, was accepted.
#[tokio::test]
async fn a_request_without_a_host_or_with_two_is_refused() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let without = upgrade("").replace("host: test\r\n", "");
    for request in [without, upgrade("host: other\r\n")] {
        let refused = answer(server.local_addr(), &request).await;
        assert_eq!(status(&refused), 400);
        assert!(refused.contains("one Host header"), "{refused}");
    }
    assert_eq!(server.stats().refused.requests, 2);
}

#[tokio::test]
async fn both_ends_know_the_subprotocol_that_was_agreed() {
    let server = bind(Server::builder().subprotocols(["v2", "v1"])).await;
    let url = format!("ws://{}/", server.local_addr());
    let client = Client::new(&url)
        .subprotocol("v3")
        .subprotocol("v1")
        .subprotocol("v2")
        .connect();
    let (client, accepted) = tokio::join!(client, server.accept());
    assert_eq!(client.unwrap().subprotocol().as_deref(), Some("v1"));
    assert_eq!(accepted.unwrap().subprotocol().as_deref(), Some("v1"));
    let error = Client::new(&url)
        .subprotocol("v9")
        .connect()
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Subprotocol { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn tls_from_pem_files_carries_messages_both_ways() {
    let certificate = Certificate::new();
    let server = bind(certificate.serve(Server::builder())).await;
    let url = format!("wss://localhost:{}/", server.local_addr().port());
    let client = Client::new(&url).tls(certificate.client()).connect();
    let (client, accepted) = tokio::join!(client, server.accept());
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
    client.send("up").await.unwrap();
    accepted.send("down").await.unwrap();
    let up = plain(accepted.recv().await);
    let down = plain(client.recv().await);
    assert_eq!((up.as_text(), down.as_text()), (Some("up"), Some("down")));

    let untrusting = Client::new(&url)
        .tls(Certificate::new().client())
        .connect()
        .await;
    let error = untrusting.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    until("it was counted", || server.stats().handshakes.failed == 1).await;
}

#[tokio::test]
async fn a_pem_file_that_is_missing_is_named_when_the_server_starts() {
    let builder = Server::builder().tls_pem("/nowhere/cert.pem", "/nowhere/key.pem");
    let error = builder.bind("127.0.0.1:0").await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/cert.pem"), "{error}");
}

#[tokio::test]
async fn frames_sent_together_with_the_request_are_not_lost() {
    let server = bind(Server::builder()).await;
    let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let mut bytes = upgrade("").into_bytes();
    // A masked text frame "hi".
    bytes.extend_from_slice(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
    tcp.write_all(&bytes).await.unwrap();
    let mut connection = server.accept().await.unwrap();
    let message = plain(connection.recv().await);
    assert_eq!(message.as_text(), Some("hi"));
}

/// A server whose hook adds to its answer what the path says.
async fn accepting() -> Server {
    Server::builder()
        .authenticate(|mut request| async move {
            let value = HeaderValue::from_static;
            let acceptance = match request.uri().path() {
                "/second" => Acceptance::default()
                    .subprotocol("second")
                    .header(header::SET_COOKIE, value("a=1"))
                    .header(header::SET_COOKIE, value("b=2")),
                "/third" => Acceptance::default().subprotocol("third"),
                "/session" => Acceptance::default().subprotocol("unstall.v1"),
                "/plain" => Acceptance::default().plain(),
                "/reserved" => {
                    Acceptance::default().header(header::SEC_WEBSOCKET_ACCEPT, value("x"))
                }
                _ => return Ok(request),
            };
            request.extensions_mut().insert(acceptance);
            Ok(request)
        })
        .bind("127.0.0.1:0")
        .await
        .unwrap()
}

#[tokio::test]
async fn the_hook_can_refuse_a_session_and_leave_the_connection() {
    let server = accepting().await;
    let client = |path: &str| Client::new(format!("ws://{}/{path}", server.local_addr()));
    let session = client("").connect().await.unwrap();
    assert!(session.is_session());
    let connection = client("plain").connect().await.unwrap();
    assert!(!connection.is_session());
    assert_eq!(connection.subprotocol(), None);
    connection.send("hi").await.unwrap();
    assert!(server.accept().await.unwrap().is_session());
    let mut accepted = server.accept().await.unwrap();
    assert!(!accepted.is_session());
    assert_eq!(plain(accepted.recv().await).as_text(), Some("hi"));
    assert_eq!((server.stats().sessions, server.stats().open), (1, 2));
    let insisting = client("plain").require_session();
    assert!(insisting.connect().await.is_err());
}

#[tokio::test]
async fn the_hook_chooses_the_subprotocol_and_adds_headers_to_the_answer() {
    let server = accepting().await;
    let client = |path: &str| {
        let client = Client::new(format!("ws://{}/{path}", server.local_addr()));
        client.subprotocol("first").subprotocol("second")
    };
    let connection = client("second").connect().await.unwrap();
    assert_eq!(connection.subprotocol().as_deref(), Some("second"));
    let answer = connection.response().unwrap();
    let cookies: Vec<_> = answer
        .headers()
        .get_all(header::SET_COOKIE)
        .iter()
        .collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    // A hook that chooses nothing: a server that speaks neither agrees to neither.
    let error = client("").connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Subprotocol { chosen: None, .. }),
        "{error:?}"
    );
    let connection = client("").optional_subprotocol().connect().await.unwrap();
    assert_eq!(connection.subprotocol(), None);
}

#[tokio::test]
async fn an_answer_of_the_hook_that_breaks_the_handshake_is_500() {
    let server = accepting().await;
    for path in ["third", "session", "reserved"] {
        let client = Client::new(format!("ws://{}/{path}", server.local_addr()));
        let client = match path {
            "session" => client.require_session(),
            _ => client.subprotocol("first"),
        };
        let error = client.connect().await.unwrap_err();
        let ConnectError::Refused { status, .. } = error else {
            panic!("{path}: {error:?}");
        };
        assert_eq!(status, 500, "{path}");
    }
}

#[tokio::test]
async fn the_headers_of_a_refusal_are_told_and_not_printed() {
    let server = guarded().await;
    let client = Client::new(format!("ws://{}", server.local_addr()));
    let error = client.connect().await.unwrap_err();
    let ConnectError::Refused { headers, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    assert!(!format!("{error:?}").contains("Bearer"), "{error:?}");
}
