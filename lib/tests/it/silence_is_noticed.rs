//! A dead link is noticed within the silence time. A live one is never cut for being slow.
//!
//! The silence time is short here, and the bounds are generous, because the machine may be loaded.

use crate::common::{
    accept, adopt, client,
    events::{stalled, waits},
    frames::{BINARY, Frame, PING, PONG, RawPeer, frame, listen, listen_keeping},
    limit,
    memory::{ENGINES, Engine},
    net::bind,
    numbered::numbered,
    plain,
    proxy::{Mode, Proxy, Wire},
    raw, until,
};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep},
};
use unstall::{
    Connection, ConnectionError, Options, Server, StallCause, defaults,
    tokio_tungstenite::tungstenite::protocol::Role,
};

const PING_INTERVAL: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(600);
/// What a loaded machine may need in addition.
const SLACK: Duration = Duration::from_secs(5);

fn options() -> Options {
    Options::default()
        .ping_interval(PING_INTERVAL)
        .silence_timeout(SILENCE)
        .stall_after(Duration::from_millis(200))
}

/// A client of the library's own engine and an adopted server, with a proxy in between.
async fn through_proxy(options: Options) -> (Connection, Connection, Proxy) {
    let (listener, address) = listen().await;
    let proxy = Proxy::to(address).await;
    let (client, server) = tokio::join!(
        client(proxy.address, options.clone()).connect(),
        accept(&listener, options)
    );
    (client.unwrap(), server, proxy)
}

/// A client of the library's own engine, and a raw server. The server's kernel buffers little, so that a
/// ping does not wait long behind bytes that the server has not read.
async fn before_raw(options: Options) -> (Connection, RawPeer) {
    raw::client_of(&listen_keeping(128 << 10).0, options).await
}

/// Two adopted ends over a pipe of memory.
async fn over_wire(options: Options) -> (Connection, Connection, Wire) {
    let (wire, one, two) = Wire::new();
    let client = adopt(one, Role::Client, options.clone()).await;
    (client, adopt(two, Role::Server, options).await, wire)
}

async fn send_without_end(connection: &Connection) {
    while connection.send(vec![7; 256 << 10]).await.is_ok() {}
}

/// Receives until the connection ends.
async fn receive_to_the_end(connection: &mut Connection) -> ConnectionError {
    loop {
        match connection.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a normal end"),
            Err(error) => return error,
        }
    }
}

/// Opens a black hole while `writer` writes and `reader` reads. Both must notice.
async fn black_hole(writer: Connection, mut reader: Connection, proxy: Proxy) {
    let mut events = writer.events();
    let write = send_without_end(&writer);
    let notice = async {
        for _ in 0..8 {
            plain(reader.recv().await);
        }
        proxy.set(Mode::BlackHole);
        let opened = Instant::now();
        let why = receive_to_the_end(&mut reader).await;
        assert!(
            matches!(why, ConnectionError::PeerSilent(after) if after == SILENCE),
            "{why}"
        );
        // The last bytes may have been received some time before the hole opened.
        let noticed = opened.elapsed();
        assert!(noticed >= SILENCE / 2, "{noticed:?}: too soon");
        assert!(noticed < SILENCE + SLACK, "{noticed:?}: too late");
        assert!(
            stalled(&mut events, StallCause::SocketFull).await < SILENCE,
            "reported later than the silence time"
        );
        opened.elapsed()
    };
    let noticed = limit(async {
        tokio::select! {
            _ = write => panic!("a peer whose kernel answers was cut"),
            noticed = notice => noticed,
        }
    })
    .await;
    println!("both sides had noticed after {noticed:?}");
}

/// Once only the age of the newest ping counted, which is never old. No peer was ever found silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn black_hole_in_a_large_write_of_the_server_is_noticed_by_both_sides() {
    let (client, server, proxy) = through_proxy(options()).await;
    black_hole(server, client, proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn black_hole_in_a_large_write_of_the_client_is_noticed_by_both_sides() {
    let (client, server, proxy) = through_proxy(options()).await;
    black_hole(client, server, proxy).await;
}

#[tokio::test(start_paused = true)]
async fn black_hole_on_an_idle_link_is_noticed_by_both_sides() {
    let (mut client, mut server, wire) = over_wire(Options::default()).await;
    client.send("hello").await.unwrap();
    plain(server.recv().await);
    wire.set(Mode::BlackHole);
    let opened = Instant::now();
    let ends = async { tokio::join!(client.recv(), server.recv()) }.await;
    for end in [ends.0, ends.1] {
        assert!(
            matches!(end, Err(ConnectionError::PeerSilent(_))),
            "{end:?}"
        );
    }
    assert_eq!(opened.elapsed(), defaults::SILENCE_TIMEOUT);
    // The peer counts as silent from the first unanswered ping on.
    let silent = client.stats().stalls[StallCause::PeerSilent as usize].total;
    assert_eq!(silent, defaults::SILENCE_TIMEOUT - defaults::PING_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn outage_shorter_than_the_silence_time_heals() {
    let (client, mut server, wire) = over_wire(Options::default()).await;
    wire.set(Mode::BlackHole);
    client.send("on its way").await.unwrap();
    sleep(defaults::SILENCE_TIMEOUT - Duration::from_millis(1)).await;
    wire.set(Mode::Forward);
    let message = plain(limit(server.recv()).await);
    assert_eq!(message.as_text(), Some("on its way"));
    // The connection is then quiet for longer than the silence time, on a paused clock.
    sleep(defaults::SILENCE_TIMEOUT * 3).await;
    client.send("and on").await.unwrap();
    let message = plain(limit(server.recv()).await);
    assert_eq!(message.as_text(), Some("and on"));
    assert_eq!(
        (client.stats().connections, server.stats().connections),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn quiet_link_of_three_silence_times_stays_up() {
    let (client, mut server, _wire) = over_wire(Options::default()).await;
    sleep(defaults::SILENCE_TIMEOUT * 3).await;
    client.send("still here").await.unwrap();
    let message = plain(limit(server.recv()).await);
    assert_eq!(message.as_text(), Some("still here"));
    assert!(client.stats().round_trip.is_some() && server.stats().round_trip.is_some());
    let _ = client.close(unstall::CloseCode::NORMAL, "").await;
    assert!(matches!(server.recv().await, Ok(None)));
}

/// Reads the next message, and answers the pings before it.
async fn read_and_answer<S>(raw: &mut RawPeer<S>) -> Frame
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let seen = raw.see().await.unwrap();
        match seen.opcode {
            PING => raw.say(frame(PONG, seen.payload)).await,
            PONG => {}
            _ => return seen,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_peer_that_does_not_read_is_not_taken_for_dead() {
    const LEN: usize = 256 << 10;
    const COUNT: u64 = 64;
    let (client, mut raw) = before_raw(options()).await;
    let mut events = client.events();
    let send = async {
        for index in 0..COUNT {
            client.send(numbered(index, LEN)).await.unwrap();
        }
        client.flush().await.unwrap();
    };
    let read = async {
        stalled(&mut events, StallCause::SocketFull).await;
        // For this long the peer is busy with something else.
        sleep(SILENCE * 4).await;
        assert!(waits(&client.stats(), StallCause::SocketFull));
        for index in 0..COUNT {
            let seen = read_and_answer(&mut raw).await;
            assert_eq!(seen.opcode, BINARY);
            assert!(seen.payload == numbered(index, LEN).as_bytes(), "{index}");
        }
    };
    limit(async { tokio::join!(send, read) }).await;
    assert_eq!(client.stats().messages_sent, COUNT);
}

#[tokio::test(start_paused = true)]
async fn receiving_one_message_for_longer_than_the_silence_time_is_not_cut() {
    const PARTS: u32 = 20;
    let options = Options::default();
    let (mut server, mut raw) = Engine::Own.before_raw(options).await;
    let mut message = frame(BINARY, vec![9; 60_000]);
    message.masked = true;
    let bytes = message.encode();
    let started = Instant::now();
    let trickle = async {
        // No ping is answered during that, because the peer is in the middle of a message.
        for part in bytes.chunks(bytes.len() / PARTS as usize) {
            raw.io.write_all(part).await.unwrap();
            sleep(defaults::SILENCE_TIMEOUT - Duration::from_millis(1)).await;
        }
    };
    let receive = async { plain(server.recv().await) };
    let (_, message) = async { tokio::join!(trickle, receive) }.await;
    assert_eq!(message.len(), 60_000);
    assert!(started.elapsed() > defaults::SILENCE_TIMEOUT * (PARTS - 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickled_message_is_cut_on_neither_side_in_either_direction() {
    const LEN: usize = 28 << 10;
    let server = bind(Server::builder().options(options())).await;
    let proxy = Proxy::to(server.local_addr()).await;
    let (client, server) =
        tokio::join!(client(proxy.address, options()).connect(), server.accept());
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    proxy.set(Mode::Trickle(2 << 10, PING_INTERVAL));
    for _ in 0..2 {
        let started = Instant::now();
        client.send(vec![1; LEN]).await.unwrap();
        let message = plain(limit(server.recv()).await);
        assert_eq!(message.len(), LEN);
        assert!(started.elapsed() > SILENCE * 2, "{:?}", started.elapsed());
        std::mem::swap(&mut client, &mut server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sending_one_message_for_longer_than_the_silence_time_is_not_cut() {
    // The peer sends nothing before it has the whole message. The message is larger than the buffers of
    // both kernels, so most of the time bytes wait in our kernel.
    const LEN: usize = 12 << 20;
    let (client, mut raw) = before_raw(options().fragment_bytes(LEN)).await;
    client.send(vec![5; LEN]).await.unwrap();
    let mut left = LEN;
    let started = Instant::now();
    let slowly = async {
        while left > 0 {
            let mut part = (&mut raw.io).take(LEN as u64 / 20);
            let read = tokio::io::copy(&mut part, &mut tokio::io::sink()).await;
            let read = read.unwrap() as usize;
            assert!(read > 0, "cut with {left} bytes missing");
            left = left.saturating_sub(read);
            // The pace of the slow reader.
            sleep(SILENCE / 6).await;
        }
    };
    limit(slowly).await;
    assert!(started.elapsed() > SILENCE * 2);
    client.flush().await.unwrap();
    assert_eq!(client.stats().messages_sent, 1);
}

#[tokio::test(start_paused = true)]
async fn pause_of_the_application_is_not_silence_and_pongs_keep_the_peer_content() {
    const COUNT: u64 = 64;
    for engine in ENGINES {
        let options = Options::default().inbox_bytes(64 << 10);
        let (mut server, raw) = engine.before_raw(options).await;
        let mut events = server.events();
        let (mut read, mut write) = tokio::io::split(raw.io);
        let feed = tokio::spawn(async move {
            for index in 0..COUNT {
                let mut message = frame(BINARY, numbered(index, 256 << 10).as_bytes());
                message.masked = true;
                write.write_all(&message.encode()).await.unwrap();
            }
            write
        });
        stalled(&mut events, StallCause::ApplicationNotReading).await;
        // First come pings that were sent before reading paused, then only unsolicited pongs.
        let (mut pings, mut pongs) = (0, 0);
        let started = Instant::now();
        while started.elapsed() < defaults::SILENCE_TIMEOUT * 3 {
            let mut header = [0; 2];
            limit(read.read_exact(&mut header)).await.unwrap();
            let mut payload = vec![0; usize::from(header[1])];
            limit(read.read_exact(&mut payload)).await.unwrap();
            match header[0] & 15 {
                PING => {
                    assert_eq!(pongs, 0, "a ping while no answer can be read");
                    pings += 1;
                }
                PONG => pongs += 1,
                other => panic!("opcode {other}"),
            }
        }
        println!("{engine:?}: {pings} pings, then {pongs} pongs");
        assert!(pongs >= 8, "{pongs} in three silence times");
        for index in 0..COUNT {
            let message = plain(limit(server.recv()).await);
            assert!(message == numbered(index, 256 << 10), "{index}");
        }
        limit(feed).await.unwrap();
    }
}

#[cfg(target_os = "linux")]
mod dropped_packets {
    //! In network namespaces of their own: two veth pairs over a bridge. Removing one from the bridge cuts
    //! the link.

    use super::*;
    use crate::common::process::test_name;
    use std::{env, process::Command};

    const ROLE: &str = "UNSTALL_TEST_NAMESPACE";

    /// The kernel shows that nobody acknowledges. So the writing side is cut, although its socket is full
    /// and no ping can be sent.
    #[test]
    fn peer_behind_dropped_packets_is_cut_in_the_middle_of_a_large_write() {
        if env::var(ROLE).is_ok() {
            return;
        }
        let Ok(allowed) = Command::new("unshare").args(["-rn", "true"]).status() else {
            return println!("SKIPPED: there is no `unshare` here");
        };
        let has_ip = Command::new("ip").arg("-V").output().is_ok();
        if !allowed.success() || !has_ip {
            return println!("SKIPPED: no network namespaces allowed here, or no `ip`");
        }
        let script = r#"
            set -e
            ip link set lo up
            unshare -n "$0" --ignored --exact "$1" --nocapture & reader=$!
            trap 'kill $reader' EXIT
            while [ "$(readlink /proc/self/ns/net)" = "$(readlink /proc/$reader/ns/net)" ]; do
                kill -0 $reader; sleep 0.05
            done
            ip link add v0 type veth peer name p0
            ip link add v1 type veth peer name p1
            ip link set v1 netns $reader
            nsenter -t $reader -n ip addr add 10.83.0.2/24 dev v1
            nsenter -t $reader -n ip link set v1 up
            ip link add bridge0 type bridge
            ip addr add 10.83.0.1/24 dev v0
            for port in p0 p1; do ip link set $port master bridge0; done
            for link in v0 p0 p1 bridge0; do ip link set $link up; done
            "$0" --ignored --exact "$2" --nocapture
        "#;
        let test = env::current_exe().unwrap();
        let output = Command::new("unshare")
            .args(["-rn", "sh", "-c", script])
            .arg(test)
            .args(["reader", "writer"].map(|end| test_name(module_path!(), end)))
            .env(ROLE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && text.contains("Operation not supported") {
            return println!("SKIPPED: this kernel has no veth or no bridge");
        }
        assert!(output.status.success(), "{text}");
        println!("{text}");
    }

    #[tokio::test]
    #[ignore = "one end of the test above"]
    async fn reader() {
        assert!(
            env::var(ROLE).is_ok(),
            "started by the test of dropped packets"
        );
        let listener = tokio::net::TcpListener::bind("0.0.0.0:9000").await.unwrap();
        let mut raw = RawPeer::accept(&listener).await;
        let mut buffer = vec![0; 64 << 10];
        while raw.io.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        std::future::pending().await
    }

    #[tokio::test]
    #[ignore = "one end of the test above"]
    async fn writer() {
        assert!(
            env::var(ROLE).is_ok(),
            "started by the test of dropped packets"
        );
        let client = limit(async {
            loop {
                let address = "10.83.0.2:9000".parse().unwrap();
                match client(address, options()).connect().await {
                    Ok(client) => return client,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await;
        let mut events = client.events();
        let sender = client.split().0;
        let write = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.send(vec![7; 64 << 10]).await.is_ok() {} }
        });
        until("much is sent", || sender.stats().messages_sent > 100).await;
        let cut = Command::new("ip")
            .args(["link", "set", "p1", "nomaster"])
            .status();
        assert!(cut.unwrap().success());
        let started = Instant::now();
        let report = limit(sender.ended()).await;
        println!("cut after {:?}: {:?}", started.elapsed(), report.error);
        assert!(
            matches!(
                report.error.as_deref(),
                Some(ConnectionError::PeerSilent(_))
            ),
            "{:?}",
            report.error
        );
        stalled(&mut events, StallCause::SocketFull).await;
        write.await.unwrap();
    }
}

/// Once a plain peer that never reads was not cut by default for as long as it showed that it lived,
/// however much waited for it.
#[tokio::test(start_paused = true)]
async fn live_plain_peer_that_takes_nothing_for_two_minutes_is_cut() {
    for engine in ENGINES {
        let (ours, mut raw) = engine.before_raw(Options::default()).await;
        let (sender, _receiver) = ours.split();
        let writing = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.send(vec![7; 64 << 10]).await.is_ok() {} }
        });
        let speaking = async {
            loop {
                sleep(Duration::from_secs(7)).await;
                raw.say(frame(PING, "here")).await;
            }
        };
        let start = Instant::now();
        let report = tokio::select! {
            report = sender.ended() => report,
            () = speaking => unreachable!(),
            () = sleep(defaults::WRITE_TIMEOUT * 2) => panic!("never: {engine:?}"),
        };
        let took = start.elapsed();
        assert!(
            matches!(
                report.error.as_deref(),
                Some(ConnectionError::WriteStalled(defaults::WRITE_TIMEOUT))
            ),
            "{:?}, {engine:?}",
            report.error
        );
        assert!(
            (defaults::WRITE_TIMEOUT..defaults::WRITE_TIMEOUT + Duration::from_secs(1))
                .contains(&took),
            "{took:?}, {engine:?}"
        );
        writing.await.unwrap();
    }
}

/// The pump may send a ping in the very turn in which the inbox becomes full. Its answer is not read
/// then, however soon the peer gives it.
#[tokio::test(start_paused = true)]
async fn ping_sent_as_a_pause_begins_is_not_held_against_the_peer() {
    for engine in ENGINES {
        let options = options().inbox_bytes(1_000);
        let (mut ours, mut raw) = engine.before_raw(options).await;
        tokio::task::yield_now().await;
        // Both are found in one turn: more than the inbox holds, and that a ping is due.
        raw.say(frame(BINARY, [7; 5_000])).await;
        raw.say(frame(BINARY, [8; 5_000])).await;
        tokio::time::advance(PING_INTERVAL).await;
        sleep(SILENCE * 10).await;
        for expected in [7, 8] {
            let message = plain(limit(ours.recv()).await);
            assert_eq!(message.as_bytes(), [expected; 5_000], "{engine:?}");
        }
    }
}
