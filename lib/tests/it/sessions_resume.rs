//! A session outlives its connections: nothing lost, nothing doubled, nothing reordered.

use std::time::Duration;

use crate::common::{
    limit, plain,
    proxy::{Mode, Proxy},
};
use unstall::{Client, CloseCode, Connection, Event, Incoming, Reconnect, Server};

/// A server that echoes each message, for any number of sessions.
async fn echo_server() -> Server {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let serving = server.clone();
    tokio::spawn(async move {
        serving
            .serve(|mut session| async move {
                while let Ok(Some(incoming)) = session.recv().await {
                    if let Incoming::Message(message) = incoming {
                        session.send(message).await.unwrap();
                    }
                }
            })
            .await;
    });
    server
}

fn client(address: std::net::SocketAddr) -> Client {
    Client::new(format!("ws://{address}/"))
        .require_session()
        .reconnect(Reconnect::default().first(Duration::from_millis(5)))
}

async fn connect_through_proxy() -> (Server, Proxy, Connection) {
    let server = echo_server().await;
    let proxy = Proxy::to(server.local_addr()).await;
    let connection = client(proxy.address).connect().await.unwrap();
    (server, proxy, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_delivery_and_close_over_one_connection() {
    let server = echo_server().await;
    let mut client = client(server.local_addr()).connect().await.unwrap();
    client.send("one").await.unwrap();
    client.send("two").await.unwrap();
    assert_eq!(
        limit(5, async { plain(client.recv().await) })
            .await
            .as_text(),
        Some("one")
    );
    assert_eq!(
        limit(5, async { plain(client.recv().await) })
            .await
            .as_text(),
        Some("two")
    );
    limit(5, client.delivered()).await.unwrap();
    assert!(client.is_session());
    let (sender, mut receiver) = client.split();
    let end = tokio::spawn(async move { receiver.recv().await });
    let report = limit(10, sender.close(CloseCode::NORMAL, "bye")).await;
    assert!(report.clean && report.unsent.is_empty() && report.maybe_delivered.is_empty());
    assert!(matches!(end.await.unwrap(), Ok(None)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_over_cut_connections_arrive_once_and_in_order() {
    const COUNT: u32 = 20_000;
    let (_server, proxy, connection) = connect_through_proxy().await;
    let mut events = connection.events();
    let (sender, mut receiver) = connection.split();
    let sending = tokio::spawn(async move {
        for index in 0..COUNT {
            let size = if index % 1000 == 0 {
                200_000
            } else {
                4 + index as usize % 300
            };
            let mut payload = vec![index as u8; size];
            payload[..4].copy_from_slice(&index.to_be_bytes());
            sender.send(payload).await.unwrap();
        }
        sender
    });
    let cutting = tokio::spawn(async move {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.set(Mode::Cut);
            tokio::time::sleep(Duration::from_millis(2)).await;
            proxy.set(Mode::Forward);
        }
        proxy
    });
    for index in 0..COUNT {
        let message = limit(30, async { plain(receiver.recv().await) }).await;
        assert_eq!(message.as_bytes()[..4], index.to_be_bytes());
    }
    let sender = sending.await.unwrap();
    let _proxy = cutting.await.unwrap();
    limit(5, sender.delivered()).await.unwrap();
    let mut resumed = 0;
    let ending = tokio::spawn(async move { receiver.recv().await });
    let report = limit(10, sender.close(CloseCode::NORMAL, "")).await;
    assert!(report.clean, "{report:?}");
    assert!(matches!(ending.await.unwrap(), Ok(None)));
    while let Some(event) = events.recv().await {
        resumed += u32::from(matches!(event, Event::Resumed { .. }));
    }
    assert!(resumed > 0, "the proxy cut nothing");
}
