//! `try_recv` hands out what came together, and neither waits nor hides the end.

use unstall::{CloseCode, Connection, Incoming, Options, Server};

use crate::common::{
    limit,
    numbered::{number, numbered},
    pair, plain, sessions, until,
};

/// Short messages that share a packet, longer ones, and some that are too long to be packed.
const SIZES: [usize; 4] = [8, 20, 300, 40_000];
const MESSAGES: u64 = 40;

fn size(number: u64) -> usize {
    SIZES[number as usize % SIZES.len()]
}

/// Everything is there before the first `recv`. Then it comes without waiting.
async fn all_come_at_once(from: Connection, mut to: Connection) {
    let all = (0..MESSAGES).map(|number| numbered(number, size(number)));
    limit(from.send_many(all)).await.unwrap();
    until("everything is received", || {
        to.stats().messages_received == MESSAGES
    })
    .await;
    let mut numbers = vec![number(&plain(limit(to.recv()).await))];
    while let Some(incoming) = to.try_recv() {
        let Incoming::Message(message) = incoming else {
            panic!("nothing is missing");
        };
        assert_eq!(message.as_bytes().len(), size(number(&message)));
        numbers.push(number(&message));
    }
    assert_eq!(numbers, Vec::from_iter(0..MESSAGES));
    limit(from.send("later")).await.unwrap();
    until("one more is received", || {
        to.stats().messages_received == MESSAGES + 1
    })
    .await;
    let later = to.try_recv().and_then(Incoming::into_message).unwrap();
    assert_eq!(later.as_text(), Some("later"));
    let (report, end) = tokio::join!(limit(from.close(CloseCode::NORMAL, "")), limit(to.recv()));
    assert!(report.clean && matches!(end, Ok(None)), "{end:?}");
    assert!(to.try_recv().is_none());
}

#[tokio::test]
async fn what_came_together_on_a_plain_connection_is_drained_in_order() {
    let (client, server) = pair(Options::default()).await;
    all_come_at_once(server, client).await;
}

#[tokio::test]
async fn what_came_together_in_a_session_is_drained_in_order() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (client, session) = sessions::pair(&server, sessions::client(server.local_addr())).await;
    assert!(session.is_session());
    all_come_at_once(session, client).await;
}
