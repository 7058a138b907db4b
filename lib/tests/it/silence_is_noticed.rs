//! A dead link is noticed within the silence time; a live one is never cut for being slow.
//!
//! The silence time is short here and the bounds are generous: the machine may be loaded.

use crate::common::{
    accept, client,
    frames::{BINARY, Frame, PING, PONG, RawPeer, frame, listen, listen_keeping},
    limit, plain,
    proxy::{Mode, Proxy},
    wait_for,
};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use unstall::{Connection, ConnectionError, Event, Options, StallCause};

const PING_INTERVAL: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(600);
/// Above all that a loaded machine adds.
const LIMIT: u64 = 30;

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

/// A client of the library's own engine before a raw server. The server's kernel keeps little, so
/// that a ping does not wait long behind what the server has yet to read.
async fn before_raw(options: Options) -> (Connection, RawPeer) {
    let (listener, address) = listen_keeping(128 << 10);
    let (client, raw) = tokio::join!(
        client(address, options).connect(),
        RawPeer::accept(&listener)
    );
    (client.unwrap(), raw)
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

/// Opens a black hole while `writer` writes and `reader` reads; both must notice.
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
        // The last bytes were received up to a moment before the hole opened.
        let noticed = opened.elapsed();
        assert!(noticed >= SILENCE / 2, "{noticed:?}: too soon");
        let stalled = wait_for(&mut events, |event| match event {
            Event::Stalled { cause, since } if *cause == StallCause::SocketFull => Some(*since),
            _ => None,
        });
        assert!(
            stalled.await < SILENCE,
            "reported later than the silence time"
        );
        opened.elapsed()
    };
    let noticed = limit(LIMIT, async {
        tokio::select! {
            _ = write => panic!("a peer whose kernel answers was cut"),
            noticed = notice => noticed,
        }
    })
    .await;
    println!("both sides had noticed after {noticed:?}");
}

/// Once only the newest ping was looked at, which is never old: no peer was ever found silent.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn black_hole_on_an_idle_link_is_noticed_by_both_sides() {
    let (mut client, mut server, proxy) = through_proxy(options()).await;
    client.send("hello").await.unwrap();
    plain(server.recv().await);
    proxy.set(Mode::BlackHole);
    let ends = limit(LIMIT, async { tokio::join!(client.recv(), server.recv()) }).await;
    for end in [ends.0, ends.1] {
        assert!(
            matches!(end, Err(ConnectionError::PeerSilent(_))),
            "{end:?}"
        );
    }
    let silent = client.stats().stalls[StallCause::PeerSilent as usize].total;
    assert!(
        silent >= SILENCE / 3,
        "{silent:?} waited for the silent peer"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_shorter_than_the_silence_time_heals() {
    let options = options().silence_timeout(Duration::from_secs(60));
    let (client, mut server, proxy) = through_proxy(options).await;
    proxy.set(Mode::BlackHole);
    client.send("on its way").await.unwrap();
    sleep(PING_INTERVAL * 5).await;
    proxy.set(Mode::Forward);
    assert_eq!(
        limit(LIMIT, async { plain(server.recv().await) })
            .await
            .as_text(),
        Some("on its way")
    );
    assert_eq!(
        (client.stats().connections, server.stats().connections),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_link_of_three_silence_times_stays_up() {
    // Long enough that a loaded machine does not make a silence by itself.
    let silence = Duration::from_secs(1);
    let (client, mut server, _proxy) = through_proxy(options().silence_timeout(silence)).await;
    sleep(silence * 3).await;
    client.send("still here").await.unwrap();
    assert_eq!(
        limit(LIMIT, async { plain(server.recv().await) })
            .await
            .as_text(),
        Some("still here")
    );
    assert!(client.stats().round_trip.is_some() && server.stats().round_trip.is_some());
    client.close(unstall::CloseCode::NORMAL, "").await;
    assert!(matches!(server.recv().await, Ok(None)));
}

/// The next message, on the way to which pings are answered.
async fn read_and_answer(raw: &mut RawPeer) -> Frame {
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
            let mut payload = vec![0; LEN];
            payload[..8].copy_from_slice(&index.to_be_bytes());
            client.send(payload).await.unwrap();
        }
        client.flush().await.unwrap();
    };
    let read = async {
        let full = |event: &Event| {
            let cause = StallCause::SocketFull;
            matches!(event, Event::Stalled { cause: found, .. } if *found == cause).then_some(())
        };
        wait_for(&mut events, full).await;
        sleep(SILENCE * 4).await;
        let stalled: Vec<_> = client.stats().stalled_by().collect();
        assert!(stalled.contains(&StallCause::SocketFull), "{stalled:?}");
        for index in 0..COUNT {
            let seen = read_and_answer(&mut raw).await;
            assert_eq!((seen.opcode, seen.payload.len()), (BINARY, LEN));
            assert_eq!(seen.payload[..8], index.to_be_bytes());
        }
    };
    limit(LIMIT, async { tokio::join!(send, read) }).await;
    assert_eq!(client.stats().messages_sent, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiving_one_message_for_longer_than_the_silence_time_is_not_cut() {
    let (mut client, mut raw) = before_raw(options()).await;
    let bytes = frame(BINARY, vec![9; 60_000]).encode();
    let started = Instant::now();
    let trickle = async {
        // No ping is answered meanwhile: the message is in the way.
        for part in bytes.chunks(bytes.len() / 20) {
            tokio::io::AsyncWriteExt::write_all(&mut raw.tcp, part)
                .await
                .unwrap();
            sleep(SILENCE / 6).await;
        }
    };
    let receive = async { plain(client.recv().await) };
    let (_, message) = limit(LIMIT, async { tokio::join!(trickle, receive) }).await;
    assert_eq!(message.len(), 60_000);
    assert!(started.elapsed() > SILENCE * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickled_message_is_cut_on_neither_side_in_either_direction() {
    let server = unstall::Server::builder().options(options());
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::to(server.local_addr()).await;
    let (client, server) =
        tokio::join!(client(proxy.address, options()).connect(), server.accept());
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    proxy.set(Mode::Trickle(2 << 10, PING_INTERVAL));
    for _ in 0..2 {
        let started = Instant::now();
        client.send(vec![1; 40 << 10]).await.unwrap();
        let message = limit(LIMIT, async { plain(server.recv().await) }).await;
        assert_eq!(message.len(), 40 << 10);
        assert!(started.elapsed() > SILENCE * 2, "{:?}", started.elapsed());
        std::mem::swap(&mut client, &mut server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sending_one_message_for_longer_than_the_silence_time_is_not_cut() {
    // The peer says nothing before it has the whole message. It is larger than what its kernel and
    // ours hold together, so most of the time our kernel has bytes that wait.
    const LEN: usize = 12 << 20;
    let (client, mut raw) = before_raw(options().fragment_bytes(LEN)).await;
    client.send(vec![5; LEN]).await.unwrap();
    let mut left = LEN;
    let started = Instant::now();
    let slowly = async {
        let mut buffer = vec![0; LEN / 20];
        while left > 0 {
            let read = tokio::io::AsyncReadExt::read(&mut raw.tcp, &mut buffer)
                .await
                .unwrap();
            assert!(read > 0, "cut with {left} bytes missing");
            left = left.saturating_sub(read);
            sleep(SILENCE / 6).await;
        }
    };
    limit(LIMIT, slowly).await;
    assert!(started.elapsed() > SILENCE * 2);
    client.flush().await.unwrap();
    assert_eq!(client.stats().messages_sent, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_of_the_application_is_not_silence_and_pongs_keep_the_peer_content() {
    const COUNT: usize = 64;
    let (mut client, mut raw) = before_raw(options().inbox_bytes(64 << 10)).await;
    let mut events = client.events();
    let (mut read, mut write) = raw.tcp.split();
    let feed = async {
        for index in 0..COUNT {
            let bytes = frame(BINARY, vec![index as u8; 256 << 10]).encode();
            tokio::io::AsyncWriteExt::write_all(&mut write, &bytes)
                .await
                .unwrap();
        }
        std::future::pending::<()>().await;
    };
    let paused = async {
        wait_for(&mut events, |event| {
            matches!(
                event,
                Event::Stalled {
                    cause: StallCause::ApplicationNotReading,
                    ..
                }
            )
            .then_some(())
        })
        .await;
        // Pings that were sent before reading paused; then only pongs that ask for nothing.
        let (mut pings, mut pongs) = (0, 0);
        let started = Instant::now();
        while started.elapsed() < SILENCE * 3 || pongs < 5 {
            let mut header = [0; 6];
            tokio::io::AsyncReadExt::read_exact(&mut read, &mut header)
                .await
                .unwrap();
            let mut payload = vec![0; usize::from(header[1] & 0x7f)];
            tokio::io::AsyncReadExt::read_exact(&mut read, &mut payload)
                .await
                .unwrap();
            match header[0] & 15 {
                PING => {
                    assert_eq!(pongs, 0, "a ping while no answer can be read");
                    pings += 1;
                }
                PONG => pongs += 1,
                other => panic!("opcode {other}"),
            }
        }
        println!("{pings} pings, then {pongs} pongs");
        for index in 0..COUNT {
            assert_eq!(plain(client.recv().await).as_bytes()[0], index as u8);
        }
    };
    limit(LIMIT, async {
        tokio::select! { () = feed => {}, () = paused => {} }
    })
    .await;
}

#[cfg(target_os = "linux")]
mod dropped_packets {
    //! In network namespaces of their own: two veth pairs over a bridge, cut by taking one off it.

    use super::*;
    use crate::common::process::test_name;
    use std::{env, process::Command};

    const ROLE: &str = "UNSTALL_TEST_NAMESPACE";

    /// The kernel shows that nobody acknowledges: the writing side is cut, though its socket is
    /// full and no ping can be sent.
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
        while tokio::io::AsyncReadExt::read(&mut raw.tcp, &mut buffer)
            .await
            .is_ok_and(|n| n > 0)
        {}
        sleep(Duration::from_secs(LIMIT)).await;
    }

    #[tokio::test]
    #[ignore = "one end of the test above"]
    async fn writer() {
        assert!(
            env::var(ROLE).is_ok(),
            "started by the test of dropped packets"
        );
        let client = limit(LIMIT, async {
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
        while sender.stats().messages_sent < 100 {
            sleep(Duration::from_millis(10)).await;
        }
        let cut = Command::new("ip")
            .args(["link", "set", "p1", "nomaster"])
            .status();
        assert!(cut.unwrap().success());
        let started = Instant::now();
        let report = limit(LIMIT, sender.ended()).await;
        println!("cut after {:?}: {:?}", started.elapsed(), report.error);
        assert!(
            matches!(
                report.error.as_deref(),
                Some(ConnectionError::PeerSilent(_))
            ),
            "{:?}",
            report.error
        );
        let mut stalled = false;
        while let Some(event) = events.recv().await {
            stalled |= matches!(
                event,
                Event::Stalled {
                    cause: StallCause::SocketFull,
                    ..
                }
            );
        }
        assert!(stalled, "the full socket was reported before the end");
        write.await.unwrap();
    }
}
