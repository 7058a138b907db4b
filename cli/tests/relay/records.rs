//! What passes is recorded, can be read from its beginning, and can be played again with its timing.

use std::{
    io::BufRead,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{Network, Peer, Upstream, close, closed, echo, open},
    support::{Serve, in_background, next, run, send},
};

/// The time between two messages of the stream.
const APART: Duration = Duration::from_millis(200);

/// Sends a text, and after a time each of the others. To "big", a message that no log takes.
async fn stream() -> Upstream {
    Upstream::start(|mut ws: Peer| async move {
        let Some(Ok(first)) = ws.next().await else {
            return;
        };
        if first == Message::text("big") {
            ws.send(Message::text("before")).await.unwrap();
            let _ = ws.send(Message::binary(vec![0; 17 << 20])).await;
        } else {
            ws.send(Message::text("one")).await.unwrap();
            tokio::time::sleep(APART).await;
            ws.send(Message::binary(vec![2])).await.unwrap();
            tokio::time::sleep(APART).await;
            ws.send(Message::text("three")).await.unwrap();
            close(&mut ws, 1000, "").await;
        }
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await
}

/// What a subscriber prints that begins at the start.
async fn subscribed(url: &str, filter: &str) -> Vec<Value> {
    let (url, filter) = (url.to_owned(), filter.to_owned());
    let ended = in_background(move || {
        run(&[
            "subscribe",
            &url,
            &filter,
            "--from",
            "start",
            "--count",
            "3",
            "--json",
        ])
    })
    .await;
    let lines = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    lines
        .into_iter()
        .filter(|line: &Value| line.get("topic").is_some())
        .collect()
}

fn is_the_stream(messages: &[Value]) {
    let [one, two, three] = messages else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (&one["text"], &three["text"]),
        (&"one".into(), &"three".into())
    );
    assert_eq!(two["base64"], "Ag==");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_recorded_read_from_its_start_and_played_again_with_its_timing() {
    let upstream = stream().await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("log").join("feed");
    let place = place.to_str().unwrap().to_owned();
    let args = ["--record", &place, "--record-listen", "127.0.0.1:0"];
    let mut relay = Serve::relay(&upstream.url(), &args);
    let mut line = String::new();
    relay.stdout.read_line(&mut line).unwrap();
    let recordings = line
        .trim()
        .strip_prefix("recordings at ")
        .unwrap()
        .to_owned();
    let mut ws = open(&relay.url).await;
    send(&mut ws, "go").await;
    assert_eq!(closed(&mut ws).await, (3, Some((1000, String::new()))));
    // A second connection has a topic of its own.
    let mut other = open(&relay.url).await;
    send(&mut other, "go").await;
    assert_eq!(next(&mut other).await, Message::text("one"));

    let messages = subscribed(&recordings, "feed.*").await;
    is_the_stream(&messages);
    let topic = messages[0]["topic"].as_str().unwrap().to_owned();
    assert!(
        messages
            .iter()
            .all(|message| message["topic"] == topic.as_str())
    );
    drop((ws, other));
    relay.running.signal("TERM");
    relay.running.end();

    let hub = Serve::hub(&[]);
    let (url, from) = (
        hub.url.clone(),
        place.replace("/feed", &format!("/{topic}")),
    );
    let begun = Instant::now();
    let ended = in_background(move || run(&["publish", "--replay", &from, &url, "again"])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        begun.elapsed() >= 2 * APART - Duration::from_millis(20),
        "{:?}",
        begun.elapsed()
    );
    is_the_stream(&subscribed(&hub.url, "again").await);
    let nothing = place.replace("/feed", "/nothing");
    let url = hub.url.clone();
    let ended = in_background(move || run(&["publish", "--replay", &nothing, &url, "x"])).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("the log has nothing under nothing"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_be_recorded_is_closed_with_1011() {
    let upstream = stream().await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("feed");
    let args = [
        "--record",
        place.to_str().unwrap(),
        "--max-message",
        "32MiB",
    ];
    let relay = Serve::relay(&upstream.url(), &args);
    let mut ws = open(&relay.url).await;
    send(&mut ws, "big").await;
    let (_, end) = closed(&mut ws).await;
    let (code, reason) = end.unwrap();
    assert_eq!(code, 1011, "{reason}");
    assert!(reason.contains("cannot be recorded"), "{reason}");
}

/// Once a recording had no mark where upstream had been lost: only the client got the text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_that_tells_of_missing_messages_is_recorded_too() {
    let upstream = Upstream::start(echo).await;
    let network = Network::to(&upstream.address.to_string()).await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("log").join("feed");
    let place = place.to_str().unwrap();
    let args = ["--plain", "--reconnect", "--gap-message", "GAP"];
    let record = ["--record", place, "--record-listen", "127.0.0.1:0"];
    let mut relay = Serve::relay(&network.url(), &[args, record].concat());
    let mut line = String::new();
    relay.stdout.read_line(&mut line).unwrap();
    let recordings = line.trim().strip_prefix("recordings at ").unwrap();
    let mut ws = open(&relay.url).await;
    send(&mut ws, "one").await;
    assert_eq!(next(&mut ws).await, Message::text("one"));
    network.cut();
    assert_eq!(next(&mut ws).await, Message::text("GAP"));
    send(&mut ws, "three").await;
    assert_eq!(next(&mut ws).await, Message::text("three"));
    let messages = subscribed(recordings, "feed.*").await;
    let texts: Vec<_> = messages.iter().map(|message| &message["text"]).collect();
    assert_eq!(texts, ["one", "GAP", "three"]);
}
