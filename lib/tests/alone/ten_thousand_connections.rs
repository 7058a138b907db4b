//! Ten thousand clients connect to a server that has room for a hundred.

use std::sync::Arc;

use crate::{
    alone,
    common::{
        net::{Outcomes, bind, is_alive, one_of_many},
        until,
    },
    descriptors,
};
use tokio::{sync::Semaphore, task::JoinSet};
use unstall::{Server, ServerLimits};

/// How many sockets of the clients may be open at once in this process.
fn sockets_at_once() -> usize {
    // The server's side and everything else need some too.
    let files = descriptors().unwrap_or(1024);
    files.saturating_sub(1500).clamp(100, 10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_at_once_over_the_limit_are_refused_and_counted() {
    const CLIENTS: usize = 10_000;
    const LIMIT: usize = 100;
    let _alone = alone().await;
    let limits = ServerLimits::default()
        .max_connections(LIMIT)
        .connections_per_address(LIMIT);
    let server = bind(Server::builder().limits(limits)).await;
    let address = server.local_addr();
    let at_once = sockets_at_once();
    let places = Arc::new(Semaphore::new(at_once));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let places = places.clone();
        clients.spawn(async move {
            let _place = places.acquire().await.unwrap();
            one_of_many(address).await
        });
    }
    let (mut all, mut kept) = (Outcomes::default(), Vec::new());
    while let Some(client) = clients.join_next().await {
        let (outcome, tcp) = client.unwrap();
        all.upgraded += outcome.upgraded;
        all.told += outcome.told;
        all.closed += outcome.closed;
        kept.extend(tcp);
    }
    println!("{at_once} at once: {all:?}");
    assert_eq!(all.upgraded, LIMIT);
    assert_eq!(all.upgraded + all.told + all.closed, CLIENTS);
    assert!(all.told > 0, "those who can be told are told");
    let stats = server.stats();
    // While the server is slow to accept, the kernel's queue overflows. Then the kernel turns some away
    // itself, and they never arrive.
    let arrived = stats.arrived as usize;
    assert!(
        (all.upgraded + all.told..=CLIENTS).contains(&arrived),
        "{arrived} arrived, of {all:?}"
    );
    assert_eq!(stats.accepted as usize, LIMIT);
    // A handshake that stalls is closed for those who wait, also one that was refused already.
    let refused = stats.refused.total() as usize;
    let stalled = stats.handshakes.evicted as usize;
    assert!(
        (refused..=refused + stalled).contains(&(arrived - LIMIT)),
        "{stats:?}"
    );
    assert!(stats.refused.connections > 0, "{:?}", stats.refused);
    assert_eq!(stats.open, LIMIT);

    // The server is alive: new clients get the places that come free.
    for _ in 0..LIMIT {
        drop(server.accept().await.unwrap());
    }
    drop(kept);
    until("all places are free", || server.stats().open == 0).await;
    is_alive(&server).await;
}
