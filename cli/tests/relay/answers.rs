//! Answers of upstream that `--rules` wait for, from an upstream that does not give them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    bounded::peak,
    peers::{Network, Peer, Upstream, open, until},
    rules::{file, relay, say},
    support::{next, next_json},
};

/// How many streams the client subscribes to.
const STREAMS: usize = 100;

/// How many messages upstream sends in place of an answer, and how long they are.
const FLOOD: usize = 64;
const FLOOD_BYTES: usize = 16 << 10;

const RULES: &str = r#"
snapshot = true

[[rule]]
when = { "/op" = "subscribe" }
remember = "streams"
key = ["/stream"]
answer = { "/ok" = true }
"#;

/// Answers on its first connection. On later ones it sends 1 MiB for each message, and no answer.
async fn liar() -> Upstream {
    let connections = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |mut ws: Peer| {
        let is_first = connections.fetch_add(1, SeqCst) == 0;
        async move {
            let mut number = 0u32;
            while let Some(Ok(message)) = ws.next().await {
                if !message.is_text() {
                    continue;
                }
                if is_first {
                    let answer = Message::text(json!({"ok": true}).to_string());
                    let _ = ws.send(answer).await;
                    continue;
                }
                for _ in 0..FLOOD {
                    let mut flood = vec![0; FLOOD_BYTES];
                    flood[..4].copy_from_slice(&number.to_be_bytes());
                    number += 1;
                    if ws.send(Message::binary(flood)).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await
}

/// The relay once held 1 MiB for each message that it sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_in_place_of_answers_pass_in_order_and_are_not_held() {
    let upstream = liar().await;
    let network = Network::to(&upstream.address.to_string()).await;
    let relay = relay(&network.url(), &file(RULES), &[]);
    let mut ws = open(&relay.url).await;
    for stream in 0..STREAMS {
        say(&mut ws, json!({"op": "subscribe", "stream": stream})).await;
        assert_eq!(next_json(&mut ws).await["ok"], true);
    }
    let before = peak(&relay);
    network.cut();
    until("it is made again", || *network.connections.borrow() == 2).await;
    for number in 0..u32::try_from(STREAMS * FLOOD).unwrap() {
        let message = next(&mut ws).await.into_data();
        assert_eq!(message[..4], number.to_be_bytes());
    }
    let grown = peak(&relay) - before;
    // Of 100 MiB. Its buffers take 4 MiB each.
    assert!(grown < 32 << 20, "{grown} bytes");
}
