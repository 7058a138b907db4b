//! Consumers and producers pause at random, in both directions at the same time. Every message arrives
//! once and in order.

use std::time::Duration;

use crate::common::{limit, pair, plain, seed};
use unstall::{CloseCode, Connection, Message, Options, Overflow, Receiver, Sender, Spill};

const MESSAGES: u64 = 1_500;

/// A small generator, so that a seed always means the same run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// A pause of the application: mostly none, sometimes a yield, seldom some milliseconds.
    async fn pause(&mut self) {
        match self.below(100) {
            0..10 => tokio::task::yield_now().await,
            10..12 => tokio::time::sleep(Duration::from_millis(self.below(10))).await,
            _ => {}
        }
    }
}

/// Mostly small messages, up to 100 KiB. Every length up to eight bytes occurs, zero too.
fn message(seed: u64, index: u64) -> Message {
    let mut random = Random(seed ^ index.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let len = match random.below(10) {
        0 => random.below(9),
        1 => random.below(100 << 10),
        _ => random.below(2_000),
    };
    let payload: Vec<u8> = (index.to_be_bytes().into_iter().cycle())
        .take(len as usize)
        .collect();
    Message::binary(payload)
}

async fn produce(sender: Sender, seed: u64) {
    let mut random = Random(seed);
    for index in 0..MESSAGES {
        random.pause().await;
        sender.send(message(seed, index)).await.unwrap();
    }
    sender.flush().await.unwrap();
}

async fn consume(mut receiver: Receiver, seed: u64) -> Receiver {
    let mut random = Random(!seed);
    for index in 0..MESSAGES {
        random.pause().await;
        let received = plain(receiver.recv().await);
        assert_eq!(
            received,
            message(seed, index),
            "message {index}, seed {seed}"
        );
    }
    receiver
}

async fn both_ways(one: Connection, two: Connection, seed: u64) {
    let ((one_sends, one_receives), (two_sends, two_receives)) = (one.split(), two.split());
    let work = async {
        tokio::join!(
            tokio::spawn(produce(one_sends.clone(), seed)),
            tokio::spawn(produce(two_sends.clone(), seed + 1)),
            tokio::spawn(consume(one_receives, seed + 1)),
            tokio::spawn(consume(two_receives, seed)),
        )
    };
    let (produced, also, one_receives, two_receives) = limit(work).await;
    produced.unwrap();
    also.unwrap();
    let report = limit(one_sends.close(CloseCode::NORMAL, "")).await;
    assert!(
        report.clean && report.unsent.is_empty(),
        "seed {seed}: {report:?}"
    );
    for mut receives in [one_receives.unwrap(), two_receives.unwrap()] {
        let end = limit(receives.recv()).await;
        assert!(matches!(end, Ok(None)), "seed {seed}: {end:?}");
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = seed();
    (0..4).map(move |run| first.wrapping_add(2 * run))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_delivers_every_message_once_in_order() {
    for seed in seeds() {
        for inbox in [1, 64 << 10] {
            let options = Options::default().inbox_bytes(inbox).outbox_bytes(32 << 10);
            let (one, two) = pair(options).await;
            both_ways(one, two, seed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spill_delivers_every_message_once_in_order() {
    for seed in seeds() {
        // One file has room for everything, and one is full again and again.
        for file in [1 << 30, 300_000] {
            let options = Options::default()
                .inbox_bytes(16 << 10)
                .overflow(Overflow::Spill(Spill::default().max_bytes(file)));
            let (one, two) = pair(options).await;
            both_ways(one, two, seed).await;
        }
    }
}
