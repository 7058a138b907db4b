//! Once messages that a plain connection had spilled were lost, without a gap, when the next connection was a session. Usage: attacks/run spilled_before_a_session
// A server is upgraded from plain connections to sessions while a slow client spills. Messages in memory went over to the
// session; those in the file did not.
use std::time::Duration;
use unstall::{Client, Incoming, Options, Overflow, Server};

#[tokio::main]
async fn main() {
    const COUNT: u32 = 2000;
    let old = Server::builder().plain().bind("127.0.0.1:0").await.unwrap();
    let address = old.local_addr();
    let options = Options::default()
        .inbox_bytes(64 << 10)
        .overflow(Overflow::Spill(Default::default()));
    let mut client = Client::new(format!("ws://{address}/"))
        .options(options)
        .connect()
        .await
        .unwrap();
    let first = old.accept().await.unwrap();
    for index in 0..COUNT {
        first
            .send(format!("{index} {}", "x".repeat(1000)))
            .await
            .unwrap();
    }
    first.flush().await.unwrap();
    while client.stats().messages_received < u64::from(COUNT) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "received {}, spilled {:?}",
        client.stats().messages_received,
        client.stats().spilled
    );
    drop(first);
    old.shutdown(Duration::from_millis(500)).await;
    drop(old);
    let new = loop {
        match Server::builder().bind(address).await {
            Ok(server) => break server,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let second = new.accept().await.unwrap();
    println!("the next connection is a session: {}", second.is_session());
    second.send("new").await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let _ = second.close(unstall::CloseCode::NORMAL, "").await;
    });
    let (mut seen, mut gaps) = (0, Vec::new());
    let mut in_order = true;
    loop {
        let received = tokio::time::timeout(Duration::from_secs(10), client.recv()).await;
        let Ok(Ok(Some(incoming))) = received else {
            println!("the stream ends: {received:?}");
            break;
        };
        match incoming {
            Incoming::Message(message) => {
                let text = message.as_text().unwrap().to_owned();
                let name = text.split(' ').next().unwrap().to_owned();
                in_order &= name == "new" || name == seen.to_string();
                seen += u32::from(name != "new");
                if name == "new" {
                    println!("\"new\" came after {seen} of {COUNT} messages");
                }
            }
            Incoming::Gap(gap) => gaps.push(format!("{gap:?} after {seen}")),
        }
    }
    println!(
        "seen {seen} of {COUNT}, in order {in_order}, still in the file {:?}; gaps {gaps:?}",
        client.stats().spilled
    );
    if seen < COUNT || !in_order {
        println!("DEFECT: lost or out of order");
        std::process::exit(1);
    }
    println!("ok");
}
