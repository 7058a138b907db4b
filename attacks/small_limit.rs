//! Once a `max_message_bytes` below 64 KiB was ignored in sessions. Usage: attacks/run small_limit
use unstall::{Client, Incoming, Options, Server};

#[tokio::main]
async fn main() {
    let mut bad = false;
    for session in [false, true] {
        let options = Options::default().max_message_bytes(1000);
        let server = Server::builder()
            .options(options)
            .bind("127.0.0.1:0")
            .await
            .unwrap();
        let client = Client::new(format!("ws://{}/", server.local_addr()));
        let client = if session {
            client.require_session()
        } else {
            client.plain()
        };
        let client = client.without_reconnect().connect().await.unwrap();
        let mut connection = server.accept().await.unwrap();
        client.send(vec![7; 65_536]).await.unwrap();
        match connection.recv().await {
            Ok(Some(Incoming::Message(message))) => {
                println!(
                    "session {session}: a message of {} bytes, over the limit of 1000",
                    message.len()
                );
                bad = true;
            }
            other => println!("session {session}: {other:?}"),
        }
    }
    println!(
        "{}",
        if bad {
            "DEFECT: the limit is not kept"
        } else {
            "ok"
        }
    );
    std::process::exit(i32::from(bad));
}
