//! What passes a relay: messages, subprotocols, headers, paths, refusals and close codes.

use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{Peer, Upstream, close, closed, connect, echo, open, refusal, refused},
    support::{Serve, next},
};

#[tokio::test]
async fn text_and_binary_messages_of_any_size_pass_both_ways() {
    let upstream = Upstream::start(echo).await;
    let relay = Serve::relay(&upstream.url(), &[]);
    let mut ws = open(&relay.url).await;
    let messages: Vec<_> = [0, 1, 125, 126, 65_535, 65_536, 5_000_000]
        .into_iter()
        .flat_map(|size| {
            [
                Message::text("é".repeat(size / 2)),
                Message::binary(vec![7; size]),
            ]
        })
        .collect();
    for message in &messages {
        ws.send(message.clone()).await.unwrap();
        assert_eq!(&next(&mut ws).await, message);
    }
    // All of them at once, too.
    let (mut sink, mut stream) = ws.split();
    let sending = async {
        for message in &messages {
            sink.send(message.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for message in &messages {
            assert_eq!(&stream.next().await.unwrap().unwrap(), message);
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn path_query_and_headers_reach_upstream_and_its_answer_the_client() {
    let answer = |_: &_, mut response: http::Response<()>| {
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("second"));
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        headers.insert("x-node", HeaderValue::from_static("7"));
        Ok(response)
    };
    let upstream = Upstream::answering(answer, echo).await;
    let to = format!("{}/feed?key=1", upstream.url());
    let relay = Serve::relay(&to, &["-H", "X-Own: relay", "--any-origin"]);
    let sent = [
        ("sec-websocket-protocol", "first, second"),
        ("authorization", "Bearer t0ken"),
        ("cookie", "c=3"),
        ("origin", "https://app.example"),
        ("x-own", "client"),
        ("x-other", "kept"),
        ("x-hop", "dropped"),
        ("connection", "Upgrade, x-hop"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
    ];
    let (_ws, answer) = connect(&relay.at("/a/b?c=d"), &sent).await.unwrap();
    assert_eq!(answer["sec-websocket-protocol"], "second");
    let cookies: Vec<_> = answer.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(answer["x-node"], "7");

    let [request] = &upstream.requests()[..] else {
        panic!("one connection upstream");
    };
    assert_eq!(request.uri(), "/feed/a/b?key=1&c=d");
    let headers = request.headers();
    for (name, value) in [
        ("sec-websocket-protocol", "first, second"),
        ("authorization", "Bearer t0ken"),
        ("cookie", "c=3"),
        ("origin", "https://app.example"),
        ("x-own", "relay"),
        ("x-other", "kept"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", relay.address()),
        ("host", &upstream.address.to_string()),
    ] {
        let found: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(found, [value], "{name}");
    }
    for name in ["x-hop", "forwarded"] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_base_path_of_the_relay_is_taken_off_and_dots_lead_nowhere() {
    let upstream = Upstream::start(echo).await;
    let listen = ["--listen", "ws://127.0.0.1:0/in"];
    let relay = Serve::of(&[&["relay", "--to", &upstream.url()], &listen[..]].concat());
    assert!(relay.url.ends_with("/in"), "{}", relay.url);
    open(&relay.at("/x")).await;
    assert_eq!(upstream.requests()[0].uri(), "/x");
    let other = relay.url.replace("/in", "/other");
    assert_eq!(refused(&other).await.0, 404);
    assert_eq!(refused(&relay.at("/%2e%2E/secret")).await.0, 400);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn what_a_trusted_proxy_says_of_the_client_passes() {
    let upstream = Upstream::start(echo).await;
    let relay = Serve::relay(
        &upstream.url(),
        &["--trusted-proxy", "127.0.0.1", "--keep-host"],
    );
    let sent = [
        ("x-forwarded-for", "6.6.6.6, 9.9.9.9"),
        ("x-forwarded-proto", "https"),
    ];
    connect(&relay.url, &sent).await.unwrap();
    let request = &upstream.requests()[0];
    assert_eq!(
        request.headers()["x-forwarded-for"],
        "6.6.6.6, 9.9.9.9, 127.0.0.1"
    );
    assert_eq!(request.headers()["x-forwarded-proto"], "https");
    assert_eq!(request.headers()["host"], relay.address());
}

#[tokio::test]
async fn a_refusal_of_upstream_reaches_the_client_as_it_is() {
    let answer = |request: &http::Request<()>, _| match request.uri().path() {
        "/401" => refusal(
            401,
            ("www-authenticate", "Basic realm=\"x\""),
            "who are you?",
        ),
        "/429" => refusal(429, ("retry-after", "7"), "later"),
        "/302" => refusal(302, ("location", "wss://other.example/"), ""),
        _ => refusal(404, ("x-why", "nowhere"), "no stream of that name"),
    };
    let upstream = Upstream::answering(answer, echo).await;
    let relay = Serve::relay(&upstream.url(), &[]);
    for (status, header, value, body) in [
        (401, "www-authenticate", "Basic realm=\"x\"", "who are you?"),
        (429, "retry-after", "7", "later"),
        (302, "location", "wss://other.example/", ""),
        (404, "x-why", "nowhere", "no stream of that name"),
    ] {
        let (found, headers, text) = refused(&relay.at(&format!("/{status}"))).await;
        assert_eq!((found, text.as_str()), (status, body));
        assert_eq!(headers[header], value);
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_502_and_a_silent_one_504() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    let relay = Serve::relay(&format!("ws://{address}"), &["--connect-timeout", "0.3"]);
    let (status, _, text) = refused(&relay.url).await;
    assert_eq!(status, 504, "{text}");
    drop(nobody);
    let (status, headers, text) = refused(&relay.url).await;
    assert_eq!(status, 502, "{text}");
    assert!(headers.contains_key("retry-after"));
    assert!(!text.contains("127.0.0.1"), "{text}");
}

/// Closes as the first message says, or cuts the connection.
async fn closes_as_asked(mut ws: Peer) {
    let asked = next_text(&mut ws).await;
    match asked.split_once(' ') {
        Some((code, reason)) => close(&mut ws, code.parse().unwrap(), reason).await,
        None if asked == "close" => ws.close(None).await.unwrap(),
        None => return,
    }
    while let Some(Ok(_)) = ws.next().await {}
}

async fn next_text(ws: &mut Peer) -> String {
    ws.next()
        .await
        .unwrap()
        .unwrap()
        .to_text()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_close_of_upstream_reaches_the_client_with_its_code_and_reason() {
    let upstream = Upstream::start(closes_as_asked).await;
    let relay = Serve::relay(&upstream.url(), &[]);
    for (asked, code, reason) in [
        ("1000 done", 1000, "done"),
        ("1001 moving", 1001, "moving"),
        ("1008 no", 1008, "no"),
        ("1011 oops", 1011, "oops"),
        ("1012 restart", 1012, "restart"),
        ("4999 own é", 4999, "own é"),
        // There is no frame without a code that could be sent on.
        ("close", 1000, ""),
    ] {
        let mut ws = open(&relay.url).await;
        ws.send(Message::text(asked)).await.unwrap();
        let expected = Some((code, reason.to_owned()));
        assert_eq!(closed(&mut ws).await, (0, expected), "{asked}");
    }
    let mut ws = open(&relay.url).await;
    ws.send(Message::text("cut")).await.unwrap();
    let (_, end) = closed(&mut ws).await;
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1012);
    assert!(
        reason.starts_with("the connection upstream was lost"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_close_of_the_client_reaches_upstream_with_its_code_and_reason() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::start(move |mut ws| {
        let tell = tell.clone();
        async move {
            tell.send(closed(&mut ws).await).unwrap();
        }
    })
    .await;
    let relay = Serve::relay(&upstream.url(), &[]);
    for (code, reason) in [(1000, ""), (1001, "leaving"), (3000, "own"), (4999, "é")] {
        let mut ws = open(&relay.url).await;
        for _ in 0..100 {
            ws.send(Message::text("sent before")).await.unwrap();
        }
        close(&mut ws, code, reason).await;
        let expected = (100, Some((code, reason.to_owned())));
        assert_eq!(told.recv().await, Some(expected));
        closed(&mut ws).await;
    }
    // A client that is gone without a word.
    drop(open(&relay.url).await);
    let (_, end) = told.recv().await.unwrap();
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1001);
    assert!(reason.starts_with("the client was lost"), "{reason}");
}

#[tokio::test]
async fn headers_are_made_anew_for_each_attempt() {
    let upstream = Upstream::start(echo).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let relay = Serve::relay(&upstream.url(), &["--headers-file", &path]);
    for token in ["first", "second"] {
        std::fs::write(&path, format!("# renewed\nAuthorization: Bearer {token}\n")).unwrap();
        connect(&relay.url, &[("authorization", "of the client")])
            .await
            .unwrap();
    }
    let seen: Vec<_> = upstream.requests();
    let seen: Vec<_> = seen
        .iter()
        .map(|it| &it.headers()["authorization"])
        .collect();
    assert_eq!(seen, ["Bearer first", "Bearer second"]);

    let command = format!("cat {path}");
    let by_command = Serve::relay(&upstream.url(), &["--headers-command", &command]);
    open(&by_command.url).await;
    assert_eq!(
        upstream.requests()[2].headers()["authorization"],
        "Bearer second"
    );

    // Without headers nothing goes upstream, and no secret is told.
    std::fs::write(&path, "Authorization Bearer s3cret\n").unwrap();
    let (status, _, text) = refused(&relay.url).await;
    assert_eq!(status, 502);
    assert!(!text.contains("s3cret"), "{text}");
    assert_eq!(upstream.requests().len(), 3);
    relay.running.signal("TERM");
    let ended = relay.running.end();
    assert!(
        ended.stderr.contains("line 1 is not a header"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
}

#[tokio::test]
async fn either_side_is_compressed_by_itself() {
    let serve = Serve::start(&["--compress"]);
    let inner = Serve::relay(&serve.url, &["--plain", "--compress-upstream"]);
    let outer = Serve::relay(&inner.url, &["--plain", "--compress"]);
    let offer = ("sec-websocket-extensions", "permessage-deflate");
    let answer = |url: String| async move { connect(&url, &[offer]).await.map(|it| it.1) };
    // tungstenite does not know the extension, so only the answers are looked at here. The messages
    // pass from an unstall that compresses to one that does.
    let headers = answer(inner.at("/echo")).await.unwrap();
    assert!(!headers.contains_key("sec-websocket-extensions"));
    let headers = answer(outer.at("/echo")).await.unwrap();
    assert!(headers.contains_key("sec-websocket-extensions"));
    let line = "the same again and again ".repeat(100);
    let input = format!("{line}\n").repeat(50);
    let url = outer.at("/echo");
    let args = ["cat", "--plain", "--compress", &url];
    let ended = crate::support::run_with(&args, &input);
    assert_eq!(ended.stdout, input);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
