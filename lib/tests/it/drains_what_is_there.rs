//! `try_recv` hands out what came together, and neither waits nor hides the end.

use std::ops::ControlFlow;

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

/// What a relay does: everything from one connection goes to another, and the relay counts it.
async fn all_pass_on(
    from: Connection,
    mut relay_in: Connection,
    relay_out: Connection,
    mut to: Connection,
) {
    let all = (0..MESSAGES).map(|number| numbered(number, size(number)));
    limit(from.send_many(all)).await.unwrap();
    let (mut seen, mut bytes) = (Vec::new(), 0);
    while (seen.len() as u64) < MESSAGES {
        let mut batch = limit(relay_in.recv_batch()).await.unwrap().unwrap();
        let passed = relay_out.send_batch(&mut batch, |message| {
            seen.push(number(&message.to_message()));
            bytes += message.as_bytes().len();
            ControlFlow::Continue(())
        });
        assert!(limit(passed).await.unwrap().is_none());
    }
    assert_eq!(seen, Vec::from_iter(0..MESSAGES));
    assert_eq!(bytes, (0..MESSAGES).map(size).sum());
    for number in 0..MESSAGES {
        let received = plain(limit(to.recv()).await);
        assert!(
            received == numbered(number, size(number)),
            "{number} was due"
        );
    }
}

#[tokio::test]
async fn a_batch_is_passed_on_from_a_session_to_a_plain_connection_and_back() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (client, session) = sessions::pair(&server, sessions::client(server.local_addr())).await;
    let (one, other) = pair(Options::default()).await;
    all_pass_on(client, session, one, other).await;
    let (client, session) = sessions::pair(&server, sessions::client(server.local_addr())).await;
    let (one, other) = pair(Options::default()).await;
    all_pass_on(one, other, client, session).await;
}

/// A batch is more than the next connection takes. Nothing is lost while its peer does not read.
#[tokio::test]
async fn passing_on_waits_for_room() {
    const MANY: u64 = 20_000;
    let (from, mut relay_in) = pair(Options::default()).await;
    let (relay_out, to) = pair(
        Options::default()
            .outbox_bytes(16 << 10)
            .inbox_bytes(64 << 10),
    )
    .await;
    let (_sender, mut to) = to.split();
    let sending = tokio::spawn(async move {
        limit(from.send_many((0..MANY).map(|number| numbered(number, 200))))
            .await
            .unwrap();
        from
    });
    let relaying = tokio::spawn(async move {
        let mut passed = 0;
        while passed < MANY {
            let mut batch = limit(relay_in.recv_batch()).await.unwrap().unwrap();
            limit(relay_out.send_batch(&mut batch, |_| {
                passed += 1;
                ControlFlow::Continue(())
            }))
            .await
            .unwrap();
        }
        (relay_in, relay_out)
    });
    crate::common::numbered::receive(&mut to, 0..MANY, 200).await;
    let _kept = (sending.await.unwrap(), relaying.await.unwrap());
}

/// The message that was refused comes back in the error, and what was not passed on stays.
#[tokio::test]
async fn what_an_ended_connection_does_not_take_is_not_lost() {
    let (from, mut relay_in) = pair(Options::default()).await;
    let (relay_out, to) = pair(Options::default()).await;
    let _ = limit(relay_out.close(CloseCode::NORMAL, "")).await;
    drop(to);
    for number in 0..3 {
        limit(from.send(numbered(number, 40_000))).await.unwrap();
    }
    until("everything is received", || {
        relay_in.stats().messages_received == 3
    })
    .await;
    let mut batch = limit(relay_in.recv_batch()).await.unwrap().unwrap();
    let error = limit(relay_out.send_batch(&mut batch, |_| ControlFlow::Continue(())))
        .await
        .unwrap_err();
    assert_eq!(number(&error.message), 0);
    drop(batch);
    for due in 1..3 {
        assert_eq!(number(&plain(limit(relay_in.recv()).await)), due);
    }
}

/// Whoever passes messages on may stop after any of them, short or long.
#[tokio::test]
async fn passing_on_ends_where_it_is_told_to() {
    let (from, mut relay_in) = pair(Options::default()).await;
    let (relay_out, mut to) = pair(Options::default()).await;
    let all = (0..MESSAGES).map(|number| numbered(number, size(number)));
    limit(from.send_many(all)).await.unwrap();
    until("everything is received", || {
        relay_in.stats().messages_received == MESSAGES
    })
    .await;
    for due in 0..MESSAGES {
        let mut batch = limit(relay_in.recv_batch()).await.unwrap().unwrap();
        let mut seen = 0;
        let passed = relay_out.send_batch(&mut batch, |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert!(limit(passed).await.unwrap().is_none());
        assert_eq!((seen, number(&plain(limit(to.recv()).await))), (1, due));
    }
}
