//! A session that cannot be resumed says why, on both sides, and gives undelivered messages back.
//! Nothing is lost in silence, nothing goes to the wrong client, and nothing is tried for ever.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::common::{
    AMPLE,
    events::disconnected,
    frames::listen,
    limit,
    net::{bind, unused_address},
    numbered::{number, numbered},
    plain,
    sessions::{Raw, client, foreign, pair, quick, quick_client, text, up_to_the_loss},
    until,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{runtime::Runtime, sync::mpsc};
use unstall::{
    CloseCode, ConnectionError, Gap, Incoming, Message, Options, Principal, Rejection as Refusal,
    Server, ServerLimits, SessionLimits, SessionLoss, tokio_tungstenite::tungstenite,
};
use unstall_proto::{Hello, Packet, Rejection, Time};

/// A server in a runtime of its own. Ending it is like killing a process: nothing more is sent.
struct Process {
    runtime: Option<Runtime>,
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Message>>>,
}

impl Process {
    /// Its application receives `take` messages of each session, and then no more.
    async fn start(address: SocketAddr, take: usize) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let options = Options::default().window_bytes(256 << 10).inbox_bytes(1);
        let binding = Server::builder().options(options).bind(address);
        let server = runtime.spawn(binding).await.unwrap().unwrap();
        let address = server.local_addr();
        let log = taken.clone();
        runtime.spawn(async move {
            server
                .serve(move |mut session| {
                    let log = log.clone();
                    async move {
                        for _ in 0..take {
                            let Ok(Some(Incoming::Message(message))) = session.recv().await else {
                                return;
                            };
                            log.lock().unwrap().push(message);
                        }
                        session.send("enough").await.unwrap();
                        std::future::pending::<()>().await;
                    }
                })
                .await;
        });
        Process {
            runtime: Some(runtime),
            address,
            taken,
        }
    }

    async fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        let end = move || runtime.shutdown_timeout(AMPLE);
        tokio::task::spawn_blocking(end).await.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long each message is.
const SIZE: usize = 4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_server_everything_is_accounted_for_and_a_fresh_session_begins() {
    const SENT: u64 = 400;
    const TAKEN: u64 = 10;
    let mut process = Process::start(unused_address(), 1 + TAKEN as usize).await;
    let hooks = Arc::new(AtomicU32::new(0));
    let counted = hooks.clone();
    let mut connection = client(process.address)
        .options(Options::default().outbox_bytes(8 << 20))
        .on_connect(move |setup| {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(setup.send(format!("hook {run}")).await?) }
        })
        .connect()
        .await
        .unwrap();
    for index in 0..SENT {
        limit(connection.send(numbered(index, SIZE))).await.unwrap();
    }
    assert_eq!(text(&mut connection).await, "enough");
    process.kill().await;
    let got: Vec<_> = process.taken.lock().unwrap().clone();
    assert_eq!(got[0].as_text(), Some("hook 1"));
    let got: Vec<_> = got[1..].iter().map(number).collect();
    assert_eq!(got, (0..TAKEN).collect::<Vec<_>>());

    let again = Process::start(process.address, 2).await;
    let (messages, why) = up_to_the_loss(&mut connection).await;
    assert_eq!((messages, why), (Vec::new(), SessionLoss::Unknown));
    let (sender, mut receiver) = connection.split();
    let given_back = sender.take_undelivered();
    let numbers: Vec<_> = given_back.iter().map(|it| number(&it.message)).collect();
    // They come back whole and in order, from the first that the peer's application did not receive. Some
    // that it did receive come back too, because their acknowledgement was on its way.
    let first = numbers[0];
    assert!(first <= TAKEN, "{first} was never delivered");
    assert_eq!(numbers, (first..SENT).collect::<Vec<_>>());
    for undelivered in &given_back {
        let number = number(&undelivered.message);
        assert!(undelivered.message == numbered(number, SIZE));
        let taken = number < TAKEN;
        assert!(
            undelivered.maybe_delivered || !taken,
            "{number} is with the peer"
        );
    }
    let not_sent = given_back.iter().filter(|it| !it.maybe_delivered).count();
    let sent = given_back
        .iter()
        .take_while(|it| it.maybe_delivered)
        .count();
    assert_eq!(sent + not_sent, given_back.len(), "first the sent ones");
    // At most 256 KiB were sent, because that was the credit.
    assert!(not_sent > 300, "{not_sent} of {}", given_back.len());
    assert!(sender.take_undelivered().is_empty(), "each comes back once");

    sender.send("after").await.unwrap();
    let answer = plain(limit(receiver.recv()).await);
    assert_eq!(answer.as_text(), Some("enough"));
    let taken = again.taken.lock().unwrap().clone();
    assert_eq!(taken[0].as_text(), Some("hook 2"));
    assert_eq!(taken[1].as_text(), Some("after"));
    assert_eq!(hooks.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_without_fresh_session_stops_with_the_reason_and_the_messages() {
    let mut process = Process::start(unused_address(), 1).await;
    let mut connection = client(process.address)
        .without_fresh_session()
        .connect()
        .await
        .unwrap();
    connection.send("taken").await.unwrap();
    assert_eq!(text(&mut connection).await, "enough");
    limit(connection.delivered()).await.unwrap();
    connection.send("one").await.unwrap();
    connection.flush().await.unwrap();
    process.kill().await;
    let _again = Process::start(process.address, 1).await;
    let (_, why) = up_to_the_loss(&mut connection).await;
    assert_eq!(why, SessionLoss::Unknown);
    for _ in 0..2 {
        let end = limit(connection.recv()).await;
        assert!(matches!(
            end,
            Err(ConnectionError::SessionLost(SessionLoss::Unknown))
        ));
    }
    connection.send("two").await.expect_err("it has ended");
    let report = limit(connection.close(CloseCode::NORMAL, "")).await;
    assert_eq!(report.maybe_delivered, [Message::from("one")]);
    assert!(report.unsent.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_session_is_rejected_as_such() {
    let life = Duration::from_millis(200);
    let server = bind(Server::builder().options(Options::default().session_life(life))).await;
    let mut raw = Raw::new(server.local_addr(), 1);
    assert!(matches!(raw.attach().await, Packet::Welcome(_)));
    let mut session = limit(server.accept()).await.unwrap();
    session.send("never taken").await.unwrap();
    drop(raw.ws.take());
    let (messages, why) = up_to_the_loss(&mut session).await;
    assert_eq!((messages.len(), why), (0, SessionLoss::Expired));
    let report = limit(session.close(CloseCode::NORMAL, "")).await;
    assert_eq!(report.unsent.len() + report.maybe_delivered.len(), 1);
    assert_eq!(raw.attach().await, Packet::Reject(Rejection::Expired));
}

/// On one thread, so that the registry hears of a session's event before anything else happens.
#[tokio::test]
async fn the_session_longest_away_makes_room_and_a_full_server_says_so() {
    let server = bind(Server::builder().sessions(SessionLimits::default().sessions(2))).await;
    let mut raws: Vec<_> = (0..4).map(|id| Raw::new(server.local_addr(), id)).collect();
    let mut sessions = Vec::new();
    for raw in &mut raws[..2] {
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
        sessions.push(limit(server.accept()).await.unwrap());
    }
    let answer = raws[2].attach().await;
    assert!(matches!(
        answer,
        Packet::Reject(Rejection::Full {
            retry_after_millis: 1..
        })
    ));

    for (index, session) in sessions.iter().enumerate() {
        let mut events = session.events();
        drop(raws[index].ws.take());
        disconnected(&mut events).await;
    }
    assert!(matches!(raws[3].attach().await, Packet::Welcome(_)));
    let (_, why) = up_to_the_loss(&mut sessions[0]).await;
    assert_eq!(why, SessionLoss::Evicted);
    assert_eq!(raws[0].attach().await, Packet::Reject(Rejection::Expired));
    assert!(
        matches!(raws[1].attach().await, Packet::Welcome(_)),
        "it stayed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_without_a_connection_that_keeps_much_goes_before_others_wait() {
    let limits = ServerLimits::default()
        .process_bytes(1 << 20)
        .bytes_per_address(1 << 20);
    let server = bind(Server::builder().limits(limits)).await;
    let mut away = Raw::new(server.local_addr(), 1);
    assert!(matches!(away.attach().await, Packet::Welcome(_)));
    let mut session = limit(server.accept()).await.unwrap();
    for _ in 0..8 {
        limit(session.send(vec![7; 50 << 10])).await.unwrap();
    }
    // Received, and never acknowledged.
    for _ in 0..4 {
        away.read().await.expect("data");
    }
    let mut events = session.events();
    drop(away.ws.take());
    disconnected(&mut events).await;
    let mut other = Raw::new(server.local_addr(), 2);
    assert!(matches!(other.attach().await, Packet::Welcome(_)));
    let served = limit(server.accept()).await.unwrap();
    tokio::spawn(async move { while served.send(vec![7; 50 << 10]).await.is_ok() {} });
    let (_, why) = up_to_the_loss(&mut session).await;
    assert_eq!(why, SessionLoss::Evicted);
    let report = limit(session.close(CloseCode::NORMAL, "")).await;
    assert_eq!(report.unsent.len() + report.maybe_delivered.len(), 8);
    assert_eq!(away.attach().await, Packet::Reject(Rejection::Expired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_principal_gets_nothing_even_with_the_token() {
    let server = bind(Server::builder().authenticate(|mut request| async move {
        let user = request.headers().get("x-user").cloned();
        let user = user.ok_or_else(|| Refusal::unauthorized("who are you?"))?;
        let user = Principal::new(user.to_str().unwrap());
        request.extensions_mut().insert(user);
        Ok(request)
    }))
    .await;
    let mut alice = Raw::new(server.local_addr(), 1).header("x-user", "alice");
    assert!(matches!(alice.attach().await, Packet::Welcome(_)));
    let session = limit(server.accept()).await.unwrap();
    let mut bob = Raw::new(server.local_addr(), 1).header("x-user", "bob");
    bob.session = alice.session.clone();
    assert_eq!(bob.attach().await, Packet::Reject(Rejection::NotYours));
    session.send("for alice").await.unwrap();
    assert!(
        bob.read_to_end().await.is_empty(),
        "nothing after the rejection"
    );
    let data = Packet::decode(alice.read().await.unwrap()).unwrap();
    assert!(
        matches!(data, Packet::Data { .. }),
        "her connection is untouched"
    );
    drop(alice.ws.take());
    assert!(matches!(alice.attach().await, Packet::Welcome(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_stale_and_replayed_tokens_are_rejected() {
    let server = bind(Server::builder()).await;
    let mut owner = Raw::new(server.local_addr(), 1);
    assert!(matches!(owner.attach().await, Packet::Welcome(_)));
    let session = limit(server.accept()).await.unwrap();

    // One bit of the token is wrong, and nothing else.
    let mut wrong = owner.thief();
    wrong.connect().await;
    let generation = wrong.session.attach(Time::ORIGIN).unwrap();
    let hello = wrong
        .session
        .poll_transmit(Time::ORIGIN, generation)
        .unwrap();
    for bit in [0, 7, 64, 127] {
        let mut forged = hello.to_vec();
        forged[17 + bit / 8] ^= 1 << (bit % 8);
        wrong.connect().await;
        wrong.write(forged.into()).await;
        let answers = wrong.read_to_end().await;
        assert_eq!(answers, [Packet::Reject(Rejection::NotYours)], "bit {bit}");
    }

    // The owner comes back. Until it confirms the new token, the old one opens no newer generation.
    let mut stale = owner.thief();
    drop(owner.ws.take());
    assert!(matches!(owner.attach().await, Packet::Welcome(_)));
    let mut replayed = owner.thief();
    replayed.connect().await;
    replayed.write(hello.clone()).await;
    let answers = replayed.read_to_end().await;
    assert_eq!(answers, [Packet::Reject(Rejection::Superseded)]);

    // The new token is confirmed. The old one is refused, whatever the generation.
    owner.session.ping();
    owner.flush().await;
    assert!(matches!(
        Packet::decode(owner.read().await.unwrap()),
        Ok(Packet::Pong(_))
    ));
    stale.session.attach(Time::ORIGIN);
    stale.session.attach(Time::ORIGIN);
    assert_eq!(stale.attach().await, Packet::Reject(Rejection::NotYours));

    session.send("still the owner's").await.unwrap();
    let data = Packet::decode(owner.read().await.unwrap()).unwrap();
    assert!(matches!(data, Packet::Data { .. }));
    // They are counted after the answers.
    until("all are counted", || {
        let stats = server.stats();
        (stats.sessions_resumed, stats.refused.sessions) == (1, 6)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_hello_opens_nothing() {
    let server = bind(Server::builder()).await;
    let mut raw = Raw::new(server.local_addr(), 1);
    let generation = raw.session.attach(Time::ORIGIN).unwrap();
    let hello = raw.session.poll_transmit(Time::ORIGIN, generation).unwrap();
    assert!(Hello::from_packet(hello.clone()).is_ok());
    let mut refused = 0;
    for length in 0..hello.len() {
        raw.connect().await;
        raw.write(hello.slice(..length)).await;
        assert!(
            raw.read_to_end().await.is_empty(),
            "{length} bytes were answered"
        );
        refused += 1;
    }
    println!("{refused} of {} truncated HELLOs refused", hello.len());
    let stats = server.stats();
    assert_eq!(stats.handshakes.failed, hello.len() as u64);
    raw.connect().await;
    raw.write(hello).await;
    let answer = Packet::decode(raw.read().await.unwrap()).unwrap();
    assert!(matches!(answer, Packet::Welcome(_)));
}

/// SPEC.md section 2: every packet is a binary message. Once HELLO was accepted as a text message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_as_text_opens_nothing() {
    let server = bind(Server::builder()).await;
    let mut raw = Raw::new(server.local_addr(), 1);
    raw.connect().await;
    // The bytes of HELLO can be text, if its numbers are small.
    let mut hello = vec![1];
    hello.extend([b'i'; 16]);
    hello.extend([b't'; 16]);
    for number in [0_u64, 1, 0, 0, 1 << 20, 1 << 16] {
        hello.extend(number.to_be_bytes());
    }
    assert!(Hello::from_packet(hello.clone().into()).is_ok());
    let text = String::from_utf8(hello).unwrap();
    let ws = raw.ws.as_mut().unwrap();
    ws.send(tungstenite::Message::text(text)).await.unwrap();
    let answer = limit(ws.next()).await.unwrap().unwrap();
    let tungstenite::Message::Close(Some(close)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(u16::from(close.code), 1002);
    until("it is counted", || server.stats().handshakes.failed == 1).await;
    assert_eq!(server.stats().sessions, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_with_the_same_token_at_once_one_is_the_owner() {
    for round in 0..20 {
        let server = bind(Server::builder()).await;
        let mut first = Raw::new(server.local_addr(), 1);
        assert!(matches!(first.attach().await, Packet::Welcome(_)));
        let session = limit(server.accept()).await.unwrap();
        let (mut one, mut two) = (first.thief(), first.thief());
        let answers = tokio::join!(one.attach(), two.attach());
        let (mut owner, mut other) = match answers {
            (Packet::Welcome(_), Packet::Reject(Rejection::Superseded)) => (one, two),
            (Packet::Reject(Rejection::Superseded), Packet::Welcome(_)) => (two, one),
            both => panic!("round {round}: {both:?}"),
        };
        session.send("secret").await.unwrap();
        assert!(other.read_to_end().await.is_empty());
        assert!(
            first.read_to_end().await.is_empty(),
            "the older one is fenced"
        );
        let data = Packet::decode(owner.read().await.unwrap()).unwrap();
        assert!(matches!(data, Packet::Data { .. }));
    }
}

/// Two connections of one new session may arrive at the same moment: the first is cut in its HELLO, and
/// the client is back immediately. Once both opened a session. The second replaced the first in the
/// registry, and the end of the first removed the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_first_connections_of_one_session_make_one_session() {
    for round in 0..50 {
        let server = bind(Server::builder()).await;
        let mut one = Raw::new(server.local_addr(), 1);
        let mut two = one.thief();
        two.session.attach(Time::ORIGIN);
        let answers = tokio::join!(one.try_attach(), two.attach());
        assert!(
            matches!(answers.1, Packet::Welcome(_)),
            "round {round}: the newer one goes on: {answers:?}"
        );
        let session = limit(server.accept()).await.unwrap();
        session.send("to the newer one").await.unwrap();
        let data = Packet::decode(two.read().await.unwrap()).unwrap();
        assert!(matches!(data, Packet::Data { .. }));
        let more = tokio::time::timeout(Duration::from_millis(5), server.accept()).await;
        assert!(more.is_err(), "round {round}: a second session");
    }
}

/// A server of sessions that rejects each HELLO.
async fn rejecting(rejection: Rejection) -> (SocketAddr, mpsc::UnboundedReceiver<Instant>) {
    let (listener, address) = listen().await;
    let (attempts, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // The test may have ended, and the client with it.
            let _ = attempts.send(Instant::now());
            let mut ws = foreign(tcp, true).await.unwrap();
            let _hello = ws.next().await;
            let packet = tungstenite::Message::Binary(rejection.to_packet());
            let _ = ws.send(packet).await;
            let _ = ws.close(None).await;
            while let Some(Ok(_)) = ws.next().await {}
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_never_loop() {
    for rejection in [
        Rejection::Unknown,
        Rejection::Expired,
        Rejection::NotYours,
        Rejection::Inconsistent,
        Rejection::Other(99),
        Rejection::Full {
            retry_after_millis: 1,
        },
    ] {
        let (address, mut attempts) = rejecting(rejection).await;
        let mut connection = client(address)
            .reconnect(quick().attempts(4))
            .connect()
            .await
            .unwrap();
        connection.send("for nobody").await.unwrap();
        let end = limit(connection.recv()).await;
        assert!(end.is_err(), "{rejection}: {end:?}");
        let report = limit(connection.close(CloseCode::NORMAL, "")).await;
        assert_eq!(report.unsent, [Message::from("for nobody")], "{rejection}");
        let mut count = 0;
        while attempts.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 4, "{rejection}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_server_is_asked_again_when_it_said() {
    let wait = Duration::from_millis(400);
    let full = Rejection::Full {
        retry_after_millis: wait.as_millis() as u64,
    };
    let (address, mut attempts) = rejecting(full).await;
    let connection = client(address).connect().await.unwrap();
    let mut last = limit(attempts.recv()).await.unwrap();
    for _ in 0..2 {
        let next = limit(attempts.recv()).await.unwrap();
        assert!(next - last >= wait, "after {:?}", next - last);
        last = next;
    }
    drop(connection);
}

/// Once messages of a lost session that the application received late counted as taken from the next
/// session. So the next session's first messages were acknowledged before anybody received them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_session_left_acknowledges_nothing_of_the_next() {
    // The server waits this long for what the client does not receive of the first session.
    let options = Options::default().close_timeout(Duration::from_millis(300));
    let server = bind(Server::builder().options(options)).await;
    let (mut client, first) = pair(&server, client(server.local_addr())).await;
    for index in 0..5 {
        first.send(format!("old {index}")).await.unwrap();
    }
    first.flush().await.unwrap();
    until("they came", || client.stats().inbox.messages == 5).await;
    // The server's pump vanishes, so the client's next resume finds no session.
    drop(first);
    let second = limit(server.accept()).await.unwrap();
    for index in 0..5 {
        second.send(format!("new {index}")).await.unwrap();
    }
    second.flush().await.unwrap();
    until("they came", || client.stats().inbox.messages >= 10).await;
    for index in 0..5 {
        assert_eq!(text(&mut client).await, format!("old {index}"));
    }
    let gap = limit(client.recv()).await;
    assert!(
        matches!(gap, Ok(Some(Incoming::Gap(Gap::SessionLost { .. })))),
        "{gap:?}"
    );
    // This is longer than the time for which an acknowledgement is delayed.
    let early = tokio::time::timeout(Duration::from_millis(300), second.delivered()).await;
    assert!(
        early.is_err(),
        "acknowledged before it was taken: {early:?}"
    );
    for index in 0..5 {
        assert_eq!(text(&mut client).await, format!("new {index}"));
    }
    let (_, delivered) = tokio::join!(
        tokio::time::timeout(Duration::from_millis(100), client.recv()),
        limit(second.delivered())
    );
    delivered.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_no_longer_offers_sessions_is_gone_on_with_plainly() {
    let mut process = Process::start(unused_address(), 1).await;
    let mut connection = quick_client(process.address).connect().await.unwrap();
    assert!(connection.is_session());
    connection.send("one").await.unwrap();
    assert_eq!(text(&mut connection).await, "enough");
    process.kill().await;
    let plain = Server::builder()
        .plain()
        .bind(process.address)
        .await
        .unwrap();
    let (_, why) = up_to_the_loss(&mut connection).await;
    assert_eq!(why, SessionLoss::NotOffered);
    let mut peer = limit(plain.accept()).await.unwrap();
    connection.send("plainly").await.unwrap();
    assert_eq!(text(&mut peer).await, "plainly");
    assert!(!connection.is_session());
}

/// Once a client that sent a text message, or a packet of no known kind, was not told by ABORT and
/// not closed with 1002, and after a text message its session lived on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_the_protocol_is_told_so_and_its_session_is_over() {
    let text = tungstenite::Message::text("hello");
    let unknown = tungstenite::Message::Binary(vec![5].into());
    for broken in [text, unknown] {
        let server = bind(Server::builder()).await;
        let mut raw = Raw::new(server.local_addr(), 1);
        assert!(matches!(raw.attach().await, Packet::Welcome(_)));
        let mut session = limit(server.accept()).await.unwrap();
        let ws = raw.ws.as_mut().unwrap();
        ws.send(broken.clone()).await.unwrap();
        let (mut aborted, mut code) = (false, None);
        while let Some(Ok(message)) = limit(ws.next()).await {
            match message {
                tungstenite::Message::Binary(packet) => {
                    aborted |= matches!(Packet::decode(packet), Ok(Packet::Abort { .. }));
                }
                tungstenite::Message::Close(close) => code = close.map(|it| u16::from(it.code)),
                _ => {}
            }
        }
        assert!(aborted, "{broken:?}");
        assert_eq!(code, Some(1002), "{broken:?}");
        let (messages, loss) = up_to_the_loss(&mut session).await;
        assert!(messages.is_empty());
        assert!(matches!(loss, SessionLoss::Refused(_)), "{loss:?}");
        until("it is forgotten", || server.stats().sessions == 0).await;
        let again = raw.attach().await;
        assert!(matches!(again, Packet::Reject(_)), "{again:?}");
    }
}

/// What the session that was lost had no room for goes on with the next one; what it had accepted
/// comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_room_in_a_lost_session_goes_on_with_the_next() {
    const SENT: u64 = 500;
    let mut process = Process::start(unused_address(), 0).await;
    // The replay has room for a message of the largest size at least.
    let options = Options::default()
        .max_message_bytes(64 << 10)
        .replay_bytes(512 << 10)
        .outbox_bytes(8 << 20);
    let client = client(process.address).options(options);
    let mut connection = client.connect().await.unwrap();
    for index in 0..SENT {
        limit(connection.send(numbered(index, SIZE))).await.unwrap();
    }
    assert_eq!(text(&mut connection).await, "enough");
    process.kill().await;
    let again = Process::start(process.address, SENT as usize).await;
    up_to_the_loss(&mut connection).await;
    let (sender, _receiver) = connection.split();
    let back = sender.take_undelivered();
    let back: Vec<_> = back.iter().map(|it| number(&it.message)).collect();
    assert_eq!(back, (0..back.len() as u64).collect::<Vec<_>>());
    assert!(back.len() < SENT as usize / 2, "{} came back", back.len());
    let rest = SENT as usize - back.len();
    until("the rest arrives", || {
        again.taken.lock().unwrap().len() == rest
    })
    .await;
    let taken = again.taken.lock().unwrap().clone();
    let taken: Vec<_> = taken.iter().map(number).collect();
    assert_eq!(taken, (back.len() as u64..SENT).collect::<Vec<_>>());
}
