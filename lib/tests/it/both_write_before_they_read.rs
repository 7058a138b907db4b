//! Both applications of a session write far more than all queues hold before they read anything.
//! Each side reports what it waits for, no memory grows beyond the limits, and everything arrives
//! as soon as both begin to read.
//!
//! The normal run writes 64 MiB each way; with `UNSTALL_FULL=1` it is 1 GiB.

use std::time::Duration;

use crate::common::{
    full, numbered,
    process::{Commands, Process, is, play, say, setting},
};
use unstall::{
    Client, Connection, Event, Server, StallCause,
    defaults::{INBOX_BYTES, OUTBOX_BYTES, REPLAY_BYTES, WINDOW_BYTES},
};

const MIB: u64 = 1 << 20;
const MESSAGE: u64 = 64 << 10;

/// For each side: inbox, outbox, replay, window, and 1 MiB for the buffers of WebSocket and socket.
const LIMIT: u64 = (INBOX_BYTES + OUTBOX_BYTES + REPLAY_BYTES + WINDOW_BYTES) as u64 + MIB;

async fn write_then_read(connection: Connection, total: u64, mut commands: Commands) {
    let mut events = connection.events();
    let (sender, mut receiver) = connection.split();
    let writer = sender.clone();
    let writing = tokio::spawn(async move {
        numbered::send(&writer, 0..total / MESSAGE, MESSAGE as usize).await;
    });
    // The event comes about a second after the wait began.
    let mut told = Vec::new();
    while told.len() < 2 {
        if let Some(Event::Stalled { cause, .. }) = events.recv().await {
            told.push(cause);
        }
    }
    told.sort_by_key(|cause| cause.to_string());
    let stats = sender.stats();
    let mut waits: Vec<_> = stats.stalled_by().collect();
    // A ping may be on its way.
    waits.retain(|cause| *cause != StallCause::PeerSilent);
    say(format!("stalled {told:?} {waits:?}"));
    commands.recv().await;
    numbered::receive(&mut receiver, 0..total / MESSAGE, MESSAGE as usize).await;
    writing.await.unwrap();
    sender.delivered().await.unwrap();
    let mut moving = Vec::new();
    while moving.len() < 2 {
        if let Some(Event::Moving { cause, after }) = events.recv().await {
            assert!(after >= Duration::from_secs(1), "{cause:?} after {after:?}");
            moving.push(cause);
        }
    }
    let stats = sender.stats();
    for cause in told {
        let stall = stats.stalls.iter().find(|stall| stall.cause == cause);
        assert!(stall.unwrap().total >= Duration::from_secs(1), "{stats:?}");
        assert!(moving.contains(&cause));
    }
    assert_eq!(stats.connections, 1, "it was never in doubt");
    say("done");
    commands.recv().await;
}

#[test]
#[ignore = "the other process of the test below"]
fn server() {
    if is("server") {
        play(|commands| async {
            let server = Server::bind("127.0.0.1:0").await.unwrap();
            say(format!("listens {}", server.local_addr()));
            let session = server.accept().await.unwrap();
            write_then_read(session, setting("TOTAL"), commands).await;
        });
    }
}

#[test]
#[ignore = "the other process of the test below"]
fn client() {
    if is("client") {
        play(|mut commands| async move {
            say("ready");
            commands.recv().await;
            let client = Client::new(setting::<String>("URL")).require_session();
            let session = client.connect().await.unwrap();
            write_then_read(session, setting("TOTAL"), commands).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_arrives_as_soon_as_they_read_and_the_wait_has_a_name() {
    let total = if full() { 1024 * MIB } else { 64 * MIB };
    let total_setting = ("TOTAL", total.to_string());
    let mut server = Process::spawn(
        module_path!(),
        "server",
        std::slice::from_ref(&total_setting),
    );
    let url = format!("ws://{}/", server.hear("listens").await);
    let mut client = Process::spawn(module_path!(), "client", &[total_setting, ("URL", url)]);
    client.hear("ready").await;
    let empty = [server.memory(), client.memory()];
    client.tell("go").await;
    for process in [&mut server, &mut client] {
        let stalled = process.hear("stalled").await;
        // Its own application does not read, and neither does the peer's.
        assert_eq!(
            stalled,
            "[OutOfCredit, ApplicationNotReading] [ApplicationNotReading, OutOfCredit]"
        );
    }
    let peaks = |server: &Process, client: &Process| {
        let peaks = [server.peak_memory(), client.peak_memory()];
        [peaks[0] - empty[0], peaks[1] - empty[1]]
    };
    let before = peaks(&server, &client);
    server.tell("read").await;
    client.tell("read").await;
    let began = std::time::Instant::now();
    for process in [&mut server, &mut client] {
        process.hear("done").await;
    }
    let after = peaks(&server, &client);
    println!(
        "{} MiB each way in {:.1} s once both read; peak memory above the empty process: before \
         reading server {} KiB, client {} KiB; in all {} and {} KiB; limit {} KiB",
        total / MIB,
        began.elapsed().as_secs_f64(),
        before[0] >> 10,
        before[1] >> 10,
        after[0] >> 10,
        after[1] >> 10,
        LIMIT >> 10,
    );
    assert!(after.iter().all(|used| *used <= LIMIT), "{after:?}");
}
