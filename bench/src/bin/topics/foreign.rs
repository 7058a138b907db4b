//! Servers that others wrote, each on one core.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::Result;

/// What `ws` has to do: whatever one client sends goes to all others.
const RELAY: &str = r#"
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false });
server.on("connection", (client) => {
  client.on("error", () => {});
  client.on("message", (data, binary) => {
    for (const other of server.clients) if (other !== client) other.send(data, { binary });
  });
});
"#;

pub(crate) fn nats(program: &Path) -> Result<(Child, String)> {
    let (plain, websocket) = (free_port()?, free_port()?);
    let folder = std::env::temp_dir();
    let config = folder.join(format!("unstall-bench-nats-{websocket}.conf"));
    let text = format!(
        "listen: 127.0.0.1:{plain}\nmax_pending: 1GB\nwrite_deadline: \"60s\"\nwebsocket {{ host: 127.0.0.1, port: {websocket}, no_tls: true }}\n"
    );
    std::fs::write(&config, text)?;
    let server = Command::new("taskset")
        .args(["-c", "0"])
        .arg(program)
        .arg("-c")
        .arg(&config)
        .env("GOMAXPROCS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("nats-server does not start ({error}); run .ci/nats-server first")
        })?;
    started(server, websocket)
}

pub(crate) fn ws(npm: &Path) -> Result<(Child, String)> {
    let port = free_port()?;
    let script = npm.join("relay.js");
    if !npm.join("node_modules/ws").exists() {
        let npm = npm.display();
        return Err(
            format!("install ws first: mkdir -p {npm} && npm install --prefix {npm} ws").into(),
        );
    }
    std::fs::write(&script, RELAY)?;
    let server = Command::new("taskset")
        .args(["-c", "0", "node"])
        .arg(&script)
        .arg(port.to_string())
        .spawn()?;
    started(server, port)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn started(mut server: Child, port: u16) -> Result<(Child, String)> {
    let begun = Instant::now();
    let address = format!("127.0.0.1:{port}");
    while std::net::TcpStream::connect(&address).is_err() {
        if begun.elapsed() > Duration::from_secs(10) || server.try_wait()?.is_some() {
            let _ = server.kill();
            return Err("the server did not start".into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok((server, address))
}
