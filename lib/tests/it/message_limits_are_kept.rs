//! The limit on message sizes holds in sessions as on plain connections. The peer's limit ends with its
//! session.

use std::time::Duration;

use crate::common::{
    events::event,
    limit,
    net::{bind, bind_again, unused_address},
    sessions::{client, pair, quick_client, text, up_to_the_loss},
    until,
};
use unstall::{
    Connection, Event, Message, Options, SendRefusal, Server, ServerBuilder, SessionLoss,
};

/// The server has answered HELLO.
async fn opened(connection: &Connection) {
    event(&mut connection.events(), |event| {
        matches!(event, Event::SessionOpened)
    })
    .await;
}

/// Servers that take messages of up to 64 KiB, the smallest limit that a client can be told.
fn of_small_messages() -> ServerBuilder {
    Server::builder().options(Options::default().max_message_bytes(64 << 10))
}

async fn refused_as_too_large(connection: &Connection) {
    let refused = connection.send(vec![7; 100_000]).await.unwrap_err();
    assert!(matches!(
        refused.reason,
        SendRefusal::TooLarge { limit: 65_536, .. }
    ));
}

async fn receives_the_large_one(accepted: &mut Connection) {
    let message = limit(accepted.recv()).await.unwrap().unwrap();
    assert_eq!(message.into_message().unwrap().len(), 100_000);
}

/// Once a limit below 64 KiB did not hold in sessions, because the peer cannot be told less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_limit_on_messages_is_kept_in_a_session() {
    let small = Options::default().max_message_bytes(1000);
    let server = bind(Server::builder().options(small)).await;
    let client = client(server.local_addr()).without_fresh_session();
    let (client, mut session) = pair(&server, client).await;
    client.send(vec![7; 1000]).await.unwrap();
    let fits = limit(session.recv()).await.unwrap().unwrap();
    assert_eq!(fits.into_message().unwrap().len(), 1000);
    limit(client.delivered()).await.unwrap();
    client.send(vec![7; 1001]).await.unwrap();
    let (messages, loss) = up_to_the_loss(&mut session).await;
    assert_eq!(messages, []);
    assert!(matches!(loss, SessionLoss::Refused(_)), "{loss:?}");
    let (sender, _receiver) = client.split();
    let report = limit(sender.ended()).await;
    assert_eq!(report.maybe_delivered, [Message::from(vec![7; 1001])]);
}

/// Once the first peer's limit stayed for all later peers of the same handle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_peer_goes_with_its_session() {
    let address = unused_address();
    let first = of_small_messages().bind(address).await.unwrap();
    let connection = client(address).connect().await.unwrap();
    let accepted = limit(first.accept()).await.unwrap();
    opened(&connection).await;
    refused_as_too_large(&connection).await;
    drop(accepted);
    first.shutdown(Duration::ZERO).await;
    drop(first);
    let second = bind_again(Server::builder(), address).await;
    let mut accepted = limit(second.accept()).await.unwrap();
    // Attempts that found the first server going count as connections too.
    until("the new session is open", || {
        connection.stats().connections >= 2
    })
    .await;
    limit(async {
        // The server's answer to HELLO carries the limit.
        while connection.send(vec![7; 100_000]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    receives_the_large_one(&mut accepted).await;
}

/// The sibling: it stayed on a plain connection as well, and the error blamed this side's options.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_peer_does_not_outlast_its_session_on_a_plain_connection() {
    let address = unused_address();
    let first = of_small_messages().bind(address).await.unwrap();
    let (mut connection, accepted) = pair(&first, quick_client(address)).await;
    opened(&connection).await;
    refused_as_too_large(&connection).await;
    drop(accepted);
    first.shutdown(Duration::ZERO).await;
    drop(first);
    let second = bind_again(Server::builder().plain(), address).await;
    let mut accepted = limit(second.accept()).await.unwrap();
    accepted.send("plainly").await.unwrap();
    limit(async {
        while connection
            .recv()
            .await
            .unwrap()
            .unwrap()
            .into_message()
            .is_none()
        {}
    })
    .await;
    assert!(!connection.is_session());
    connection.send(vec![7; 100_000]).await.unwrap();
    receives_the_large_one(&mut accepted).await;
}

/// Where there was a hook, the peer's limit reached the hook's queue only: a message over it was
/// accepted, and came back later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_peer_is_known_where_a_hook_ran_too() {
    let server = bind(of_small_messages()).await;
    let client = client(server.local_addr()).on_connect(|setup| async move {
        setup.send("from the hook").await?;
        Ok(())
    });
    let (connection, mut accepted) = pair(&server, client).await;
    opened(&connection).await;
    refused_as_too_large(&connection).await;
    assert_eq!(text(&mut accepted).await, "from the hook");
}
