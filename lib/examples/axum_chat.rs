//! cargo run -p unstall --features axum --example axum_chat
//!
//! Chat rooms in an axum application. A member that reads too slowly is removed from its room, and
//! nobody else waits for it longer than three seconds. Three members run in this process too: Bob talks,
//! Alice listens, and Carol stops reading.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::any,
};
use tokio::{net::TcpListener, time::timeout};
use unstall::{
    BoxError, Client, CloseCode, Connection, Incoming, Message, Options, Sender, axum::Upgrade,
};

/// How long a room waits for a member whose outbox is full.
const PATIENCE: Duration = Duration::from_secs(3);

/// The members of each room, by its name.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<HashMap<String, Vec<Sender>>>>);

impl Rooms {
    fn join(&self, room: &str, member: Sender) {
        let mut rooms = self.0.lock().unwrap();
        rooms.entry(room.to_owned()).or_default().push(member);
    }

    fn leave(&self, room: &str, id: u64) {
        let mut rooms = self.0.lock().unwrap();
        let Some(members) = rooms.get_mut(room) else {
            return;
        };
        members.retain(|member| member.stats().id != id);
        if members.is_empty() {
            rooms.remove(room);
        }
    }

    fn members(&self, room: &str) -> Vec<Sender> {
        self.0
            .lock()
            .unwrap()
            .get(room)
            .cloned()
            .unwrap_or_default()
    }

    /// Sends to all members. One that takes nothing for too long has to leave.
    async fn say(&self, room: &str, message: &Message) {
        for member in self.members(room) {
            if timeout(PATIENCE, member.send(message)).await.is_err() {
                self.leave(room, member.stats().id);
                tokio::spawn(async move {
                    let _ = member.close(CloseCode::POLICY_VIOLATION, "too slow").await;
                });
            }
        }
    }
}

async fn chat(upgrade: Upgrade, Path(room): Path<String>, State(rooms): State<Rooms>) -> Response {
    // A member that was removed may still read what it was sent, and why it was removed.
    let options = Options::default()
        .outbox_bytes(256 * 1024)
        .close_timeout(Duration::from_secs(30));
    upgrade
        .options(options)
        .on_upgrade(move |connection| async move {
            let id = connection.stats().id;
            let (sender, mut receiver) = connection.split();
            rooms.join(&room, sender);
            while let Ok(Some(incoming)) = receiver.recv().await {
                if let Incoming::Message(message) = incoming {
                    rooms.say(&room, &message).await;
                }
            }
            rooms.leave(&room, id);
        })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let rooms = Rooms::default();
    let app = Router::new()
        .route("/chat/{room}", any(chat))
        .with_state(rooms.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut alice = join(address, "rust").await?;
    let bob = join(address, "rust").await?;
    let mut carol = join(address, "rust").await?;
    let elsewhere = join(address, "tea").await?;
    while rooms.members("rust").len() < 3 || rooms.members("tea").is_empty() {
        tokio::task::yield_now().await;
    }

    let (sender, mut receiver) = bob.split();
    tokio::spawn(async move { while let Ok(Some(_)) = receiver.recv().await {} });
    tokio::spawn(async move {
        for line in 0..1000 {
            let text = format!("{line} {}", "x".repeat(32 * 1024));
            if sender.send(text).await.is_err() {
                break;
            }
        }
        sender.ended().await
    });
    for line in 0..1000 {
        let Some(Incoming::Message(message)) = alice.recv().await? else {
            return Err("a line is missing".into());
        };
        let text = message.as_text().unwrap_or_default();
        assert!(text.starts_with(&format!("{line} ")), "in order");
    }
    println!("alice: 1000 lines, in order");
    while let Ok(Some(_)) = carol.recv().await {}
    println!(
        "carol: {}",
        carol.ended().await.peer.ok_or("no close frame")?
    );
    println!(
        "the room \"rust\" has {} members",
        rooms.members("rust").len()
    );
    println!(
        "the room \"tea\" heard {} messages",
        elsewhere.stats().messages_received
    );
    Ok(())
}

async fn join(address: SocketAddr, room: &str) -> Result<Connection, BoxError> {
    let client = Client::new(format!("ws://{address}/chat/{room}"))
        .options(Options::default().inbox_bytes(64 * 1024))
        .without_reconnect();
    Ok(client.connect().await?)
}
