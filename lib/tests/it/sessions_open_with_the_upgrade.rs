//! A new session opens without a round trip of its own: HELLO comes with the request (SPEC.md section
//! 9). It opens all the same where the other end, or a proxy between them, does not know that.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, response::Response, routing::any};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::sleep,
};
use unstall::{Client, Connection, Rejection, Server, Sessions, axum::Upgrade};
use unstall_proto::{Config, Packet, Session, SessionId, Time, Token};

use crate::common::{
    echo, echoed,
    events::resumed,
    frames::{BINARY, Frame, RawPeer, StreamEnd, frame, header, listen, read_head, upgrade},
    limit,
    net::{bind, echo_server, serve},
    sessions::{client, quick_client},
};

/// A relay in which every byte takes a moment each way.
struct SlowRelay {
    address: SocketAddr,
    flights: Arc<Mutex<Vec<bool>>>,
}

impl SlowRelay {
    /// A relay in front of `target`. It removes HELLO from requests, or from answers.
    async fn to(target: SocketAddr, from_requests: bool, from_answers: bool) -> SlowRelay {
        let (listener, address) = listen().await;
        let flights = Arc::new(Mutex::new(Vec::new()));
        let log = flights.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(target).await.unwrap();
                for tcp in [&client, &server] {
                    tcp.set_nodelay(true).unwrap();
                }
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                let up = forward(client_reads, server_writes, true, from_requests, &log);
                tokio::spawn(up);
                let down = forward(server_reads, client_writes, false, from_answers, &log);
                tokio::spawn(down);
            }
        });
        SlowRelay { address, flights }
    }

    /// How often the client has waited for an answer of the server.
    fn round_trips(&self) -> usize {
        let flights = self.flights.lock().unwrap();
        let turns = flights.windows(2).filter(|pair| pair[0] && !pair[1]);
        turns.count()
    }

    fn forget(&self) {
        self.flights.lock().unwrap().clear();
    }
}

fn forward(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    up: bool,
    strips: bool,
    log: &Arc<Mutex<Vec<bool>>>,
) -> impl Future<Output = ()> + Send + 'static {
    let log = log.clone();
    async move {
        let head = read_head(&mut from).await;
        log.lock().unwrap().push(up);
        let kept = head.split_inclusive("\r\n");
        let kept = kept.filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !(strips && name.eq_ignore_ascii_case("unstall-hello"))
        });
        let mut buffer = kept.collect::<String>().into_bytes();
        loop {
            sleep(Duration::from_millis(20)).await;
            if to.write_all(&buffer).await.is_err() {
                return;
            }
            buffer.resize(16 << 10, 0);
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.truncate(read),
            }
            log.lock().unwrap().push(up);
        }
    }
}

/// Connects through the relay, and has the first message echoed.
async fn first_message(client: Client) -> Connection {
    let mut connection = limit(client.connect()).await.unwrap();
    echoed(&mut connection, "first").await;
    connection
}

/// Once a session took a round trip more than a plain connection: HELLO waited for the 101.
#[tokio::test]
async fn a_session_opens_in_as_many_round_trips_as_a_plain_connection() {
    let server = echo_server(Server::builder()).await;
    let relay = SlowRelay::to(server.local_addr(), false, false).await;
    let _plain = first_message(quick_client(relay.address).plain()).await;
    assert_eq!(relay.round_trips(), 2);
    relay.forget();
    let mut session = first_message(client(relay.address)).await;
    assert_eq!(relay.round_trips(), 2);
    assert!(session.is_session());
    echoed(&mut session, "second").await;
}

#[tokio::test]
async fn a_session_in_axum_opens_in_as_many_round_trips() {
    let sessions = Sessions::default();
    let handler = move |upgrade: Upgrade| {
        let sessions = sessions.clone();
        async move { feed(upgrade, sessions) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app: Router = Router::new().route("/", any(handler));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let relay = SlowRelay::to(address, false, false).await;
    let _session = first_message(client(relay.address)).await;
    assert_eq!(relay.round_trips(), 2);
}

fn feed(upgrade: Upgrade, sessions: Sessions) -> Response {
    upgrade.sessions(sessions).on_upgrade(|connection| async {
        let request = connection.request().unwrap();
        assert!(!request.headers().contains_key("unstall-hello"));
        echo(connection).await;
    })
}

/// As with a server that does not know the header.
#[tokio::test]
async fn a_session_opens_where_the_request_loses_the_header() {
    let server = echo_server(Server::builder()).await;
    let relay = SlowRelay::to(server.local_addr(), true, false).await;
    let mut session = first_message(client(relay.address)).await;
    assert_eq!(relay.round_trips(), 3);
    echoed(&mut session, "second").await;
}

/// The server has taken HELLO, and gets it once more.
#[tokio::test]
async fn a_session_opens_where_the_answer_loses_the_header() {
    let server = echo_server(Server::builder()).await;
    let relay = SlowRelay::to(server.local_addr(), false, true).await;
    let mut session = first_message(client(relay.address)).await;
    echoed(&mut session, "second").await;
    assert_eq!(server.stats().sessions_resumed, 0);
}

#[tokio::test]
async fn only_a_new_session_opens_with_the_request() {
    let server = echo_server(Server::builder()).await;
    let (listener, address) = listen().await;
    let target = server.local_addr();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let cut = Arc::new(Notify::new());
    let (seen, cuts) = (heads.clone(), cut.clone());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let head = read_head(&mut client).await;
            let mut server = TcpStream::connect(target).await.unwrap();
            server.write_all(head.as_bytes()).await.unwrap();
            seen.lock().unwrap().push(head);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = cuts.notified() => {}
            }
        }
    });
    let mut session = first_message(client(address)).await;
    let mut events = session.events();
    cut.notify_one();
    limit(resumed(&mut events)).await;
    echoed(&mut session, "after").await;
    let heads = heads.lock().unwrap();
    assert!(header(&heads[0], "unstall-hello").is_some());
    assert!(
        header(&heads[1], "unstall-hello").is_none(),
        "the token of a session that lives is in no header"
    );
}

#[tokio::test]
async fn neither_handler_nor_hook_sees_the_token() {
    let builder = Server::builder().authenticate(|request| async move {
        match request.headers().contains_key("unstall-hello") {
            true => Err(Rejection::forbidden("it has the token")),
            false => Ok(request),
        }
    });
    let server = bind(builder).await;
    serve(&server, |connection| async {
        let request = connection.request().unwrap();
        assert!(!request.headers().contains_key("unstall-hello"));
        echo(connection).await;
    });
    let relay = SlowRelay::to(server.local_addr(), false, false).await;
    let _session = first_message(client(relay.address)).await;
    assert_eq!(relay.round_trips(), 2, "it came with the request");
}

/// A client of which the test sends every byte.
struct ByHand {
    session: Session,
    hello: bytes::Bytes,
}

impl ByHand {
    fn new(id: u8) -> ByHand {
        let mut session = Session::client(Config::new(), SessionId([id; 16]), Token([id; 16]));
        let generation = session.attach(Time::ORIGIN).unwrap();
        let hello = session.poll_transmit(Time::ORIGIN, generation).unwrap();
        ByHand { session, hello }
    }

    fn header(&self) -> String {
        format!("unstall-hello: {}\r\n", URL_SAFE_NO_PAD.encode(&self.hello))
    }

    /// Asks for a session. Returns whether HELLO was taken.
    async fn ask(&self, server: SocketAddr, headers: &str) -> (bool, RawPeer) {
        let mut tcp = TcpStream::connect(server).await.unwrap();
        let request = format!("sec-websocket-protocol: unstall.v1\r\n{headers}");
        tcp.write_all(upgrade(&request).as_bytes()).await.unwrap();
        let head = limit(read_head(&mut tcp)).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let taken = header(&head, "unstall-hello");
        assert!(taken.is_none_or(|value| value == "taken"), "{head}");
        (taken.is_some(), RawPeer::client(tcp))
    }

    /// The next packet of the server.
    async fn read(&mut self, raw: &mut RawPeer) -> Packet {
        let seen = limit(raw.see_beyond_heartbeats()).await.unwrap();
        assert_eq!(seen.opcode, BINARY);
        let packet = bytes::Bytes::from(seen.payload);
        let generation = self.session.generation();
        let _ = self
            .session
            .handle_packet(Time::ORIGIN, generation, packet.clone());
        Packet::decode(packet).unwrap()
    }
}

fn binary(packet: impl AsRef<[u8]>) -> Frame {
    frame(BINARY, packet)
}

#[tokio::test]
async fn a_client_that_does_not_know_the_header_is_served_as_before() {
    let server = echo_server(Server::builder()).await;
    let mut old = ByHand::new(1);
    let (taken, mut raw) = old.ask(server.local_addr(), "").await;
    assert!(!taken);
    raw.say(binary(&old.hello)).await;
    assert!(matches!(old.read(&mut raw).await, Packet::Welcome(_)));
}

#[tokio::test]
async fn a_hello_that_opens_no_session_is_ignored_in_the_request() {
    let server = echo_server(Server::builder()).await;
    let good = ByHand::new(2);
    let changed = |at: usize, to: u8| {
        let mut hello = good.hello.to_vec();
        hello[at] = to;
        format!("unstall-hello: {}\r\n", URL_SAFE_NO_PAD.encode(hello))
    };
    let header = good.header();
    let hostile = [
        format!("{header}{header}"),
        format!("unstall-hello: {}\r\n", "A".repeat(8_000)),
        "unstall-hello: \r\n".to_owned(),
        "unstall-hello: ~~~~\r\n".to_owned(),
        format!("unstall-hello: {}\r\n", "*".repeat(108)),
        header.replace("\r\n", "=\r\n"),
        // Another kind, an epoch, another generation, something received.
        changed(0, 2),
        changed(40, 1),
        changed(48, 2),
        changed(56, 1),
        changed(64, 1),
        // A largest message of which there is none.
        changed(73, 255),
    ];
    for (number, headers) in hostile.iter().enumerate() {
        let mut by_hand = ByHand::new(10 + number as u8);
        let (taken, mut raw) = by_hand.ask(server.local_addr(), headers).await;
        assert!(!taken, "{headers}");
        raw.say(binary(&by_hand.hello)).await;
        assert!(matches!(by_hand.read(&mut raw).await, Packet::Welcome(_)));
    }
}

/// A header that somebody has read out of a log.
#[tokio::test]
async fn a_header_that_comes_again_takes_no_session_over() {
    let server = echo_server(Server::builder()).await;
    let mut first = ByHand::new(3);
    let (taken, mut raw) = first.ask(server.local_addr(), &first.header()).await;
    assert!(taken);
    assert!(matches!(first.read(&mut raw).await, Packet::Welcome(_)));
    let mut thief = ByHand::new(3);
    let (_, mut stolen) = thief.ask(server.local_addr(), &thief.header()).await;
    let answer = thief.read(&mut stolen).await;
    assert_eq!(answer, Packet::Reject(unstall_proto::Rejection::Superseded));
    // The session goes on where it was.
    first.session.send("still here").unwrap();
    let generation = first.session.generation();
    while let Some(packet) = first.session.poll_transmit(Time::ORIGIN, generation) {
        raw.say(binary(packet)).await;
    }
    while !matches!(first.read(&mut raw).await, Packet::Data { .. }) {}
}

#[tokio::test]
async fn hello_may_be_repeated_as_the_first_packet_only() {
    let server = echo_server(Server::builder()).await;
    let mut client = ByHand::new(4);
    let (taken, mut raw) = client.ask(server.local_addr(), &client.header()).await;
    assert!(taken);
    raw.say(binary(&client.hello)).await;
    assert!(matches!(client.read(&mut raw).await, Packet::Welcome(_)));
    raw.say(binary(&client.hello)).await;
    loop {
        match limit(raw.see_beyond_heartbeats()).await {
            Ok(seen) if seen.opcode == BINARY => {
                let packet = Packet::decode(seen.payload.into()).unwrap();
                assert!(matches!(packet, Packet::Abort { .. }), "{packet:?}");
            }
            Ok(seen) => {
                assert_eq!(seen.close_code(), Some(1002));
                return;
            }
            Err(StreamEnd::Fin | StreamEnd::Reset) => panic!("it was not closed"),
        }
    }
}
