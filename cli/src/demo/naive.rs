//! Row 1: one loop sends and reads. While it waits in `send`, it does not read.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Plan;
use super::row::RowError;
use super::server::request_text;
use super::watch::Progress;
use crate::packets::Checker;

/// Asks for the packets and reads until all have arrived. If the stream stalls, it never returns.
pub(super) async fn run(
    mut ws: WebSocketStream<TcpStream>,
    plan: Plan,
    progress: Arc<Progress>,
    checker: &mut Checker,
) -> Result<(), RowError> {
    let mut next_request = 0;
    while checker.received() < plan.count {
        tokio::select! {
            message = ws.next() => match message {
                Some(message) => {
                    if let Message::Binary(packet) = message? {
                        progress.client_received.add(1);
                        checker.take(&packet);
                        progress.consumed.add(1);
                    }
                }
                None => return Ok(()),
            },
            () = std::future::ready(()), if next_request < plan.count => {
                ws.send(Message::text(request_text(next_request, plan.size))).await?;
                progress.client_sent.add(1);
                next_request += 1;
            }
        }
    }
    Ok(())
}
