//! Servers that others wrote.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Result, harness::Running};

/// Where they are installed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Programs {
    /// The program nats-server, as `.ci/nats-server` installs it
    #[arg(long, global = true, default_value = "target/nats-server/nats-server")]
    nats_server: PathBuf,
    /// The folder in which `npm install ws` was run
    #[arg(long, global = true, default_value = "target/npm-ws")]
    npm: PathBuf,
}

/// Servers that do a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contestant {
    Unstall,
    Nats,
    Ws,
}

impl Programs {
    /// Whether the server of a contestant is installed. Says so if it is not.
    pub(crate) fn have(&self, contestant: Contestant) -> bool {
        let (there, install) = match contestant {
            Contestant::Unstall => (true, ""),
            Contestant::Nats => (self.nats_server.exists(), ".ci/nats-server"),
            Contestant::Ws => (
                self.npm.join("node_modules/ws").exists(),
                "npm install --prefix target/npm-ws ws",
            ),
        };
        if !there {
            println!("SKIPPED: {contestant:?} is not installed; run `{install}`\n");
        }
        there
    }

    /// nats-server with a WebSocket listener, on one core.
    pub(crate) fn nats(&self) -> Result<Running> {
        nats(&self.nats_server)
    }

    /// npm's `ws`, on one core.
    pub(crate) fn ws(&self) -> Result<Running> {
        ws(&self.npm)
    }

    /// nats-server with JetStream, which keeps its streams in this directory.
    pub(crate) fn jetstream(&self, directory: &Path) -> Result<Running> {
        let port = free_port()?;
        let server = Command::new(&self.nats_server)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--jetstream",
            ])
            .arg("--store_dir")
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        started(server, port)
    }
}

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

fn nats(program: &Path) -> Result<Running> {
    let (plain, websocket) = (free_port()?, free_port()?);
    // Removed when the server listens, because then it has read it.
    let config = tempfile::NamedTempFile::new()?;
    let text = format!(
        "listen: 127.0.0.1:{plain}\nmax_pending: 1GB\nwrite_deadline: \"60s\"\nwebsocket {{ host: 127.0.0.1, port: {websocket}, no_tls: true }}\n"
    );
    std::fs::write(config.path(), text)?;
    let server = Command::new("taskset")
        .args(["-c", "0"])
        .arg(program)
        .arg("-c")
        .arg(config.path())
        .env("GOMAXPROCS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    started(server, websocket)
}

fn ws(npm: &Path) -> Result<Running> {
    let port = free_port()?;
    let script = npm.join("relay.js");
    std::fs::write(&script, RELAY)?;
    let server = Command::new("taskset")
        .args(["-c", "0", "node"])
        .arg(&script)
        .arg(port.to_string())
        .spawn()?;
    started(server, port)
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn started(mut server: Child, port: u16) -> Result<Running> {
    let begun = Instant::now();
    let address = format!("127.0.0.1:{port}");
    while std::net::TcpStream::connect(&address).is_err() {
        if begun.elapsed() > Duration::from_secs(10) || server.try_wait()?.is_some() {
            let _ = server.kill();
            return Err("the server did not start".into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(Running::new(server, address))
}
