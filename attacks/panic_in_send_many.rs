//! Once an iterator that panicked in `send_many` ended the process, not just its connection. Usage: attacks/run panic_in_send_many
// The iterator ran under the outbox's lock, so its panic poisoned the lock. Handles that were dropped while the handler
// unwound locked it again, and a panic during a panic aborts the process.
use std::time::Duration;
use unstall::{Client, Server};

#[tokio::main]
async fn main() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let serving = server.clone();
    tokio::spawn(async move {
        serving
            .serve(|connection| async move {
                let prices = vec!["1.5".to_owned(), "2.5".to_owned(), "n/a".to_owned()];
                let texts = prices
                    .into_iter()
                    .map(|price| price.parse::<f64>().expect("a price").to_string());
                let _ = connection.send_many(texts).await;
            })
            .await;
    });
    let mut connection = Client::new(format!("ws://{address}/"))
        .plain()
        .without_reconnect()
        .connect()
        .await
        .unwrap();
    println!("the client: {:?}", connection.recv().await);
    println!("the client: {:?}", connection.recv().await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    println!(
        "the process lives; handler panics counted: {}",
        server.stats().handler_panics
    );
    println!("ok");
}
