//! The server of the first three rows: plain tokio-tungstenite that answers inline, as most servers do.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::watch::Progress;
use crate::packets;

/// A client's request for a packet.
#[derive(Debug, Serialize, Deserialize)]
struct PacketRequest {
    packet: u64,
    size: usize,
}

/// The text that asks for the packet `index`.
pub(super) fn request_text(index: u64, size: usize) -> String {
    serde_json::json!(PacketRequest {
        packet: index,
        size
    })
    .to_string()
}

/// The packet that this text asks for, if it is a request.
pub(super) fn requested_packet(text: &str) -> Option<Bytes> {
    let request: PacketRequest = serde_json::from_str(text).ok()?;
    Some(packets::packet(request.packet, request.size))
}

/// Answers each request before it reads the next, until the client leaves.
pub(super) async fn answer_inline(
    stream: TcpStream,
    progress: Arc<Progress>,
) -> Result<(), tungstenite::Error> {
    let mut ws = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = ws.next().await {
        let Message::Text(text) = message? else {
            continue;
        };
        let Some(packet) = requested_packet(&text) else {
            continue;
        };
        progress.server_read.add(1);
        ws.send(Message::Binary(packet)).await?;
        progress.server_sent.add(1);
    }
    Ok(())
}
