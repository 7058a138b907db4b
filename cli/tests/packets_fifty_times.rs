//! The job that stalls elsewhere at "22176 remaining": 100,000 packets of 4,096 bytes, fifty times,
//! to consumers that pause now and then. Every packet must arrive once and in order.

mod support;

use std::time::Duration;

use support::Serve;
use unstall::{Client, Incoming, Message};
use xxhash_rust::xxh3::xxh3_64;

const ROUNDS: u64 = 50;
const COUNT: u64 = 100_000;
const SIZE: usize = 4096;

/// A small random generator, so that a failing round can be repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

fn check(message: &Message, expected: u64, seed: u64) {
    let bytes = message.as_bytes();
    assert_eq!(bytes.len(), SIZE, "seed {seed}");
    let index = u64::from_be_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(index, expected, "seed {seed}");
    let hash = u64::from_be_bytes(bytes[8..16].try_into().unwrap());
    assert_eq!(
        hash,
        xxh3_64(&bytes[16..]),
        "seed {seed}: packet {index} is corrupted"
    );
}

async fn round(url: &str, seed: u64) {
    let client = Client::new(url).without_reconnect();
    // One half over sessions, the other over plain WebSockets.
    let client = if seed.is_multiple_of(2) {
        client
    } else {
        client.plain()
    };
    let mut connection = client.connect().await.unwrap();
    assert_eq!(connection.is_session(), seed.is_multiple_of(2));
    let request = format!(r#"{{"count":{COUNT},"size":{SIZE}}}"#);
    connection.send(request).await.unwrap();
    let mut random = Random(seed);
    let mut received = 0;
    let mut stop_at = random.below(COUNT / 8);
    while let Some(incoming) = connection.recv().await.unwrap() {
        let Incoming::Message(message) = incoming else {
            panic!("{incoming:?}, seed {seed}")
        };
        if message.is_text() {
            assert_eq!(
                message.as_text(),
                Some(format!(r#"{{"done":{COUNT}}}"#).as_str())
            );
            break;
        }
        check(&message, received, seed);
        received += 1;
        if received == stop_at {
            // The reader stops for a moment.
            tokio::time::sleep(Duration::from_millis(random.below(30))).await;
            stop_at += 1 + random.below(COUNT / 8);
        }
    }
    assert_eq!(received, COUNT, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_packet_once_in_order_fifty_times() {
    let serve = Serve::start(&[]);
    let url = format!("{}/packets", serve.url);
    for pair in 0..ROUNDS / 2 {
        tokio::join!(round(&url, 2 * pair), round(&url, 2 * pair + 1));
    }
}
