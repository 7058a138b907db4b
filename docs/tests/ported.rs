//! The chat server of tokio-tungstenite's examples, before and after it was moved to unstall.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const BEFORE: &str = env!("CARGO_BIN_EXE_chat-before");
const AFTER: &str = env!("CARGO_BIN_EXE_chat-after");
const AMPLE: Duration = Duration::from_secs(60);

/// A running server, which ends with the test.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts the program on a free port, and waits until it listens.
    fn start(program: &str) -> Server {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut process = Command::new(program)
            .arg(address.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let server = Server { process, address };
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line, format!("Listening on: {address}"));
        // The program must not wait for somebody who reads its output.
        std::thread::spawn(move || lines.for_each(drop));
        server
    }

    async fn join(&self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        connect_async(format!("ws://{}", self.address))
            .await
            .unwrap()
            .0
    }

    /// The most memory that the process ever had, in bytes.
    #[cfg(target_os = "linux")]
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

#[tokio::test]
async fn both_say_what_one_member_says_to_the_others() {
    for program in [BEFORE, AFTER] {
        let server = Server::start(program);
        let (mut alice, mut bob) = (server.join().await, server.join().await);
        // The server may not know both at first.
        let heard = async {
            loop {
                alice.send(Message::text("hello")).await.unwrap();
                if let Ok(heard) = timeout(Duration::from_millis(50), bob.next()).await {
                    return heard.unwrap().unwrap();
                }
            }
        };
        let heard = timeout(AMPLE, heard).await.expect("bob hears it");
        assert_eq!(heard, Message::text("hello"), "{program}");
        let own = timeout(Duration::from_millis(50), alice.next()).await;
        assert!(own.is_err(), "nobody hears himself");
    }
}

/// 64 MiB to a member that never reads.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_member_that_does_not_read_takes_memory_before_and_has_to_leave_after() {
    const SAID: u64 = 64 << 20;
    let mut peaks = Vec::new();
    for program in [BEFORE, AFTER] {
        let server = Server::start(program);
        let (mut alice, mut bob) = (server.join().await, server.join().await);
        let _carol = server.join().await;
        let line = "x".repeat(64 << 10);
        let mut heard = 0;
        let talk = async {
            for _ in 0..SAID / (64 << 10) {
                alice.send(Message::text(line.clone())).await.unwrap();
                // Bob keeps up, so that only Carol is slow.
                let next = timeout(Duration::from_millis(100), bob.next()).await;
                heard += u32::from(matches!(next, Ok(Some(_))));
            }
        };
        timeout(AMPLE, talk).await.expect("alice is never held up");
        assert!(heard > 900, "bob heard {heard}");
        peaks.push(server.peak());
    }
    let [before, after] = peaks[..] else {
        unreachable!()
    };
    assert!(before > SAID / 2, "{before} bytes before");
    assert!(after < SAID / 2, "{after} bytes after");
}

/// The chapter tells how many lines changed.
#[test]
fn changed_lines_are_counted() {
    let (before, after) = (
        include_str!("../programs/chat_before.rs"),
        include_str!("../programs/chat_after.rs"),
    );
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let kept = common(&before, &after);
    let (gone, new) = (before.len() - kept, after.len() - kept);
    let sentence = format!("Of its {} lines, {gone} go, and {new} come", before.len());
    let chapter = include_str!("../src/ported.md").replace('\n', " ");
    assert!(chapter.contains(&sentence), "it should say: {sentence}");
}

/// The length of the longest common subsequence.
fn common(a: &[&str], b: &[&str]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (at, y) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = match x == y {
                true => diagonal + 1,
                false => above.max(row[at]),
            };
            diagonal = above;
        }
    }
    row[b.len()]
}
