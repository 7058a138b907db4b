//! A session outlives its connections: nothing is lost, duplicated or reordered.

use crate::common::{
    events::rest,
    limit,
    net::echo_server,
    plain,
    proxy::Proxy,
    sessions::{client, text},
    until,
};
use unstall::{CloseCode, Connection, Event, Server};

async fn connect_through_proxy() -> (Server, Proxy, Connection) {
    let server = echo_server(Server::builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let connection = client(proxy.address).connect().await.unwrap();
    (server, proxy, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_delivery_and_close_over_one_connection() {
    let server = echo_server(Server::builder()).await;
    let mut client = client(server.local_addr()).connect().await.unwrap();
    client.send("one").await.unwrap();
    client.send("two").await.unwrap();
    assert_eq!(text(&mut client).await, "one");
    assert_eq!(text(&mut client).await, "two");
    limit(client.delivered()).await.unwrap();
    assert!(client.is_session());
    let (sender, mut receiver) = client.split();
    let end = tokio::spawn(async move { receiver.recv().await });
    let report = limit(sender.close(CloseCode::NORMAL, "bye")).await;
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
            // Messages are flowing now.
            let forwarded = proxy.forwarded();
            until("more flows", || proxy.forwarded() > forwarded + 200_000).await;
            proxy.cut();
        }
        proxy
    });
    for index in 0..COUNT {
        let message = plain(limit(receiver.recv()).await);
        assert_eq!(message.as_bytes()[..4], index.to_be_bytes());
    }
    let sender = sending.await.unwrap();
    let _proxy = cutting.await.unwrap();
    limit(sender.delivered()).await.unwrap();
    let ending = tokio::spawn(async move { receiver.recv().await });
    let report = limit(sender.close(CloseCode::NORMAL, "")).await;
    assert!(report.clean, "{report:?}");
    assert!(matches!(ending.await.unwrap(), Ok(None)));
    let told = rest(&mut events).await.into_iter();
    let resumed = told.filter(|event| matches!(event, Event::Resumed { .. }));
    assert!(resumed.count() >= 5, "hardly a cut was felt");
}
