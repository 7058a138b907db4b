//! Once a timeout of `Duration::MAX`, the usual "never", panicked in the connection's task. Usage: attacks/run duration_max
use std::time::Duration;
use unstall::{Client, Options, Server};

#[tokio::main]
async fn main() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let serving = server.clone();
    tokio::spawn(async move {
        serving
            .serve(|mut c| async move {
                while let Ok(Some(unstall::Incoming::Message(m))) = c.recv().await {
                    let _ = c.send(m).await;
                }
            })
            .await
    });
    let mut bad = Vec::new();
    type Set = fn(Options) -> Options;
    let cases: [(&str, Set); 5] = [
        ("ping_interval", |o| o.ping_interval(Duration::MAX)),
        ("silence_timeout", |o| o.silence_timeout(Duration::MAX)),
        ("stall_after", |o| o.stall_after(Duration::MAX)),
        ("close_timeout", |o| o.close_timeout(Duration::MAX)),
        ("connect_timeout", |o| o.connect_timeout(Duration::MAX)),
    ];
    for (name, set) in cases {
        let options = set(Options::default());
        let tried = tokio::spawn(async move {
            let client = Client::new(format!("ws://{address}/"))
                .options(options)
                .without_reconnect();
            let mut connection = client.connect().await.map_err(|e| e.to_string())?;
            connection.send("x").await.map_err(|e| e.to_string())?;
            let received = connection.recv().await.map_err(|e| e.to_string())?;
            let report = tokio::time::timeout(
                Duration::from_secs(3),
                connection.close(unstall::CloseCode::NORMAL, ""),
            )
            .await;
            Ok::<_, String>(format!(
                "{received:?}, closed clean {:?}",
                report.map(|r| r.clean)
            ))
        });
        let outcome = tried.await;
        println!("{name}: {outcome:?}");
        if !matches!(outcome, Ok(Ok(_))) {
            bad.push(name);
        }
    }
    if !bad.is_empty() {
        println!("DEFECT: {bad:?}");
        std::process::exit(1);
    }
    println!("ok");
}
