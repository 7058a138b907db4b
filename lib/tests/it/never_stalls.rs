//! Both sides may write for as long as they like before they read: nothing hangs in silence.

use crate::common::{limit, pair, plain};
use std::time::Duration;
use unstall::{CloseCode, Event, Events, Message, Options, Overflow, Sender, Spill, StallCause};

const MESSAGE_BYTES: usize = 64 << 10;
const MESSAGES: usize = (256 << 20) / MESSAGE_BYTES;

fn message(index: usize) -> Message {
    let mut payload = vec![0; MESSAGE_BYTES];
    payload[..8].copy_from_slice(&(index as u64).to_be_bytes());
    Message::from(payload)
}

async fn send_all(sender: Sender) {
    for index in 0..MESSAGES {
        sender.send(message(index)).await.unwrap();
    }
    sender.flush().await.unwrap();
}

async fn receive_all(mut receiver: unstall::Receiver) {
    for index in 0..MESSAGES as u64 {
        let message = plain(receiver.recv().await);
        assert_eq!(message.as_bytes()[..8], index.to_be_bytes());
    }
}

async fn wait_for_stall(events: &mut Events, wanted: StallCause) {
    while let Some(event) = events.recv().await {
        if matches!(event, Event::Stalled { cause, .. } if cause == wanted) {
            return;
        }
    }
    panic!("the connection ended without a stall");
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
    limit(120, async {
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
    limit(120, async {
        tokio::join!(receive_all(client_receiver), receive_all(server_receiver))
    })
    .await;
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
        // In whichever order: this side does not read, and neither does the peer.
        let mut both = events.clone();
        limit(
            60,
            wait_for_stall(events, StallCause::ApplicationNotReading),
        )
        .await;
        limit(60, wait_for_stall(&mut both, StallCause::SocketFull)).await;
    }
    let stalled: Vec<_> = client_sender.stats().stalled_by().collect();
    assert_eq!(
        stalled,
        [StallCause::ApplicationNotReading, StallCause::SocketFull]
    );
    assert!(!client_sends.is_finished() && !server_sends.is_finished());

    // One application reads: the other side's writing goes on and ends.
    let client_reads = tokio::spawn(receive_all(client_receiver));
    limit(60, client_reads).await.unwrap();
    limit(60, server_sends).await.unwrap();
    assert!(!client_sends.is_finished());
    limit(60, receive_all(server_receiver)).await;
    limit(60, client_sends).await.unwrap();
}
