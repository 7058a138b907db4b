//! cargo run -p unstall --example rpc
//!
//! Calls and answers over one connection. Each call has a number, so that answers may come in any
//! order. Over a session a call is carried out once, even if the connection is cut. If the session
//! is lost, every call that waits fails.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::oneshot, time::sleep};
use unstall::{
    BoxError, Client, CloseCode, Connection, Incoming, Message, Receiver, Sender, Server,
};

/// A client of the server below. Clone it for as many tasks as call.
#[derive(Clone)]
struct Rpc {
    sender: Sender,
    calls: Arc<Mutex<Calls>>,
}

/// The calls that wait for their answers.
#[derive(Default)]
struct Calls {
    made: u64,
    waiting: HashMap<u64, oneshot::Sender<String>>,
    ended: bool,
}

impl Rpc {
    fn over(connection: Connection) -> Rpc {
        let (sender, receiver) = connection.split();
        let calls = Arc::<Mutex<Calls>>::default();
        tokio::spawn(receive(receiver, calls.clone()));
        Rpc { sender, calls }
    }

    /// Calls, and waits for the answer. If the future is dropped, the answer is ignored.
    async fn call(&self, request: &str) -> Result<String, BoxError> {
        let (tell, answer) = oneshot::channel();
        let id = {
            let mut calls = self.calls.lock().unwrap();
            if calls.ended {
                return Err("the connection has ended".into());
            }
            calls.made += 1;
            let id = calls.made;
            calls.waiting.insert(id, tell);
            id
        };
        self.sender.send(format!("{id} {request}")).await?;
        answer
            .await
            .map_err(|_| "the session was lost: the call may have been carried out".into())
    }
}

/// Gives each answer to its call. After a gap, calls that wait get none.
async fn receive(mut receiver: Receiver, calls: Arc<Mutex<Calls>>) {
    while let Ok(Some(incoming)) = receiver.recv().await {
        let mut calls = calls.lock().unwrap();
        match incoming {
            Incoming::Message(message) => {
                let Some((id, answer)) = parse(&message) else {
                    continue;
                };
                if let Some(call) = calls.waiting.remove(&id) {
                    let _ = call.send(answer);
                }
            }
            Incoming::Gap(_) => calls.waiting.clear(),
        }
    }
    let mut calls = calls.lock().unwrap();
    calls.ended = true;
    calls.waiting.clear();
}

fn parse(message: &Message) -> Option<(u64, String)> {
    let (id, text) = message.as_text()?.split_once(' ')?;
    Some((id.parse().ok()?, text.to_owned()))
}

/// The server's side: each call runs in a task of its own.
async fn serve(connection: Connection) {
    let (sender, mut receiver) = connection.split();
    while let Ok(Some(incoming)) = receiver.recv().await {
        let Incoming::Message(message) = incoming else {
            continue;
        };
        let Some((id, request)) = parse(&message) else {
            continue;
        };
        if request == "quit" {
            let _ = sender.close(CloseCode::NORMAL, "as you wish").await;
            return;
        }
        tokio::spawn(carry_out(id, request, sender.clone()));
    }
}

async fn carry_out(id: u64, request: String, sender: Sender) {
    let numbers: Vec<u64> = request.split(' ').flat_map(str::parse).collect();
    // Large sums take less time here, so that the answers are not in the order of the calls.
    sleep(Duration::from_millis(
        100 - numbers.iter().sum::<u64>().min(100),
    ))
    .await;
    let _ = sender
        .send(format!("{id} {}", numbers.iter().sum::<u64>()))
        .await;
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Server::bind("127.0.0.1:0").await?;
    let client = Client::new(format!("ws://{}", server.local_addr())).require_session();
    tokio::spawn(async move { server.serve(serve).await });

    let rpc = Rpc::over(client.without_fresh_session().connect().await?);
    let calls = (0..100u64).map(|n| {
        let rpc = rpc.clone();
        async move { (n, rpc.call(&format!("add {n} {n}")).await) }
    });
    for (n, answer) in join_all(calls).await {
        assert_eq!(answer?, (n + n).to_string());
    }
    println!("100 calls at once, each with its own answer");
    let error = rpc.call("quit").await.unwrap_err();
    println!("the call that waited failed: {error}");
    println!(
        "the next one too: {}",
        rpc.call("add 1 1").await.unwrap_err()
    );
    Ok(())
}
