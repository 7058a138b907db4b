//! A million messages each way over TLS. The network cuts, freezes and refuses connections, and the
//! applications stop at random. Nothing is lost, duplicated or reordered, and the memory of each process
//! stays under its limit.
//!
//! The normal run is a tenth of that. `UNSTALL_FULL=1` runs everything; `UNSTALL_SEED=n` repeats a run.

use std::time::Duration;

use crate::common::{
    full,
    net::Certificate,
    plain,
    process::{Process, is, play, say, setting},
    proxy::{Mode, Proxy},
    seed, until,
};
use unstall::{Client, CloseCode, Connection, Event, Options, Server};

/// The network without a fault: 8 MB/s each way, so that many messages are on their way.
const NORMAL: Mode = Mode::Trickle(16 << 10, Duration::from_millis(2));
const MIB: u64 = 1 << 20;
const SIZE: usize = 64;

/// Small queues, so that all of them are full sometimes.
fn options() -> Options {
    Options::default()
        .inbox_bytes(MIB as usize)
        .outbox_bytes(MIB as usize)
        .replay_bytes(4 * MIB as usize)
        .window_bytes(MIB as usize)
        .max_message_bytes(MIB as usize)
        .ping_interval(Duration::from_millis(400))
        .silence_timeout(Duration::from_millis(1500))
}

/// The memory that `options` allow: inbox, outbox, replay and window, one message each way, and half a
/// MiB for the buffers of WebSocket and TLS.
const LIMIT: u64 = MIB + MIB + 4 * MIB + MIB + 2 * MIB + MIB / 2;
/// The allocator may keep a third more.
const ALLOCATOR: u64 = LIMIT / 3;

/// Message `index` of one direction. No other message is equal to it.
fn message(direction: u64, index: u64) -> [u8; SIZE] {
    let mut random = fastrand::Rng::with_seed(direction << 56 | index);
    let mut bytes = [0; SIZE];
    random.fill(&mut bytes);
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    bytes
}

/// Sends and receives all messages, with pauses, and prints its progress.
async fn exchange(connection: Connection, sends: u64, receives: u64, count: u64, seed: u64) {
    let mut events = connection.events();
    let (sender, mut receiver) = connection.split();
    let resumes = tokio::spawn(async move {
        let (mut resumes, mut all_replayed) = (0, 0);
        while let Some(event) = events.recv().await {
            if let Event::Resumed { replayed, .. } = event {
                resumes += 1;
                all_replayed += replayed;
            }
        }
        format!("{resumes} {all_replayed}")
    });
    let sending = tokio::spawn(async move {
        for index in 0..count {
            let message = message(sends, index).to_vec();
            sender.send(message).await.expect("the session lives");
        }
        sender
    });
    let mut random = fastrand::Rng::with_seed(seed ^ receives);
    for index in 0..count {
        let received = plain(receiver.recv().await);
        let bytes = received.as_bytes();
        let expected = message(receives, index);
        assert_eq!(bytes, expected, "message {index} of direction {receives}");
        if index % (count / 1000) == 0 {
            say(format!("at {index}"));
            if random.u32(0..10) == 0 {
                // The application stops reading for a moment.
                tokio::time::sleep(Duration::from_millis(random.u64(0..50))).await;
            }
        }
    }
    let sender = sending.await.unwrap();
    sender.delivered().await.unwrap();
    say("delivered");
    // The client closes; the server waits for that.
    let clean = if sends == 0 {
        let end = tokio::spawn(async move { receiver.recv().await });
        let report = sender.close(CloseCode::NORMAL, "").await;
        assert!(report.unsent.is_empty() && report.maybe_delivered.is_empty());
        report.clean && matches!(end.await.unwrap(), Ok(None))
    } else {
        matches!(receiver.recv().await, Ok(None))
    };
    drop(sender);
    say(format!("done {clean} {}", resumes.await.unwrap()));
}

#[test]
#[ignore = "the other process of the test below"]
fn server() {
    if is("server") {
        play(|_| async {
            let certificate = Certificate::in_directory(setting::<String>("CERTIFICATE"));
            let builder = certificate.serve(Server::builder().options(options()));
            let server = builder.bind("127.0.0.1:0").await.unwrap();
            say(format!("listens {}", server.local_addr()));
            let session = server.accept().await.unwrap();
            exchange(session, 1, 0, setting("COUNT"), setting("SEED")).await;
        });
    }
}

#[test]
#[ignore = "the other process of the test below"]
fn client() {
    if is("client") {
        play(|mut commands| async move {
            let certificate = Certificate::in_directory(setting::<String>("CERTIFICATE"));
            let url = format!("wss://localhost:{}/", setting::<u16>("PORT"));
            let client = Client::new(url)
                .tls(certificate.client())
                .options(options())
                .require_session();
            say("ready");
            commands.recv().await;
            let session = client.connect().await.unwrap();
            exchange(session, 0, 1, setting("COUNT"), setting("SEED")).await;
        });
    }
}

/// One fault, from its beginning to its end. Returns its name. The sleeps are the lengths of faults.
async fn inject(proxy: &Proxy, random: &mut fastrand::Rng) -> &'static str {
    let millis = |range: std::ops::Range<u64>, random: &mut fastrand::Rng| {
        tokio::time::sleep(Duration::from_millis(random.u64(range)))
    };
    match random.u32(0..20) {
        0..12 => {
            proxy.cut();
            "cuts"
        }
        12..16 => {
            proxy.set(Mode::BlackHole);
            millis(10..200, random).await;
            proxy.set(NORMAL);
            "freezes"
        }
        16..19 => {
            proxy.set(Mode::Cut);
            millis(10..150, random).await;
            proxy.set(NORMAL);
            "refusals"
        }
        _ => {
            // Everything is held back until the client gives the connection up. Then it arrives late.
            let before = proxy.arrivals().len();
            proxy.set_existing(Mode::BlackHole);
            while proxy.arrivals().len() == before {
                millis(5..10, random).await;
            }
            millis(5..50, random).await;
            proxy.set_existing(NORMAL);
            "black holes"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_and_memory_stays_within_its_limit() {
    let (count, faults) = if full() {
        (1_000_000, 200)
    } else {
        (100_000, 40)
    };
    let seed = seed();
    let certificate = Certificate::new();
    let mut settings = vec![
        ("CERTIFICATE", certificate.directory().display().to_string()),
        ("COUNT", u64::to_string(&count)),
        ("SEED", seed.to_string()),
    ];
    let mut server = Process::spawn(module_path!(), "server", &settings);
    let proxy = Proxy::to(server.hear("listens").await.parse().unwrap()).await;
    proxy.set(NORMAL);
    settings.push(("PORT", proxy.address.port().to_string()));
    let mut client = Process::spawn(module_path!(), "client", &settings);
    client.hear("ready").await;
    let empty = [server.memory(), client.memory()];
    client.tell("go").await;

    let mut random = fastrand::Rng::with_seed(seed);
    // Once the last fault came when nearly all had passed, and what was left was less than the bytes that
    // are waited for behind it: a window of messages passes before the application receives them.
    let end = count * 9 / 10 - MIB / SIZE as u64;
    let mut moments: Vec<u64> = (0..faults).map(|_| random.u64(0..end)).collect();
    moments.sort_unstable();
    let mut injected = std::collections::BTreeMap::new();
    let started = std::time::Instant::now();
    for moment in moments {
        while client.hear("at").await.parse::<u64>().unwrap() < moment {}
        *injected
            .entry(inject(&proxy, &mut random).await)
            .or_insert(0) += 1;
        // Messages flow again, so that the next fault meets some on their way.
        let target = proxy.forwarded() + random.u64(10_000..200_000);
        until("messages go on after a fault", || {
            proxy.forwarded() > target
        })
        .await;
    }
    for process in [&mut client, &mut server] {
        process.hear("delivered").await;
    }
    let mut resumes = Vec::new();
    for process in [&mut client, &mut server] {
        let done = process.hear("done").await;
        let (clean, counts) = done.split_once(' ').unwrap();
        assert_eq!(clean, "true", "the close was clean");
        let (resumed, replayed) = counts.split_once(' ').unwrap();
        resumes.push((
            resumed.parse::<usize>().unwrap(),
            replayed.parse::<u64>().unwrap(),
        ));
    }
    let peaks = [server.peak_memory(), client.peak_memory()];
    let used: Vec<_> = peaks
        .iter()
        .zip(empty)
        .map(|(peak, empty)| peak - empty)
        .collect();
    println!(
        "{count} messages of {SIZE} bytes each way in {:.1} s; {faults} faults: {injected:?}; \
         resumed, and records replayed: {resumes:?}; peak memory above the empty process: server {} KiB, client {} KiB, \
         limit {} KiB",
        started.elapsed().as_secs_f64(),
        used[0] >> 10,
        used[1] >> 10,
        LIMIT >> 10,
    );
    let (resumed, replayed) = resumes[0];
    assert!(resumed >= faults / 2, "hardly any fault was felt");
    assert!(
        replayed > 0,
        "nothing was on its way when the connections broke"
    );
    assert!(
        used.iter().all(|used| *used <= LIMIT + ALLOCATOR),
        "{used:?}"
    );
}
