//! Outages of the network and of processes. A short one heals without a reconnect, a long one costs a
//! reconnect, and nothing is lost in either.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::common::{
    AMPLE,
    events::resumed,
    foreign::Foreign,
    limit,
    net::echo_server,
    numbered, plain,
    process::{Process, is, play, say},
    proxy::{Mode, Proxy},
    until,
};
use unstall::{Client, Connection, Options, Reconnect, Server, ServerBuilder};

const SILENCE: Duration = Duration::from_secs(2);
/// What a connect may take in addition on a loaded machine.
const CONNECT: Duration = Duration::from_secs(3);

fn options() -> Options {
    Options::default()
        .ping_interval(SILENCE / 4)
        .silence_timeout(SILENCE)
        .connect_timeout(CONNECT)
}

fn builder() -> ServerBuilder {
    Server::builder().options(options())
}

async fn connect(address: SocketAddr) -> Connection {
    Client::new(format!("ws://{address}/"))
        .options(options())
        .reconnect(Reconnect::default().max(Duration::from_millis(500)))
        .require_session()
        .connect()
        .await
        .unwrap()
}

/// Sends numbers and gets them back, in order.
async fn exchange(session: &mut Connection, numbers: std::ops::Range<u64>) {
    say_all(session, numbers.clone()).await;
    hear_all(session, numbers).await;
}

async fn say_all(session: &Connection, numbers: std::ops::Range<u64>) {
    for number in numbers {
        session.send(number.to_string()).await.unwrap();
    }
}

async fn hear_all(session: &mut Connection, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let back = plain(limit(session.recv()).await);
        assert_eq!(back.as_text(), Some(number.to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_shorter_than_the_silence_heals_without_a_reconnect() {
    let server = echo_server(builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let mut session = connect(proxy.address).await;
    for round in 0..3 {
        exchange(&mut session, round * 1000..round * 1000 + 500).await;
        proxy.set(Mode::BlackHole);
        let rest = round * 1000 + 500..(round + 1) * 1000;
        say_all(&session, rest.clone()).await;
        // The length of the outage.
        tokio::time::sleep(SILENCE / 2).await;
        proxy.set(Mode::Forward);
        hear_all(&mut session, rest).await;
    }
    assert_eq!(session.stats().connections, 1);
}

#[test]
#[ignore = "the other process of the test below"]
fn server() {
    if is("server") {
        play(|_| async {
            let server = echo_server(builder()).await;
            say(format!("listens {}", server.local_addr()));
            std::future::pending().await
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_process_goes_on_where_it_was() {
    let mut server = Process::spawn(module_path!(), "server", &[]);
    let address = server.hear("listens").await.parse().unwrap();
    let mut session = connect(address).await;
    let mut events = session.events();
    exchange(&mut session, 0..1000).await;
    for (round, stop) in [(1, SILENCE / 2), (2, SILENCE * 2)] {
        server.signal("STOP");
        let numbers = round * 1000..(round + 1) * 1000;
        say_all(&session, numbers.clone()).await;
        // The process is stopped for this long.
        tokio::time::sleep(stop).await;
        server.signal("CONT");
        hear_all(&mut session, numbers).await;
        if round == 1 {
            assert_eq!(
                session.stats().connections,
                1,
                "it was stopped for a short time"
            );
        }
    }
    // The second stop was long, so the session was resumed.
    resumed(&mut events).await;
    exchange(&mut session, 3000..4000).await;
}

/// The network drops everything in both directions and closes nothing, with so many messages of 64 KiB
/// on their way.
async fn half_open(messages: u64) {
    let server = echo_server(builder()).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let session = connect(proxy.address).await;
    let mut events = session.events();
    let (sender, mut receiver) = session.split();
    let writing = sender.clone();
    let writing = tokio::spawn(async move {
        numbered::send(&writing, 0..messages, 64 << 10).await;
    });
    numbered::receive(&mut receiver, 0..messages / 2, 64 << 10).await;
    proxy.set_existing(Mode::BlackHole);
    let began = Instant::now();
    resumed(&mut events).await;
    let back = began.elapsed();
    println!("back after {back:?} with {messages} messages on their way");
    assert!(back < SILENCE + CONNECT, "{back:?}");
    // The late bytes of both directions find closed sockets.
    proxy.set_existing(Mode::Forward);
    numbered::receive(&mut receiver, messages / 2..messages, 64 << 10).await;
    limit(writing).await.unwrap();
    limit(sender.delivered()).await.unwrap();
    until("the old connection is closed by both", || proxy.open() == 1).await;
    assert_eq!(sender.stats().connections, 2);
    // It is counted after the answer.
    until("it is counted", || server.stats().sessions_resumed == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connection_is_replaced_within_silence_and_one_connect() {
    half_open(2).await;
}

/// Once a connection with a full socket was kept as long as a kernel answered, even a proxy's. That is
/// right for a peer that may not read, and wrong for one that always reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connection_is_replaced_in_the_middle_of_a_large_write() {
    half_open(4000).await;
}

/// Sends messages with pauses, in which the reverse proxy cuts the idle connection.
async fn idle_connections_are_cut_by(proxy: &Foreign) {
    let mut session = Client::new(format!("ws://{}/", proxy.address))
        .options(quiet())
        .require_session()
        .connect()
        .await
        .unwrap();
    let mut events = session.events();
    for round in 0..3 {
        exchange(&mut session, round * 100..round * 100 + 100).await;
        // Nothing is sent until the proxy cuts the connection.
        resumed(&mut events).await;
    }
    exchange(&mut session, 300..400).await;
    assert!(session.stats().resumes >= 3);
}

/// Neither side sends pings, so an idle connection is silent.
fn quiet() -> Options {
    options()
        .ping_interval(Duration::from_secs(60))
        .silence_timeout(Duration::from_secs(180))
}

/// A configuration of `interop`, for a proxy that cuts what is idle for a second.
fn filled(template: &str, address: SocketAddr, server: &Server, directory: &Path) -> String {
    template
        .replace("WORKERS", "1")
        .replace("DIRECTORY", &directory.display().to_string())
        .replace("ADDRESS", &address.to_string())
        .replace("TARGET", &server.local_addr().to_string())
        .replace("IDLE", "1s")
}

async fn nginx(server: &Server) -> Option<Foreign> {
    let template = include_str!("../../../interop/nginx.conf");
    let configuration =
        |address: SocketAddr, directory: &Path| filled(template, address, server, directory);
    Foreign::start("nginx", &["-e", "stderr", "-c"], configuration).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_that_cuts_idle_connections_costs_a_reconnect() {
    let server = echo_server(Server::builder().options(quiet())).await;
    if let Some(nginx) = nginx(&server).await {
        idle_connections_are_cut_by(&nginx).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_that_cuts_long_connections_at_a_reload_costs_a_reconnect() {
    let server = echo_server(builder()).await;
    let Some(nginx) = nginx(&server).await else {
        return;
    };
    let mut session = connect(nginx.address).await;
    let mut next = 0;
    for reload in 1..=2 {
        nginx.tell("-HUP");
        // Messages flow all the time.
        let began = Instant::now();
        while session.stats().resumes < reload {
            exchange(&mut session, next..next + 50).await;
            next += 50;
            assert!(began.elapsed() < AMPLE, "nginx kept the old connection");
        }
    }
    exchange(&mut session, next..next + 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_that_cuts_idle_connections_costs_a_reconnect() {
    let server = echo_server(Server::builder().options(quiet())).await;
    let template = include_str!("../../../interop/haproxy.cfg");
    let configuration =
        |address: SocketAddr, directory: &Path| filled(template, address, &server, directory);
    let haproxy = Foreign::start("haproxy", &["-db", "-q", "-f"], configuration).await;
    if let Some(haproxy) = haproxy {
        idle_connections_are_cut_by(&haproxy).await;
    }
}
