//! A process that systemd starts: with a socket that is open already, and told of what happens.
#![cfg(target_os = "linux")]

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    peers::{Upstream, echo, numbers, open},
    support::{Running, send},
};

/// Does what systemd does before it starts a process: the socket becomes descriptor 3.
const START: &str = r#"
import os, socket, sys
listening = socket.socket()
listening.bind(("127.0.0.1", int(sys.argv[1])))
listening.listen()
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())
os.environ["WATCHDOG_USEC"], os.environ["WATCHDOG_PID"] = "300000", str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_systemd_is_used_and_systemd_is_told_of_readiness_life_and_end() {
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("SKIPPED: python3 is not installed");
    }
    let upstream = Upstream::start(echo).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let child = Command::new("python3")
        .args([
            "-c",
            START,
            &port.to_string(),
            env!("CARGO_BIN_EXE_unstall"),
        ])
        .args(["relay", "--to", &upstream.url()])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .spawn();
    let mut relay = Running {
        child: child.unwrap(),
    };
    let next = || {
        let mut buffer = [0; 100];
        let length = told.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(next(), "READY=1");
    let mut ws = open(&format!("ws://127.0.0.1:{port}")).await;
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    drop(ws);
    relay.signal("TERM");
    let mut last = next();
    while last == "WATCHDOG=1" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1");
    assert!(relay.wait().success());
}
