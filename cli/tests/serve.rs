//! `unstall serve` over loopback, with tokio-tungstenite as the client.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use support::{Serve, next, next_json, packet, run, send};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn echo_returns_each_message_and_its_kind() {
    let serve = Serve::start(&[]);
    for path in ["", "/", "/echo"] {
        let mut ws = serve.connect(path).await;
        let messages = [
            Message::text("grüße"),
            Message::text(""),
            Message::binary(vec![0u8, 255, 10]),
            Message::binary(vec![]),
            Message::binary(vec![7u8; 1 << 20]),
        ];
        for message in &messages {
            ws.send(message.clone()).await.unwrap();
        }
        for message in messages {
            assert_eq!(next(&mut ws).await, message);
        }
    }
}

#[tokio::test]
async fn packets_have_index_hash_and_size_and_end_with_done() {
    let serve = Serve::start(&[]);
    let mut ws = serve.connect("/packets").await;
    send(&mut ws, r#"{"count":1000,"size":4096}"#).await;
    for index in 0..1000u64 {
        let bytes = next(&mut ws).await.into_data();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(
            packet(index, &bytes[16..]).into_data(),
            bytes,
            "packet {index}"
        );
    }
    assert_eq!(next_json(&mut ws).await, json!({"done": 1000}));
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order_and_a_bad_one_is_told_why() {
    let serve = Serve::start(&[]);
    let mut ws = serve.connect("/packets").await;
    for request in [
        r#"{"count":2,"size":16}"#,
        r#"{"count":0,"size":16}"#,
        r#"{"count":1,"size":15}"#,
        r#"{"count":99999999999999999999,"size":16}"#,
        "hello",
        r#"{"count":1,"size":17}"#,
    ] {
        send(&mut ws, request).await;
    }
    ws.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(next(&mut ws).await, packet(0, b""));
    assert_eq!(next(&mut ws).await, packet(1, b""));
    assert_eq!(next_json(&mut ws).await, json!({"done": 2}));
    assert_eq!(next_json(&mut ws).await, json!({"done": 0}));
    for reason in ["size 15", "not understood", "not understood"] {
        let answer = next_json(&mut ws).await;
        assert!(
            answer["error"].as_str().unwrap().contains(reason),
            "{answer}"
        );
    }
    assert_eq!(next(&mut ws).await.into_data().len(), 17);
    assert_eq!(next_json(&mut ws).await, json!({"done": 1}));
    assert!(
        next_json(&mut ws).await["error"]
            .as_str()
            .unwrap()
            .contains("binary")
    );
}

/// The client of the most reported stall: it sends all requests before it reads an answer.
#[tokio::test]
async fn a_client_that_sends_all_requests_before_it_reads_gets_every_answer() {
    const REQUESTS: u64 = 20_000;
    let serve = Serve::start(&[]);
    let mut ws = serve.connect("/packets").await;
    for _ in 0..REQUESTS {
        send(&mut ws, r#"{"count":1,"size":4096}"#).await;
    }
    let (mut packets, mut done) = (0, 0);
    while done < REQUESTS {
        match next(&mut ws).await {
            Message::Binary(_) => packets += 1,
            _ => done += 1,
        }
    }
    assert_eq!((packets, done), (REQUESTS, REQUESTS));
}

#[tokio::test]
async fn sink_counts_what_became_of_the_packets() {
    let serve = Serve::start(&[]);
    let mut ws = serve.connect("/sink").await;
    for index in [0, 1, 1, 4, 3] {
        ws.send(packet(index, b"any payload")).await.unwrap();
    }
    ws.send(Message::binary(b"not a packet".to_vec()))
        .await
        .unwrap();
    send(&mut ws, r#"{"report":true}"#).await;
    let report = json!({"count": 5, "received": 4, "lost": 1, "duplicated": 1, "reordered": 1,
                        "corrupted": 1});
    assert_eq!(next_json(&mut ws).await, report);
    send(&mut ws, "how are you?").await;
    assert!(next_json(&mut ws).await["error"].is_string());
}

#[tokio::test]
async fn an_unknown_path_is_refused_with_404() {
    let serve = Serve::start(&[]);
    let error = tokio_tungstenite::connect_async(serve.at("/nowhere"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn with_a_token_it_lets_in_only_who_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret?\n").unwrap();
    let serve = Serve::start(&["--token", file.to_str().unwrap()]);
    let ask = |name, value| {
        let request = http::Request::get(serve.at("/echo"))
            .header("host", serve.address())
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header(name, value);
        tokio_tungstenite::connect_async(request.body(()).unwrap())
    };
    let offers = "sec-websocket-protocol";
    // Base64url of the token, which no answer repeats.
    let page = ask(offers, "unstall.v1, unstall.bearer.czNjcmV0Pw").await;
    let (_, answer) = page.unwrap();
    assert_eq!(answer.headers()[offers], "unstall.v1");
    assert!(ask("authorization", "Bearer s3cret?").await.is_ok());
    for (name, value) in [
        ("authorization", "Bearer s3cret"),
        (offers, "unstall.v1"),
        (offers, "unstall.v1, unstall.bearer.czNjcmV0"),
    ] {
        match ask(name, value).await.unwrap_err() {
            tokio_tungstenite::tungstenite::Error::Http(answer) => {
                assert_eq!(answer.status(), 401, "{value}");
                assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            }
            other => panic!("{value}: {other}"),
        }
    }
    std::fs::write(&file, "two words").unwrap();
    let ended = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--token",
        file.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.stderr.contains("two words"), "{ended:?}");
}

#[tokio::test]
async fn a_signal_closes_every_connection_with_1001_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let mut serve = Serve::start(&["--json"]);
        let mut busy = serve.connect("/packets").await;
        let mut idle = serve.connect("/echo").await;
        send(&mut busy, r#"{"count":1000000,"size":64}"#).await;
        next(&mut busy).await;
        let pid = serve.running.child.id().to_string();
        let kill = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap();
        assert!(kill.success());
        for ws in [&mut busy, &mut idle] {
            let close = loop {
                match next(ws).await {
                    Message::Close(frame) => break frame.unwrap(),
                    other => assert!(other.is_binary(), "{other:?}"),
                }
            };
            assert_eq!(close.code, CloseCode::Away);
            while ws.next().await.is_some_and(|message| message.is_ok()) {}
        }
        assert_eq!(serve.running.wait().code(), Some(0));
        let mut rest = String::new();
        serve.stdout.read_to_string(&mut rest).unwrap();
        let result: serde_json::Value = serde_json::from_str(&rest).unwrap();
        assert_eq!(
            (&result["accepted"], &result["closed"]),
            (&json!(2), &json!(2)),
            "{result}"
        );
    }
}

#[test]
fn it_agrees_to_compress_only_if_it_is_told_to() {
    let answer = |args: &[&str], offer: &str| {
        let serve = Serve::start(args);
        let mut tcp = TcpStream::connect(serve.url.strip_prefix("ws://").unwrap()).unwrap();
        let request = format!(
            "GET /echo HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        tcp.write_all(request.as_bytes()).unwrap();
        let lines = BufReader::new(tcp).lines().map(Result::unwrap);
        let mut head = lines.take_while(|line| !line.is_empty());
        let name = "sec-websocket-extensions: ";
        head.find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
    };
    let offer = "permessage-deflate; client_max_window_bits; server_max_window_bits=14";
    assert_eq!(answer(&[], offer), None);
    let chosen = answer(&["--compress=window=10,takeover=off"], offer).unwrap();
    assert_eq!(
        chosen,
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
         server_max_window_bits=10; client_max_window_bits=10"
    );
}

#[test]
fn wrong_usage_exits_with_2_and_a_taken_port_with_1() {
    assert_eq!(run(&["serve", "--listen", "nowhere"]).code, Some(2));
    assert_eq!(run(&["serve", "--tls-cert", "server.pem"]).code, Some(2));
    assert_eq!(run(&["serve", "--compress=level=10"]).code, Some(2));
    let serve = Serve::start(&[]);
    let taken = run(&[
        "serve",
        "--listen",
        serve.url.strip_prefix("ws://").unwrap(),
    ]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("cannot listen on"), "{taken:?}");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_carries_serve_and_cat() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let path = path.to_str().unwrap();
    let mut serve = support::Running::start(&["serve", "--unix-socket", path]);
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(serve.child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line.trim_end(), format!("listening on {path}"));
    let arguments = ["cat", "--unix-socket", path, "ws://localhost/echo"];
    let ended = support::run_with(&arguments, "hello\n");
    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), "hello\n"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_server_and_a_hub_take_as_many_connections_as_they_are_told() {
    let args = ["--max-connections", "1"];
    for (server, path) in [
        (Serve::start(&args), "/echo"),
        (Serve::hub(&args), "/topics"),
    ] {
        let connect = || async {
            let mut request = server.at(path).into_client_request().unwrap();
            let offer = "unstall.topics.v1".parse().unwrap();
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", offer);
            tokio_tungstenite::connect_async(request).await
        };
        let _first = connect().await.unwrap();
        let Err(Error::Http(refusal)) = connect().await else {
            panic!("it is one too many");
        };
        assert!([429, 503].contains(&refusal.status().as_u16()));
    }
}
