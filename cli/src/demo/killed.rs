//! Row 5: a topic, the same slow consumer, and a server process that is killed again and again.

use std::{path::Path, sync::Arc, time::Duration};

use indicatif::ProgressBar;
use serde::Serialize;
use unstall::Reconnect;
use unstall_proto::Kind;
use unstall_topics::{Delivery, Start, Topic, Topics, store::Publication};

use super::{
    Plan,
    consumer::SlowConsumer,
    row::{Outcome, RowError},
    watch::{Progress, watch},
};
use crate::{hub::HubProcess, packets::packet};

/// How often the server process is killed.
const KILLS: u64 = 6;

/// How many packets are published together.
const BATCH: u64 = 64;

/// How many batches are under way.
const BATCHES: usize = 16;

/// What a message takes in the log besides its payload: its topic, its place, its index.
const MESSAGE_BYTES: u64 = 256;

const TOPIC: &str = "demo.packets";

/// The bounds of the first and of the longest wait before connecting again. They are short, because
/// the server has only two clients.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Counts of kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Kills {
    /// How often the server process was killed and started again.
    pub(super) kills: u64,
    /// How often the stream told of missing messages.
    pub(super) gaps: u64,
}

impl Kills {
    /// Whether every kill happened, and took nothing away.
    pub(super) fn are_overcome(self) -> bool {
        self.kills == KILLS && self.gaps == 0
    }
}

/// Runs the server process, a publisher and a subscriber, until the subscriber has everything or
/// nothing moves.
pub(super) async fn run(
    plan: Plan,
    progress: &Arc<Progress>,
    bar: &ProgressBar,
    stalled_after: Duration,
) -> Result<Outcome, RowError> {
    let directory = tempfile::tempdir()?;
    let mut hub = HubProcess::start(store(directory.path(), plan)).await?;
    let (publisher, reader) = (client(&hub), client(&hub));
    let mut consumer = SlowConsumer::new(plan, progress.clone());
    let mut counts = Kills::default();
    let watched = {
        let publishing = publish(&publisher, plan, progress);
        let reading = read(&reader, plan, progress, &mut consumer, &mut counts.gaps);
        let clients = async {
            tokio::try_join!(publishing, reading)?;
            Ok(())
        };
        let killing = async {
            for number in 1..=KILLS {
                // Places in the stream, so that all kills happen, however fast it is.
                let place = plan
                    .count
                    .saturating_mul(number)
                    .div_ceil(KILLS.saturating_add(1));
                while progress.consumed.get() < place {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                hub.kill().await?;
                counts.kills = number;
                bar.set_message(format!("topic, killed {number} times"));
                hub.start_again().await?;
            }
            std::future::pending::<Result<(), RowError>>().await
        };
        tokio::select! {
            watched = watch(clients, progress, bar, stalled_after) => watched,
            Err(error) = killing => return Err(error),
        }
    };
    publisher.close();
    reader.close();
    hub.end().await?;
    Ok(Outcome {
        watched,
        report: consumer.report(),
        // What waits is in the log.
        peak_queued_bytes: None,
        queue_limit_bytes: None,
        cuts: None,
        kills: Some(counts),
    })
}

/// A log that keeps every packet, so that none is removed before it is read.
fn store(directory: &Path, plan: Plan) -> Vec<String> {
    let message = MESSAGE_BYTES.saturating_add(plan.size as u64);
    // Retention begins a sixteenth before the limit.
    let bytes = plan.count.saturating_mul(message).saturating_mul(2);
    let bytes = bytes.max(1 << 30).to_string();
    let directory = directory.display().to_string();
    ["--store", &directory, "--max-bytes", &bytes]
        .map(str::to_owned)
        .into()
}

fn client(hub: &HubProcess) -> Topics {
    let reconnect = Reconnect::default()
        .first(RECONNECT.0)
        .max(RECONNECT.1)
        .proof(Duration::ZERO);
    Topics::builder([format!("ws://{}/topics", hub.address())])
        .reconnect(reconnect)
        .start()
}

/// Publishes every packet, once.
async fn publish(topics: &Topics, plan: Plan, progress: &Progress) -> Result<(), RowError> {
    use futures_util::{StreamExt, TryStreamExt, stream};
    let topic = Topic::new(TOPIC)?;
    let batches = (0..plan.count).step_by(BATCH as usize).map(|first| {
        let batch: Vec<_> = (first..first.saturating_add(BATCH).min(plan.count))
            .map(|index| Publication::new(topic.clone(), Kind::Binary, packet(index, plan.size)))
            .collect();
        async move {
            for result in topics.publish_many(batch).await {
                result?;
                progress.server_read.add(1);
            }
            Ok(())
        }
    });
    // In this order: each batch stands in line before the next one is made.
    stream::iter(batches)
        .buffered(BATCHES)
        .try_collect::<()>()
        .await
}

/// Reads every packet, from the beginning of the log.
async fn read(
    topics: &Topics,
    plan: Plan,
    progress: &Progress,
    consumer: &mut SlowConsumer,
    gaps: &mut u64,
) -> Result<(), RowError> {
    let mut feed = topics.subscribe(TOPIC, Start::Beginning)?;
    while !consumer.has_all(plan) {
        match feed.recv().await? {
            Some(Delivery::Message(message)) => {
                progress.client_received.add(1);
                consumer.take(message.as_bytes()).await;
            }
            Some(Delivery::Gap(_)) => *gaps = gaps.saturating_add(1),
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}
