//! The client that `interop/conformance` tests: goes through all cases of a fuzzing server, and sends
//! back each message. Usage: conformance_client ws://HOST:PORT

use unstall::{Client, CloseCode, Compression, ConnectError, Connection, Incoming, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("the URL of the server is missing")?;
    let mut counting = connect(&format!("{url}/getCaseCount")).await?;
    let count = match counting.recv().await? {
        Some(Incoming::Message(message)) => message.as_text().unwrap_or_default().parse::<u32>()?,
        other => {
            return Err(format!("the server did not tell the count of cases: {other:?}").into());
        }
    };
    let _ = counting.close(CloseCode::NORMAL, "").await;
    for case in 1..=count {
        let connection = connect(&format!("{url}/runCase?case={case}&agent=unstall")).await?;
        echo(connection).await;
    }
    let updating = connect(&format!("{url}/updateReports?agent=unstall")).await?;
    echo(updating).await;
    println!("{count} cases");
    Ok(())
}

async fn connect(url: &str) -> Result<Connection, ConnectError> {
    let options = Options::default().compression(Compression::default().smallest(0));
    let client = Client::new(url).options(options);
    client.plain().without_reconnect().connect().await
}

/// Until the server closes, or breaks a rule on purpose.
async fn echo(mut connection: Connection) {
    while let Ok(Some(incoming)) = connection.recv().await {
        if let Incoming::Message(message) = incoming
            && connection.send(message).await.is_err()
        {
            return;
        }
    }
}
