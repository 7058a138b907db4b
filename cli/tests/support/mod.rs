//! Runs the real command, under a deadline.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod client;
pub(crate) mod http;
pub(crate) mod pem;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Far longer than any test takes, so that only a hang fails, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// No message was lost, doubled, reordered, changed or made up in a run of topics.
pub(crate) fn topics_are_whole(json: &Value) {
    for count in [
        "lost",
        "duplicated",
        "reordered",
        "corrupted",
        "false_messages",
    ] {
        assert_eq!(json[count], 0, "{count}: {json}");
    }
}

pub(crate) fn unstall(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstall"));
    command
        .args(args)
        .env_remove("UNSTALL_LOG")
        .env_remove("RUST_LOG")
        .env_remove("UNSTALL_TOKEN");
    command
}

/// A running command. It is killed when the test ends.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The last line of stdout, which must be the only JSON object.
    pub(crate) fn json(&self) -> Value {
        let lines: Vec<_> = self
            .stdout
            .lines()
            .filter(|line| line.starts_with('{'))
            .collect();
        assert_eq!(lines.len(), 1, "{self:?}");
        serde_json::from_str(lines[0]).unwrap()
    }
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = unstall(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    pub(crate) fn write(&mut self, input: impl AsRef<[u8]>) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(input.as_ref())
            .unwrap();
    }

    /// Closes its input and waits until it ends.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let stdout = self.child.stdout.take().map(gather);
        let stderr = self.child.stderr.take().map(gather);
        let status = self.wait();
        let text = |thread: Option<std::thread::JoinHandle<String>>| {
            thread
                .map(|thread| thread.join().unwrap())
                .unwrap_or_default()
        };
        Ended {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// Sends it a signal, for example `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.unwrap().success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "the command does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn gather(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Running::start(args).end()
}

/// Runs `unstall cat` and the like with this input.
pub(crate) fn run_with(args: &[&str], input: impl AsRef<[u8]>) -> Ended {
    let mut running = Running::start(args);
    running.write(input);
    running.end()
}

/// A running `unstall serve`, `unstall hub` or `unstall relay`.
pub(crate) struct Serve {
    pub(crate) running: Running,
    pub(crate) stdout: BufReader<ChildStdout>,
    /// The URL that it says it listens on.
    pub(crate) url: String,
}

impl Serve {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(&[&["serve", "--listen", "127.0.0.1:0"], args].concat())
    }

    /// A hub on a free port.
    pub(crate) fn hub(args: &[&str]) -> Self {
        Self::of(&[&["hub", "--listen", "127.0.0.1:0"], args].concat())
    }

    /// A relay on a free port, to this URL.
    pub(crate) fn relay(to: &str, args: &[&str]) -> Self {
        Self::of(&[&["relay", "--listen", "ws://127.0.0.1:0", "--to", to], args].concat())
    }

    pub(crate) fn of(args: &[&str]) -> Self {
        Self::try_start(args).unwrap_or_else(|ended| panic!("it does not listen: {ended:?}"))
    }

    /// Starts this, or returns how it ended.
    pub(crate) fn try_start(args: &[&str]) -> Result<Self, Ended> {
        let mut running = Running::start(args);
        let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(url) = line.strip_prefix("listening on ") else {
            assert_eq!(line, "", "the first line");
            return Err(running.end());
        };
        let url = url.trim_end().to_owned();
        Ok(Self {
            running,
            stdout,
            url,
        })
    }

    /// A client of `unstall serve` that asks for much and reads nothing.
    pub(crate) fn stalled_consumer(&self) -> std::net::TcpStream {
        let address = self.address();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let ask = br#"{"count":100000,"size":65536}"#;
        let mut frame = vec![0x81, 0x80 | ask.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(ask);
        write!(
            socket,
            "GET /packets HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .unwrap();
        socket.write_all(&frame).unwrap();
        socket
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) async fn connect(&self, path: &str) -> Raw {
        tokio_tungstenite::connect_async(self.at(path))
            .await
            .unwrap()
            .0
    }
}

/// A client that is tokio-tungstenite.
pub(crate) type Raw = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn send(ws: &mut Raw, text: &str) {
    ws.send(Message::text(text)).await.unwrap();
}

pub(crate) async fn next(ws: &mut Raw) -> Message {
    tokio::time::timeout(DEADLINE, ws.next())
        .await
        .expect("in time")
        .unwrap()
        .unwrap()
}

/// The next message, which must be a text of JSON.
pub(crate) async fn next_json(ws: &mut Raw) -> Value {
    serde_json::from_str(next(ws).await.to_text().unwrap()).unwrap()
}

/// A packet as the documentation describes it, with any payload.
pub(crate) fn packet(index: u64, payload: &[u8]) -> Message {
    let hash = xxhash_rust::xxh3::xxh3_64(payload);
    Message::binary([&index.to_be_bytes()[..], &hash.to_be_bytes(), payload].concat())
}

/// A server that is tokio-tungstenite: passes each WebSocket in turn to `handle`.
pub(crate) async fn foreign_server<F>(
    handle: impl Fn(usize, WebSocketStream<TcpStream>) -> F + Send + 'static,
) -> String
where
    F: Future<Output = ()> + Send,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let ws = tokio_tungstenite::accept_async(stream).await.unwrap();
            handle(number, ws).await;
        }
    });
    url
}

/// Runs a command without blocking the server of the same test.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
