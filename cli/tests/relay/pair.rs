//! Two relays with a session between them: the programs at both ends notice nothing of a cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use tokio::sync::mpsc::unbounded_channel;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{
        Network, Peer, Upstream, close, closed, connect, echo, numbers, open, refusal, refused,
        until,
    },
    support::{Raw, Serve, next, send},
};

/// Two relays, and the network between them.
pub(crate) struct Pair {
    pub(crate) outer: Serve,
    pub(crate) network: Network,
    pub(crate) _inner: Serve,
}

impl Pair {
    pub(crate) async fn to(upstream: &str, args: &[&str]) -> Pair {
        let inner = Serve::relay(upstream, &[&["--any-origin"], args].concat());
        let network = Network::to(inner.address()).await;
        let outer = ["--require-session", "--any-origin"];
        let outer = Serve::relay(&network.url(), &[&outer[..], args].concat());
        Pair {
            outer,
            network,
            _inner: inner,
        }
    }

    /// How many connections there were between the relays.
    fn connections(&self) -> u64 {
        *self.network.connections.borrow()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_between_the_relays_lose_and_double_nothing_in_either_direction() {
    const COUNT: u64 = 20_000;
    const CUTS: u64 = 5;
    // Upstream counts for itself, and checks what the client sends.
    let (tell, mut told) = unbounded_channel();
    let upstream = Upstream::start(move |ws: Peer| {
        let tell = tell.clone();
        async move {
            let (mut sink, mut stream) = ws.split();
            let sending = async {
                for number in 0..COUNT {
                    sink.send(Message::text(number.to_string())).await.unwrap();
                }
            };
            let receiving = numbers(&mut stream, 0..COUNT);
            tokio::join!(sending, receiving);
            let mut ws = sink.reunite(stream).unwrap();
            tell.send(closed(&mut ws).await).unwrap();
        }
    })
    .await;
    let pair = Pair::to(&upstream.url(), &[]).await;
    let ws = open(&pair.outer.url).await;
    let (mut sink, mut stream) = ws.split();
    let mut cuts = 0;
    let sending = async {
        for number in 0..COUNT {
            if number % (COUNT / CUTS) == COUNT / CUTS / 2 {
                pair.network.cut();
                cuts += 1;
                let connections = cuts + 1;
                until("the session resumes", || pair.connections() >= connections).await;
            }
            sink.send(Message::text(number.to_string())).await.unwrap();
        }
    };
    let receiving = numbers(&mut stream, 0..COUNT);
    tokio::join!(sending, receiving);
    assert_eq!(cuts, CUTS);
    let mut ws = sink.reunite(stream).unwrap();
    close(&mut ws, 4001, "all of it").await;
    let end = (0, Some((4001, "all of it".to_owned())));
    assert_eq!(told.recv().await, Some(end), "nothing more came");
    assert_eq!(upstream.requests().len(), 1, "upstream noticed nothing");
}

#[tokio::test]
async fn subprotocol_headers_and_refusals_pass_through_a_session() {
    let answer = |request: &http::Request<()>, mut response: http::Response<()>| {
        if request.uri().path() == "/401" {
            return refusal(401, ("www-authenticate", "Bearer"), "who are you?");
        }
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("b"));
        headers.insert("set-cookie", HeaderValue::from_static("a=1"));
        Ok(response)
    };
    let upstream = Upstream::answering(answer, echo).await;
    let pair = Pair::to(&upstream.url(), &["--trusted-proxy", "127.0.0.1"]).await;
    let sent = [
        ("sec-websocket-protocol", "a, b"),
        ("origin", "https://app.example"),
        ("cookie", "c=3"),
    ];
    let (mut ws, headers) = connect(&pair.outer.at("/x?y=z"), &sent).await.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "b");
    assert_eq!(headers["set-cookie"], "a=1");
    assert!(
        !headers
            .keys()
            .any(|name| name.as_str().starts_with("unstall")),
        "{headers:?}"
    );
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    let request = &upstream.requests()[0];
    assert_eq!(request.uri(), "/x?y=z");
    for (name, value) in sent {
        assert_eq!(request.headers()[name], value);
    }
    let names = request.headers().keys();
    assert!(
        !names
            .into_iter()
            .any(|name| name.as_str().starts_with("unstall"))
    );
    let (status, headers, text) = refused(&pair.outer.at("/401")).await;
    assert_eq!((status, text.as_str()), (401, "who are you?"));
    assert_eq!(headers["www-authenticate"], "Bearer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_lost_closes_both_ends_and_says_so() {
    let (tell, mut told) = unbounded_channel();
    let upstream = Upstream::start(move |mut ws: Peer| {
        let tell = tell.clone();
        async move {
            let _ = ws.send(Message::text("0")).await;
            tell.send(closed(&mut ws).await).unwrap();
        }
    })
    .await;
    let pair = Pair::to(&upstream.url(), &["--session-life", "1"]).await;
    let mut ws = open(&pair.outer.url).await;
    numbers(&mut ws, 0..1).await;
    pair.network.stop();
    let (_, end) = closed(&mut ws).await;
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1012);
    assert!(
        reason.starts_with("the session between the relays was lost"),
        "{reason}"
    );
    let (_, end) = told.recv().await.unwrap();
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1001);
    assert!(
        reason.starts_with("the client's session was lost"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_relay_that_needs_a_session_says_that_upstream_has_none() {
    let upstream = Upstream::start(echo).await;
    let relay = Serve::relay(&upstream.url(), &["--require-session"]);
    let (status, headers, _) = refused(&relay.url).await;
    assert_eq!(status, 502);
    assert!(!headers.contains_key("retry-after"), "it will not help");
    relay.running.signal("TERM");
    let told = relay.running.end().stderr;
    assert!(told.contains("agreed to no subprotocol"), "{told}");
}

/// A client of unstall itself opens a session with the relay, which then connects upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_sessions_of_their_own_resume_over_one_connection_upstream() {
    let upstream = Upstream::start(echo).await;
    let relay = Serve::relay(&upstream.url(), &[]);
    let network = Network::to(relay.address()).await;
    let client = unstall::Client::new(network.url()).require_session();
    let mut session = client.connect().await.unwrap();
    for number in 0..200u32 {
        if number % 50 == 25 {
            network.cut();
        }
        session.send(number.to_string()).await.unwrap();
        let echoed = session
            .recv()
            .await
            .unwrap()
            .unwrap()
            .into_message()
            .unwrap();
        assert_eq!(echoed.as_text().unwrap(), number.to_string());
    }
    assert!(session.stats().resumes >= 4);
    assert_eq!(upstream.requests().len(), 1);
    // One whose upstream refuses is closed with the reason.
    let refusing = Upstream::answering(|_, _| refusal(403, ("x-a", "b"), "no"), echo).await;
    let relay = Serve::relay(&refusing.url(), &[]);
    let client = unstall::Client::new(&relay.url).require_session();
    let mut session = client.connect().await.unwrap();
    // The session is lost first, and then the connection ends.
    assert!(matches!(
        session.recv().await,
        Ok(Some(unstall::Incoming::Gap(_)))
    ));
    let error = session.recv().await.unwrap_err().to_string();
    assert!(
        error.contains("1008") && error.contains("upstream refused with 403"),
        "{error}"
    );
}

/// What upstream got on one connection of a client.
type Received = Arc<Mutex<HashMap<String, u64>>>;

/// One connection of a client of the rolling restart: it counts up, and gets its numbers back, until
/// the relay closes. Returns how many it sent, and the code of the close.
async fn life(mut ws: Raw, name: &str) -> (u64, u16) {
    send(&mut ws, name).await;
    let (mut sent, mut back) = (0u64, 0u64);
    loop {
        while sent < back + 10 {
            if ws.send(Message::text(sent.to_string())).await.is_err() {
                break;
            }
            sent += 1;
        }
        match next(&mut ws).await {
            Message::Close(frame) => {
                let code = frame.map_or(1005, |frame| frame.code.into());
                closed(&mut ws).await;
                return (sent, code);
            }
            message => {
                assert_eq!(message.to_text().unwrap(), back.to_string());
                back += 1;
            }
        }
    }
}

/// Each client's connections end with 1001 only, and upstream has then got everything that was sent on
/// them. `UNSTALL_FULL=1` takes 1,000 clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_two_relays_loses_nothing_between_the_ends_of_connections() {
    let clients = if std::env::var_os("UNSTALL_FULL").is_some() {
        1000
    } else {
        50
    };
    let received = Received::default();
    let upstream = Upstream::start({
        let received = received.clone();
        move |mut ws: Peer| {
            let received = received.clone();
            async move {
                let Some(Ok(name)) = ws.next().await else {
                    return;
                };
                let name = name.to_text().unwrap().to_owned();
                let mut count = 0;
                while let Some(Ok(message)) = ws.next().await {
                    if message.is_text() {
                        assert_eq!(message.to_text().unwrap(), count.to_string());
                        count += 1;
                        let _ = ws.send(message).await;
                    }
                }
                received.lock().unwrap().insert(name, count);
            }
        }
    })
    .await;
    let relays = [0, 1].map(|_| Serve::relay(&upstream.url(), &["--drain", "30"]));
    let urls = relays.each_ref().map(|relay| relay.url.clone());
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let url = urls[client % 2].clone();
            tokio::spawn(async move {
                let mut lives = Vec::new();
                for number in 0..2 {
                    let ws = loop {
                        // The relay is restarted.
                        if let Ok((ws, _)) = connect(&url, &[]).await {
                            break ws;
                        }
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    };
                    let name = format!("{client}.{number}");
                    let (sent, code) = life(ws, &name).await;
                    assert_eq!(code, 1001, "{name}");
                    lives.push((name, sent));
                }
                lives
            })
        })
        .collect();
    let mut relays = Vec::from(relays);
    for round in 0..2 {
        let expected = clients * (round + 1);
        until("all are connected", || {
            upstream.requests().len() >= expected
        })
        .await;
        for _ in 0..2 {
            let relay = relays.remove(0);
            let url = relay.url.clone();
            relay.running.signal("TERM");
            let ended = crate::support::in_background(|| relay.running.end()).await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            let to = upstream.url();
            relays.push(Serve::of(&[
                "relay", "--listen", &url, "--to", &to, "--drain", "30",
            ]));
        }
    }
    let mut ends = 0;
    for task in tasks {
        for (name, sent) in task.await.unwrap() {
            until("upstream has heard of the end", || {
                received.lock().unwrap().contains_key(&name)
            })
            .await;
            assert_eq!(received.lock().unwrap()[&name], sent, "{name}");
            ends += 1;
        }
    }
    assert_eq!(ends, 2 * clients);
}
