//! cargo run -p unstall --features axum --example metrics
//!
//! The figures of every connection, as a page that Prometheus can scrape. An axum application serves
//! the page and the WebSockets. This process fetches the page once itself.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, response::Response, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use unstall::{BoxError, Client, CloseCode, Incoming, Sender, Stats, axum::Upgrade};

type Counter = (&'static str, fn(&Stats) -> u64);

/// What is counted of each connection.
const COUNTERS: [Counter; 6] = [
    ("messages_sent", |it| it.messages_sent),
    ("messages_received", |it| it.messages_received),
    ("bytes_sent", |it| it.bytes_sent),
    ("bytes_received", |it| it.bytes_received),
    ("resumes", |it| it.resumes),
    ("overflowed_messages", |it| it.overflowed),
];

#[derive(Default)]
struct Registry {
    /// A handle of each open connection.
    open: Vec<Sender>,
    /// The sums of those that have ended, so that no counter ever falls.
    ended: [u64; COUNTERS.len()],
}

type Connections = Arc<Mutex<Registry>>;

async fn echo(State(connections): State<Connections>, upgrade: Upgrade) -> Response {
    upgrade.on_upgrade(move |connection| async move {
        let (sender, mut receiver) = connection.split();
        connections.lock().unwrap().open.push(sender.clone());
        while let Ok(Some(incoming)) = receiver.recv().await {
            if let Incoming::Message(message) = incoming {
                let _ = sender.send(message).await;
            }
        }
        let last = sender.stats();
        let mut registry = connections.lock().unwrap();
        registry.open.retain(|it| it.stats().id != last.id);
        for (sum, (_, of)) in registry.ended.iter_mut().zip(COUNTERS) {
            *sum += of(&last);
        }
    })
}

async fn metrics(State(connections): State<Connections>) -> String {
    let (open, ended) = {
        let registry = connections.lock().unwrap();
        let open: Vec<Stats> = registry.open.iter().map(Sender::stats).collect();
        (open, registry.ended)
    };
    let mut page = String::new();
    for ((name, of), ended) in COUNTERS.into_iter().zip(ended) {
        let sum = ended + open.iter().map(of).sum::<u64>();
        let _ = writeln!(
            page,
            "# TYPE unstall_{name}_total counter\nunstall_{name}_total {sum}"
        );
    }
    let stalled = open.iter().filter(|it| it.stalled_by().next().is_some());
    let slowest = open.iter().filter_map(|it| it.round_trip).max();
    for (name, value) in [
        ("open_connections", open.len() as f64),
        ("stalled_connections", stalled.count() as f64),
        (
            "inbox_bytes",
            open.iter().map(|it| it.inbox.bytes).sum::<usize>() as f64,
        ),
        (
            "outbox_bytes",
            open.iter().map(|it| it.outbox.bytes).sum::<usize>() as f64,
        ),
        (
            "round_trip_seconds_max",
            slowest.unwrap_or_default().as_secs_f64(),
        ),
    ] {
        let _ = writeln!(page, "# TYPE unstall_{name} gauge\nunstall_{name} {value}");
    }
    page
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let app = Router::new()
        .route("/echo", get(echo))
        .route("/metrics", get(metrics))
        .with_state(Connections::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut connection = Client::new(format!("ws://{address}/echo"))
        .connect()
        .await?;
    for text in ["one", "two", "three"] {
        connection.send(text).await?;
        connection.recv().await?;
    }
    let _ = connection.close(CloseCode::NORMAL, "").await;
    let _another = Client::new(format!("ws://{address}/echo"))
        .connect()
        .await?;

    let mut tcp = TcpStream::connect(address).await?;
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await?;
    println!("{}", answer.split_once("\r\n\r\n").ok_or("no page")?.1);
    Ok(())
}
