//! cargo run -p unstall --features axum,metrics --example metrics
//!
//! The figures of all connections, as a page that Prometheus can scrape. An axum application serves the
//! page and the WebSockets. This process fetches the page once itself.

use axum::{Router, extract::State, response::Response, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use unstall::{BoxError, Client, CloseCode, Incoming, axum::Upgrade};

async fn echo(upgrade: Upgrade) -> Response {
    upgrade.on_upgrade(|mut connection| async move {
        while let Ok(Some(incoming)) = connection.recv().await {
            if let Incoming::Message(message) = incoming {
                let _ = connection.send(message).await;
            }
        }
    })
}

async fn metrics(State(recorder): State<PrometheusHandle>) -> String {
    unstall::metrics::update();
    recorder.render()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let recorder = PrometheusBuilder::new().install_recorder()?;
    unstall::metrics::describe();
    let app = Router::new()
        .route("/echo", get(echo))
        .route("/metrics", get(metrics))
        .with_state(recorder);
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
