//! Row 2: the usual fix, a task that only reads and an unbounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Plan;
use super::consumer::SlowConsumer;
use super::row::RowError;
use super::server::request_text;
use super::watch::Progress;

/// Bytes that wait between the reader and the consumer.
#[derive(Debug, Default)]
pub(super) struct QueuedBytes {
    now: AtomicU64,
    peak: AtomicU64,
}

impl QueuedBytes {
    fn put(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        self.peak.fetch_max(now, Relaxed);
    }

    fn take(&self, bytes: usize) {
        self.now.fetch_sub(bytes as u64, Relaxed);
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }
}

/// Asks, reads and consumes, each in a task of its own.
pub(super) async fn run(
    ws: WebSocketStream<TcpStream>,
    plan: Plan,
    progress: Arc<Progress>,
    queued: Arc<QueuedBytes>,
    consumer: &mut SlowConsumer,
) -> Result<(), RowError> {
    let (mut sender, mut receiver) = ws.split();
    let (into_queue, mut queue) = mpsc::unbounded_channel();

    let asking = async {
        for index in 0..plan.count {
            sender
                .send(Message::text(request_text(index, plan.size)))
                .await?;
            progress.client_sent.add(1);
        }
        Ok::<(), RowError>(())
    };
    // Dropping the set ends the task.
    let mut reader = JoinSet::new();
    reader.spawn({
        let (progress, queued) = (progress.clone(), queued.clone());
        async move {
            while let Some(Ok(message)) = receiver.next().await {
                if let Message::Binary(packet) = message {
                    progress.client_received.add(1);
                    queued.put(packet.len());
                    if into_queue.send(packet).is_err() {
                        break;
                    }
                }
            }
        }
    });
    let consuming = async {
        while !consumer.has_all(plan) {
            let Some(packet) = queue.recv().await else {
                break;
            };
            queued.take(packet.len());
            consumer.take(&packet).await;
        }
        Ok(())
    };
    tokio::try_join!(asking, consuming).map(|_| ())
}
