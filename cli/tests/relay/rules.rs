//! `--rules`: what a new plain connection upstream gets first, and that nothing is missing in silence.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{Network, Peer, Upstream, close, closed, open, until},
    support::{Raw, Serve, next, next_json, send},
};

/// Those of the guide.
const BINANCE: &str = r#"
snapshot = true

[[rule]]
when = { "/method" = "SUBSCRIBE" }
remember = "streams"
each = ["/params"]

[[rule]]
when = { "/method" = "UNSUBSCRIBE" }
forget = "streams"
each = ["/params"]

[[rule]]
when = { "/method" = "LIST_SUBSCRIPTIONS" }
may_be_lost = true
"#;

/// What each connection of a feed got, in order.
type Heard = Arc<Mutex<Vec<Vec<String>>>>;

/// A feed that answers as Binance does, and then sends one update of each stream that is subscribed to.
/// Any other message it sends back. `"cut"` and a number make it end as asked.
async fn feed() -> (Upstream, Heard) {
    let heard = Heard::default();
    let all = heard.clone();
    let upstream = Upstream::start(move |ws: Peer| {
        let number = {
            let mut all = all.lock().unwrap();
            all.push(Vec::new());
            all.len() - 1
        };
        serve_feed(ws, all.clone(), number)
    })
    .await;
    (upstream, heard)
}

async fn serve_feed(mut ws: Peer, all: Heard, number: usize) {
    while let Some(Ok(message)) = ws.next().await {
        if !message.is_text() {
            if message.is_binary() {
                let _ = ws.send(message).await;
            }
            continue;
        }
        let text = message.to_text().unwrap().to_owned();
        all.lock().unwrap()[number].push(text.clone());
        let Ok(asked) = serde_json::from_str::<Value>(&text) else {
            let _ = ws.send(message).await;
            continue;
        };
        if let Some(code) = asked["close"].as_u64() {
            return close(&mut ws, code.try_into().unwrap(), "as asked").await;
        }
        let answer = json!({ "result": null, "id": asked["id"] });
        let _ = ws.send(Message::text(answer.to_string())).await;
        if asked["method"] == "SUBSCRIBE" {
            for stream in asked["params"].as_array().into_iter().flatten() {
                let update = json!({ "stream": stream, "connection": number });
                let _ = ws.send(Message::text(update.to_string())).await;
            }
        }
    }
}

pub(crate) fn file(rules: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    file
}

/// A relay with these rules.
pub(crate) fn relay(to: &str, rules: &NamedTempFile, args: &[&str]) -> Serve {
    let rules = [
        "--plain",
        "--reconnect",
        "--rules",
        rules.path().to_str().unwrap(),
    ];
    Serve::relay(to, &[&rules[..], args].concat())
}

pub(crate) async fn say(ws: &mut Raw, what: Value) {
    send(ws, &what.to_string()).await;
}

/// The next update of this stream from this connection. Answers before it are skipped.
async fn update(ws: &mut Raw, stream: &str, connection: u64) {
    loop {
        let message = next_json(ws).await;
        if message.get("stream").is_some() {
            assert_eq!(
                message,
                json!({ "stream": stream, "connection": connection })
            );
            return;
        }
    }
}

fn heard_by(heard: &Heard, connection: usize) -> Vec<Value> {
    let heard = heard.lock().unwrap();
    let of = heard[connection].iter();
    of.map(|text| serde_json::from_str(text).unwrap()).collect()
}

#[tokio::test]
async fn subscriptions_are_sent_again_after_a_cut_and_what_was_unsubscribed_is_not() {
    let (upstream, heard) = feed().await;
    let network = Network::to(&upstream.address.to_string()).await;
    let rules = file(BINANCE);
    let relay = relay(&network.url(), &rules, &[]);
    let mut ws = open(&relay.url).await;
    let of = |method: &str, params: &[&str], id: u64| json!({"method": method, "params": params, "id": id});
    say(&mut ws, of("SUBSCRIBE", &["a", "b"], 1)).await;
    update(&mut ws, "a", 0).await;
    update(&mut ws, "b", 0).await;
    say(&mut ws, of("SUBSCRIBE", &["c"], 2)).await;
    update(&mut ws, "c", 0).await;
    say(&mut ws, of("UNSUBSCRIBE", &["a"], 3)).await;
    say(&mut ws, of("LIST_SUBSCRIPTIONS", &[], 4)).await;
    until("upstream has all of it", || {
        heard.lock().unwrap()[0].len() == 4
    })
    .await;
    network.cut();
    // The client did nothing, and gets no close.
    update(&mut ws, "b", 1).await;
    update(&mut ws, "c", 1).await;
    assert_eq!(
        heard_by(&heard, 1),
        [of("SUBSCRIBE", &["b"], 1), of("SUBSCRIBE", &["c"], 2)]
    );
    // What is newer comes behind it.
    say(&mut ws, of("SUBSCRIBE", &["d"], 5)).await;
    update(&mut ws, "d", 1).await;
    network.cut();
    for stream in ["b", "c", "d"] {
        update(&mut ws, stream, 2).await;
    }
}

/// Each complete example of the guide is one that the relay takes.
#[test]
fn the_rules_of_the_guide_are_read() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/relay.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let blocks = guide.split("```toml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let examples: Vec<_> = blocks.filter(|block| block.contains("[[rule]]")).collect();
    assert_eq!(examples.len(), 5);
    let without_comments = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(examples[0].contains("snapshot"));
    assert_eq!(
        without_comments(examples[0]),
        without_comments(BINANCE)
            .trim_start()
            .replacen("\n\n", "\nreplays_per_second = 4\n\n", 1)
    );
    for example in examples {
        relay("ws://127.0.0.1:1", &file(example), &[]);
    }
}

#[test]
fn rules_that_cannot_be_read_are_exit_code_2_and_name_the_file_and_the_rule() {
    for (rules, why) in [
        ("[[rule]]\nremember = 'a'\n", "rule 1: say which messages"),
        ("rule = 5", "invalid type"),
    ] {
        let rules = file(rules);
        let path = rules.path().to_str().unwrap();
        let args = ["relay", "--to", "ws://h", "--reconnect", "--rules", path];
        let ended = crate::support::run(&args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains(why) && ended.stderr.contains(path),
            "{ended:?}"
        );
    }
    let args = [
        "relay",
        "--to",
        "ws://h",
        "--reconnect",
        "--rules",
        "/no/such/file",
    ];
    let ended = crate::support::run(&args);
    assert!(
        ended.code == Some(2) && ended.stderr.contains("/no/such/file"),
        "{ended:?}"
    );
    // Rules and the age are for connections that are made again.
    for args in [["--rules", "/dev/null"], ["--max-upstream-age", "60"]] {
        let ended = crate::support::run(&[&["relay", "--to", "ws://h"], &args[..]].concat());
        assert!(
            ended.code == Some(2) && ended.stderr.contains("--reconnect"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn without_a_snapshot_the_client_is_told_where_messages_may_be_missing_or_closed() {
    let (upstream, heard) = feed().await;
    let rules = file(&BINANCE.replace("snapshot = true", ""));
    for told in [true, false] {
        let network = Network::to(&upstream.address.to_string()).await;
        let gap: &[&str] = if told { &["--gap-message", "GAP"] } else { &[] };
        let relay = relay(&network.url(), &rules, gap);
        let mut ws = open(&relay.url).await;
        let first = u64::try_from(heard.lock().unwrap().len() - 1).unwrap();
        say(
            &mut ws,
            json!({"method": "SUBSCRIBE", "params": ["a"], "id": 1}),
        )
        .await;
        update(&mut ws, "a", first).await;
        network.cut();
        if told {
            assert_eq!(next(&mut ws).await, Message::text("GAP"));
            update(&mut ws, "a", first + 1).await;
        } else {
            assert_eq!(closed(&mut ws).await.1.unwrap().0, 1012);
        }
    }
}

/// With the word that streams begin with a snapshot, a message that no rule covers is what may be lost.
#[tokio::test]
async fn a_message_that_no_rule_covers_is_never_lost_in_silence() {
    let (upstream, _) = feed().await;
    let rules = file(BINANCE);
    let covered = json!({"method": "LIST_SUBSCRIPTIONS", "id": 7});
    let uncovered = [
        Message::text(json!({"method": "ORDER", "id": 7}).to_string()),
        Message::text("{\"method\": \"SUBSCRIBE\", \"params\": ["),
        Message::binary(&br#"{"method":"SUBSCRIBE","params":["a"],"id":1}"#[..]),
    ];
    for message in uncovered {
        let network = Network::to(&upstream.address.to_string()).await;
        let relay = relay(&network.url(), &rules, &[]);
        let mut ws = open(&relay.url).await;
        say(&mut ws, covered.clone()).await;
        next(&mut ws).await;
        network.cut();
        until("upstream is there again", || {
            *network.connections.borrow() == 2
        })
        .await;
        // Upstream answers what is no JSON by itself.
        ws.send(message.clone()).await.unwrap();
        next(&mut ws).await;
        network.cut();
        let (_, end) = closed(&mut ws).await;
        assert_eq!(end.unwrap().0, 1012, "{message:?}");
    }
}

#[tokio::test]
async fn a_close_that_the_client_has_to_know_reaches_it_and_others_do_not() {
    let (upstream, heard) = feed().await;
    let rules = file(&format!(
        "{BINANCE}\n[[rule]]\nwhen = {{ \"/closes\" = true }}\nmay_be_lost = true"
    ));
    let relay = relay(&upstream.url(), &rules, &[]);
    for (code, reaches) in [
        (1000, true),
        (1001, false),
        (1008, true),
        (1012, false),
        (4001, true),
    ] {
        let mut ws = open(&relay.url).await;
        let before = heard.lock().unwrap().len();
        say(&mut ws, json!({"close": code, "closes": true})).await;
        if reaches {
            let expected = (code, "as asked".to_owned());
            assert_eq!(closed(&mut ws).await.1, Some(expected));
            assert_eq!(heard.lock().unwrap().len(), before);
        } else {
            until("it is made again", || {
                heard.lock().unwrap().len() == before + 1
            })
            .await;
            say(
                &mut ws,
                json!({"method": "SUBSCRIBE", "params": [], "id": 1}),
            )
            .await;
            assert_eq!(next_json(&mut ws).await["id"], 1);
        }
    }
}

/// The rules of a feed that demands a login, which it confirms.
const LOGIN: &str = r#"
snapshot = true
replays_per_second = 20
greeting = { "/hello" = true }

[[rule]]
when = { "/op" = "login" }
remember = "login"
answer = { "/op" = "login", "/ok" = true }

[[rule]]
when = { "/op" = "subscribe" }
remember = "streams"
key = ["/stream"]
"#;

/// A server that ends whoever asks before its login is confirmed. It tells when each message came.
async fn demands_login() -> (Upstream, Arc<Mutex<Vec<(Instant, Value)>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = heard.clone();
    let upstream = Upstream::start(move |mut ws: Peer| {
        let all = all.clone();
        async move {
            let hello = json!({"hello": true}).to_string();
            if ws.send(Message::text(hello)).await.is_err() {
                return;
            }
            let mut confirmed = false;
            while let Some(Ok(message)) = ws.next().await {
                let Ok(asked) = serde_json::from_slice::<Value>(&message.into_data()) else {
                    continue;
                };
                all.lock().unwrap().push((Instant::now(), asked.clone()));
                if asked["op"] != "login" && !confirmed {
                    return close(&mut ws, 4003, "log in first").await;
                }
                if asked["op"] == "login" {
                    // Something else comes first, and the answer takes its time.
                    let _ = ws.send(Message::text(json!({"news": 1}).to_string())).await;
                    let early = tokio::time::timeout(Duration::from_millis(30), ws.next()).await;
                    assert!(
                        early.is_err(),
                        "{early:?} came before the login was confirmed"
                    );
                    confirmed = asked["token"] == "s3cret";
                }
                let answer = json!({"op": asked["op"], "ok": confirmed, "stream": asked["stream"]});
                let _ = ws.send(Message::text(answer.to_string())).await;
            }
        }
    })
    .await;
    (upstream, heard)
}

#[tokio::test]
async fn a_login_is_confirmed_before_anything_else_is_sent_again_and_at_the_pace_of_the_rules() {
    let (upstream, heard) = demands_login().await;
    let network = Network::to(&upstream.address.to_string()).await;
    let rules = file(LOGIN);
    let relay = relay(&network.url(), &rules, &[]);
    let mut ws = open(&relay.url).await;
    assert_eq!(next_json(&mut ws).await, json!({"hello": true}));
    say(&mut ws, json!({"op": "login", "token": "s3cret"})).await;
    assert_eq!(next_json(&mut ws).await, json!({"news": 1}));
    assert_eq!(next_json(&mut ws).await["op"], "login");
    for stream in 0..4 {
        say(&mut ws, json!({"op": "subscribe", "stream": stream})).await;
        assert_eq!(next_json(&mut ws).await["stream"], stream);
    }
    network.cut();
    // Neither greeting nor login are told again. What came in between is, and so are the other answers.
    assert_eq!(next_json(&mut ws).await, json!({"news": 1}));
    for stream in 0..4 {
        let answer = json!({"op": "subscribe", "ok": true, "stream": stream});
        assert_eq!(next_json(&mut ws).await, answer);
    }
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 10);
    let again = &heard[5..];
    assert_eq!(again[0].1["op"], "login");
    for pair in again.windows(2) {
        // Twenty a second.
        assert!(
            pair[1].0 - pair[0].0 >= Duration::from_millis(45),
            "{pair:?}"
        );
    }
}

/// The login does not hold any more. The relay tries again, and what upstream says by its close reaches
/// the client.
#[tokio::test]
async fn a_login_that_is_not_confirmed_is_tried_again_and_nothing_else_is_sent() {
    let logins = Arc::new(Mutex::new(0));
    let count = logins.clone();
    let upstream = Upstream::start(move |mut ws: Peer| {
        let count = count.clone();
        async move {
            let Some(Ok(first)) = ws.next().await else {
                return;
            };
            assert!(first.to_text().unwrap().contains("login"));
            let logins = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count
            };
            match logins {
                2 | 3 => return close(&mut ws, 1011, "busy").await,
                _ => ws
                    .send(Message::text(
                        json!({"op": "login", "ok": true}).to_string(),
                    ))
                    .await
                    .unwrap(),
            }
            if logins == 1 {
                return;
            }
            assert!(
                ws.next()
                    .await
                    .unwrap()
                    .unwrap()
                    .to_text()
                    .unwrap()
                    .contains("subscribe")
            );
            close(&mut ws, 4000, "the end").await;
        }
    })
    .await;
    let rules = file(&LOGIN.replace("greeting", "#"));
    let relay = relay(&upstream.url(), &rules, &[]);
    let mut ws = open(&relay.url).await;
    say(&mut ws, json!({"op": "login"})).await;
    assert_eq!(next_json(&mut ws).await["ok"], true);
    say(&mut ws, json!({"op": "subscribe", "stream": 1})).await;
    assert_eq!(closed(&mut ws).await.1, Some((4000, "the end".to_owned())));
    assert_eq!(*logins.lock().unwrap(), 4);
}

#[tokio::test]
async fn a_client_that_subscribes_to_more_than_is_remembered_is_closed_with_1008() {
    let (upstream, heard) = feed().await;
    let rules = file(BINANCE);
    let relay = relay(&upstream.url(), &rules, &[]);
    let of = |count: usize| json!({"method": "SUBSCRIBE", "params": (0..count).collect::<Vec<_>>(), "id": 1});
    let mut ws = open(&relay.url).await;
    say(&mut ws, of(4096)).await;
    assert_eq!(next_json(&mut ws).await["id"], 1);
    say(
        &mut ws,
        json!({"method": "UNSUBSCRIBE", "params": [0], "id": 2}),
    )
    .await;
    say(
        &mut ws,
        json!({"method": "SUBSCRIBE", "params": ["x"], "id": 3}),
    )
    .await;
    say(
        &mut ws,
        json!({"method": "SUBSCRIBE", "params": ["one more"], "id": 4}),
    )
    .await;
    let (_, end) = closed(&mut ws).await;
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1008);
    assert!(reason.starts_with("subscribe to less"), "{reason}");
    assert_eq!(
        heard.lock().unwrap()[0].len(),
        3,
        "what is refused is not passed"
    );
    // The others go on.
    let mut ws = open(&relay.url).await;
    say(&mut ws, of(1)).await;
    assert_eq!(next_json(&mut ws).await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_get_their_own_subscriptions_again_over_every_cut() {
    const CLIENTS: usize = 100;
    const CUTS: usize = 3;
    let (upstream, heard) = feed().await;
    let network = Network::to(&upstream.address.to_string()).await;
    let rules = file(BINANCE);
    let relay = relay(&network.url(), &rules, &[]);
    let cuts = tokio::sync::watch::Sender::new(0usize);
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (url, mut cut, done) = (relay.url.clone(), cuts.subscribe(), done.clone());
            tokio::spawn(async move {
                let mut ws = open(&url).await;
                let stream = format!("stream {client}");
                say(
                    &mut ws,
                    json!({"method": "SUBSCRIBE", "params": [stream], "id": client}),
                )
                .await;
                let mut connections = Vec::new();
                for round in 0..=CUTS {
                    loop {
                        let message = next_json(&mut ws).await;
                        if let Some(other) = message.get("stream") {
                            assert_eq!(*other, stream);
                            connections.push(message["connection"].as_u64());
                            break;
                        }
                        assert_eq!(message["id"], client);
                    }
                    done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if round < CUTS {
                        cut.wait_for(|cuts| *cuts > round).await.unwrap();
                    }
                }
                assert!(
                    connections.is_sorted_by(|a, b| a < b),
                    "an answer of each connection: {connections:?}"
                );
            })
        })
        .collect();
    for round in 1..=CUTS {
        until("all have their streams", || {
            done.load(std::sync::atomic::Ordering::SeqCst) == CLIENTS * round
        })
        .await;
        network.cut();
        cuts.send_replace(round);
    }
    for client in clients {
        client.await.unwrap();
    }
    let heard = heard.lock().unwrap();
    let unlike: Vec<_> = heard.iter().filter(|texts| texts.len() != 1).collect();
    assert!(unlike.is_empty(), "each is asked once: {unlike:?}");
    assert_eq!(heard.len(), CLIENTS * (CUTS + 1));
}

/// Messages that were certainly not sent go out on the next connection, none is sent twice, and the text
/// tells of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_cuts_no_message_of_the_client_is_doubled_or_out_of_order_and_losses_are_told() {
    const COUNT: u64 = 3000;
    let (upstream, heard) = feed().await;
    let network = Network::to(&upstream.address.to_string()).await;
    let args = ["--plain", "--reconnect", "--gap-message", "GAP"];
    let relay = Serve::relay(&network.url(), &args);
    let (mut sink, mut stream) = open(&relay.url).await.split();
    let gaps = tokio::sync::watch::Sender::new(0);
    let numbers = || {
        let heard = heard.lock().unwrap();
        let all = heard
            .iter()
            .flatten()
            .map(|text| text[1..].parse::<u64>().unwrap());
        all.collect::<Vec<_>>()
    };
    let sending = async {
        for number in 0..=COUNT {
            // That is no JSON, so the server sends it back.
            let message = Message::text(format!("#{number}"));
            sink.send(message).await.unwrap();
            let round = number / 1000;
            match number % 1000 {
                0 => until("upstream has it", || numbers().last() == Some(&number)).await,
                // What is on its way then may be lost. What is sent meanwhile is not.
                500 => network.cut(),
                // The next one is sent when all is told, so it must arrive.
                999 => until("the cut is told", || *gaps.borrow() == round + 1).await,
                _ => {}
            }
        }
    };
    let receiving = async {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(60), stream.next());
            let message = message.await.unwrap().unwrap().unwrap();
            match message.to_text().unwrap() {
                "GAP" => gaps.send_modify(|gaps| *gaps += 1),
                text if text == format!("#{COUNT}") => return,
                _ => {}
            }
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(*gaps.borrow(), 3);
    let numbers = numbers();
    assert!(
        numbers.is_sorted_by(|one, other| one < other),
        "{numbers:?}"
    );
    assert!(numbers.len() > 4, "{numbers:?}");
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_client_and_a_new_connection_asks_as_the_first_did() {
    let refuses = Arc::new(Mutex::new(false));
    let refuse = refuses.clone();
    let answer = move |_: &_, mut response: http::Response<()>| {
        if *refuse.lock().unwrap() {
            return crate::peers::refusal(401, ("x-a", "b"), "no");
        }
        let two = http::HeaderValue::from_static("two");
        response.headers_mut().insert("sec-websocket-protocol", two);
        Ok(response)
    };
    let upstream = Upstream::answering(answer, crate::peers::echo).await;
    let network = Network::to(&upstream.address.to_string()).await;
    let relay = Serve::relay(&network.url(), &["--reconnect"]);
    let offered = [("sec-websocket-protocol", "one, two")];
    let (mut ws, _) = crate::peers::connect(&relay.url, &offered).await.unwrap();
    network.cut();
    until("it is made again", || upstream.requests().len() == 2).await;
    assert_eq!(
        upstream.requests()[1].headers()["sec-websocket-protocol"],
        "one, two"
    );
    until("it serves", || *network.connections.borrow() == 2).await;
    *refuses.lock().unwrap() = true;
    network.cut();
    let (_, end) = closed(&mut ws).await;
    let expected = (1008, "upstream refused with 401 Unauthorized".to_owned());
    assert_eq!(end, Some(expected));
}
