//! cargo run -p unstall --example agent_tokens
//!
//! An agent streams the tokens of its answer. The session keeps the answer whole although the
//! network cuts the connection in the middle, and the user can stop an answer that is too long.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use unstall::{BoxError, Client, Connection, Incoming, Receiver, Sender, Server};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Server::bind("127.0.0.1:0").await?;
    let network = bad_network(server.local_addr()).await?;
    tokio::spawn(async move { server.serve(agent).await });

    let client = Client::new(format!("ws://{network}")).require_session();
    let mut connection = client.connect().await?;

    connection.send("count to 500").await?;
    let mut answer = Vec::new();
    while let Some(token) = next_token(&mut connection).await? {
        answer.push(token.parse::<u32>()?);
    }
    assert_eq!(answer, (1..=500).collect::<Vec<_>>(), "whole and in order");
    println!("an answer of {} tokens, whole and in order", answer.len());
    println!(
        "the connection was resumed {} time",
        connection.stats().resumes
    );

    connection.send("count to 1000000").await?;
    let mut tokens = 0;
    while let Some(_token) = next_token(&mut connection).await? {
        tokens += 1;
        if tokens == 20 {
            connection.send("stop").await?;
        }
    }
    println!("stopped: {}", (20..1_000_000).contains(&tokens));
    Ok(())
}

/// The next token, or `None` at the end of the answer.
async fn next_token(connection: &mut Connection) -> Result<Option<String>, BoxError> {
    match connection.recv().await?.ok_or("the agent has ended")? {
        Incoming::Message(message) if message.is_empty() => Ok(None),
        Incoming::Message(message) => Ok(Some(message.into_text().map_err(|_| "not a token")?)),
        Incoming::Gap(gap) => Err(format!("the session was lost: {gap:?}").into()),
    }
}

/// The server's side: answers one prompt after the other. An empty message ends an answer.
async fn agent(connection: Connection) {
    let (sender, mut receiver) = connection.split();
    while let Some(prompt) = next_prompt(&mut receiver).await {
        let stopped = async {
            while next_prompt(&mut receiver)
                .await
                .is_some_and(|it| it != "stop")
            {}
        };
        tokio::select! {
            () = stopped => {}
            () = answer(&prompt, &sender) => {}
        }
        if sender.send("").await.is_err() {
            return;
        }
    }
}

async fn next_prompt(receiver: &mut Receiver) -> Option<String> {
    match receiver.recv().await {
        Ok(Some(Incoming::Message(message))) => message.into_text().ok(),
        _ => None,
    }
}

/// The model: a token each millisecond. `send` waits if the user's program does not read.
async fn answer(prompt: &str, sender: &Sender) {
    let last: u32 = prompt
        .rsplit(' ')
        .next()
        .and_then(|it| it.parse().ok())
        .unwrap_or(0);
    for token in 1..=last {
        if sender.send(token.to_string()).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// A relay that cuts its first connection after 2,000 bytes of the answer.
async fn bad_network(to: SocketAddr) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((mut client, _)) = listener.accept().await {
            let Ok(mut server) = TcpStream::connect(to).await else {
                continue;
            };
            let cut = std::mem::take(&mut first);
            tokio::spawn(async move {
                if !cut {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                let (answers, mut requests) = server.split();
                let (mut questions, mut to_client) = client.split();
                let mut answers = answers.take(2000);
                tokio::select! {
                    _ = tokio::io::copy(&mut questions, &mut requests) => {}
                    _ = tokio::io::copy(&mut answers, &mut to_client) => {}
                }
            });
        }
    });
    Ok(address)
}
