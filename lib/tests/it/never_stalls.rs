//! Both sides can write as much as they like before they read. Nothing hangs in silence.

use crate::common::{
    client,
    events::{stalled, waits},
    frames::{BINARY, frame},
    limit,
    memory::ENGINES,
    net::bind,
    numbered, pair, plain, sessions, until,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use unstall::defaults::PING_INTERVAL;
use unstall::{
    Budget, CloseCode, Message, Options, Overflow, Receiver, Sender, Server, Spill, StallCause,
};

const MESSAGE_BYTES: usize = 64 << 10;
const MESSAGES: u64 = (256 << 20) / MESSAGE_BYTES as u64;

async fn send_all(sender: Sender) {
    numbered::send(&sender, 0..MESSAGES, MESSAGE_BYTES).await;
    sender.flush().await.unwrap();
}

async fn receive_all(mut receiver: Receiver) {
    numbered::receive(&mut receiver, 0..MESSAGES, MESSAGE_BYTES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_and_close_are_clean_on_both_sides() {
    let (mut client, mut server) = pair(Options::default()).await;
    client.send("hello").await.unwrap();
    let message = plain(server.recv().await);
    assert_eq!(message.as_text(), Some("hello"));
    server.send(message).await.unwrap();
    assert_eq!(plain(client.recv().await), Message::from("hello"));
    let report = client.close(CloseCode::NORMAL, "done").await;
    assert!(report.clean, "{report:?}");
    assert!(matches!(server.recv().await, Ok(None)));
    assert!(matches!(client.recv().await, Ok(None)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_write_256_mib_before_reading_and_spill_completes() {
    let options = Options::default().overflow(Overflow::Spill(Spill::default()));
    let (client, server) = pair(options).await;
    let (client_sender, client_receiver) = client.split();
    let (server_sender, server_receiver) = server.split();
    limit(async {
        tokio::join!(
            send_all(client_sender.clone()),
            send_all(server_sender.clone())
        )
    })
    .await;
    for stats in [client_sender.stats(), server_sender.stats()] {
        assert!(
            stats.inbox.high_water <= stats.inbox.limit,
            "{:?}",
            stats.inbox
        );
        assert!(
            stats.outbox.high_water <= stats.outbox.limit,
            "{:?}",
            stats.outbox
        );
    }
    limit(async { tokio::join!(receive_all(client_receiver), receive_all(server_receiver)) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_write_before_reading_and_pause_is_reported_then_goes_on() {
    let options = Options::default().stall_after(Duration::from_millis(200));
    let (client, server) = pair(options).await;
    let mut events = [client.events(), server.events()];
    let (client_sender, client_receiver) = client.split();
    let (server_sender, server_receiver) = server.split();
    let client_sends = tokio::spawn(send_all(client_sender.clone()));
    let server_sends = tokio::spawn(send_all(server_sender.clone()));
    for events in &mut events {
        // In either order: this side's application does not read, and neither does the peer's.
        let mut both = events.clone();
        stalled(events, StallCause::ApplicationNotReading).await;
        stalled(&mut both, StallCause::SocketFull).await;
    }
    let waits: Vec<_> = client_sender.stats().stalled_by().collect();
    assert_eq!(
        waits,
        [StallCause::ApplicationNotReading, StallCause::SocketFull]
    );
    assert!(!client_sends.is_finished() && !server_sends.is_finished());

    // One application reads, so the other side can write everything.
    let client_reads = tokio::spawn(receive_all(client_receiver));
    limit(client_reads).await.unwrap();
    limit(server_sends).await.unwrap();
    assert!(!client_sends.is_finished());
    limit(receive_all(server_receiver)).await;
    limit(client_sends).await.unwrap();
}

/// Once the rest of a packet had no messages, and the rest of the outbox then waited for the next ping.
/// Here no ping is ever sent, so a missed wake-up hangs.
#[tokio::test]
async fn nothing_waits_for_a_ping_to_go_on() {
    let options = Options::default()
        .ping_interval(Duration::MAX)
        .silence_timeout(Duration::MAX);
    for session in [false, true] {
        let server = bind(Server::builder().options(options.clone())).await;
        let client = client(server.local_addr(), options.clone());
        let client = match session {
            true => client.require_session(),
            false => client.plain(),
        };
        let (client, server) = limit(sessions::pair(&server, client)).await;
        let (up, mut down_receiver) = client.split();
        let (down, mut up_receiver) = server.split();
        for size in [64, 4 << 10, 9000] {
            let count = (8 << 20) / size as u64;
            let one_by_one = numbered::send(&down, 0..count, size);
            let received = numbered::receive(&mut down_receiver, 0..count, size);
            limit(async { tokio::join!(one_by_one, received) }).await;
            let messages = (0..count).map(|number| numbered::numbered(number, size));
            let at_once = async { up.send_many(messages).await.unwrap() };
            let received = numbered::receive(&mut up_receiver, 0..count, size);
            limit(async { tokio::join!(at_once, received) }).await;
        }
    }
}

/// A message that has been read and finds no room must be handed over when there is some, though the
/// peer says no more, and no ping is due.
#[tokio::test(start_paused = true)]
async fn message_that_found_no_room_comes_when_there_is_some() {
    let conflate = Overflow::Conflate(Arc::new(|_| None));
    for overflow in [Overflow::Pause, conflate] {
        for engine in ENGINES {
            let options = Options::default()
                .ping_interval(Duration::MAX)
                .silence_timeout(Duration::MAX)
                // The report of a stall would wake the pump as well.
                .stall_after(Duration::MAX)
                .inbox_bytes(1_000)
                .overflow(overflow.clone());
            let (mut ours, mut raw) = engine.before_raw(options).await;
            // There is room for some, and what then comes is more.
            raw.say(frame(BINARY, [0; 100])).await;
            until("it came", || ours.stats().inbox.messages == 1).await;
            for number in 1..4 {
                raw.say(frame(BINARY, [number; 600])).await;
            }
            until("it waits", || {
                waits(&ours.stats(), StallCause::ApplicationNotReading)
            })
            .await;
            for number in 0..4 {
                let message = plain(limit(ours.recv()).await);
                assert_eq!(message.as_bytes()[0], number, "{engine:?}");
            }
        }
    }
}

/// Packets that are kept to be used again are memory, and may be all that a budget has. Then they are
/// freed, and the session goes on at once. Otherwise the next ping would have freed them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_packets_that_fill_the_budget_do_not_stop_a_session() {
    const MESSAGES: usize = 4_000;
    let server = bind(Server::builder()).await;
    let options = Options::default().budget(Budget::new(1 << 20));
    let client = client(server.local_addr(), options).require_session();
    let sender = limit(client.connect()).await.unwrap();
    let mut receiver = limit(server.accept()).await.unwrap();
    for _burst in 0..4 {
        let sending = async {
            let messages = std::iter::repeat_n(vec![7; 4096], MESSAGES);
            sender.send_many(messages).await.unwrap();
            sender.delivered().await.unwrap();
        };
        let receiving = async {
            for _ in 0..MESSAGES {
                plain(receiver.recv().await);
            }
        };
        let began = Instant::now();
        limit(async { tokio::join!(sending, receiving) }).await;
        assert!(began.elapsed() < PING_INTERVAL, "it waited for a ping");
    }
}
