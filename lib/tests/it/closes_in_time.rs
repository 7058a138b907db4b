//! Closing ends in time whatever the peer does. Accepted messages are delivered or come back, and the
//! report says which.

use crate::common::{
    accept, client,
    events::{event, stalled, waits},
    frames::{BINARY, CLOSE, Frame, RawPeer, StreamEnd, TEXT, close, frame, listen},
    limit,
    memory::ENGINES,
    pair, plain, raw, until,
};
use futures_util::SinkExt;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use unstall::{
    CloseCode, CloseReport, Connection, ConnectionError, Event, Message, Options, SendRefusal,
    StallCause, TrySendError,
    defaults::LINGER_TIMEOUT,
    rustls,
    tokio_tungstenite::{self, tungstenite::protocol::Role},
};

const CLOSE_TIMEOUT: Duration = Duration::from_millis(700);

fn options() -> Options {
    Options::default().close_timeout(CLOSE_TIMEOUT)
}

/// Over TCP, both engines: the library's own as a client, and an adopted stream on the server's side.
async fn over_tcp(adopted: bool, options: Options) -> (Connection, RawPeer) {
    match adopted {
        true => raw::adopted(Role::Server, options).await,
        false => raw::client(options).await,
    }
}

/// Closes. Returns the report, and how long it took.
async fn closed(connection: &Connection) -> (CloseReport, Duration) {
    let started = Instant::now();
    let report = limit(connection.close(CloseCode::NORMAL, "")).await;
    (report, started.elapsed())
}

/// After the end, sends fail immediately and return the message and the reason.
fn refuses(connection: &Connection, expected: fn(&ConnectionError) -> bool) {
    let Err(TrySendError::Refused(error)) = connection.try_send("too late") else {
        panic!("taken after close, or only put off");
    };
    assert_eq!(error.message, Message::from("too late"));
    let SendRefusal::Ended(why) = error.reason else {
        panic!("{error}");
    };
    assert!(expected(&why), "{why:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_close_and_both_get_everything_sent_before() {
    for client_closes in [true, false] {
        let (listener, address) = listen().await;
        let (client, server) = tokio::join!(
            client(address, options()).connect(),
            accept(&listener, options())
        );
        let (closer, mut other) = match client_closes {
            true => (client.unwrap(), server),
            false => (server, client.unwrap()),
        };
        for index in 0..1000 {
            closer.send(format!("message {index}")).await.unwrap();
        }
        let receive = async {
            for index in 0..1000 {
                assert_eq!(
                    plain(other.recv().await).as_text(),
                    Some(&*format!("message {index}"))
                );
            }
            assert!(matches!(other.recv().await, Ok(None)));
        };
        let close = closer.close(CloseCode::NORMAL, "done");
        let (report, ()) = limit(async { tokio::join!(close, receive) }).await;
        assert!(report.clean && report.unsent.is_empty(), "{report:?}");
        assert_eq!(report.peer.unwrap().reason, "done");
        refuses(&closer, |why| matches!(why, ConnectionError::ClosedHere));
        let (other, _) = other.split();
        let report = limit(other.ended()).await;
        assert!(report.clean && report.error.is_none(), "{report:?}");
        assert_eq!(report.peer.unwrap().reason, "done");
        assert!(other.try_send("too late").is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_may_close_at_once() {
    for _ in 0..50 {
        let (client, server) = pair(options()).await;
        let both = async {
            tokio::join!(
                client.close(CloseCode::NORMAL, "client"),
                server.close(CloseCode::NORMAL, "server")
            )
        };
        let (client, server) = limit(both).await;
        assert!(client.clean && server.clean, "{client:?} {server:?}");
    }
}

async fn never_answers<S>(connection: Connection, mut raw: RawPeer<S>) -> Duration
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connection.send("accepted").await.unwrap();
    let (report, took) = closed(&connection).await;
    assert!(!report.clean && report.peer.is_none(), "{report:?}");
    assert!(
        report.unsent.is_empty() && report.in_flight == 0,
        "{report:?}"
    );
    assert_eq!(raw.see().await.unwrap().payload, b"accepted");
    assert_eq!(raw.see().await.unwrap().close_code(), Some(1000));
    refuses(&connection, |why| {
        matches!(why, ConnectionError::ClosedHere)
    });
    took
}

#[tokio::test(start_paused = true)]
async fn peer_that_never_answers_does_not_hold_the_close_up() {
    for engine in ENGINES {
        let (connection, raw) = engine.before_raw(options()).await;
        assert_eq!(never_answers(connection, raw).await, CLOSE_TIMEOUT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_never_answers_does_not_hold_the_close_up() {
    let (connection, raw) = raw::client(options()).await;
    assert!(never_answers(connection, raw).await >= CLOSE_TIMEOUT);
}

async fn does_not_read<S>(connection: Connection, mut raw: RawPeer<S>) -> Duration
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const MESSAGES: u64 = 200;
    const SIZE: usize = 64 << 10;
    for number in 0..MESSAGES {
        let message = vec![number as u8; SIZE];
        connection.send(message).await.unwrap();
    }
    let (report, took) = closed(&connection).await;
    assert!(!report.clean);
    let unsent = report.unsent.iter().map(|message| message.as_bytes()[0]);
    let unsent: Vec<_> = unsent.map(u64::from).collect();
    let sent = connection.stats().messages_sent;
    // Messages were sent in order, and none is missing between them and those that came back.
    let first = sent + report.in_flight;
    assert_eq!(unsent, (first..MESSAGES).collect::<Vec<_>>());
    assert!(!unsent.is_empty());
    let mut arrived = Vec::new();
    // The stream may end with a reset.
    let _ = raw.io.read_to_end(&mut arrived).await;
    assert!(arrived.len() as u64 >= sent * SIZE as u64);
    took
}

#[tokio::test(start_paused = true)]
async fn peer_that_does_not_read_does_not_hold_the_close_up_and_the_rest_comes_back() {
    for engine in ENGINES {
        let (connection, raw) = engine.before_raw(options().outbox_bytes(64 << 20)).await;
        assert_eq!(does_not_read(connection, raw).await, CLOSE_TIMEOUT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_does_not_read_does_not_hold_the_close_up_and_the_rest_comes_back() {
    let (connection, raw) = raw::client(options().outbox_bytes(64 << 20)).await;
    assert!(does_not_read(connection, raw).await >= CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn full_inbox_of_a_stopped_application_does_not_hold_the_close_up() {
    for engine in ENGINES {
        let options = options().inbox_bytes(16 << 10);
        let (connection, mut raw) = engine.before_raw(options).await;
        let flood = tokio::spawn(async move {
            let mut bytes = frame(BINARY, vec![1; 64 << 10]);
            bytes.masked = true;
            let bytes = bytes.encode();
            while raw.io.write_all(&bytes).await.is_ok() {}
        });
        stalled(&mut connection.events(), StallCause::ApplicationNotReading).await;
        let (report, took) = closed(&connection).await;
        assert!(
            !report.clean && took == CLOSE_TIMEOUT,
            "{took:?} {report:?}"
        );
        limit(flood).await.unwrap();
    }
}

/// Once the close waited for the peer's FIN until the deadline, and was then reported as unclean.
async fn leaves_its_stream_open<S>(connection: Connection, mut raw: RawPeer<S>) -> Duration
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = async {
        assert_eq!(raw.see().await.unwrap().close_code(), Some(1000));
        raw.say(close(1000, "")).await;
    };
    let ((report, took), ()) = tokio::join!(closed(&connection), answer);
    assert!(report.clean, "{report:?}");
    assert_eq!(raw.see().await, Err(StreamEnd::Fin));
    took
}

#[tokio::test(start_paused = true)]
async fn close_is_clean_though_the_peer_leaves_its_connection_open() {
    for engine in ENGINES {
        let (connection, raw) = engine.before_raw(Options::default()).await;
        assert!(leaves_its_stream_open(connection, raw).await <= LINGER_TIMEOUT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_is_clean_though_the_peer_leaves_its_tcp_connection_open() {
    for adopted in [false, true] {
        let options = Options::default().close_timeout(Duration::from_secs(20));
        let (connection, raw) = over_tcp(adopted, options).await;
        assert!(leaves_its_stream_open(connection, raw).await < Duration::from_secs(15));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_half_closes_without_a_close_frame_is_an_error() {
    for adopted in [false, true] {
        let (mut connection, mut raw) = over_tcp(adopted, options()).await;
        raw.say(frame(TEXT, "last")).await;
        raw.io.shutdown().await.unwrap();
        assert_eq!(plain(connection.recv().await), Message::from("last"));
        let end = limit(connection.recv()).await;
        assert!(matches!(end, Err(ConnectionError::EndOfStream)), "{end:?}");
        refuses(&connection, |why| {
            matches!(why, ConnectionError::EndOfStream)
        });
        let again = connection.recv().await;
        assert!(
            matches!(again, Err(ConnectionError::EndOfStream)),
            "{again:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_half_closes_after_its_close_frame_gets_the_answer() {
    for adopted in [false, true] {
        let (mut connection, mut raw) = over_tcp(adopted, options()).await;
        raw.say(close(1000, "bye")).await;
        raw.io.shutdown().await.unwrap();
        assert!(matches!(limit(connection.recv()).await, Ok(None)));
        assert_eq!(raw.see().await.unwrap().close_code(), Some(1000));
        assert_eq!(raw.see().await, Err(StreamEnd::Fin));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_resets_is_an_error_of_the_socket() {
    for adopted in [false, true] {
        let (mut connection, raw) = over_tcp(adopted, options()).await;
        raw.io.set_zero_linger().unwrap();
        drop(raw);
        let end = limit(connection.recv()).await;
        assert!(matches!(end, Err(ConnectionError::Io(_))), "{end:?}");
        refuses(&connection, |why| matches!(why, ConnectionError::Io(_)));
    }
}

/// A peer that closes before it has read our heartbeats resets the connection. Once the next
/// heartbeat failed and ended everything. What the peer had sent before was lost if the application
/// was slow to receive it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_peer_sent_before_it_reset_is_still_received() {
    // These messages fit into the first receive window. A peer that resets would drop the rest.
    const COUNT: u8 = 12;
    const PING_INTERVAL: Duration = Duration::from_millis(50);
    let options = options().inbox_bytes(8 << 10).ping_interval(PING_INTERVAL);
    let (mut connection, mut raw) = raw::client(options).await;
    for index in 0..COUNT {
        raw.say(frame(BINARY, vec![index; 4 << 10])).await;
    }
    raw.say(close(4000, "that was all")).await;
    // A heartbeat is unread.
    raw.io.readable().await.unwrap();
    drop(raw);
    // The application is slow for ten heartbeats, of which the first meets the reset.
    tokio::time::sleep(10 * PING_INTERVAL).await;
    let receive = async {
        for index in 0..COUNT {
            assert_eq!(plain(connection.recv().await).as_bytes()[0], index);
        }
        connection.recv().await
    };
    let end = limit(receive).await;
    let Err(ConnectionError::ClosedByPeer(close)) = &end else {
        panic!("{end:?}");
    };
    assert_eq!(close.reason, "that was all");
}

#[tokio::test(start_paused = true)]
async fn dropped_handles_write_what_was_sent_and_close() {
    for engine in ENGINES {
        let room = Options::default().outbox_bytes(4 << 20);
        let (connection, mut raw) = engine.before_raw(room).await;
        let payload = vec![3; 3 << 20];
        connection.send(payload.clone()).await.unwrap();
        connection.send("last words").await.unwrap();
        let (sender, receiver) = connection.split();
        drop(receiver);
        // Dropping the receiver does not close the connection while a sender is left.
        sender.send("even these").await.unwrap();
        drop(sender);
        let mut received = Vec::new();
        let end = limit(async {
            loop {
                let seen = raw.see_beyond_heartbeats().await.unwrap();
                if seen.opcode == CLOSE {
                    raw.say(close(1001, "")).await;
                    return seen.close_code();
                }
                received.extend_from_slice(&seen.payload);
            }
        })
        .await;
        assert_eq!(end, Some(1001));
        assert_eq!(received.len(), payload.len() + "last wordseven these".len());
        assert!(received.ends_with(b"last wordseven these"));
        assert_eq!(limit(raw.see()).await, Err(StreamEnd::Fin));
    }
}

/// A client and a server configuration that trust each other.
fn tls() -> (Arc<rustls::ClientConfig>, Arc<rustls::ServerConfig>) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    (Arc::new(client), Arc::new(server))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_last_message_and_the_close_leave_the_tls_buffer_too() {
    let (client_tls, server_tls) = tls();
    // The reader takes little before it reads, so that the writer's socket is full.
    let options = || Options::default().inbox_bytes(64 << 10);
    for client_closes in [true, false] {
        let (listener, address) = listen().await;
        let server_tls = server_tls.clone();
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(server_tls);
            let tls = acceptor.accept(tcp).await.unwrap();
            let stream = tokio_tungstenite::accept_async(tls).await.unwrap();
            Connection::from_websocket(stream, options())
        };
        let dial = unstall::Client::new(format!("wss://localhost:{}", address.port()))
            .tls(client_tls.clone())
            .options(options())
            .without_reconnect()
            .connect();
        let (client, server) = limit(async { tokio::join!(dial, serve) }).await;
        let (closer, mut other) = match client_closes {
            true => (client.unwrap(), server),
            false => (server, client.unwrap()),
        };
        // More than the kernel's buffers take, so that TLS has to keep some of it.
        const COUNT: usize = 60;
        let send = async {
            for index in 0..COUNT {
                closer.send(vec![index as u8; 200 << 10]).await.unwrap();
            }
            closer.flush().await.unwrap();
            closer.close(CloseCode::NORMAL, "over TLS").await
        };
        let receive = async {
            until("the socket is full", || {
                waits(&closer.stats(), StallCause::SocketFull)
            })
            .await;
            for index in 0..COUNT {
                assert_eq!(plain(other.recv().await).as_bytes()[0], index as u8);
            }
            assert!(matches!(other.recv().await, Ok(None)));
        };
        let (report, ()) = limit(async { tokio::join!(send, receive) }).await;
        assert!(report.clean && report.unsent.is_empty(), "{report:?}");
    }
}

/// Once a peer that sent and closed at once hid what was accepted for it after its close frame: it
/// was never written, the sink's `close` said `Ok`, no report had it, and `flush` blamed this side
/// for the peer's close.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_after_the_peers_close_is_told_by_the_sink_and_the_report() {
    for engine in ENGINES {
        let (ours, mut raw) = engine.before_raw(Options::default()).await;
        let mut events = ours.events();
        let (sender, mut receiver) = ours.split();
        let mut bytes = Vec::new();
        for said in [frame(TEXT, "one"), frame(TEXT, "two"), close(1000, "")] {
            let masked = raw.is_client;
            bytes.extend(Frame { masked, ..said }.encode());
        }
        raw.io.write_all(&bytes).await.unwrap();
        event(&mut events, |event| matches!(event, Event::PeerClosed(_))).await;
        let mut sink = sender.sink();
        for expected in ["one", "two"] {
            let message = plain(receiver.recv().await);
            assert_eq!(message.as_text(), Some(expected));
            sink.feed(message).await.unwrap();
        }
        let flushed = limit(sender.flush()).await.unwrap_err();
        assert!(
            matches!(*flushed.reason, ConnectionError::ClosedByPeer(_)),
            "{flushed}, {engine:?}"
        );
        let closed = limit(sink.close()).await;
        assert!(
            matches!(closed, Err(ConnectionError::Undelivered { messages: 2 })),
            "{closed:?}, {engine:?}"
        );
        let report = limit(sender.ended()).await;
        assert!(!report.clean, "{engine:?}");
        assert_eq!(report.unsent, ["one", "two"].map(Message::from));
    }
}
