//! Programs and proxies that others wrote, unmodified: Python's `websockets`, Node's `ws`, websocat,
//! Chromium, nginx and haproxy. A test finds nothing to do where its program is not installed.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc::unbounded_channel;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    pair::Pair,
    peers::{Network, Peer, Upstream, echo, numbers, open, until},
    support::{Serve, in_background, send},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program that `interop/venv` installs.
fn installed(program: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| root().join("target"));
    let found = target.join("interop/bin").join(program);
    if !found.exists() {
        println!("SKIPPED: {program} with its packages is not installed: run interop/venv");
        return None;
    }
    Some(found)
}

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    /// Once nginx was killed, and left its worker behind. These programs end their children when they
    /// are asked to end.
    fn drop(&mut self) {
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, which must be a success. Returns what it printed.
async fn succeeds(mut command: Command) -> String {
    let output = in_background(move || command.output().unwrap()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

/// Sends back what it gets, and closes with 4000 at "close". It speaks the subprotocol `two`.
const PYTHON_SERVER: &str = r#"
import asyncio
from websockets.asyncio.server import serve
async def handle(ws):
    async for message in ws:
        if message == "close":
            return await ws.close(4000, "as asked")
        else:
            await ws.send(message)
async def main():
    async with serve(handle, "127.0.0.1", 0, subprotocols=["two"], max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

const PYTHON_CLIENT: &str = r#"
import asyncio, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
async def main():
    async with connect(sys.argv[1], subprotocols=["one", "two"], max_size=None) as ws:
        assert ws.subprotocol == "two", ws.subprotocol
        async def send():
            for number in range(1000):
                await ws.send(str(number))
                await ws.send(number.to_bytes(4, "big"))
            await ws.send(b"x" * 3_000_000)
        task = asyncio.create_task(send())
        for number in range(1000):
            assert await ws.recv() == str(number)
            assert await ws.recv() == number.to_bytes(4, "big")
        assert await ws.recv() == b"x" * 3_000_000
        await task
        await (await ws.ping())
        await ws.send("close")
        try:
            await ws.recv()
        except ConnectionClosed as closed:
            print(closed.rcvd.code, closed.rcvd.reason)
asyncio.run(main())
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_speaks_with_python_through_one_relay_and_through_two() {
    let Some(python) = installed("python") else {
        return;
    };
    let mut server = Command::new(&python);
    server.args(["-c", PYTHON_SERVER]).stdout(Stdio::piped());
    let mut server = Program(server.spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    let url = format!("ws://127.0.0.1:{}", port.trim());
    let one = Serve::relay(&url, &[]);
    let two = Pair::to(&url, &[]).await;
    for relay in [&one, &two.outer] {
        let mut client = Command::new(&python);
        client.args(["-c", PYTHON_CLIENT, &relay.url]);
        assert_eq!(succeeds(client).await.trim(), "4000 as asked");
    }
}

/// websocat sends lines as messages, and prints messages as lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocat_speaks_with_a_server_through_one_relay_and_through_two() {
    let Some(websocat) = installed("websocat") else {
        return;
    };
    let upstream = Upstream::start(echo).await;
    let network = Network::to(&upstream.address.to_string()).await;
    let one = Serve::relay(&network.url(), &["--plain", "--reconnect"]);
    let two = Pair::to(&upstream.url(), &[]).await;
    let lines = (0..1000).map(|number| format!("line {number}\n"));
    let lines = lines.collect::<String>();
    for (relay, cut) in [(&one, true), (&two.outer, false)] {
        let mut program = Command::new(&websocat);
        program
            .args(["--text", "--protocol", "chat", &relay.at("/websocat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let before = upstream.requests().len();
        let mut program = Program(program.spawn().unwrap());
        until("it has come in", || upstream.requests().len() > before).await;
        if cut {
            // Nothing has passed yet, so it notices nothing.
            network.cut();
            let again = before + 2;
            until("it is connected again", || {
                upstream.requests().len() == again
            })
            .await;
        }
        let mut stdin = program.0.stdin.take().unwrap();
        let mut stdout = BufReader::new(program.0.stdout.take().unwrap());
        stdin.write_all(lines.as_bytes()).unwrap();
        let count = lines.lines().count();
        let back = in_background(move || {
            let mut back = String::new();
            for _ in 0..count {
                stdout.read_line(&mut back).unwrap();
            }
            back
        });
        assert_eq!(back.await, lines);
    }
    let requests = upstream.requests();
    assert!(
        requests
            .iter()
            .all(|it| it.uri() == "/websocat" && it.headers()["sec-websocket-protocol"] == "chat")
    );
}

const NODE_CLIENT: &str = r#"
const { WebSocket } = require("ws");
const ws = new WebSocket(process.argv[1], { headers: { "x-own": "node" } });
let back = 0;
ws.on("open", () => { for (let n = 0; n < 1000; n++) ws.send(n % 2 ? String(n) : Buffer.from([n & 255])); });
ws.on("message", (data, binary) => {
  const right = back % 2 ? !binary && String(data) === String(back) : binary && data[0] === (back & 255);
  if (!right) { console.error("wrong", back); process.exit(1); }
  if (++back === 1000) ws.close(4001, "done");
});
ws.on("close", (code, reason) => console.log(code, String(reason)));
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_speaks_with_a_server_through_one_relay_and_through_two() {
    let directory = root().join("clients/typescript");
    if !directory.join("node_modules/ws").exists() {
        println!("SKIPPED: Node's ws is not installed: run npm ci in clients/typescript");
        return;
    }
    let upstream = Upstream::start(echo).await;
    let one = Serve::relay(&upstream.url(), &["--compress"]);
    let two = Pair::to(&upstream.url(), &["--compress"]).await;
    for relay in [&one, &two.outer] {
        let mut node = Command::new("node");
        node.current_dir(&directory)
            .args(["-e", NODE_CLIENT, &relay.url]);
        assert_eq!(succeeds(node).await.trim(), "4001 done");
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests
            .iter()
            .all(|request| request.headers()["x-own"] == "node")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_speaks_with_a_server_through_one_relay_and_through_two() {
    let (tell, mut told) = unbounded_channel();
    let upstream = Upstream::start(move |mut ws: Peer| {
        let tell = tell.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                match message {
                    Message::Text(text) if text.starts_with("result") => {
                        tell.send(text.to_string()).unwrap();
                    }
                    Message::Text(_) | Message::Binary(_) => ws.send(message).await.unwrap(),
                    _ => {}
                }
            }
        }
    })
    .await;
    let one = Serve::relay(&upstream.url(), &["--any-origin", "--compress"]);
    let two = Pair::to(&upstream.url(), &["--compress"]).await;
    let directory = tempfile::tempdir().unwrap();
    for relay in [&one, &two.outer] {
        let page = format!(
            "<script>
            const ws = new WebSocket('{}/page');
            let back = 0, wrong = 0;
            ws.onopen = () => {{ for (let n = 0; n < 500; n++) ws.send('message ' + n); }};
            ws.onmessage = (event) => {{
                if (event.data !== 'message ' + back) wrong++;
                if (++back === 500) ws.send('result ' + back + ' ' + wrong);
            }};
            </script>",
            relay.url
        );
        let file = directory.path().join("page.html");
        std::fs::write(&file, page).unwrap();
        let chromium = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .arg(format!(
                "--user-data-dir={}",
                directory.path().join("profile").display()
            ))
            .arg("--remote-debugging-port=0")
            .arg(format!("file://{}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(chromium) = chromium else {
            println!("SKIPPED: chromium is not installed");
            return;
        };
        let _chromium = Program(chromium);
        let result = tokio::time::timeout(std::time::Duration::from_secs(60), told.recv()).await;
        assert_eq!(result.unwrap().unwrap(), "result 500 0");
    }
}

/// A proxy before this address that cuts what is idle for two seconds. `None` where it is not installed.
fn proxy(
    program: &str,
    args: &[&str],
    template: &str,
    target: &str,
) -> Option<(Program, SocketAddr, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    // A loopback address of its own, so that no other test takes the port before the program does.
    let id = std::process::id();
    let own = Ipv4Addr::new(127, 77, (id >> 8) as u8, id as u8);
    let address = std::net::TcpListener::bind((own, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let file = directory.path().join("configuration");
    let configuration = template
        .replace("WORKERS", "1")
        .replace("DIRECTORY", &directory.path().display().to_string())
        .replace("ADDRESS", &address.to_string())
        .replace("TARGET", target)
        .replace("IDLE", "2s");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(program);
    command
        .args(args)
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => Some((Program(child), address, directory)),
        Err(_) => {
            println!("SKIPPED: {program} is not installed");
            None
        }
    }
}

/// The programs at both ends notice nothing of a proxy that cuts what is idle for two seconds.
async fn idle_cuts_are_not_noticed(program: &str, args: &[&str], template: &str) {
    let upstream = Upstream::start(echo).await;
    let inner = Serve::relay(&upstream.url(), &[]);
    let proxy = proxy(program, args, template, inner.address());
    let Some((_proxy, address, _directory)) = proxy else {
        return;
    };
    until("the proxy listens", || {
        std::net::TcpStream::connect(address).is_ok()
    })
    .await;
    let outer = Serve::relay(&format!("ws://{address}"), &["--require-session"]);
    let mut ws = open(&outer.url).await;
    send(&mut ws, "0").await;
    numbers(&mut ws, 0..1).await;
    let resumed = || {
        let page = crate::support::http::get(outer.address(), "/metrics", &[]).text();
        let name = "unstall_resumes_total{kind=\"session\",side=\"client\"} ";
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |value| value.parse().unwrap())
    };
    until("the proxy has cut", || resumed() >= 1.0).await;
    for number in 1..100 {
        send(&mut ws, &number.to_string()).await;
    }
    numbers(&mut ws, 1..100).await;
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_between_two_relays_cuts_what_is_idle_and_nobody_notices() {
    let template = include_str!("../../../interop/nginx.conf");
    idle_cuts_are_not_noticed("nginx", &["-e", "stderr", "-c"], template).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_between_two_relays_cuts_what_is_idle_and_nobody_notices() {
    let template = include_str!("../../../interop/haproxy.cfg");
    idle_cuts_are_not_noticed("haproxy", &["-db", "-q", "-f"], template).await;
}
