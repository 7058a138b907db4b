//! A plain peer that vanishes while this side does not read. No pong can tell then, because none would be
//! read. The kernel's account of the socket tells, so this is for Linux.
#![cfg(target_os = "linux")]

use std::time::Duration;

use crate::common::{
    events::waits,
    frames::{BINARY, PONG, RawPeer},
    limit,
    numbered::numbered,
    plain, raw, until,
};
use socket2::{SockFilter, SockRef};
use tokio::time::{Instant, sleep};
use unstall::{
    Connection, ConnectionError, Options, StallCause,
    tokio_tungstenite::tungstenite::protocol::Role,
};

const PING_INTERVAL: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(600);
const COUNT: u64 = 8;

fn options() -> Options {
    Options::default()
        .inbox_bytes(16 << 10)
        .close_timeout(PING_INTERVAL)
        .ping_interval(PING_INTERVAL)
        .silence_timeout(SILENCE)
}

/// A connection with a full inbox, whose peer has more to say. All of that is in this side's kernel.
async fn paused(adopted: bool) -> (Connection, RawPeer) {
    let (connection, mut raw) = match adopted {
        true => raw::adopted(Role::Client, options()).await,
        false => raw::client(options()).await,
    };
    for index in 0..COUNT {
        raw.send(BINARY, numbered(index, 10_000).as_bytes()).await;
    }
    until("a full inbox", || {
        waits(&connection.stats(), StallCause::ApplicationNotReading)
    })
    .await;
    // A pong also acknowledges the bytes. Else the peer's kernel would send them again, and be heard.
    for _ in 0..2 {
        while limit(raw.read()).await.unwrap().0 != PONG {}
    }
    (connection, raw)
}

/// From now on the peer's kernel takes no packet and answers none, as if its host were gone.
fn vanish(raw: &RawPeer) {
    const DROP_ALL: SockFilter = SockFilter::new(6, 0, 0, 0);
    SockRef::from(&raw.io).attach_filter(&[DROP_ALL]).unwrap();
}

/// Once such a connection lasted until the kernel gave up, which takes a quarter of an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_vanishes_while_nobody_receives_is_noticed() {
    for adopted in [false, true] {
        let (connection, raw) = paused(adopted).await;
        vanish(&raw);
        let began = Instant::now();
        let report = limit(connection.ended()).await;
        assert!(
            matches!(
                report.error.as_deref(),
                Some(ConnectionError::NotReceived(SILENCE))
            ),
            "{:?}",
            report.error
        );
        // It is silent for as long before the application's time begins.
        assert!(began.elapsed() >= SILENCE, "{:?}", began.elapsed());
    }
}

/// The same, but the application begins to receive once the loss was noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vanished_peer_had_sent_is_received() {
    for adopted in [false, true] {
        let (mut connection, raw) = paused(adopted).await;
        vanish(&raw);
        // Each message comes to the application late, but in time.
        for index in 0..COUNT {
            sleep(SILENCE / 2).await;
            let received = plain(limit(connection.recv()).await);
            assert_eq!(received, numbered(index, 10_000));
        }
        let end = limit(connection.recv()).await;
        assert!(
            matches!(end, Err(ConnectionError::PeerSilent(SILENCE))),
            "{end:?}"
        );
    }
}

/// The kernel of a live peer acknowledges each pong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_peer_is_kept_while_nobody_receives() {
    for adopted in [false, true] {
        let (mut connection, mut raw) = paused(adopted).await;
        sleep(SILENCE * 4).await;
        raw.send(BINARY, numbered(COUNT, 10_000).as_bytes()).await;
        for index in 0..=COUNT {
            let received = plain(limit(connection.recv()).await);
            assert_eq!(received, numbered(index, 10_000));
        }
    }
}
