//! `unstall::status` shows each connection of the process as it is, and what happened to it.

use std::{collections::BTreeSet, time::Duration};

use crate::common::{
    events::{event, resumed},
    limit,
    net::bind,
    proxy::Proxy,
    sessions::{quick_client, text},
    until,
};
use unstall::{
    CloseCode, Connection, Event, Options, Principal, Server, StallCause, defaults,
    status::{self, ConnectionState, ConnectionStatus},
};

async fn named_server() -> Server {
    let builder = Server::builder().authenticate(|mut request| async move {
        request.extensions_mut().insert(Principal::new("alice"));
        Ok(request)
    });
    bind(builder).await
}

fn shown(connection: &Connection) -> Option<ConnectionStatus> {
    status::connection(connection.stats().id)
}

#[tokio::test]
async fn both_ends_of_a_session_are_shown_until_they_are_gone() {
    let server = named_server().await;
    let client = quick_client(server.local_addr()).connect().await.unwrap();
    let mut there = limit(server.accept()).await.unwrap();
    client.send("hello").await.unwrap();
    assert_eq!(text(&mut there).await, "hello");

    let (here, other) = (shown(&client).unwrap(), shown(&there).unwrap());
    assert_eq!((here.is_server, here.is_session), (false, true));
    assert_eq!((other.is_server, other.is_session), (true, true));
    assert_eq!(here.state, ConnectionState::Open);
    assert_eq!(here.peer, Some(server.local_addr()));
    assert_eq!(other.peer, client.local_addr());
    assert_eq!(other.principal.as_deref(), Some("alice"));
    assert_eq!(here.principal, None);
    assert_eq!(other.stats.messages_received, 1);

    let ids = BTreeSet::from([here.stats.id, other.stats.id]);
    let look = status::look();
    let listed = look.connections.iter().map(|it| it.stats.id);
    assert!(listed.collect::<BTreeSet<_>>().is_superset(&ids));
    assert!(look.totals.open >= 2 && look.totals.sessions >= 2 && look.totals.server >= 1);
    assert!(status::servers().is_some_and(|it| it.stats.accepted >= 1));

    let _ = client.close(CloseCode::NORMAL, "").await;
    drop((client, there));
    until("both are listed no more", || {
        ids.iter().all(|id| status::connection(*id).is_none())
    })
    .await;
    let past = status::events(here.stats.id).expect("the last events are kept");
    assert!(
        matches!(past.last(), Some((_, Event::Ended { .. }))),
        "{past:?}"
    );
}

#[tokio::test]
async fn a_cut_is_told_with_its_recovery() {
    let server = named_server().await;
    let proxy = Proxy::to(server.local_addr()).await;
    let client = quick_client(proxy.address).connect().await.unwrap();
    let _there = limit(server.accept()).await.unwrap();
    let mut events = client.events();
    event(&mut events, |it| matches!(it, Event::SessionOpened)).await;
    let id = client.stats().id;
    let before = status::recoveries(0).last().map_or(0, |it| it.number);
    proxy.cut();
    resumed(&mut events).await;

    let recoveries = status::recoveries(before);
    let own: Vec<_> = recoveries.iter().filter(|it| it.connection == id).collect();
    assert_eq!(own.len(), 1, "{recoveries:?}");
    assert!(own[0].after < Duration::from_secs(60));
    let told = status::events(id).unwrap();
    let words: Vec<_> = told.iter().map(|(_, event)| event.to_string()).collect();
    let lost = words
        .iter()
        .position(|it| it.starts_with("the connection was lost: "));
    let again = words.iter().position(|it| it.starts_with("resumed "));
    assert!(lost.unwrap() < again.unwrap(), "{words:?}");
    assert!(told.is_sorted_by_key(|(at, _)| *at));
}

#[tokio::test]
async fn a_reader_that_stops_is_shown_with_its_cause() {
    let server = bind(Server::builder().plain()).await;
    let small = Options::default().inbox_bytes(4096);
    let client = quick_client(server.local_addr()).options(small).plain();
    let client = client.connect().await.unwrap();
    let there = limit(server.accept()).await.unwrap();
    for _ in 0..100 {
        there.send(vec![7; 1000]).await.unwrap();
    }
    until("its inbox is full", || {
        let shown = shown(&client).unwrap();
        shown
            .stats
            .stalled_by()
            .any(|it| it == StallCause::ApplicationNotReading)
    })
    .await;
    let totals = status::totals();
    let (waiting, time) = totals.stalled[StallCause::ApplicationNotReading as usize];
    assert!(waiting >= 1 && time > Duration::ZERO);
}

#[tokio::test]
async fn a_path_that_is_not_to_be_listed_counts_nowhere() {
    let server = bind(Server::builder().plain().unlisted("/page")).await;
    let mut ids = Vec::new();
    for path in ["/page", "/pages"] {
        let client = unstall::Client::new(format!("ws://{}{path}", server.local_addr()));
        let client = client.plain().connect().await.unwrap();
        let there = limit(server.accept()).await.unwrap();
        let id = there.stats().id;
        assert_eq!(status::connection(id).is_some(), path == "/pages");
        assert_eq!(status::events(id).is_some(), path == "/pages");
        ids.push(id);
        drop((client, there));
    }
    until("the connections have ended", || server.stats().open == 0).await;
    until("the listed one is among the past", || {
        status::connection(ids[1]).is_none() && status::events(ids[1]).is_some()
    })
    .await;
    assert!(status::events(ids[0]).is_none());
}

/// What clients leave behind that come and go by the thousand has a bound.
#[tokio::test]
async fn those_that_ended_are_kept_up_to_a_number() {
    let server = bind(Server::builder().plain()).await;
    let mut ids = Vec::new();
    for _ in 0..defaults::ENDED_KEPT + 40 {
        let client = quick_client(server.local_addr()).plain();
        let client = client.connect().await.unwrap();
        ids.push(client.stats().id);
        drop((client, limit(server.accept()).await.unwrap()));
    }
    until("all have ended", || {
        ids.iter().all(|id| status::connection(*id).is_none())
    })
    .await;
    // Both ends are connections of this process, and other tests run beside.
    let kept = ids.iter().filter(|id| status::events(**id).is_some());
    assert!(kept.count() <= defaults::ENDED_KEPT);
    assert!(status::events(ids[0]).is_none());
}
