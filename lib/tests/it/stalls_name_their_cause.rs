//! `stats()` and the events name what a session waits for while the wait lasts, and report its end.

use std::time::Duration;

use crate::common::{
    events::{moving, stalled, waits},
    limit,
    net::bind,
    plain,
    proxy::{Mode, Proxy},
    until,
};
use futures_util::FutureExt;
use unstall::{Client, Connection, Options, Sender, Server, StallCause};

const MIB: usize = 1 << 20;

fn options() -> Options {
    Options::default()
        .stall_after(Duration::from_millis(100))
        .ping_interval(Duration::from_millis(500))
        .silence_timeout(Duration::from_secs(60))
}

async fn pair(client: Options, server: Options) -> (Server, Proxy, Connection, Connection) {
    let listening = bind(Server::builder().options(server)).await;
    let proxy = Proxy::to(listening.local_addr()).await;
    let client = Client::new(format!("ws://{}/", proxy.address))
        .options(client)
        .require_session()
        .connect()
        .await
        .unwrap();
    let server = limit(listening.accept()).await.unwrap();
    until("the session is agreed", || client.is_session()).await;
    (listening, proxy, client, server)
}

fn write(sender: Sender, messages: usize, size: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for _ in 0..messages {
            sender.send(vec![7; size]).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_is_full_when_the_peer_takes_and_does_not_acknowledge() {
    let small = options().max_message_bytes(MIB).replay_bytes(MIB + MIB / 2);
    let by_hand = options().acknowledge_by_hand(true);
    let (_listening, _proxy, client, mut server) = pair(small, by_hand).await;
    let mut events = client.events();
    let (sender, _receiver) = client.split();
    let writing = write(sender.clone(), 4000, 1000);
    // Everything fits into the peer's credit, which the peer renews as its application receives.
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let taking = tokio::spawn(async move {
        let mut taken = 0;
        loop {
            tokio::select! {
                message = server.recv() => drop(plain(message)),
                _ = &mut stopped => return (server, taken),
            }
            taken += 1;
        }
    });
    stalled(&mut events, StallCause::ReplayFull).await;
    let stats = sender.stats();
    assert!(waits(&stats, StallCause::ReplayFull), "{stats:?}");
    for cause in [
        StallCause::OutOfCredit,
        StallCause::SocketFull,
        StallCause::Connecting,
    ] {
        assert!(!waits(&stats, cause), "{stats:?}");
    }
    stop.send(()).unwrap();
    let (mut server, taken) = taking.await.unwrap();
    server.acknowledge();
    let after = moving(&mut events, StallCause::ReplayFull).await;
    assert!(after >= Duration::from_millis(100));
    for _ in taken..4000 {
        plain(limit(server.recv()).await);
        server.acknowledge();
    }
    limit(writing).await.unwrap();
    limit(sender.delivered()).await.unwrap();
    until("nothing waits", || {
        sender.stats().stalled_by().next().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_say_that_there_is_no_connection() {
    let (_listening, proxy, client, server) = pair(options(), options()).await;
    let (mut at_client, mut at_server) = (client.events(), server.events());
    proxy.set(Mode::Cut);
    stalled(&mut at_client, StallCause::Connecting).await;
    stalled(&mut at_server, StallCause::Connecting).await;
    assert!(waits(&client.stats(), StallCause::Connecting));
    assert!(waits(&server.stats(), StallCause::Connecting));
    proxy.set(Mode::Forward);
    for events in [&mut at_client, &mut at_server] {
        assert!(moving(events, StallCause::Connecting).await >= Duration::from_millis(100));
    }
    for stats in [client.stats(), server.stats()] {
        assert!(!waits(&stats, StallCause::Connecting), "{stats:?}");
        let stall = stats
            .stalls
            .iter()
            .find(|it| it.cause == StallCause::Connecting);
        assert!(
            stall.unwrap().total >= Duration::from_millis(100),
            "{stats:?}"
        );
    }
}

/// Lets the window grow to its bound, so that more bytes are on their way than a socket takes.
async fn warm_up(client: &Connection, server: &mut Connection) {
    let writing = async {
        for _ in 0..2000 {
            client.send(vec![1; 32 << 10]).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..2000 {
            plain(server.recv().await);
        }
    };
    limit(async { tokio::join!(writing, reading) }).await;
    limit(client.delivered()).await.unwrap();
    until("nothing waits", || {
        client.stats().stalled_by().next().is_none()
    })
    .await;
}

/// Once the waits of a connection that was replaced while its socket was full went on for ever, because
/// the new connection never ended them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_socket_and_silence_are_named_and_end_with_their_connection() {
    let server_options = options().silence_timeout(Duration::from_secs(600));
    let client_options = options().silence_timeout(Duration::from_millis(2500));
    let (_listening, proxy, mut client, server) = pair(client_options, server_options).await;
    warm_up(&server, &mut client).await;
    let mut events = server.events();
    // The messages of the warm-up.
    while events.recv().now_or_never().is_some() {}
    proxy.set_existing(Mode::BlackHole);
    let (sender, _receiver) = server.split();
    let writing = write(sender.clone(), 400, 64 << 10);
    stalled(&mut events, StallCause::SocketFull).await;
    let stats = sender.stats();
    assert!(waits(&stats, StallCause::SocketFull), "{stats:?}");
    assert!(!waits(&stats, StallCause::ReplayFull), "{stats:?}");
    assert!(!waits(&stats, StallCause::Connecting), "{stats:?}");
    stalled(&mut events, StallCause::PeerSilent).await;
    // The client gives the connection up and comes back on another. The server fences the old one.
    for _ in 0..400 {
        plain(limit(client.recv()).await);
    }
    limit(writing).await.unwrap();
    limit(sender.delivered()).await.unwrap();
    assert_eq!(sender.stats().connections, 2);
    until("nothing waits", || {
        sender.stats().stalled_by().next().is_none()
    })
    .await;
}
