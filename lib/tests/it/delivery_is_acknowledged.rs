//! A message counts as delivered when the peer's application has received it or acknowledged it by
//! hand, and not before. This holds over any number of connections.

use std::time::Duration;

use crate::common::{
    events::{disconnected, event},
    limit,
    net::{bind, bind_again, unused_address},
    numbered::numbered,
    proxy::{Mode, Proxy},
    sessions::{client, pair, quick_client, text, up_to_the_loss},
    until,
};
use unstall::{
    CloseCode, Connection, DeliveryError, Event, Events, Message, Options, Overflow, SendRefusal,
    Server, SessionLimits,
};

/// Longer than the time for which an acknowledgement is delayed.
const MOMENT: Duration = Duration::from_millis(250);

async fn not_delivered(connection: &Connection) {
    let early = tokio::time::timeout(MOMENT, connection.delivered()).await;
    assert!(early.is_err(), "delivered too early: {early:?}");
}

async fn cut(proxy: &Proxy, connection: &Connection, events: &mut Events) {
    let before = connection.stats().resumes;
    proxy.set(Mode::Cut);
    disconnected(events).await;
    proxy.set(Mode::Forward);
    until("it resumed", || connection.stats().resumes > before).await;
}

/// A session whose connection was cut, and whose proxy refuses new connections.
async fn away() -> (Server, Proxy, Connection, Connection, Events) {
    let server = bind(Server::builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let (client, session) = pair(&server, client(proxy.address)).await;
    let mut events = client.events();
    proxy.set(Mode::Cut);
    disconnected(&mut events).await;
    (server, proxy, client, session, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_taking() {
    let server = bind(Server::builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let (client, mut session) = pair(&server, client(proxy.address)).await;
    let mut events = client.events();
    limit(client.delivered()).await.expect("nothing was sent");
    client.send("one").await.unwrap();
    client.send("two").await.unwrap();
    limit(client.flush()).await.unwrap();
    not_delivered(&client).await;
    assert_eq!(text(&mut session).await, "one");
    not_delivered(&client).await;
    cut(&proxy, &client, &mut events).await;
    assert_eq!(text(&mut session).await, "two");
    // The application has it, even if it never asks for more.
    limit(client.delivered()).await.unwrap();
    cut(&proxy, &client, &mut events).await;
    limit(client.delivered()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand() {
    let by_hand = Options::default().acknowledge_by_hand(true);
    let server = bind(Server::builder().options(by_hand)).await;
    let proxy = Proxy::to(server.local_addr()).await;
    // The close waits this long for an acknowledgement that never comes.
    let options = Options::default().close_timeout(Duration::from_millis(500));
    let (client, session) = pair(&server, client(proxy.address).options(options)).await;
    let mut events = client.events();
    let (_sender, mut receiver) = session.split();
    for index in 0..10 {
        client.send(format!("{index}")).await.unwrap();
    }
    let mut positions = vec![receiver.position()];
    for _ in 0..10 {
        limit(receiver.recv()).await.unwrap();
        positions.push(receiver.position());
    }
    assert!(positions.is_sorted(), "{positions:?}");
    not_delivered(&client).await;
    receiver.acknowledge_to(positions[9]);
    not_delivered(&client).await;
    cut(&proxy, &client, &mut events).await;
    receiver.acknowledge_to(positions[3]);
    not_delivered(&client).await;
    assert_eq!(receiver.position(), positions[10]);
    receiver.acknowledge();
    limit(client.delivered()).await.unwrap();

    // The unacknowledged message comes back, although the peer received it.
    client.send("unprocessed").await.unwrap();
    limit(receiver.recv()).await.unwrap();
    let report = limit(client.close(CloseCode::NORMAL, "")).await;
    assert!(!report.clean);
    assert_eq!(report.maybe_delivered, [Message::from("unprocessed")]);
}

/// Once messages that were discarded without a receiver were acknowledged only when something else
/// happened. A close that waited for them could run into its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_acknowledged_as_it_comes() {
    let server = bind(Server::builder()).await;
    let (client, session) = pair(&server, client(server.local_addr())).await;
    let (_client, receiver) = client.split();
    drop(receiver);
    for _ in 0..3 {
        session.send("unwanted").await.unwrap();
        limit(session.flush()).await.unwrap();
        let delivered = tokio::time::timeout(Duration::from_secs(5), session.delivered()).await;
        delivered.expect("acknowledged at once").unwrap();
    }
}

/// Once acknowledgements by hand of an earlier session counted for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_over_a_lost_session() {
    let server = bind(Server::builder()).await;
    let options = Options::default().acknowledge_by_hand(true);
    let (mut client, first) = pair(&server, client(server.local_addr()).options(options)).await;
    for index in 0..3 {
        first.send(format!("old {index}")).await.unwrap();
        assert_eq!(text(&mut client).await, format!("old {index}"));
    }
    client.acknowledge();
    limit(first.delivered()).await.unwrap();
    drop(first);
    let second = limit(server.accept()).await.unwrap();
    second.send("new").await.unwrap();
    limit(client.recv()).await.unwrap().unwrap();
    assert_eq!(text(&mut client).await, "new");
    client.acknowledge();
    limit(second.delivered()).await.unwrap();
}

/// Once a message that was too large for the peer came back, and `flush` waited for it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_for_the_peer_comes_back_and_blocks_nothing() {
    let small = Options::default().max_message_bytes(64 << 10);
    let server = bind(Server::builder().options(small)).await;
    let connection = client(server.local_addr()).connect_lazy().unwrap();
    connection.send(vec![7; 100_000]).await.unwrap();
    connection.send("small").await.unwrap();
    let mut session = limit(server.accept()).await.unwrap();
    assert_eq!(text(&mut session).await, "small");
    limit(connection.flush()).await.unwrap();
    let asking = tokio::spawn(async move { session.recv().await.map(drop) });
    limit(async {
        // The message was lost before the call.
        while let Err(DeliveryError::Lost { .. }) = connection.delivered().await {}
    })
    .await;
    let too_large = connection.send(vec![7; 100_000]).await.unwrap_err();
    assert!(matches!(
        too_large.reason,
        SendRefusal::TooLarge { limit: 65_536, .. }
    ));
    let (sender, _receiver) = connection.split();
    let back = sender.take_undelivered();
    assert_eq!(back.len(), 1);
    assert!(back[0].message.len() == 100_000 && !back[0].maybe_delivered);
    asking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_to_live_counts_while_there_is_no_connection() {
    let (_server, proxy, client, mut session, mut events) = away().await;
    client
        .send_within("stale", Duration::from_millis(50))
        .await
        .unwrap();
    client.send("fresh").await.unwrap();
    event(&mut events, |event| {
        matches!(event, Event::Expired { messages: 1 })
    })
    .await;
    proxy.set(Mode::Forward);
    assert_eq!(text(&mut session).await, "fresh");
    limit(client.flush()).await.unwrap();
    assert_eq!(client.stats().expired, 1);
    let asking = tokio::spawn(async move { session.recv().await.map(drop) });
    limit(client.delivered()).await.unwrap();
    asking.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_waits_for_the_next_connection() {
    let (_server, proxy, client, mut session, _events) = away().await;
    client.send("over the gap").await.unwrap();
    let early = tokio::time::timeout(MOMENT, client.flush()).await;
    assert!(early.is_err(), "nothing carries it: {early:?}");
    proxy.set(Mode::Forward);
    limit(client.flush()).await.unwrap();
    assert_eq!(text(&mut session).await, "over the gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_ends_the_wait() {
    let limits = SessionLimits::default().sessions(1);
    let options = Options::default().session_life(Duration::from_millis(100));
    let server = bind(Server::builder().sessions(limits).options(options)).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let (mut client, session) = pair(&server, client(proxy.address)).await;
    client.send("never taken").await.unwrap();
    limit(client.flush()).await.unwrap();
    proxy.set(Mode::Cut);
    let lost = limit(client.delivered()).await;
    assert!(
        matches!(lost, Err(DeliveryError::Lost { messages: 1 })),
        "{lost:?}"
    );
    drop(session);
    proxy.set(Mode::Forward);
    up_to_the_loss(&mut client).await;
}

/// Once what `DropOldest` had dropped on a plain connection was missing in what was acknowledged by
/// hand for ever after: the session that followed stayed so many messages short, and the peer's
/// replay filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_after_a_policy_dropped_messages_of_a_plain_connection() {
    const COUNT: u64 = 1_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let address = unused_address();
        let plain = Server::builder().plain().bind(address).await.unwrap();
        let options = Options::default()
            .inbox_bytes(64 << 10)
            .overflow(overflow)
            .acknowledge_by_hand(true);
        let (mut client, first) = pair(&plain, quick_client(address).options(options)).await;
        for number in 0..COUNT {
            first.send(numbered(number, 1_000)).await.unwrap();
        }
        until("all of it came", || {
            client.stats().messages_received == COUNT
        })
        .await;
        assert!(client.stats().overflowed > COUNT / 2);
        drop(first);
        plain.shutdown(Duration::ZERO).await;
        drop(plain);
        let server = bind_again(Server::builder(), address).await;
        let session = limit(server.accept()).await.unwrap();
        for number in 0..5 {
            session.send(format!("{number}")).await.unwrap();
        }
        let mut received = 0;
        while received < 5 {
            let incoming = limit(client.recv()).await.unwrap().unwrap();
            let message = incoming.into_message();
            received += u32::from(message.is_some_and(|it| it.as_text().is_some()));
        }
        not_delivered(&session).await;
        client.acknowledge();
        limit(session.delivered()).await.unwrap();
    }
}

/// The same where the earlier session's last acknowledgement is one that the next could have, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_by_hand_of_an_earlier_session_acknowledge_nothing_of_the_next() {
    let server = bind(Server::builder()).await;
    let options = Options::default().acknowledge_by_hand(true);
    let (mut client, first) = pair(&server, client(server.local_addr()).options(options)).await;
    first.send("old").await.unwrap();
    assert_eq!(text(&mut client).await, "old");
    client.acknowledge();
    limit(first.delivered()).await.unwrap();
    drop(first);
    let second = limit(server.accept()).await.unwrap();
    second.send("new").await.unwrap();
    limit(client.recv()).await.unwrap().unwrap();
    assert_eq!(text(&mut client).await, "new");
    not_delivered(&second).await;
    client.acknowledge();
    limit(second.delivered()).await.unwrap();
}
