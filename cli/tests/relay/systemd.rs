//! A process that systemd starts: with a socket that is open already, and told of what happens.
#![cfg(target_os = "linux")]

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    file::{File, route},
    peers::{Upstream, echo, numbers, open, until},
    support::{Running, Serve, http::get, send},
};

/// Does what systemd does before it starts a process: the socket becomes descriptor 3.
const START: &str = r#"
import os, socket, sys
listening = socket.socket()
listening.bind((sys.argv[1], int(sys.argv[2])))
listening.listen()
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
os.environ["WATCHDOG_USEC"], os.environ["WATCHDOG_PID"] = "300000", str(os.getpid())
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// What systemd is to a process.
struct Systemd {
    port: u16,
    told: UnixDatagram,
    _directory: TempDir,
    path: PathBuf,
}

impl Systemd {
    /// `None` if this machine has no Python to play it.
    fn new() -> Option<Systemd> {
        if Command::new("python3").arg("--version").output().is_err() {
            println!("SKIPPED: python3 is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let told = UnixDatagram::bind(&path).unwrap();
        let within = Some(Duration::from_secs(60));
        told.set_read_timeout(within).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Some(Systemd {
            port: listener.local_addr().unwrap().port(),
            told,
            _directory: directory,
            path,
        })
    }

    /// Starts a relay with a socket of this host.
    fn start(&self, host: &str, args: &[&str]) -> Running {
        let port = self.port.to_string();
        let child = Command::new("python3")
            .args([
                "-c",
                START,
                host,
                &port,
                env!("CARGO_BIN_EXE_unstall"),
                "relay",
            ])
            .args(args)
            .env("NOTIFY_SOCKET", &self.path)
            .stdout(Stdio::null())
            .spawn();
        let child = child.unwrap();
        Running { child }
    }

    /// What it is told next.
    fn next(&self) -> String {
        let mut buffer = [0; 1000];
        let length = self.told.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }

    /// What it is told next beside the signs of life.
    fn next_news(&self) -> String {
        loop {
            match self.next() {
                life if life == "WATCHDOG=1" => {}
                news => return news,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_systemd_is_used_and_systemd_is_told_of_readiness_life_and_end() {
    let Some(systemd) = Systemd::new() else {
        return;
    };
    let upstream = Upstream::start(echo).await;
    let mut relay = systemd.start("127.0.0.1", &["--to", &upstream.url()]);
    assert_eq!(systemd.next(), "READY=1");
    let mut ws = open(&format!("ws://127.0.0.1:{}", systemd.port)).await;
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    for _ in 0..3 {
        assert_eq!(systemd.next(), "WATCHDOG=1");
    }
    drop(ws);
    relay.signal("TERM");
    assert_eq!(systemd.next_news(), "STOPPING=1");
    assert!(relay.wait().success());
}

/// The microseconds of `CLOCK_MONOTONIC`.
fn now() -> u128 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (seconds * 1e6) as u128
}

/// `Type=notify-reload`: both begin in one message, and a reload that failed has ended as well.
#[tokio::test]
async fn systemd_is_told_of_the_beginning_and_the_end_of_a_reload() {
    let Some(systemd) = Systemd::new() else {
        return;
    };
    let good = route("/a", "ws://127.0.0.1:1", "");
    let file = File::new(&good);
    let relay = systemd.start("127.0.0.1", &["--config", file.name()]);
    assert_eq!(systemd.next_news(), "READY=1");
    for (text, status) in [
        (&*good, "STATUS=reloaded"),
        ("nothing", "STATUS=the last reload failed: "),
        (&good, "STATUS=reloaded"),
    ] {
        file.write(text);
        relay.signal("HUP");
        let begun = systemd.next_news();
        let since = begun.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let since: u128 = since.parse().unwrap();
        assert!(now().abs_diff(since) < 60_000_000, "{since}");
        let ended = systemd.next_news();
        let (ready, told) = ended.split_once('\n').unwrap();
        assert_eq!(ready, "READY=1");
        assert!(told.starts_with(status), "{told}");
    }
}

/// Once `--listen`, which is not used then, decided who sees the figures: by default it names loopback, so
/// everybody saw them.
#[tokio::test]
async fn a_public_socket_of_systemd_shows_no_more_than_one_of_its_own() {
    let Some(systemd) = Systemd::new() else {
        return;
    };
    let upstream = Upstream::start(echo).await;
    let to = upstream.url();
    let _passed = systemd.start("0.0.0.0", &["--to", &to]);
    assert_eq!(systemd.next_news(), "READY=1");
    let listen = ["relay", "--listen", "ws://0.0.0.0:0", "--to", &to];
    let own = Serve::of(&listen);
    let passed = format!("127.0.0.1:{}", systemd.port);
    let own = own.address().replace("0.0.0.0", "127.0.0.1");
    let answers = |address: &str| {
        let paths = ["/", "/status.json", "/metrics", "/healthz"];
        paths.map(|path| get(address, path, &[]).status)
    };
    assert_eq!(answers(&own), [426, 426, 401, 200]);
    assert_eq!(answers(&passed), answers(&own));
    // WebSockets pass, whoever comes.
    open(&format!("ws://{passed}")).await;
    until("upstream saw it", || upstream.requests().len() == 1).await;
}
