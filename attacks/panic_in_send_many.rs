//! An iterator that panics in `send_many` ends the process, not its connection. Usage: attacks/run panic_in_send_many
// The iterator is drawn under the outbox's lock: its panic poisons the lock, and the handles that are dropped while the
// handler unwinds lock it again: a panic while panicking aborts.
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
