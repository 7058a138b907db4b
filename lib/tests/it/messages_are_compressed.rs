//! Compression (RFC 7692) over real sockets: with plain peers, in sessions, in axum, over connections
//! that are lost, and against peers that mean harm.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::any};
use flate2::{Compress, FlushCompress};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use unstall::{
    Budget, Client, Compression, ConnectError, Connection, ConnectionError, Incoming, Message,
    Options, Server, axum::Upgrade,
};

use crate::common::{
    client, echo, echoed,
    frames::{
        BINARY, CLOSE, Frame, PING, RawPeer, TEXT, frame, header, listen, read_head, switching,
    },
    limit,
    net::{bind, echo_server, serve},
    numbered, plain,
    proxy::Proxy,
    sessions, until,
};

fn options() -> Options {
    Options::default().compression(Compression::default())
}

/// The agreement of a raw peer that knows the parameters.
const AGREED: &str = "sec-websocket-extensions: permessage-deflate; server_max_window_bits=12; \
                      client_max_window_bits=12\r\n";

/// JSON ticks, each like the one before.
fn tick(number: u64) -> String {
    format!(
        "{{\"stream\":\"btcusdt@trade\",\"data\":{{\"e\":\"trade\",\"E\":{number},\"s\":\"BTCUSDT\",\
         \"p\":\"43210.{:02}\",\"q\":\"0.0{}\",\"b\":8876543210,\"a\":8876543211,\
         \"T\":17000000{number:05},\"venue\":\"spot\",\"account\":\"main\",\"m\":true,\"M\":false}}}}",
        number % 97,
        number * 7919 % 9973,
    )
}

/// A client that compresses, and the raw server at its other end.
async fn raw_server(options: Options) -> (Connection, RawPeer) {
    let (listener, address) = listen().await;
    let answering = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let head = read_head(&mut tcp).await;
        tcp.write_all(switching(&head, AGREED).as_bytes())
            .await
            .unwrap();
        RawPeer::server(tcp)
    };
    let client = client(address, options);
    let (connection, raw) = tokio::join!(client.connect(), answering);
    (connection.unwrap(), raw)
}

fn compressed(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame {
        reserved: 4,
        ..frame(opcode, payload)
    }
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(flate2::Compression::best(), false);
    let mut out = Vec::with_capacity(data.len() + 1000);
    compress
        .compress_vec(data, &mut out, FlushCompress::Sync)
        .unwrap();
    out.truncate(out.len() - 4);
    out
}

/// Sends ticks both ways, and checks that each arrives and that fewer bytes than half went through
/// the proxy.
async fn ticks_go_both_ways(proxy: &Proxy, client: &mut Connection, from: u64) {
    const COUNT: u64 = 500;
    let before = proxy.forwarded();
    let mut bytes = 0;
    for number in from..from + COUNT {
        let text = tick(number);
        bytes += 2 * text.len() as u64;
        echoed(client, &text).await;
    }
    let forwarded = proxy.forwarded() - before;
    assert!(forwarded < bytes / 2, "{forwarded} of {bytes}");
}

#[tokio::test]
async fn plain_connections_are_compressed_anew_after_each_loss() {
    let server = echo_server(Server::builder().options(options())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let client = sessions::quick_client(proxy.address)
        .plain()
        .options(options());
    let mut client = client.connect().await.unwrap();
    for round in 0..3 {
        assert!(client.is_compressed() && !client.is_session());
        ticks_go_both_ways(&proxy, &mut client, round * 1000).await;
        proxy.cut();
        // The next message goes out over the next connection.
        while let Ok(Some(Incoming::Message(_))) = limit(client.recv()).await {}
    }
}

#[tokio::test]
async fn sessions_are_compressed_and_resume_with_a_fresh_context() {
    let server = echo_server(Server::builder().options(options())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let client = sessions::client(proxy.address).options(options());
    let mut client = client.connect().await.unwrap();
    for round in 0..3 {
        assert!(client.is_compressed() && client.is_session());
        ticks_go_both_ways(&proxy, &mut client, round * 1000).await;
        proxy.cut();
    }
    let resumed = client.stats();
    assert!(resumed.connections >= 3, "{resumed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_and_short_messages_of_a_session_survive_cuts_while_they_are_compressed() {
    let server = echo_server(Server::builder().options(options())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let connection = sessions::client(proxy.address)
        .options(options())
        .connect()
        .await;
    let (sender, mut receiver) = connection.unwrap().split();
    let sending = tokio::spawn(async move {
        for number in 0..3000u64 {
            let text = match number % 100 {
                0 => tick(number).repeat(700),
                _ => tick(number),
            };
            sender.send(text).await.unwrap();
        }
        sender
    });
    for number in 0..3000u64 {
        let message = plain(limit(receiver.recv()).await);
        let text = message.as_text().unwrap();
        assert!(text.starts_with(&tick(number)), "{number}");
        assert_eq!(text.len() > 10_000, number % 100 == 0);
        if number % 500 == 250 {
            proxy.cut();
        }
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn an_axum_application_compresses_plain_connections_and_sessions() {
    let sessions = unstall::Sessions::default();
    let feed = move |upgrade: Upgrade| {
        let upgrade = upgrade.options(options()).sessions(&sessions);
        async move { upgrade.on_upgrade(echo) }
    };
    let app: Router = Router::new().route("/", any(feed));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let proxy = Proxy::to(address).await;
    let client = Client::new(format!("ws://{}", proxy.address)).options(options());
    for client in [client.clone().plain(), client.require_session()] {
        let mut connection = limit(client.connect()).await.unwrap();
        assert!(connection.is_compressed());
        ticks_go_both_ways(&proxy, &mut connection, 0).await;
    }
}

#[tokio::test]
async fn nothing_is_compressed_unless_both_sides_ask_for_it() {
    let compressing = echo_server(Server::builder().options(options())).await;
    let not = echo_server(Server::builder()).await;
    let cases = [
        (&compressing, options(), true),
        (&compressing, Options::default(), false),
        (&not, options(), false),
        (&compressing, options().compression(None), false),
    ];
    for (server, options, expected) in cases {
        let mut connection = client(server.local_addr(), options)
            .connect()
            .await
            .unwrap();
        assert_eq!(connection.is_compressed(), expected);
        echoed(&mut connection, &tick(1)).await;
    }
}

#[tokio::test]
async fn an_answer_beyond_the_offer_fails_the_connection() {
    for (compresses, answer) in [
        (true, "permessage-deflate"),
        (true, "permessage-deflate; server_max_window_bits=15"),
        (true, "permessage-bzip2"),
        (false, "permessage-deflate"),
    ] {
        let offered = match compresses {
            true => options(),
            false => Options::default(),
        };
        let (listener, address) = listen().await;
        let answering = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let head = read_head(&mut tcp).await;
            let more = format!("sec-websocket-extensions: {answer}\r\n");
            tcp.write_all(switching(&head, &more).as_bytes())
                .await
                .unwrap();
            (tcp, head)
        };
        let client = client(address, offered);
        let (connected, (_tcp, head)) = tokio::join!(client.connect(), answering);
        let Err(ConnectError::NotWebSocket { why, .. }) = connected else {
            panic!("{answer}: {connected:?}");
        };
        assert!(
            why.contains("extension") || why.contains("permessage-deflate"),
            "{why}"
        );
        let offer = header(&head, "sec-websocket-extensions");
        assert_eq!(offer.is_some(), compresses);
    }
}

#[tokio::test]
async fn a_raw_peer_sees_what_is_compressed_and_what_is_not() {
    let (mut ours, mut raw) = raw_server(options()).await;
    let long = tick(7);
    for text in ["short", &long, &long] {
        ours.send(text).await.unwrap();
    }
    let short = raw.see_beyond_heartbeats().await.unwrap();
    assert_eq!((short.reserved, &short.payload[..]), (0, &b"short"[..]));
    let first = raw.see_beyond_heartbeats().await.unwrap();
    assert_eq!((first.reserved, first.opcode), (4, TEXT));
    let again = raw.see_beyond_heartbeats().await.unwrap();
    assert!(
        again.payload.len() < 12,
        "it refers to the first: {again:?}"
    );
    // Noise is sent as it is.
    let noise: Vec<u8> = (0..5000).map(|_| fastrand::u8(..)).collect();
    ours.send(noise.clone()).await.unwrap();
    let seen = raw.see_beyond_heartbeats().await.unwrap();
    assert_eq!((seen.reserved, seen.payload), (0, noise));
    // And back: compressed, as it is, in fragments around a ping.
    raw.say(compressed(TEXT, deflated(long.as_bytes()))).await;
    raw.say(frame(TEXT, &long)).await;
    let data = deflated(long.as_bytes());
    raw.say(Frame {
        fin: false,
        ..compressed(BINARY, &data[..10])
    })
    .await;
    raw.say(frame(PING, "between")).await;
    raw.say(frame(0, &data[10..])).await;
    assert_eq!(plain(limit(ours.recv()).await), Message::from(long.clone()));
    assert_eq!(plain(limit(ours.recv()).await), Message::from(long.clone()));
    assert_eq!(
        plain(limit(ours.recv()).await),
        Message::binary(long.into_bytes())
    );
}

/// Once a token went compressed, and its length told whoever listened whether it was like the message
/// before.
#[tokio::test]
async fn what_must_not_be_compressed_is_sent_as_it_is_and_no_later_message_refers_to_it() {
    let (ours, mut raw) = raw_server(options().fragment_bytes(20_000)).await;
    let (usual, secret, long) = (tick(7), tick(8), tick(9).repeat(100));
    ours.send(&usual).await.unwrap();
    ours.send_uncompressed(&secret).await.unwrap();
    ours.try_send_uncompressed(&long).unwrap();
    ours.send(&secret).await.unwrap();
    let first = raw.see_beyond_heartbeats().await.unwrap();
    assert_eq!((first.reserved, first.opcode), (4, TEXT));
    let seen = raw.see_beyond_heartbeats().await.unwrap();
    assert_eq!((seen.reserved, &seen.payload[..]), (0, secret.as_bytes()));
    let mut whole = Vec::new();
    while whole.len() < long.len() {
        let seen = raw.see_beyond_heartbeats().await.unwrap();
        assert_eq!(seen.reserved, 0);
        whole.extend(seen.payload);
    }
    assert_eq!(whole, long.as_bytes());
    let again = raw.see_beyond_heartbeats().await.unwrap();
    assert_eq!((again.reserved, again.opcode), (4, TEXT));
    // The peer inflates it with what it knows: the first message.
    let mut inflater = flate2::Decompress::new(false);
    let mut out = Vec::with_capacity(10_000);
    for frame in [first, again] {
        let data = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
        let done = inflater.decompress_vec(&data, &mut out, flate2::FlushDecompress::Sync);
        done.unwrap();
    }
    assert_eq!(out, [usual, secret].concat().into_bytes());
}

#[tokio::test]
async fn what_rfc_7692_forbids_ends_the_connection_with_its_code() {
    let cases: Vec<(&str, Vec<Frame>, u16)> = vec![
        ("a compressed ping", vec![compressed(PING, "")], 1002),
        (
            "a compressed close",
            vec![compressed(CLOSE, [3, 232])],
            1002,
        ),
        (
            "a compressed continuation",
            vec![
                Frame {
                    fin: false,
                    ..compressed(TEXT, b"\xf2\x48\xcd")
                },
                compressed(0, b"\xc9\xc9\x07\x00"),
            ],
            1002,
        ),
        ("invalid data", vec![compressed(BINARY, [0xff; 20])], 1002),
        (
            "a stored block cut off",
            vec![compressed(BINARY, b"\x00\x0a\x00\xf5\xffabc")],
            1002,
        ),
        ("no UTF-8", vec![compressed(TEXT, deflated(b"a\xff"))], 1007),
        (
            "too long",
            vec![compressed(BINARY, deflated(&[0; 100_001]))],
            1009,
        ),
    ];
    for (what, frames, code) in cases {
        let (mut ours, mut raw) = raw_server(options().max_message_bytes(100_000)).await;
        // A context that the refused message has spoilt is not used again.
        raw.say(compressed(TEXT, deflated(b"before"))).await;
        for frame in frames {
            raw.say(frame).await;
        }
        assert_eq!(
            plain(limit(ours.recv()).await),
            Message::from("before"),
            "{what}"
        );
        let ended = limit(ours.recv()).await;
        assert!(ended.is_err(), "{what}: {ended:?}");
        let seen = limit(raw.see_beyond_heartbeats()).await.unwrap();
        assert_eq!(seen.close_code(), Some(code), "{what}");
    }
}

/// A message of 64 KiB that is 64 MiB, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_refused_at_the_limit_while_other_connections_go_on() {
    const LIMIT: usize = 1 << 20;
    let budget = Budget::new(64 << 20);
    let options = options().max_message_bytes(LIMIT).budget(budget.clone());
    let server = echo_server(Server::builder().options(options.clone())).await;
    let bomb = deflated(&vec![0; 64 << 20]);
    assert!(bomb.len() < 70 << 10);
    let mut other = client(server.local_addr(), self::options())
        .connect()
        .await
        .unwrap();
    for _ in 0..5 {
        let (mut ours, mut raw) = raw_server(options.clone()).await;
        raw.say(compressed(BINARY, &bomb)).await;
        let ended = limit(ours.recv()).await;
        let too_large = ConnectionError::MessageTooLarge {
            size: LIMIT + 1,
            limit: LIMIT,
        };
        assert_eq!(ended.unwrap_err().to_string(), too_large.to_string());
        echoed(&mut other, &tick(1)).await;
        drop(ours);
    }
    drop((other, server));
    until("everything is given back", || budget.used() == 0).await;
}

/// The whole of each context counts in the budget while messages come, and is given back when none
/// come.
#[tokio::test]
async fn contexts_count_in_the_budget_and_an_idle_connection_gives_them_back() {
    let interval = Duration::from_millis(50);
    let budget = Budget::new(1 << 30);
    let options = options().ping_interval(interval);
    let ours = options.clone().budget(budget.clone());
    let server = bind(Server::builder().options(ours)).await;
    serve(&server, echo);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = client(
            server.local_addr(),
            options
                .clone()
                .compression(Compression::default().window_bits(15)),
        );
        clients.push(client.plain().connect().await.unwrap());
    }
    let idle = budget.used();
    for number in 0..40 {
        for client in &mut clients {
            echoed(client, &tick(number).repeat(4)).await;
        }
    }
    // 4 KiB for each direction, because the server's window is smaller than the client's.
    let busy = budget.used();
    assert!(busy >= idle + 20 * 2 * 4096, "{idle}, {busy}");
    // The ping that was sent last counts with the smallest step, and so does what the peer may still
    // refer to.
    let small = idle + 20 * 2 * 4096;
    assert!(busy > small, "{busy}, {small}");
    until("idle connections are small", || budget.used() <= small).await;
}

#[tokio::test]
async fn every_agreement_moves_every_size() {
    let server = |compression: Compression| async {
        echo_server(Server::builder().options(Options::default().compression(compression))).await
    };
    let exchange = |address: SocketAddr, compression: Compression| async move {
        let options = Options::default().compression(compression);
        let connection = client(address, options).plain().connect().await.unwrap();
        assert!(connection.is_compressed());
        let (sender, mut receiver) = connection.split();
        for len in [16, 127, 128, 4096, 70_000, 600_000] {
            let sent = async {
                numbered::send(&sender, 0..5, len).await;
                let text = tick(len as u64).repeat(len / 100 + 1);
                sender.send(text.clone()).await.unwrap();
                text
            };
            let received = async {
                numbered::receive(&mut receiver, 0..5, len).await;
                plain(limit(receiver.recv()).await)
            };
            let (text, message) = tokio::join!(sent, received);
            assert_eq!(message, Message::from(text));
        }
    };
    for bits in [8, 9, 12, 15] {
        for takeover in [true, false] {
            let compression = Compression::default()
                .window_bits(bits)
                .context_takeover(takeover)
                .smallest(0);
            let server = server(compression.clone()).await;
            let client = [compression, Compression::default().level(9)];
            for compression in client {
                limit(exchange(server.local_addr(), compression)).await;
            }
        }
    }
}
