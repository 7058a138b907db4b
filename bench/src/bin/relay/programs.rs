//! The programs that are measured.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{sys::signal, unistd::Pid};
use tempfile::TempDir;

use crate::Result;

/// How long a program may take to listen.
const START: Duration = Duration::from_secs(10);

/// A program that is asked to end when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: String,
    _directory: Option<TempDir>,
}

impl Program {
    /// The command `unstall`, which says where it listens.
    pub(crate) fn unstall(command: &Path, arguments: &[&str]) -> Result<Program> {
        let started = Command::new(command)
            .args(arguments)
            .env_remove("UNSTALL_LOG")
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|error| {
            let command = command.display();
            format!("{command} does not start: {error}; build it (cargo build --release -p unstall-cli), or name it with --unstall")
        })?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().split_once("://").map(|(_, it)| it.to_owned());
        let mut program = Program {
            child,
            address: String::new(),
            _directory: None,
        };
        program.address = address.ok_or("unstall does not listen")?;
        Ok(program)
    }

    /// nginx before a server. `None`: it is not installed.
    pub(crate) fn nginx(server: &str) -> Result<Option<Program>> {
        let directory = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let configuration = include_str!("../../../../interop/nginx.conf")
            .replace("WORKERS", "auto")
            .replace("DIRECTORY", &directory.path().display().to_string())
            .replace("ADDRESS", &address)
            .replace("TARGET", server)
            .replace("IDLE", "60s");
        let file = directory.path().join("configuration");
        fs::write(&file, configuration)?;
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-c"]).arg(&file);
        let child = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            child => child?,
        };
        let program = Program {
            child,
            address,
            _directory: Some(directory),
        };
        let begun = Instant::now();
        while TcpStream::connect(&program.address).is_err() {
            if begun.elapsed() > START {
                return Err("nginx does not listen".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(Some(program))
    }

    /// What it and its children hold by themselves, in KiB.
    pub(crate) fn private_kib(&self) -> Result<f64> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut kib = 0.0;
        for pid in [&*pid.to_string()]
            .into_iter()
            .chain(children.split_whitespace())
        {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            for line in rollup.lines().filter(|line| line.starts_with("Private_")) {
                let figure = line.split_whitespace().nth(1);
                kib += figure.ok_or("the system does not say")?.parse::<f64>()?;
            }
        }
        Ok(kib)
    }
}

impl Drop for Program {
    /// nginx ends its workers if it is asked to end.
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = signal::kill(Pid::from_raw(pid), signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// Pulls messages of this size, and checks that all arrive. How many a second.
pub(crate) fn pull(command: &Path, address: &str, bytes: usize, count: u64) -> Result<f64> {
    let output = Command::new(command)
        .args(["pull", "--plain", "--json", "--size", &bytes.to_string()])
        .args(["--count", &count.to_string()])
        .arg(format!("ws://{address}/packets"))
        .output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("unstall pull: {errors}").into());
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let rate = json["messages_per_second"].as_f64();
    Ok(rate.ok_or("unstall pull does not say how fast it was")?)
}
