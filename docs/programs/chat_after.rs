//! A chat server that broadcasts a message to all connections.
//!
//! This is a simple line-based server which accepts WebSocket connections,
//! reads lines from those connections, and broadcasts the lines to all other
//! connected clients.
//!
//! You can test this out by running:
//!
//!     cargo run --example server 127.0.0.1:12345
//!
//! And then in another window run:
//!
//!     cargo run --example client ws://127.0.0.1:12345/
//!
//! You can run the second command in multiple windows and then chat between the
//! two, seeing the messages from the other client as they're received. For all
//! connected clients they'll all join the same room and see everyone else's
//! messages.

use std::{
    collections::HashMap,
    env,
    io::Error as IoError,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use unstall::{CloseCode, Connection, Incoming, Sender, Server, TrySendError};

type PeerMap = Arc<Mutex<HashMap<SocketAddr, Sender>>>;

async fn handle_connection(peer_map: PeerMap, connection: Connection) {
    let addr = connection.peer_addr().expect("TCP has addresses");
    println!("WebSocket connection established: {}", addr);

    // Insert the write part of this peer to the peer map.
    let (tx, mut incoming) = connection.split();
    peer_map.lock().unwrap().insert(addr, tx);

    while let Ok(Some(incoming)) = incoming.recv().await {
        let Incoming::Message(msg) = incoming else {
            continue;
        };
        println!(
            "Received a message from {}: {}",
            addr,
            msg.as_text().unwrap()
        );
        let peers = peer_map.lock().unwrap();

        // We want to broadcast the message to everyone except ourselves.
        let broadcast_recipients = peers
            .iter()
            .filter(|(peer_addr, _)| peer_addr != &&addr)
            .map(|(_, ws_sink)| ws_sink);

        for recp in broadcast_recipients {
            if let Err(TrySendError::Full(_)) = recp.try_send(&msg) {
                // Somebody who does not read has to leave, instead of taking all memory.
                let slow = recp.clone();
                tokio::spawn(async move { slow.close(CloseCode::POLICY_VIOLATION, "slow").await });
            }
        }
    }

    println!("{} disconnected", &addr);
    peer_map.lock().unwrap().remove(&addr);
}

#[tokio::main]
async fn main() -> Result<(), IoError> {
    let addr = env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:8080".to_string());

    let state = PeerMap::new(Mutex::new(HashMap::new()));

    // Create the event loop and TCP listener we'll accept connections on.
    let try_socket = Server::bind(&addr).await;
    let listener = try_socket.expect("Failed to bind");
    println!("Listening on: {}", addr);

    // Let's spawn the handling of each connection in a separate task.
    listener
        .serve(move |connection| handle_connection(state.clone(), connection))
        .await;

    Ok(())
}
