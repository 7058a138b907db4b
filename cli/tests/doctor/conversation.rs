//! Scripts that talk to each other, and the doctor's findings about them.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A verdict may take this long on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The verdicts that name a program that does not read, or a failure.
pub(crate) const STUCK: [&str; 5] = [
    "not_reading",
    "peer_not_reading",
    "both_not_reading",
    "network",
    "peer_gone",
];

/// An interpreter that leaves nothing behind.
pub(crate) fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/talk.py")
}

/// A running program, killed when dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) output: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Program { child, output }
    }

    /// Its next line; a blank one is empty.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the program prints UTF-8");
        assert!(!line.is_empty(), "the program ended early");
        line.trim().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status();
    assert!(status.expect("kill exists").success());
}

/// An open WebSocket connection between two scripts.
pub(crate) struct Conversation {
    pub(crate) server: Program,
    pub(crate) client: Program,
    pub(crate) port: u16,
}

impl Conversation {
    /// On this machine's loopback interface.
    pub(crate) fn start(server: &str, client: &str) -> Conversation {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        Conversation::between(python(), loopback, server, client)
    }

    /// With this command for the server, which decides where it runs.
    pub(crate) fn between(
        mut serve: Command,
        address: IpAddr,
        server: &str,
        client: &str,
    ) -> Conversation {
        serve
            .arg(script())
            .args(["serve", server])
            .arg(address.to_string());
        let mut server = Program::start(serve);
        let port: u16 = server.line().parse().expect("the server prints its port");
        let mut connect = python();
        connect
            .arg(script())
            .args(["connect", client])
            .arg(address.to_string());
        connect.arg(port.to_string());
        let mut client = Program::start(connect);
        assert_eq!(
            (server.line().as_str(), client.line().as_str()),
            ("open", "open")
        );
        Conversation {
            server,
            client,
            port,
        }
    }

    /// The doctor's findings about the connection now.
    pub(crate) fn examine(&self) -> Report {
        Report::of(
            &["--port", &self.port.to_string(), "--interval", "400ms"],
            self.port,
        )
    }

    /// Examines until both ends have these verdicts. Fails if one of `never` shows before that.
    pub(crate) fn expect(&self, server: &str, client: &str, never: &[&str]) -> Report {
        self.until(never, |report| {
            report.verdict(&report.server) == server && report.verdict(&report.client) == client
        })
    }

    pub(crate) fn until(&self, never: &[&str], expected: impl Fn(&Report) -> bool) -> Report {
        let began = Instant::now();
        loop {
            let report = self.examine();
            for verdict in never {
                assert!(
                    !report.text.contains(&format!("{verdict:?}")),
                    "accused: {}",
                    report.text
                );
            }
            if expected(&report) {
                return report;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the last report was {}",
                report.text
            );
        }
    }
}

/// The doctor's JSON about both ends of a connection. An end that it cannot see is null.
pub(crate) struct Report {
    pub(crate) server: Value,
    pub(crate) client: Value,
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Report {
    pub(crate) fn of(arguments: &[&str], port: u16) -> Report {
        let output = doctor(&[arguments, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "{error}: {text} {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let end = |key: &str| {
            let suffix = format!(":{port}");
            let connections = json["connections"].as_array().expect("an array");
            let found = connections.iter().find(|connection| {
                connection["evidence"]["state"] == "established"
                    && connection[key]
                        .as_str()
                        .expect("an address")
                        .ends_with(&suffix)
            });
            found.cloned().unwrap_or(Value::Null)
        };
        Report {
            server: end("local"),
            client: end("peer"),
            code: output.status.code(),
            text,
        }
    }

    pub(crate) fn verdict<'a>(&self, end: &'a Value) -> &'a str {
        end["verdict"].as_str().unwrap_or("")
    }
}

/// Runs `unstall doctor`.
pub(crate) fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstall"));
    command
        .arg("doctor")
        .args(arguments)
        .output()
        .expect("the command runs")
}
