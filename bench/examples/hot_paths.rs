//! Moves messages over one of unstall's hot paths, both sides on one thread: what
//! `bench/instructions` counts.

use std::{env, error::Error, hint::black_box};

use tokio::{join, net::TcpListener, runtime};
use unstall::{Client, Connection, IncomingRef, Receiver, Sender, Server};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "hot_paths PATH BYTES COUNT, where PATH is plain, session or batch";

fn main() -> Result<()> {
    let [_, path, size, count] = &env::args().collect::<Vec<_>>()[..] else {
        return Err(USAGE.into());
    };
    let (size, count) = (size.parse()?, count.parse()?);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(transfer(path, size, count))
}

async fn transfer(path: &str, size: usize, count: u64) -> Result<()> {
    let (client, server) = opened(path == "plain").await?;
    let (sender, _receives_nothing) = server.split();
    let (_sends_nothing, receiver) = client.split();
    let (sent, received) = match path {
        "plain" => join!(each(sender, size, count), recv(receiver, count)),
        "session" => join!(many(sender, size, count), recv(receiver, count)),
        "batch" => join!(many(sender, size, count), recv_batch(receiver, count)),
        _ => return Err(USAGE.into()),
    };
    sent?;
    received
}

async fn opened(plain: bool) -> Result<(Connection, Connection)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let client = Client::new(url).without_reconnect();
    let (client, server) = match plain {
        true => (client.plain(), Server::builder().plain()),
        false => (client.require_session(), Server::builder()),
    };
    let server = server.listener(listener)?;
    let (client, accepted) = join!(client.connect(), server.accept());
    Ok((client?, accepted.ok_or("the server ended")?))
}

async fn each(sender: Sender, size: usize, count: u64) -> Result<Sender> {
    let payload = vec![7; size];
    for _ in 0..count {
        sender.send(&payload[..]).await?;
    }
    Ok(sender)
}

async fn many(sender: Sender, size: usize, count: u64) -> Result<Sender> {
    let payload = vec![7; size];
    sender.send_many((0..count).map(|_| &payload[..])).await?;
    Ok(sender)
}

async fn recv(mut receiver: Receiver, count: u64) -> Result<()> {
    for _ in 0..count {
        black_box(receiver.recv().await?.ok_or("it ended")?);
    }
    Ok(())
}

async fn recv_batch(mut receiver: Receiver, count: u64) -> Result<()> {
    let mut received = 0;
    while received < count {
        let mut batch = receiver.recv_batch().await?.ok_or("it ended")?;
        while let Some(incoming) = batch.next() {
            let IncomingRef::Message(message) = incoming else {
                return Err("messages are missing".into());
            };
            black_box(message.as_bytes());
            received += 1;
        }
    }
    Ok(())
}
