//! The client that holds most of a server's places, handshakes or sessions is the one that is closed, or
//! waits. A client that holds few never pays for that.
#![cfg(target_os = "linux")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{
    frames::upgrade,
    limit,
    net::{answer, ask, bind, connect_from, serve, status, to_end},
    sessions::{Raw, up_to_the_loss},
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use unstall::{
    Budget, Connection, ConnectionError, Incoming, Options, Principal, Server, ServerBuilder,
    ServerLimits, SessionLimits, SessionLoss,
};
use unstall_proto::{Packet, Rejection};

const ATTACKER: [u8; 4] = [127, 0, 0, 66];
const HONEST: [u8; 4] = [127, 0, 0, 7];

fn limits() -> ServerLimits {
    ServerLimits::default()
}

/// Connections of one address whose clients send nothing.
async fn silent(from: [u8; 4], to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(connect_from(from.into(), to).await);
    }
    silent
}

/// Checks that the client is accepted at its first attempt. Returns how long that takes.
async fn let_in(from: [u8; 4], to: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut tcp = connect_from(from.into(), to).await;
    let head = ask(&mut tcp, &upgrade("")).await;
    assert_eq!(status(&head), 101, "{head}");
    start.elapsed()
}

fn identified() -> ServerBuilder {
    Server::builder().authenticate(|mut request| async move {
        let user = request.headers().get("x-user").cloned();
        if let Some(user) = user {
            let user = Principal::new(user.to_str().unwrap());
            request.extensions_mut().insert(user);
        }
        Ok(request)
    })
}

/// Once 1,024 silent sockets of one address kept everybody else out for ten seconds.
#[tokio::test]
async fn silent_handshakes_of_one_address_keep_nobody_out_not_even_its_own_honest_client() {
    let server = bind(Server::builder().limits(limits().max_handshakes(16))).await;
    let address = server.local_addr();
    let flood = silent(ATTACKER, address, 100).await;
    until("it takes all that one address gets", || {
        let stats = server.stats();
        (stats.handshaking, stats.waiting) == (12, 88)
    })
    .await;
    let took = let_in(HONEST, address).await;
    assert_eq!(
        server.stats().handshakes.evicted,
        0,
        "it did not have to wait: {took:?}"
    );
    let_in(ATTACKER, address).await;
    let stats = server.stats();
    assert_eq!(stats.refused.total() + stats.handshakes.timed_out, 0);
    assert!(stats.handshakes.evicted > 0);
    drop(flood);
}

#[tokio::test]
async fn the_address_that_has_most_handshakes_loses_its_oldest_and_others_lose_none() {
    let server = bind(Server::builder().limits(limits().max_handshakes(8))).await;
    let address = server.local_addr();
    let mut patient = silent([127, 0, 0, 8], address, 1).await;
    until("it is first", || server.stats().handshaking == 1).await;
    let mut many = silent(ATTACKER, address, 5).await;
    let mut few = silent([127, 0, 0, 9], address, 2).await;
    until("all places are taken", || server.stats().handshaking == 8).await;
    let_in(HONEST, address).await;
    // The oldest of the many is closed.
    assert_eq!(to_end(&mut many[0]).await, "");
    assert_eq!(server.stats().handshakes.evicted, 1);
    for tcp in patient.iter_mut().chain(&mut few).chain(&mut many[1..]) {
        let head = ask(tcp, &upgrade("")).await;
        assert_eq!(status(&head), 101, "it was only slow: {head}");
    }
}

/// A handshake that waits for the application is not closed: that is not the client's fault.
#[tokio::test]
async fn a_handshake_that_the_server_works_on_is_not_closed_for_another() {
    let (open, opened) = tokio::sync::watch::channel(false);
    let builder = Server::builder()
        .limits(limits().max_handshakes(1))
        .authenticate(move |request| {
            let mut opened = opened.clone();
            async move {
                let _ = opened.wait_for(|open| *open).await;
                Ok(request)
            }
        });
    let server = bind(builder).await;
    let address = server.local_addr();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(upgrade("").as_bytes()).await.unwrap();
    until("it is under way", || server.stats().handshaking == 1).await;
    let refused = answer(address, &upgrade("")).await;
    assert_eq!(status(&refused), 503);
    assert!(
        refused.contains("Too many clients are connecting at once"),
        "{refused}"
    );
    open.send(true).unwrap();
    assert_eq!(status(&ask(&mut first, "").await), 101);
    let stats = server.stats();
    assert_eq!((stats.refused.handshakes, stats.handshakes.evicted), (1, 0));
    let_in(HONEST, address).await;
}

#[tokio::test]
async fn who_waits_for_hello_waits_in_the_handshakes_place() {
    let server = bind(Server::builder().limits(limits().max_handshakes(4))).await;
    let address = server.local_addr();
    let mut mute: Vec<_> = (0..3)
        .map(|id| Raw::new(address, id).from(ATTACKER))
        .collect();
    for raw in &mut mute {
        raw.connect().await;
    }
    assert_eq!(server.stats().handshaking, 3);
    let_in(ATTACKER, address).await;
    assert_eq!(server.stats().handshakes.evicted, 1);
    assert!(mute[0].read().await.is_none(), "the oldest is closed");
    assert!(matches!(mute[2].attach().await, Packet::Welcome(_)));
}

#[tokio::test]
async fn connections_of_one_address_are_limited_and_told_so() {
    let server = bind(Server::builder().limits(limits().max_connections(4))).await;
    let address = server.local_addr();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut tcp = connect_from(ATTACKER.into(), address).await;
        assert_eq!(status(&ask(&mut tcp, &upgrade("")).await), 101);
        open.push(tcp);
    }
    let mut tcp = connect_from(ATTACKER.into(), address).await;
    tcp.write_all(upgrade("").as_bytes()).await.unwrap();
    let refused = to_end(&mut tcp).await;
    assert_eq!(status(&refused), 429);
    assert!(
        refused.contains("Your address has reached its limit of connections"),
        "{refused}"
    );
    assert!(
        refused.to_lowercase().contains("retry-after: 5"),
        "{refused}"
    );
    let mut session = Raw::new(address, 1).from(ATTACKER);
    let answer = session.attach().await;
    assert!(matches!(answer, Packet::Reject(Rejection::Full { .. })));
    let stats = server.stats();
    assert_eq!((stats.refused.address, stats.refused.total()), (2, 2));
    let_in(HONEST, address).await;
    let mut session = Raw::new(address, 2).from(HONEST);
    assert!(
        matches!(session.attach().await, Packet::Reject(_)),
        "now all places are taken"
    );
    assert_eq!(server.stats().refused.connections, 1);
}

#[tokio::test]
async fn connections_of_one_principal_are_limited_wherever_they_come_from() {
    let limits = limits().connections_per_principal(2);
    let server = bind(identified().limits(limits)).await;
    let address = server.local_addr();
    let ann = upgrade("x-user: ann\r\n");
    let mut open = Vec::new();
    for host in 1..=2 {
        let mut tcp = connect_from([127, 0, 1, host].into(), address).await;
        assert_eq!(status(&ask(&mut tcp, &ann).await), 101);
        open.push(tcp);
    }
    let mut tcp = connect_from([127, 0, 1, 3].into(), address).await;
    tcp.write_all(ann.as_bytes()).await.unwrap();
    let refused = to_end(&mut tcp).await;
    assert_eq!(status(&refused), 429);
    assert!(refused.contains("close one of them first"), "{refused}");
    assert_eq!(server.stats().refused.principal, 1);
    let mut tcp = connect_from([127, 0, 1, 1].into(), address).await;
    assert_eq!(
        status(&ask(&mut tcp, &upgrade("x-user: bob\r\n")).await),
        101
    );
}

/// Opens a session for each of these clients and leaves it. The first is the longest without a connection.
async fn leave(server: &Server, raws: impl IntoIterator<Item = Raw>) -> Vec<(Raw, Connection)> {
    let mut left = Vec::new();
    for mut raw in raws {
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
        let session = limit(server.accept()).await.unwrap();
        drop(raw.ws.take());
        until("it is without a connection", || server.stats().open == 0).await;
        left.push((raw, session));
    }
    left
}

async fn is_evicted(session: &mut Connection) {
    let (_, why) = up_to_the_loss(session).await;
    assert_eq!(why, SessionLoss::Evicted);
}

async fn goes_on(raw: &mut Raw) {
    let answer = raw.attach().await;
    assert!(matches!(answer, Packet::Welcome(_)), "{answer:?}");
}

/// Once 20,000 throw-away sessions of one address evicted everybody else's.
#[tokio::test]
async fn throw_away_sessions_of_one_address_evict_each_other_and_nobody_elses() {
    let sessions = SessionLimits::default().sessions(12);
    let server = bind(Server::builder().sessions(sessions)).await;
    let address = server.local_addr();
    let mut honest = leave(&server, (0..3).map(|id| Raw::new(address, id).from(HONEST))).await;
    let thrown = (100..150).map(|id| Raw::new(address, id).from(ATTACKER));
    let mut thrown = leave(&server, thrown).await;
    assert_eq!(
        server.stats().sessions,
        12,
        "three, and three quarters of all"
    );
    for (raw, session) in &mut thrown[..41] {
        is_evicted(session).await;
        assert_eq!(raw.attach().await, Packet::Reject(Rejection::Expired));
    }
    for (raw, _) in honest.iter_mut().chain(&mut thrown[41..]) {
        goes_on(raw).await;
    }
}

#[tokio::test]
async fn a_full_server_ends_the_longest_away_of_who_has_most() {
    let sessions = SessionLimits::default().sessions(6);
    let server = bind(Server::builder().sessions(sessions)).await;
    let address = server.local_addr();
    let raw = |id, from| Raw::new(address, id).from(from);
    let mut few = leave(&server, [raw(1, HONEST), raw(2, HONEST)]).await;
    let mut many = leave(&server, (11..15).map(|id| raw(id, ATTACKER))).await;
    let mut newcomers = [raw(3, [127, 0, 0, 8]), raw(4, [127, 0, 0, 8])];
    for (newcomer, goes) in newcomers.iter_mut().zip(&mut many) {
        goes_on(newcomer).await;
        is_evicted(&mut goes.1).await;
    }
    for (raw, _) in few.iter_mut().chain(&mut many[2..]) {
        goes_on(raw).await;
    }
    // Every session has a connection now.
    let full = raw(5, [127, 0, 0, 9]).attach().await;
    assert!(matches!(full, Packet::Reject(Rejection::Full { .. })));
    assert_eq!(server.stats().refused.sessions, 1);
}

#[tokio::test]
async fn who_has_most_and_is_connected_takes_nobodys_session() {
    let sessions = SessionLimits::default().sessions(4);
    let server = bind(Server::builder().sessions(sessions)).await;
    let address = server.local_addr();
    let mut honest = leave(&server, [Raw::new(address, 1).from(HONEST)]).await;
    let mut many: Vec<_> = (11..14)
        .map(|id| Raw::new(address, id).from(ATTACKER))
        .collect();
    for raw in &mut many {
        goes_on(raw).await;
    }
    let refused = Raw::new(address, 14).from(ATTACKER).attach().await;
    assert!(matches!(refused, Packet::Reject(Rejection::Full { .. })));
    goes_on(&mut honest[0].0).await;
}

#[tokio::test]
async fn sessions_of_one_principal_evict_each_other_wherever_they_come_from() {
    let sessions = SessionLimits::default().per_principal(2);
    let server = bind(identified().sessions(sessions)).await;
    let address = server.local_addr();
    let raws = (1..=3).map(|id| {
        let raw = Raw::new(address, id).from([127, 0, 2, id]);
        raw.header("x-user", "ann")
    });
    let bob = Raw::new(address, 9).header("x-user", "bob");
    let mut left = leave(&server, [bob].into_iter().chain(raws)).await;
    is_evicted(&mut left[1].1).await;
    for index in [0, 2, 3] {
        goes_on(&mut left[index].0).await;
    }
}

#[tokio::test]
async fn only_a_session_that_keeps_much_goes_for_want_of_memory() {
    let limits = limits().process_bytes(1 << 20);
    let server = bind(Server::builder().limits(limits)).await;
    let address = server.local_addr();
    let mut empty = leave(&server, [Raw::new(address, 1).from(HONEST)]).await;
    let mut raw = Raw::new(address, 2).from(ATTACKER);
    goes_on(&mut raw).await;
    let mut session = limit(server.accept()).await.unwrap();
    for _ in 0..8 {
        limit(session.send(vec![7; 50 << 10])).await.unwrap();
    }
    // The data is received, and never acknowledged.
    for _ in 0..4 {
        raw.read().await.expect("data");
    }
    drop(raw.ws.take());
    let mut other = Raw::new(address, 3).from([127, 0, 0, 8]);
    goes_on(&mut other).await;
    let served = limit(server.accept()).await.unwrap();
    tokio::spawn(async move { while served.send(vec![7; 50 << 10]).await.is_ok() {} });
    is_evicted(&mut session).await;
    goes_on(&mut empty[0].0).await;
}

/// The line of waiting clients is bounded too. Each address gets its turn.
#[tokio::test]
async fn clients_of_many_addresses_wait_in_turns() {
    let limits = limits().max_handshakes(2).handshakes_per_address(1);
    let server = bind(Server::builder().limits(limits)).await;
    let address = server.local_addr();
    let _flood = silent(ATTACKER, address, 50).await;
    let _other = silent([127, 0, 0, 67], address, 50).await;
    until("all wait", || server.stats().waiting == 98).await;
    let start = Instant::now();
    let_in(HONEST, address).await;
    // It waits a second at most, and not behind the 98.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

/// An upgraded connection of this address, whose client has sent so many bytes of a message of 1 MiB.
async fn half_a_message(from: [u8; 4], to: SocketAddr, bytes: usize) -> TcpStream {
    let mut tcp = connect_from(from.into(), to).await;
    assert_eq!(status(&ask(&mut tcp, &upgrade("")).await), 101);
    let mut frame = vec![0x82, 0xff];
    frame.extend((1_u64 << 20).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + bytes, 7);
    tcp.write_all(&frame).await.unwrap();
    tcp
}

/// Once messages that were never completed took memory without bound.
#[tokio::test]
async fn bytes_held_for_one_address_are_limited_and_others_have_theirs() {
    let process = Budget::new(8 << 20);
    let options = Options::default().budget(process.clone());
    let limits = limits().bytes_per_address(2 << 20);
    let server = bind(Server::builder().options(options).limits(limits)).await;
    let evicted = Arc::new(AtomicUsize::new(0));
    let count = evicted.clone();
    serve(&server, move |mut connection: Connection| {
        let count = count.clone();
        async move {
            loop {
                match connection.recv().await {
                    Ok(Some(Incoming::Message(message))) => {
                        let bytes = message.as_bytes().len();
                        let _ = connection.send(bytes.to_string()).await;
                    }
                    Err(ConnectionError::Evicted { .. }) => {
                        count.fetch_add(1, SeqCst);
                        return;
                    }
                    _ => return,
                }
            }
        }
    });
    let address = server.local_addr();
    let mut honest = half_a_message(HONEST, address, 1 << 19).await;
    until("it is held", || process.used() >= 1 << 19).await;
    let _first = half_a_message(ATTACKER, address, 1 << 19).await;
    until("it is held", || process.used() >= 2 << 19).await;
    let mut more = Vec::new();
    for _ in 0..7 {
        more.push(half_a_message(ATTACKER, address, 1 << 19).await);
    }
    // Of the eight half messages three fit, and the floors of the others.
    until("the others have gone", || evicted.load(SeqCst) >= 4).await;
    assert!(evicted.load(SeqCst) < 8, "not all of them");
    assert!(
        process.used() <= (2 << 20) + (1 << 20),
        "{}",
        process.used()
    );
    honest.write_all(&vec![7; 1 << 19]).await.unwrap();
    let mut answer = [0; 9];
    limit(honest.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"\x81\x071048576");
}

/// Once the heads of requests, which are kept for the handler, counted in no account.
#[tokio::test]
async fn the_heads_of_requests_count() {
    let process = Budget::new(64 << 20);
    let options = Options::default().budget(process.clone());
    let server = bind(Server::builder().options(options)).await;
    let head = upgrade(&format!("x-cookie: {}\r\n", "c".repeat(12_000)));
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
        assert_eq!(status(&ask(&mut tcp, &head).await), 101);
        open.push((tcp, limit(server.accept()).await.unwrap()));
    }
    assert!(process.used() >= 120_000, "{}", process.used());
    drop(open);
    until("all is given back", || process.used() == 0).await;
}
