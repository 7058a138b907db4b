//! If the application stops for ever, nothing else stops. Pings are answered while there is room, and a
//! close ends in time with an exact report, whatever the peer does.

use std::time::{Duration, Instant};

use crate::common::{
    events::{stalled, waits},
    frames::{BINARY, PING, PONG, RawPeer},
    limit,
    numbered::{number, numbered},
    raw, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unstall::{CloseCode, CloseReport, Connection, Message, Options, StallCause};

const CLOSE: Duration = Duration::from_millis(300);

fn options() -> Options {
    Options::default()
        .inbox_bytes(1 << 20)
        .outbox_bytes(1 << 20)
        .close_timeout(CLOSE)
        .stall_after(Duration::from_millis(200))
}

fn message(index: u64) -> Message {
    numbered(index, 10_000)
}

/// Fills the socket of a peer that does not read, and then the outbox. Returns how many messages were
/// accepted.
async fn fill(connection: &Connection) -> u64 {
    let mut events = connection.events();
    let mut accepted = 0;
    let fill = async {
        loop {
            connection.send(message(accepted)).await.unwrap();
            accepted += 1;
        }
    };
    tokio::select! {
        () = fill => {}
        _ = stalled(&mut events, StallCause::SocketFull) => {}
    }
    accepted
}

/// Closes, and checks that it ends in time. The margin is for a loaded machine; a close that misses its
/// deadline takes longer than that.
async fn close_in_time(connection: &Connection) -> CloseReport {
    let started = Instant::now();
    let report = limit(connection.close(CloseCode::NORMAL, "done")).await;
    let took = started.elapsed();
    assert!(took < CLOSE + Duration::from_secs(2), "{took:?}");
    report
}

/// Checks that whole messages arrived, unsent ones did not, and the ones in flight are in between.
fn account(report: &CloseReport, accepted: u64, arrived: u64) {
    let unsent: Vec<_> = report.unsent.iter().map(number).collect();
    let written = accepted - unsent.len() as u64;
    assert_eq!(unsent, (written..accepted).collect::<Vec<_>>());
    let certain = written - report.in_flight;
    assert!(
        (certain..=written).contains(&arrived),
        "{arrived} of {certain} to {written}"
    );
}

/// Reads up to so many messages, each of which must be the next one. Returns how many there were.
async fn read_up_to(count: u64, raw: &mut RawPeer) -> u64 {
    let mut next = 0;
    while next < count
        && let Some((opcode, payload)) = raw.read().await
    {
        if opcode == BINARY {
            assert_eq!(Message::from(payload), message(next));
            next += 1;
        }
    }
    next
}

async fn read_to_end(raw: &mut RawPeer) -> u64 {
    read_up_to(u64::MAX, raw).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_while_the_inbox_has_room() {
    const PINGS: u8 = 21;
    let (connection, mut raw) = raw::client(options()).await;
    // This side's application neither reads nor flushes. Its own sends fill the outbox.
    for ping in 0..PINGS {
        raw.send(BINARY, &[0; 1000]).await;
        connection.try_send(message(ping.into())).unwrap();
    }
    let mut times = Vec::new();
    let mut messages = 0;
    for ping in 0..PINGS {
        let asked = Instant::now();
        raw.send(PING, &[ping]).await;
        loop {
            match limit(raw.read()).await.unwrap() {
                (PONG, payload) => break assert_eq!(payload, [ping]),
                (BINARY, _) => messages += 1,
                other => panic!("{other:?}"),
            }
        }
        times.push(asked.elapsed());
    }
    assert_eq!(messages, PINGS);
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(100), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_in_time_with_the_inbox_full() {
    let (connection, raw) = raw::client(options()).await;
    let (mut reads, mut writes) = raw.io.into_split();
    let flood = tokio::spawn(async move {
        let mut frame = Vec::new();
        raw::encode(&mut frame, BINARY, &[0; 10_000]);
        while writes.write_all(&frame).await.is_ok() {}
    });
    until("a full inbox", || {
        waits(&connection.stats(), StallCause::ApplicationNotReading)
    })
    .await;
    for index in 0..10 {
        connection.send(message(index)).await.unwrap();
    }
    let report = close_in_time(&connection).await;
    // The peer's answer comes after messages that nobody receives.
    assert!(!report.clean);
    assert_eq!((report.unsent.len(), report.in_flight), (0, 0));
    let mut bytes = Vec::new();
    // The stream may end with a reset.
    let _ = limit(reads.read_to_end(&mut bytes)).await;
    assert!(bytes.len() > 100_000, "all ten were written");
    flood.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_in_time_when_the_peer_does_not_read_and_tells_what_was_unsent() {
    let (connection, mut raw) = raw::client(options()).await;
    let accepted = fill(&connection).await;
    let report = close_in_time(&connection).await;
    assert!(
        !report.clean && report.unsent.len() > 50,
        "{}",
        report.unsent.len()
    );
    let again = connection.close(CloseCode::NORMAL, "").await;
    assert!(again.unsent.is_empty(), "each is given back once");
    let refused = connection.send("later").await.unwrap_err();
    assert_eq!(refused.message, Message::from("later"));
    let arrived = limit(read_to_end(&mut raw)).await;
    account(&report, accepted, arrived);
}

/// A long message of which only some frames were written is not lost: it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_cut_between_its_frames_is_unsent() {
    let options = options().fragment_bytes(64 << 10);
    let (connection, _raw) = raw::client(options).await;
    let long = Message::from(vec![7; 12 << 20]);
    connection.send(long.clone()).await.unwrap();
    until("a full socket", || {
        waits(&connection.stats(), StallCause::SocketFull)
    })
    .await;
    let report = close_in_time(&connection).await;
    assert_eq!((report.unsent, report.in_flight), (vec![long], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_in_time_when_the_peer_is_gone() {
    let (connection, raw) = raw::client(options()).await;
    let accepted = fill(&connection).await;
    drop(raw);
    let report = close_in_time(&connection).await;
    assert!(!report.clean);
    let first = connection.stats().messages_sent + report.in_flight;
    let unsent: Vec<_> = report.unsent.iter().map(number).collect();
    assert_eq!(
        unsent,
        (first..accepted).collect::<Vec<_>>(),
        "all the rest"
    );
    assert!(!unsent.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_in_time_when_the_peer_never_answers_it() {
    let (connection, mut raw) = raw::client(options()).await;
    let send = async {
        for index in 0..100 {
            connection.send(message(index)).await.unwrap();
        }
    };
    let both = async { tokio::join!(send, read_up_to(100, &mut raw)) };
    assert_eq!(limit(both).await.1, 100);
    let (report, late) = tokio::join!(close_in_time(&connection), read_to_end(&mut raw));
    assert!(!report.clean);
    assert_eq!((report.unsent.len(), report.in_flight, late), (0, 0, 0));
}
