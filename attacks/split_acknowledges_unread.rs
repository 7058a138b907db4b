//! Once a handler that split its connection and returned early acknowledged messages that it never received. Usage: attacks/run split_acknowledges_unread
// After `let (sender, receiver) = connection.split()` the receiver is dropped before the sender. That counted as a program
// that wants no more messages, so those in the inbox were acknowledged. Without `split` they were not.
use std::time::Duration;
use unstall::{Client, Incoming, Server};

#[tokio::main]
async fn main() {
    let mut bad = false;
    for split in [false, true] {
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr();
        let serving = server.clone();
        tokio::spawn(async move {
            serving
                .serve(move |mut connection| async move {
                    // Ten messages wait. The handler receives one and returns, as `?` does on an error.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    if split {
                        let (_sender, mut receiver) = connection.split();
                        let Ok(Some(Incoming::Message(first))) = receiver.recv().await else {
                            return;
                        };
                        println!("  the handler received {first:?}, and returns");
                    } else {
                        let Ok(Some(Incoming::Message(first))) = connection.recv().await else {
                            return;
                        };
                        println!("  the handler received {first:?}, and returns");
                    }
                })
                .await;
        });
        let client = Client::new(format!("ws://{address}/"))
            .require_session()
            .without_fresh_session();
        let connection = client.connect().await.unwrap();
        for index in 0..10 {
            // Each is long enough to fill a packet.
            connection
                .send(format!("{index} {}", "x".repeat(40_000)))
                .await
                .unwrap();
        }
        println!("split: {split}");
        let delivered = tokio::time::timeout(Duration::from_secs(20), connection.delivered()).await;
        println!("  the client's delivered(): {delivered:?}");
        if split && matches!(delivered, Ok(Ok(()))) {
            bad = true;
        }
        let report = connection.close(unstall::CloseCode::NORMAL, "").await;
        println!(
            "  clean {}, maybe delivered {}, unsent {}",
            report.clean,
            report.maybe_delivered.len(),
            report.unsent.len()
        );
    }
    if bad {
        println!("DEFECT: nine messages were acknowledged that no application received");
        std::process::exit(1);
    }
    println!("ok");
}
