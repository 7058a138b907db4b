//! A recorded stream as messages, with its timing: `--replay`.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use unstall_proto::Kind;
use unstall_topics::{Delivery, Limits, Log, Message, Start, Topic, store::Publication};

use crate::{failure::Failure, relay::Place, time::later};

/// Sends what the log has under the topic or filter, each message as long after the first one as it
/// was stored, divided by `speed`.
pub(super) async fn replay(
    from: Place,
    speed: f64,
    topic: Topic,
    to: mpsc::Sender<Publication>,
) -> Result<(), Failure> {
    if !from.directory.is_dir() {
        let name = from.directory.display();
        return Err(Failure::work(format_args!(
            "there is no log in the directory {name}"
        )));
    }
    // Nothing is removed while it is read.
    let limits = Limits::default().max_bytes(u64::MAX);
    let log = Log::open(&from.directory, limits)
        .await
        .map_err(Failure::because)?;
    let subscription = log.subscribe(&from.topic, Start::Beginning);
    let mut subscription = subscription.map_err(Failure::usage)?;
    let begun = Instant::now();
    let mut first = None;
    while let Some(delivery) = subscription.recv().await.map_err(Failure::because)? {
        match delivery {
            Delivery::Message(message) => {
                let time = message.time().millis();
                let after = Duration::from_millis(time.saturating_sub(*first.get_or_insert(time)));
                sleep_until(later(begun, after.div_f64(speed))).await;
                if to.send(again(message, &topic)).await.is_err() {
                    return Ok(());
                }
            }
            Delivery::Gap(gap) => {
                return Err(Failure::work(format_args!(
                    "the recording has a gap: {gap:?}"
                )));
            }
            Delivery::CaughtUp(_) => break,
            _ => {}
        }
    }
    match first {
        Some(_) => Ok(()),
        None => Err(Failure::work(format_args!(
            "the log has nothing under {}; `unstall subscribe` shows its topics",
            from.topic
        ))),
    }
}

fn again(message: Message, topic: &Topic) -> Publication {
    let kind = if message.is_text() {
        Kind::Text
    } else {
        Kind::Binary
    };
    Publication::new(topic.clone(), kind, message.into_bytes())
}

/// Parses a speed: a number above 0.
pub(super) fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.001..=1_000_000.0).contains(&speed) {
        true => Ok(speed),
        false => Err("it must be a number from 0.001 to 1000000".to_owned()),
    }
}
