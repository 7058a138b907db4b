//! `--rules`: what a new plain connection upstream gets first, and that nothing is missing in silence.

use std::sync::{Arc, Mutex};

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

fn file(rules: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    file
}

/// A relay with these rules.
fn relay(to: &str, rules: &NamedTempFile, args: &[&str]) -> Serve {
    let rules = [
        "--plain",
        "--reconnect",
        "--rules",
        rules.path().to_str().unwrap(),
    ];
    Serve::relay(to, &[&rules[..], args].concat())
}

async fn say(ws: &mut Raw, what: Value) {
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
