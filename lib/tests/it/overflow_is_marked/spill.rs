//! [`Overflow::Spill`]: messages that do not fit wait in a file. If the file is full or fails, the
//! fallback acts.

use std::{path::Path, time::Duration};

use tempfile::TempDir;
use unstall::{
    Connection, Event, Gap, Incoming, Overflow, Server, Spill, SpillFallback, StallCause,
};

use super::{
    Walk, burst_and_walk, disconnects, options, overflow_events, read_off_the_socket, send,
    send_and_finish,
};
use crate::common::{
    events::{wait_for, waits},
    frames::RawPeer,
    limit,
    net::{bind_again, unused_address},
    numbered::numbered,
    plain, raw,
    sessions::{pair, quick_client, text},
    until,
};

fn spill(directory: &Path, max_bytes: u64, then: SpillFallback) -> Overflow {
    let spill = Spill::default().directory(directory);
    Overflow::Spill(spill.max_bytes(max_bytes).then(then))
}

/// A directory in which no file can be made.
pub(super) fn nowhere(then: SpillFallback) -> Overflow {
    spill(Path::new("/nonexistent/unstall"), 1 << 20, then)
}

/// A connection with a spill file of at most so many bytes, in a directory of its own.
async fn spilling(max_bytes: u64, then: SpillFallback) -> (TempDir, Connection, RawPeer) {
    let directory = tempfile::tempdir().unwrap();
    let policy = spill(directory.path(), max_bytes, then);
    let (connection, raw) = raw::client(options(policy)).await;
    (directory, connection, raw)
}

/// Waits, without reading, until the spill file takes no more; returns why.
async fn spill_failed(connection: &Connection) -> String {
    wait_for(&mut connection.events(), |event| match event {
        Event::SpillFailed { why } => Some(why.clone()),
        _ => None,
    })
    .await
}

/// Waits until reading is paused. Then reads everything, of which nothing is missing.
async fn pauses_and_loses_nothing(mut connection: Connection, messages: u64) -> Connection {
    until("a pause", || {
        waits(&connection.stats(), StallCause::ApplicationNotReading)
    })
    .await;
    let mut walk = Walk::default();
    walk.follow(&mut connection).await.unwrap();
    assert_eq!((walk.delivered, walk.missing), (messages, 0));
    connection
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[tokio::test]
async fn spill_keeps_every_message_in_order() {
    const COUNT: u64 = 200_000;
    let (directory, mut connection, mut raw) = spilling(64 << 20, SpillFallback::Disconnect).await;
    let mut walk = Walk::default();
    for part in 0..4 {
        send(&mut raw, part * COUNT / 4..(part + 1) * COUNT / 4).await;
        read_off_the_socket(&connection, (part + 1) * COUNT / 4).await;
        for _ in 0..part * 20_000 {
            walk.step(limit(connection.recv()).await.unwrap().unwrap());
        }
        until("in the file", || connection.stats().spilled.0 > 10_000).await;
    }
    assert!(
        is_empty(directory.path()),
        "the file has no name that could stay behind"
    );
    tokio::spawn(raw.finish());
    walk.follow(&mut connection).await.unwrap();
    assert_eq!((walk.delivered, walk.missing), (COUNT, 0));
    let stats = connection.stats();
    assert_eq!((stats.overflowed, stats.spilled), (0, (0, 0)));
    assert!(overflow_events(&connection).await.0 > 100_000);
}

/// Once this test began to read when 900,000 bytes were in the file and reading had paused. On a slow
/// disk the last write was not done, so the file had room again before it was full.
#[tokio::test]
async fn full_spill_file_then_pause_loses_nothing() {
    const COUNT: u64 = 200_000;
    let (_directory, connection, raw) = spilling(1 << 20, SpillFallback::Pause).await;
    let writer = tokio::spawn(send_and_finish(raw, COUNT));
    let why = spill_failed(&connection).await;
    assert!(why.contains("full"), "{why}");
    assert!(connection.stats().spilled.1 > 900_000);
    let _ = pauses_and_loses_nothing(connection, COUNT).await;
    writer.await.unwrap();
}

#[tokio::test]
async fn full_spill_file_then_drop_newest_marks_what_it_dropped() {
    const COUNT: u64 = 100_000;
    let (_directory, mut connection, mut raw) = spilling(1 << 20, SpillFallback::DropNewest).await;
    let mut walk = Walk::default();
    for part in 0..10 {
        send(&mut raw, part * COUNT / 10..(part + 1) * COUNT / 10).await;
        read_off_the_socket(&connection, (part + 1) * COUNT / 10).await;
        for _ in 0..4_000 {
            walk.step(limit(connection.recv()).await.unwrap().unwrap());
        }
    }
    tokio::spawn(raw.finish());
    walk.follow(&mut connection).await.unwrap();
    assert_eq!(walk.next, COUNT, "{walk:?}");
    assert!(walk.missing > 20_000, "{walk:?}");
    // As soon as the file has room it takes messages again, after the gap.
    assert!(walk.delivered > 40_000, "{walk:?}");
    assert_eq!(connection.stats().overflowed, walk.missing);
    assert!(
        overflow_events(&connection).await.1 >= 1,
        "a full file is an event"
    );
}

#[tokio::test]
async fn full_spill_file_then_disconnect_delivers_what_was_read_then_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let policy = spill(directory.path(), 1 << 20, SpillFallback::Disconnect);
    let delivered = disconnects(options(policy), 100_000).await;
    assert!(delivered > 10_000, "{delivered}");
}

/// Once a file that was smaller than one read was never used.
#[tokio::test]
async fn small_spill_file_is_used_as_far_as_it_goes() {
    let (_directory, mut connection, mut raw) = spilling(20_000, SpillFallback::DropNewest).await;
    send(&mut raw, 0..10_000).await;
    read_off_the_socket(&connection, 10_000).await;
    let stats = connection.stats();
    assert!((19_000..=20_000).contains(&stats.spilled.1), "{stats:?}");
    tokio::spawn(raw.finish());
    let mut walk = Walk::default();
    walk.follow(&mut connection).await.unwrap();
    assert_eq!(walk.next, 10_000);
    assert_eq!(connection.stats().overflowed, walk.missing);
}

#[tokio::test]
async fn disk_that_refuses_is_an_event_and_the_fallback_acts() {
    let (walk, _, _) = burst_and_walk(nowhere(SpillFallback::DropNewest)).await;
    assert!(walk.missing > 10_000, "{walk:?}");

    let (connection, raw) = raw::client(options(nowhere(SpillFallback::Pause))).await;
    let writer = tokio::spawn(send_and_finish(raw, 50_000));
    let connection = pauses_and_loses_nothing(connection, 50_000).await;
    assert_eq!(overflow_events(&connection).await.1, 1);
    writer.await.unwrap();

    disconnects(options(nowhere(SpillFallback::Disconnect)), 50_000).await;
}

#[cfg(target_os = "linux")]
mod in_a_process_of_its_own {
    use super::*;
    use crate::common::process::{again, passed};
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };

    const DIRECTORY: &str = "UNSTALL_TEST_SPILL_DIRECTORY";

    fn directory() -> std::path::PathBuf {
        std::env::var_os(DIRECTORY)
            .expect("set by the parent")
            .into()
    }

    #[test]
    fn disk_full_in_the_midst_of_spilling_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        // Files can have at most 2 MiB. Beyond that a write fails, instead of a signal.
        let limit = "trap '' XFSZ; ulimit -f 4096;";
        let mut child = again(limit, module_path!(), "disk_full_child");
        let output = child.env(DIRECTORY, directory.path()).output();
        passed(&output.unwrap());
        assert!(is_empty(directory.path()));
    }

    #[tokio::test]
    #[ignore = "run by its parent, under a limit on the size of files"]
    async fn disk_full_child() {
        const COUNT: u64 = 100_000;
        for then in [SpillFallback::Pause, SpillFallback::DropNewest] {
            let policy = spill(&directory(), 64 << 20, then);
            let (mut connection, mut raw) = raw::client(options(policy)).await;
            let writer = tokio::spawn(async move {
                send(&mut raw, 0..COUNT).await;
                raw.finish().await;
            });
            let why = spill_failed(&connection).await;
            assert!(why.contains("File too large"), "{why}");
            if then == SpillFallback::DropNewest {
                read_off_the_socket(&connection, COUNT).await;
            }
            let mut walk = Walk::default();
            walk.follow(&mut connection).await.unwrap();
            assert_eq!(walk.next, COUNT);
            assert_eq!(walk.missing > 0, then == SpillFallback::DropNewest);
            assert_eq!(connection.stats().overflowed, walk.missing);
            writer.await.unwrap();
        }
    }

    #[test]
    fn spill_file_is_gone_with_a_process_that_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = again("", module_path!(), "killed_child")
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let spilling = lines
            .map_while(Result::ok)
            .any(|line| line.ends_with("spilling"));
        assert!(spilling);
        let files = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        let open = files
            .filter_map(|file| std::fs::read_link(file.unwrap().path()).ok())
            .any(|target| target.starts_with(directory.path()));
        assert!(open, "the file is open in the child");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_empty(directory.path()));
    }

    #[tokio::test]
    #[ignore = "run by its parent, which kills it"]
    async fn killed_child() {
        let policy = spill(&directory(), 64 << 20, SpillFallback::Pause);
        let (connection, mut raw) = raw::client(options(policy)).await;
        send(&mut raw, 0..50_000).await;
        until("in the file", || connection.stats().spilled.0 > 10_000).await;
        println!("spilling");
        std::future::pending().await
    }
}

/// Once what a plain connection had spilled was lost, unmarked, where the next connection was a
/// session: only what was in memory was handed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_spilled_comes_before_the_messages_of_a_session() {
    const COUNT: u64 = 2_000;
    let address = unused_address();
    let old = Server::builder().plain().bind(address).await.unwrap();
    let policy = Overflow::Spill(Spill::default());
    let client = quick_client(address).options(options(policy));
    let (mut client, first) = pair(&old, client).await;
    for number in 0..COUNT {
        first.send(numbered(number, 1_000)).await.unwrap();
    }
    read_off_the_socket(&client, COUNT).await;
    until("much is in the file", || {
        client.stats().spilled.1 > COUNT * 1_000 / 2
    })
    .await;
    drop(first);
    old.shutdown(Duration::ZERO).await;
    drop(old);
    let new = bind_again(Server::builder(), address).await;
    let second = limit(new.accept()).await.unwrap();
    assert!(second.is_session());
    second.send("new").await.unwrap();
    limit(second.flush()).await.unwrap();
    for number in 0..COUNT {
        let message = plain(limit(client.recv()).await);
        assert!(message == numbered(number, 1_000), "{number} was due");
    }
    let gap = limit(client.recv()).await;
    assert!(
        matches!(gap, Ok(Some(Incoming::Gap(Gap::Reconnected { .. })))),
        "{gap:?}"
    );
    assert_eq!(text(&mut client).await, "new");
    assert_eq!(client.stats().spilled, (0, 0));
}
