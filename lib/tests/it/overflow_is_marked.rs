//! When the inbox is full, its policy acts. What is missing is marked at its place in the stream with
//! exact counts, reported by events, and counted in the statistics.

mod spill;

use std::sync::Arc;

use crate::common::{
    events::{ended, rest, waits},
    frames::{BINARY, RawPeer, TEXT},
    limit, plain, raw, until,
};
use tokio::io::AsyncWriteExt;
use unstall::{
    Connection, ConnectionError, Event, Gap, Incoming, Options, Overflow, SpillFallback,
    StallCause, Stats,
};

const INBOX: usize = 64 << 10;

fn options(overflow: Overflow) -> Options {
    Options::default().inbox_bytes(INBOX).overflow(overflow)
}

/// Message number `index`, which has 16 to 115 bytes.
fn payload(index: u64) -> Vec<u8> {
    let mut payload = vec![index as u8; len(index) as usize];
    payload[..8].copy_from_slice(&index.to_be_bytes());
    payload
}

fn len(index: u64) -> u64 {
    16 + index % 100
}

async fn send(raw: &mut RawPeer, indexes: std::ops::Range<u64>) {
    let mut frames = Vec::new();
    for index in indexes {
        raw::encode(&mut frames, BINARY, &payload(index));
    }
    raw.io.write_all(&frames).await.unwrap();
}

async fn send_and_finish(mut raw: RawPeer, messages: u64) {
    send(&mut raw, 0..messages).await;
    raw.finish().await;
}

/// Follows the numbered stream: every message is the next one, or a gap accounts for those in between.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walk {
    next: u64,
    delivered: u64,
    missing: u64,
    gaps: u64,
}

impl Walk {
    fn step(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => {
                assert_eq!(
                    message.as_bytes(),
                    payload(self.next),
                    "out of step: {self:?}"
                );
                self.next += 1;
                self.delivered += 1;
            }
            Incoming::Gap(Gap::Dropped { messages, bytes }) => {
                let after = self.next + messages;
                assert_eq!(bytes, (self.next..after).map(len).sum::<u64>(), "{self:?}");
                self.next = after;
                self.missing += messages;
                self.gaps += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    async fn follow(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        while let Some(incoming) = limit(connection.recv()).await? {
            self.step(incoming);
        }
        Ok(())
    }
}

async fn read_off_the_socket(connection: &Connection, messages: u64) {
    until("all messages read off the socket", || {
        connection.stats().messages_received == messages
    })
    .await;
}

/// How many messages were dropped, replaced or spilled, and how often the spill file failed, by events.
async fn overflow_events(connection: &Connection) -> (u64, u64) {
    let (mut messages, mut failures) = (0, 0);
    for event in rest(&mut connection.events()).await {
        match event {
            Event::Overflow { messages: more, .. } => messages += more,
            Event::SpillFailed { .. } => failures += 1,
            Event::Missed(_) => panic!("too many events: {event:?}"),
            _ => {}
        }
    }
    (messages, failures)
}

/// Sends 20 bursts of 1,000 messages, of which the application receives a few each time.
async fn burst_and_walk(overflow: Overflow) -> (Walk, Stats, u64) {
    const BURSTS: u64 = 20;
    const BURST: u64 = 1_000;
    let (mut connection, mut raw) = raw::client(options(overflow)).await;
    let mut walk = Walk::default();
    for burst in 0..BURSTS {
        send(&mut raw, burst * BURST..(burst + 1) * BURST).await;
        read_off_the_socket(&connection, (burst + 1) * BURST).await;
        for _ in 0..burst * 10 {
            walk.step(limit(connection.recv()).await.unwrap().unwrap());
        }
    }
    let stats = connection.stats();
    assert!(stats.inbox.high_water <= INBOX + 512, "{:?}", stats.inbox);
    tokio::spawn(raw.finish());
    walk.follow(&mut connection).await.unwrap();
    assert_eq!(walk.next, BURSTS * BURST, "delivered and missing make all");
    let stats = connection.stats();
    assert_eq!(stats.overflowed, walk.missing);
    let (events, _) = overflow_events(&connection).await;
    (walk, stats, events)
}

#[tokio::test]
async fn drop_newest_marks_what_it_dropped_behind_what_was_queued() {
    let (walk, _, events) = burst_and_walk(Overflow::DropNewest).await;
    assert!(walk.missing > 10_000 && walk.gaps >= 10, "{walk:?}");
    assert_eq!(events, walk.missing, "the events count every one");
}

#[tokio::test]
async fn drop_oldest_marks_what_it_dropped_before_what_is_fresh() {
    let (walk, _, events) = burst_and_walk(Overflow::DropOldest).await;
    assert!(walk.missing > 10_000 && walk.gaps >= 10, "{walk:?}");
    assert_eq!(events, walk.missing, "the events count every one");
}

#[tokio::test]
async fn drop_oldest_keeps_the_freshest() {
    let (mut connection, mut raw) = raw::client(options(Overflow::DropOldest)).await;
    send(&mut raw, 0..5_000).await;
    read_off_the_socket(&connection, 5_000).await;
    let Ok(Some(Incoming::Gap(Gap::Dropped { messages, .. }))) = connection.recv().await else {
        panic!("what is missing stands first");
    };
    for index in messages..5_000 {
        let message = plain(limit(connection.recv()).await);
        assert_eq!(message.as_bytes(), payload(index));
    }
}

fn key(message: &unstall::Message) -> Option<Vec<u8>> {
    let index = u64::from_be_bytes(message.as_bytes()[..8].try_into().unwrap());
    Some((index % 10).to_be_bytes().to_vec())
}

#[tokio::test]
async fn conflate_marks_each_replacement_before_the_value_that_replaced() {
    const COUNT: u64 = 20_000;
    let policy = Overflow::Conflate(Arc::new(key));
    let (mut connection, mut raw) = raw::client(options(policy)).await;
    send(&mut raw, 0..COUNT).await;
    read_off_the_socket(&connection, COUNT).await;
    assert!(
        connection.stats().inbox.high_water <= INBOX,
        "{:?}",
        connection.stats().inbox
    );
    tokio::spawn(raw.finish());

    // The values of each key continue, unless a gap right before a message accounts for the missing ones.
    let mut next: Vec<u64> = (0..10).collect();
    let (mut delivered, mut replaced) = (0, 0);
    let mut gap = None;
    while let Some(incoming) = limit(connection.recv()).await.unwrap() {
        match incoming {
            Incoming::Message(message) => {
                let index = u64::from_be_bytes(message.as_bytes()[..8].try_into().unwrap());
                let next = &mut next[(index % 10) as usize];
                let (messages, bytes) = gap.take().unwrap_or_default();
                let skipped = (0..messages)
                    .map(|step| len(*next + 10 * step))
                    .sum::<u64>();
                assert_eq!((index, bytes), (*next + 10 * messages, skipped));
                *next = index + 10;
                delivered += 1;
                replaced += messages;
            }
            Incoming::Gap(Gap::Conflated { messages, bytes }) => {
                assert!(
                    gap.replace((messages, bytes)).is_none(),
                    "two gaps in a row"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        next.iter().all(|next| *next >= COUNT),
        "the latest of each key: {next:?}"
    );
    assert_eq!(delivered + replaced, COUNT);
    assert!(replaced > 10_000);
    assert_eq!(connection.stats().overflowed, replaced);
    assert_eq!(overflow_events(&connection).await.0, replaced);
}

/// Once the queued value of a key was replaced by any newer one, however large. A hundred values of 100
/// bytes grew to 100 KiB each, under a limit of 64 KiB for all.
#[tokio::test]
async fn conflate_does_not_grow_beyond_the_limit_with_its_values() {
    let policy = Overflow::Conflate(Arc::new(|message| Some(message.as_bytes()[..8].to_vec())));
    let (mut connection, mut raw) = raw::client(options(policy)).await;
    let writer = tokio::spawn(async move {
        for size in [500, 100 << 10] {
            for index in 0..200u64 {
                let mut payload = vec![0; size];
                payload[..8].copy_from_slice(&index.to_be_bytes());
                raw.send(BINARY, &payload).await;
            }
        }
        raw.finish().await;
    });
    until("the inbox full", || {
        waits(&connection.stats(), StallCause::ApplicationNotReading)
    })
    .await;
    let mut seen = 0;
    while let Some(incoming) = limit(connection.recv()).await.unwrap() {
        seen += match incoming {
            Incoming::Message(_) => 1,
            Incoming::Gap(Gap::Conflated { messages, .. }) => messages,
            other => panic!("{other:?}"),
        };
        let high = connection.stats().inbox.high_water;
        assert!(
            high <= (100 << 10) + 1024,
            "one large message at a time, not {high}"
        );
    }
    assert_eq!(seen, 400);
    writer.await.unwrap();
}

/// Once the key function ran under the inbox's lock. If it asked for the connection's statistics, the
/// pump blocked for ever. If it panicked, the lock was poisoned.
#[tokio::test]
async fn key_function_may_use_the_connection_and_its_panic_ends_that_connection_alone() {
    use std::sync::OnceLock;
    static SENDER: OnceLock<unstall::Sender> = OnceLock::new();
    let policy = Overflow::Conflate(Arc::new(|message| {
        if let Some(sender) = SENDER.get() {
            assert!(sender.stats().messages_received < 1_000_000);
        }
        assert_ne!(message.as_bytes(), b"panic");
        Some(message.as_bytes().to_vec())
    }));
    let (connection, mut raw) = raw::client(options(policy)).await;
    let (sender, mut receiver) = connection.split();
    SENDER.set(sender.clone()).unwrap();
    raw.send(TEXT, b"fine").await;
    let message = plain(limit(receiver.recv()).await);
    assert_eq!(message.as_text(), Some("fine"));
    raw.send(TEXT, b"panic").await;
    let end = limit(receiver.recv()).await;
    assert!(matches!(end, Err(ConnectionError::Aborted)), "{end:?}");
    assert!(sender.try_send("more").is_err());
    assert_eq!(sender.stats().outbox.messages, 0);
}

#[tokio::test]
async fn pause_loses_nothing_and_says_that_it_waits() {
    const COUNT: u64 = 200_000;
    let (mut connection, raw) = raw::client(options(Overflow::Pause)).await;
    let writer = tokio::spawn(send_and_finish(raw, COUNT));
    until("a pause", || {
        waits(&connection.stats(), StallCause::ApplicationNotReading)
    })
    .await;
    let mut walk = Walk::default();
    walk.follow(&mut connection).await.unwrap();
    assert_eq!((walk.delivered, walk.missing), (COUNT, 0));
    assert_eq!(connection.stats().overflowed, 0);
    writer.await.unwrap();
}

/// Once `recv` waited for ever at the end of a connection that its policy had cut. The messages that did
/// not fit waited for room without a waker.
#[tokio::test]
async fn disconnect_delivers_what_was_read_then_says_why() {
    disconnects(options(Overflow::Disconnect), 20_000).await;
}

/// Sends more than there is room for. The messages that fit are delivered, then the reason of the end.
/// Returns how many messages that were.
async fn disconnects(options: Options, messages: u64) -> u64 {
    let (mut connection, raw) = raw::client(options).await;
    tokio::spawn(send_until_cut(raw, messages));
    // The application begins to read after the end of the connection.
    let why = ended(&mut connection.events()).await;
    assert!(
        matches!(why.as_deref(), Some(ConnectionError::InboxFull)),
        "{why:?}"
    );
    let mut walk = Walk::default();
    let end = walk.follow(&mut connection).await;
    assert!(matches!(end, Err(ConnectionError::InboxFull)), "{end:?}");
    assert_eq!(
        (walk.delivered, walk.missing),
        (connection.stats().messages_received, 0)
    );
    walk.delivered
}

/// Sends to a connection that is cut in the middle.
async fn send_until_cut(mut raw: RawPeer, messages: u64) {
    for index in 0..messages {
        let mut frame = Vec::new();
        raw::encode(&mut frame, BINARY, &payload(index));
        if raw.io.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// If the application never reads and its policy drops everything, the gaps must not use up memory. They
/// are joined.
#[tokio::test]
async fn marks_of_a_long_overflow_join() {
    for policy in [
        spill::nowhere(SpillFallback::DropNewest),
        Overflow::DropNewest,
        Overflow::DropOldest,
    ] {
        let (connection, mut raw) = raw::client(options(policy)).await;
        for part in 0..20 {
            send(&mut raw, part * 10_000..(part + 1) * 10_000).await;
            read_off_the_socket(&connection, (part + 1) * 10_000).await;
        }
        let inbox = connection.stats().inbox;
        assert!(inbox.high_water <= INBOX + 1024, "{inbox:?}");
    }
}

/// The same while nobody reads: each value of the queue is to be replaced by a longer one.
#[tokio::test]
async fn conflate_replaces_a_value_by_a_longer_one_only_while_there_is_room() {
    const KEYS: u64 = 50;
    let policy = Overflow::Conflate(Arc::new(|message| Some(message.as_bytes()[..8].to_vec())));
    let (mut connection, mut raw) = raw::client(options(policy)).await;
    let mut frames = Vec::new();
    for size in [500, 10 << 10] {
        for index in 0..KEYS {
            let mut payload = vec![0; size];
            payload[..8].copy_from_slice(&index.to_be_bytes());
            raw::encode(&mut frames, BINARY, &payload);
        }
    }
    let writer = tokio::spawn(async move {
        raw.io.write_all(&frames).await.unwrap();
        raw.finish().await;
    });
    until("the inbox full", || {
        waits(&connection.stats(), StallCause::ApplicationNotReading)
    })
    .await;
    let mut seen = 0;
    while let Some(incoming) = limit(connection.recv()).await.unwrap() {
        seen += match incoming {
            Incoming::Message(_) => 1,
            Incoming::Gap(Gap::Conflated { messages, .. }) => messages,
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(seen, 2 * KEYS);
    let high = connection.stats().inbox.high_water;
    assert!(high <= INBOX, "{high}");
    writer.await.unwrap();
}
