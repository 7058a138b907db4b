//! If the application stops for ever, nothing else stops. Pings are answered while there is room, and a
//! close ends in time with an exact report, whatever the peer does.

use std::time::{Duration, Instant};

use crate::common::{
    events::{stalled, waits},
    frames::{BINARY, PING, PONG, RawPeer},
    limit,
    memory::{ENGINES, Engine},
    numbered::{number, numbered},
    plain, raw, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use unstall::{
    CloseCode, CloseReport, Connection, ConnectionError, Incoming, Message, Options, Server,
    StallCause, Stats, defaults, tokio_tungstenite::tungstenite::protocol::Role,
};

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

/// Notices soon that a peer has left: by the second heartbeat that it does not take.
fn watchful() -> Options {
    options()
        .inbox_bytes(64 << 10)
        .ping_interval(Duration::from_millis(50))
        .silence_timeout(Duration::from_millis(300))
}

/// Sends more than the inbox holds until the connection does not read any more, and leaves.
async fn fill_and_leave(mut raw: RawPeer, stats: impl Fn() -> Stats) {
    let flood = async {
        for index in 0.. {
            raw.send(BINARY, message(index).as_bytes()).await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = until("a full inbox", || waits(&stats(), StallCause::ApplicationNotReading)) => {}
    }
}

/// The error of a connection that broke while nobody received.
fn not_received(end: Option<&ConnectionError>) {
    assert!(
        matches!(end, Some(ConnectionError::NotReceived(_))),
        "{end:?}"
    );
}

/// Once a handler that only waited in `ended()` was never told that its client had filled the inbox and
/// left. It kept its place and its memory for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_receives_nothing_is_told_that_its_client_has_left() {
    let builder = Server::builder().plain().options(watchful());
    let server = builder.bind("127.0.0.1:0").await.unwrap();
    let (handlers, mut begun) = mpsc::channel(1);
    let (reports, mut ended) = mpsc::channel(1);
    let serving = server.clone();
    tokio::spawn(async move {
        let wait = move |connection: Connection| {
            let (handlers, reports) = (handlers.clone(), reports.clone());
            async move {
                let (sender, _receiver) = connection.split();
                handlers.send(sender.clone()).await.unwrap();
                reports.send(sender.ended().await).await.unwrap();
            }
        };
        serving.serve(wait).await;
    });
    let raw = RawPeer::connect(server.local_addr()).await;
    let handler = limit(begun.recv()).await.unwrap();
    fill_and_leave(raw, || handler.stats()).await;
    let report = limit(ended.recv()).await.unwrap();
    not_received(report.error.as_deref());
    until("its place is free", || server.stats().open == 0).await;
}

/// The same from the other side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_receives_nothing_is_told_that_its_server_has_left() {
    for adopted in [false, true] {
        let (connection, raw) = match adopted {
            true => raw::adopted(Role::Client, watchful()).await,
            false => raw::client(watchful()).await,
        };
        fill_and_leave(raw, || connection.stats()).await;
        let report = limit(connection.ended()).await;
        not_received(report.error.as_deref());
    }
}

/// A peer that sends messages of 8 KiB, and leaves as soon as all are sent.
async fn sends_and_leaves(count: u64, options: Options, engine: Engine) -> Connection {
    let (connection, mut raw) = engine.before_raw(options).await;
    let mut events = connection.events();
    tokio::spawn(async move {
        for index in 0..count {
            raw.send(BINARY, numbered(index, 8 << 10).as_bytes()).await;
        }
    });
    stalled(&mut events, StallCause::ApplicationNotReading).await;
    connection
}

#[tokio::test(start_paused = true)]
async fn broken_connection_of_a_stopped_application_ends_in_time_and_its_inbox_can_be_received() {
    // As many as the inbox, the connection and the pipe hold.
    const COUNT: u64 = 20;
    for engine in ENGINES {
        let options = Options::default().inbox_bytes(64 << 10);
        let mut connection = sends_and_leaves(COUNT, options, engine).await;
        let started = tokio::time::Instant::now();
        let report = limit(connection.ended()).await;
        let took = started.elapsed();
        let bound = 2 * defaults::PING_INTERVAL + defaults::SILENCE_TIMEOUT;
        assert!(took <= bound, "{engine:?}: {took:?}");
        not_received(report.error.as_deref());
        let mut next = 0;
        let end = loop {
            match connection.recv().await {
                Ok(Some(Incoming::Message(received))) => {
                    assert_eq!(received, numbered(next, 8 << 10), "{engine:?}");
                    next += 1;
                }
                end => break end,
            }
        };
        not_received(end.as_ref().err());
        assert!((5..COUNT).contains(&next), "{engine:?}: {next}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_application_receives_all_that_came_before_the_connection_broke() {
    const COUNT: u64 = 40;
    for engine in ENGINES {
        let options = Options::default().inbox_bytes(64 << 10);
        let mut connection = sends_and_leaves(COUNT, options, engine).await;
        for index in 0..COUNT {
            // A message takes the application almost as long as it may.
            tokio::time::sleep(defaults::SILENCE_TIMEOUT - Duration::from_secs(1)).await;
            let received = plain(connection.recv().await);
            assert_eq!(received, numbered(index, 8 << 10), "{engine:?}");
        }
        let end = limit(connection.recv()).await;
        assert!(
            matches!(
                end,
                Err(ConnectionError::Io(_) | ConnectionError::EndOfStream)
            ),
            "{engine:?}: {end:?}"
        );
    }
}
