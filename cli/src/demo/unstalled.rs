//! Row 3: unstall as the client, with the same server and the same slow consumer.

use std::sync::Arc;

use unstall::{Incoming, Receiver, Sender};

use super::Plan;
use super::consumer::SlowConsumer;
use super::row::RowError;
use super::server::request_text;
use super::watch::Progress;

/// Asks for packets and consumes them. The connection reads and writes in a background task.
pub(super) async fn run(
    sender: Sender,
    mut receiver: Receiver,
    plan: Plan,
    progress: Arc<Progress>,
    consumer: &mut SlowConsumer,
) -> Result<(), RowError> {
    let asking = async {
        for index in 0..plan.count {
            sender.send(request_text(index, plan.size)).await?;
            progress.client_sent.add(1);
        }
        Ok::<(), RowError>(())
    };
    let consuming = async {
        while !consumer.has_all(plan) {
            let Some(incoming) = receiver.recv().await? else {
                break;
            };
            if let Incoming::Message(packet) = incoming {
                progress.client_received.add(1);
                consumer.take(packet.as_bytes()).await;
            }
        }
        Ok(())
    };
    tokio::try_join!(asking, consuming).map(|_| ())
}
