//! A process is killed in the middle of a stream. The other side notices within the life of the session.
//! Each message that was not acknowledged comes back, once and in order.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use crate::common::{
    events::event,
    limit,
    numbered::{number, numbered},
    plain,
    process::{Process, is, play, say, setting},
    until,
};
use unstall::{
    Client, CloseCode, CloseReport, Connection, Event, Gap, Incoming, Options, Receiver, Reconnect,
    Sender, Server,
};

const LIFE: Duration = Duration::from_secs(2);

fn options() -> Options {
    Options::default().session_life(LIFE)
}

fn client(url: &str) -> Client {
    Client::new(url)
        .require_session()
        .options(options())
        .reconnect(Reconnect::default().max(Duration::from_millis(200)))
}

/// The killed process: it writes the number of each message to a file before it acknowledges it.
async fn note_and_acknowledge(mut session: Connection) {
    let mut file = std::fs::File::create(setting::<String>("FILE")).unwrap();
    loop {
        let message = plain(session.recv().await);
        file.write_all(&message.as_bytes()[..8]).unwrap();
        session.acknowledge();
    }
}

#[test]
#[ignore = "the other process of the tests below"]
fn server() {
    if is("server") {
        play(|_| async {
            let builder = Server::builder().options(options().acknowledge_by_hand(true));
            let server = builder.bind("127.0.0.1:0").await.unwrap();
            say(format!("listens {}", server.local_addr()));
            note_and_acknowledge(server.accept().await.unwrap()).await;
        });
    }
}

#[test]
#[ignore = "the other process of the tests below"]
fn peer() {
    if is("peer") {
        play(|_| async {
            let client = client(&setting::<String>("URL"));
            let client = client.options(options().acknowledge_by_hand(true));
            note_and_acknowledge(client.connect().await.unwrap()).await;
        });
    }
}

/// Sends numbered messages until sending fails. Returns how many were accepted.
async fn send_all(sender: Sender) -> u64 {
    for index in 0_u64.. {
        if sender.send(numbered(index, 100)).await.is_err() {
            return index;
        }
    }
    unreachable!()
}

/// How many messages the killed process wrote down. They are the first ones.
fn noted(file: &std::path::Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    let numbers: Vec<_> = bytes
        .chunks_exact(8)
        .map(|number| u64::from_be_bytes(number.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    numbers.len() as u64
}

/// Compares the messages that came back with those accepted and those that the killed process noted.
fn check(report: &CloseReport, accepted: u64, noted: u64) {
    let back: Vec<_> = report
        .maybe_delivered
        .iter()
        .chain(&report.unsent)
        .map(number)
        .collect();
    let first = *back.first().expect("something came back");
    println!(
        "{accepted} accepted, {noted} noted; came back: {} maybe delivered, {} not sent, from {first}",
        report.maybe_delivered.len(),
        report.unsent.len()
    );
    assert_eq!(
        back,
        (first..accepted).collect::<Vec<_>>(),
        "each, in order, once"
    );
    assert!(
        first <= noted,
        "what was neither noted nor given back is lost: {first} > {noted}"
    );
    let certain = report.unsent.first().map_or(accepted, number);
    assert!(certain >= noted, "{certain} was noted, so it was sent");
}

/// Checks that the gap of the lost session comes next in the stream.
async fn marks_the_loss(receiver: &mut Receiver) {
    let gap = limit(receiver.recv()).await;
    assert!(
        matches!(gap, Ok(Some(Incoming::Gap(Gap::SessionLost { .. })))),
        "{gap:?}"
    );
}

/// Waits until many messages are written down.
async fn until_noted(file: &std::path::Path) {
    until("the messages flow", || {
        std::fs::metadata(file).is_ok_and(|file| file.len() > 8 * 5000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_of_a_killed_server_gets_back_exactly_what_is_undelivered() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("noted");
    let setting = ("FILE", file.display().to_string());
    let mut server = Process::spawn(module_path!(), "server", &[setting]);
    let url = format!("ws://{}/", server.hear("listens").await);
    // Without this it would try to begin a fresh session. Here the loss has to be the end.
    let session = client(&url).connect().await.unwrap();
    let mut events = session.events();
    let (sender, mut receiver) = session.split();
    let sending = tokio::spawn(send_all(sender.clone()));
    until_noted(&file).await;
    server.kill().await;
    let killed = Instant::now();
    event(&mut events, |event| {
        matches!(event, Event::SessionLost { .. })
    })
    .await;
    let known = killed.elapsed();
    println!("known after {known:?}");
    assert!(known < LIFE + Duration::from_secs(5), "{known:?}");
    marks_the_loss(&mut receiver).await;
    let report = limit(sender.close(CloseCode::NORMAL, "")).await;
    let accepted = sending.await.unwrap();
    check(&report, accepted, noted(&file));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_of_a_killed_client_gets_back_exactly_what_is_undelivered() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("noted");
    let server = Server::builder()
        .options(options())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let url = format!("ws://{}/", server.local_addr());
    let settings = [("FILE", file.display().to_string()), ("URL", url)];
    let mut peer = Process::spawn(module_path!(), "peer", &settings);
    let (sender, mut receiver) = limit(server.accept()).await.unwrap().split();
    let sending = tokio::spawn(send_all(sender.clone()));
    until_noted(&file).await;
    peer.kill().await;
    let killed = Instant::now();
    marks_the_loss(&mut receiver).await;
    let known = killed.elapsed();
    println!("known after {known:?}");
    assert!(known < LIFE + Duration::from_secs(5), "{known:?}");
    assert!(limit(receiver.recv()).await.is_err());
    let report = limit(sender.ended()).await;
    let accepted = sending.await.unwrap();
    check(&report, accepted, noted(&file));
}
