//! The doctor examines programs that know nothing of it: Python scripts that
//! speak WebSocket by hand (`tests/programs`).
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use unstall::doctor::{Doctor, Finding, TcpTimer};

#[path = "doctor/network.rs"]
mod network;
use network::Network;

/// A verdict may take this long on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/talk.py")
}

/// A running script, killed when dropped.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(mut command: Command) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is installed");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Program { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the script prints UTF-8");
        assert!(!line.is_empty(), "the script ended early");
        line.trim().to_owned()
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status();
    assert!(status.expect("kill exists").success());
}

/// An open WebSocket connection between two scripts.
struct Conversation {
    server: Program,
    client: Program,
    port: u16,
}

impl Conversation {
    /// On this machine's loopback interface.
    fn start(server: &str, client: &str) -> Conversation {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        Conversation::between(python(), loopback, server, client)
    }

    /// With the server's command given, which decides where it runs.
    fn between(mut serve: Command, address: IpAddr, server: &str, client: &str) -> Conversation {
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

    /// What the doctor says of the connection now.
    fn examine(&self) -> Report {
        Report::of(
            &["--port", &self.port.to_string(), "--interval", "400ms"],
            self.port,
        )
    }

    /// Examines until both ends have the verdicts, and fails if one of
    /// `never` shows meanwhile.
    fn expect(&self, server: &str, client: &str, never: &[&str]) -> Report {
        self.until(never, |report| {
            report.verdict(&report.server) == server && report.verdict(&report.client) == client
        })
    }

    fn until(&self, never: &[&str], expected: impl Fn(&Report) -> bool) -> Report {
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

/// The doctor's JSON about the two ends of one connection; an end that it
/// cannot see is null.
struct Report {
    server: Value,
    client: Value,
    code: Option<i32>,
    text: String,
}

impl Report {
    fn of(arguments: &[&str], port: u16) -> Report {
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

    fn verdict<'a>(&self, end: &'a Value) -> &'a str {
        end["verdict"].as_str().unwrap_or("")
    }
}

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstall"));
    command
        .arg("doctor")
        .args(arguments)
        .output()
        .expect("the command runs")
}

const STUCK: [&str; 5] = [
    "not_reading",
    "peer_not_reading",
    "both_not_reading",
    "network",
    "peer_gone",
];

#[test]
fn a_program_that_stops_reading_is_named_at_both_ends() {
    let talk = Conversation::start("stop_reading", "flood");
    let report = talk.expect(
        "not_reading",
        "peer_not_reading",
        &["both_not_reading", "network"],
    );
    assert_eq!(report.code, Some(1));

    let keys = |value: &Value| {
        let mut keys: Vec<_> = value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        keys.sort();
        keys.join(" ")
    };
    let json: Value = serde_json::from_str(&report.text).unwrap();
    assert_eq!(keys(&json), "connections");
    assert_eq!(
        keys(&report.server),
        "evidence local peer pid program sentence since_ms verdict"
    );
    assert_eq!(report.server["pid"], talk.server.pid());
    assert_eq!(report.client["pid"], talk.client.pid());
    assert!(
        report.server["program"]
            .as_str()
            .unwrap()
            .starts_with("python")
    );
    assert!(report.server["since_ms"].as_u64().unwrap() >= 1000);
    assert!(report.server["evidence"]["unread_bytes"].as_u64().unwrap() > 4096);
    assert!(
        report.client["evidence"]["send_queue_bytes"]
            .as_u64()
            .unwrap()
            > 4096
    );
    let blamed = format!("(pid {})", talk.server.pid());
    assert!(
        report.client["sentence"]
            .as_str()
            .unwrap()
            .contains(&blamed)
    );

    // The same for people.
    let output = doctor(&["--port", &talk.port.to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("PEER NOT READING  python3"), "{text}");
    assert!(text.contains("advice: "), "{text}");
    assert!(text.ends_with("2 of 2 connections stuck.\n"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn two_programs_that_only_write_are_a_deadlock() {
    let talk = Conversation::start("flood", "flood");
    let report = talk.expect(
        "both_not_reading",
        "both_not_reading",
        &["network", "peer_gone"],
    );
    assert_eq!(report.code, Some(1));
    for end in [&report.server, &report.client] {
        assert!(
            end["sentence"]
                .as_str()
                .unwrap()
                .contains("each side waits for the other")
        );
    }
}

#[test]
fn two_silent_programs_are_idle_and_not_stuck() {
    let talk = Conversation::start("hold", "hold");
    let report = talk.expect("idle", "idle", &STUCK);
    assert_eq!(report.code, Some(0));
}

#[test]
fn a_slow_reader_is_slow_and_not_stuck() {
    let talk = Conversation::start("read_slowly", "flood");
    let report = talk.expect("slow_reader", "slow_reader", &STUCK);
    assert_eq!(report.code, Some(0));
    assert!(
        report.server["evidence"]["read_bytes_per_second"]
            .as_u64()
            .unwrap()
            > 0
    );
    for _ in 0..3 {
        let report = talk.examine();
        assert_eq!(report.code, Some(0), "{}", report.text);
    }
}

#[test]
fn a_healthy_conversation_is_never_accused() {
    let talk = Conversation::start("chat", "chat");
    for _ in 0..5 {
        let report = talk.expect("moving", "moving", &STUCK);
        assert_eq!(report.code, Some(0));
    }
}

#[test]
fn a_reader_that_keeps_up_with_a_flood_is_never_accused() {
    let talk = Conversation::start("read_all", "flood");
    for _ in 0..4 {
        let report = talk.examine();
        assert_eq!(report.code, Some(0), "{}", report.text);
        for end in [&report.server, &report.client] {
            assert!(
                ["moving", "slow_reader"].contains(&report.verdict(end)),
                "{}",
                report.text
            );
        }
    }
}

#[test]
fn a_stopped_peer_is_told_from_one_that_does_not_read_and_recovers() {
    let talk = Conversation::start("chat", "chat");
    talk.server.signal("STOP");
    let report = talk.expect("not_reading", "peer_not_reading", &["network", "peer_gone"]);
    let stopped = format!("(pid {}) is stopped by a signal", talk.server.pid());
    for end in [&report.server, &report.client] {
        assert!(
            end["sentence"].as_str().unwrap().contains(&stopped),
            "{end}"
        );
    }
    assert_eq!(report.server["evidence"]["process_state"], "T");
    assert_eq!(report.client["evidence"]["peer_process"]["state"], "T");
    let output = doctor(&["--pid", &talk.client.pid().to_string()]);
    let cure = format!("kill -CONT {}", talk.server.pid());
    assert!(String::from_utf8(output.stdout).unwrap().contains(&cure));

    talk.server.signal("CONT");
    talk.expect("moving", "moving", &["network", "peer_gone"]);
}

#[test]
fn a_process_is_examined_alone() {
    let (mine, other) = (
        Conversation::start("hold", "hold"),
        Conversation::start("hold", "hold"),
    );
    let pid = mine.client.pid().to_string();
    let report = Report::of(&["--pid", &pid], mine.port);
    let json: Value = serde_json::from_str(&report.text).unwrap();
    assert_eq!(
        json["connections"].as_array().unwrap().len(),
        1,
        "{}",
        report.text
    );
    assert_eq!(report.client["pid"], mine.client.pid());
    assert!(!report.text.contains(&format!(":{}", other.port)));

    let all = Report::of(&["--all"], mine.port);
    for port in [mine.port, other.port] {
        assert!(all.text.contains(&format!(":{port}")), "{}", all.text);
    }
}

#[test]
fn wrong_usage_is_code_2_and_says_why() {
    // Past the largest id that Linux gives out.
    let nobody = "4194305";
    let cases: [(&[&str], &str); 5] = [
        (&["--pid", nobody], "there is no process 4194305"),
        (&["--pid", "1", "--port", "80"], "cannot be used with"),
        (&["--port", "65536"], "invalid value"),
        (&["--interval", "1ms"], "100ms to 1h"),
        (&["--interval", "soon"], "unit"),
    ];
    for (arguments, reason) in cases {
        let output = doctor(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_the_right_to_see_a_process_it_says_so() {
    let talk = Conversation::start("stop_reading", "flood");
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_unstall"),
            "doctor",
        ]);
        command.args(arguments).output()
    };
    match as_nobody(&["--help"]) {
        Ok(output) if output.status.success() => {}
        _ => {
            println!("skipped: this user may not run the command as another one (setpriv)");
            return;
        }
    }
    let output = as_nobody(&["--port", &talk.port.to_string(), "--json"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["connections"][0]["pid"], Value::Null);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("Run as root")
    );

    let output = as_nobody(&["--pid", &talk.server.pid().to_string()]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("belongs to another user")
    );

    // Another user's connections are not this user's.
    let output = as_nobody(&["--json"]).unwrap();
    assert!(
        !String::from_utf8(output.stdout)
            .unwrap()
            .contains(&format!(":{}", talk.port))
    );
}

#[test]
fn watching_in_a_pipe_prints_tables_and_marks_what_changed() {
    let talk = Conversation::start("chat", "chat");
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstall"));
    command.args([
        "doctor",
        "--watch",
        "--interval",
        "300ms",
        "--port",
        &talk.port.to_string(),
    ]);
    let mut watch = Program::start(command);
    let mut wait_for = |what: &str| {
        let began = Instant::now();
        while !watch.line_or_blank().contains(what) {
            assert!(began.elapsed() < PATIENCE, "no line with {what:?}");
        }
    };
    wait_for("moving");
    talk.server.signal("STOP");
    wait_for("* was moving");
    talk.server.signal("CONT");
    wait_for("* was peer not reading");

    watch.signal("TERM");
    let mut rest = Vec::new();
    watch.output.read_to_end(&mut rest).unwrap();
    assert!(!rest.contains(&0x1b), "no escape sequences in a pipe");
    assert!(
        watch
            .child
            .wait()
            .unwrap()
            .code()
            .is_some_and(|code| code <= 1)
    );
}

impl Program {
    fn line_or_blank(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(
            self.output.read_line(&mut line).expect("UTF-8"),
            0,
            "it ended early"
        );
        line
    }
}

#[test]
fn watching_in_json_prints_an_object_in_a_line() {
    let talk = Conversation::start("chat", "chat");
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstall"));
    command.args(["doctor", "--watch", "--json", "--interval", "200ms"]);
    command.args(["--port", &talk.port.to_string()]);
    let mut watch = Program::start(command);
    for _ in 0..3 {
        let json: Value = serde_json::from_str(&watch.line()).unwrap();
        assert_eq!(json["connections"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn watching_in_a_terminal_leaves_it_as_it_was() {
    if !Command::new("script")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
    {
        println!("skipped: no `script` to make a terminal with");
        return;
    }
    let talk = Conversation::start("stop_reading", "flood");
    let watch = format!(
        "exec {} doctor --watch --interval 200ms --port {}",
        env!("CARGO_BIN_EXE_unstall"),
        talk.port
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &watch, "/dev/null"]);
    let mut terminal = Program::start(command);
    let mut shown = Vec::new();
    let mut interrupted = false;
    let began = Instant::now();
    loop {
        let mut part = [0; 4096];
        match terminal.output.read(&mut part).unwrap() {
            0 => break,
            read => shown.extend_from_slice(&part[..read]),
        }
        if !interrupted && String::from_utf8_lossy(&shown).contains("peer not reading") {
            let child = format!("/proc/{0}/task/{0}/children", terminal.pid());
            let children = std::fs::read_to_string(child).unwrap();
            signal(children.trim().parse().unwrap(), "INT");
            interrupted = true;
        }
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(
        terminal.child.wait().unwrap().code(),
        Some(1),
        "something is stuck"
    );
    let shown = String::from_utf8(shown).unwrap();
    let (table, after) = shown
        .split_once("\x1b[?25h\x1b[?1049l")
        .expect("the terminal is restored");
    assert!(table.starts_with("\x1b[?1049h\x1b[?25l"), "{table:?}");
    assert!(
        after.contains("peer not reading"),
        "the last table stays: {after:?}"
    );
}

#[test]
fn a_far_peer_is_judged_by_this_side_alone() {
    let Some(network) = Network::enter("a_far_peer_is_judged_by_this_side_alone") else {
        return;
    };
    let full = network.conversation("stop_reading", "flood");
    let deadlock = network.conversation("flood", "flood");
    let slow = network.conversation("read_slowly", "flood");
    let healthy = network.conversation("chat", "chat");

    let never = ["not_reading", "network", "peer_gone", "both_not_reading"];
    let report = full.until(&never, |report| {
        report.verdict(&report.client) == "peer_not_reading"
    });
    assert_eq!(report.server, Value::Null, "the far end cannot be seen");
    assert!(report.client["since_ms"].as_u64().unwrap() >= 5000);
    assert_eq!(report.client["evidence"]["peer_window_bytes"], 0);
    assert_eq!(report.client["evidence"]["timer"], "persist");

    deadlock.until(&["network", "peer_gone"], |report| {
        report.verdict(&report.client) == "both_not_reading"
    });
    for _ in 0..2 {
        let report = slow.until(&STUCK, |report| {
            report.verdict(&report.client) == "slow_reader"
        });
        assert_eq!(report.code, Some(0));
        let report = healthy.until(&STUCK, |report| report.verdict(&report.client) == "moving");
        assert_eq!(report.code, Some(0));
    }
}

#[test]
fn a_slow_link_that_loses_packets_is_not_accused() {
    let Some(network) = Network::enter("a_slow_link_that_loses_packets_is_not_accused") else {
        return;
    };
    if !network.slow_down() {
        println!("skipped: no token bucket filter (tc, sch_tbf) to slow the link down with");
        return;
    }
    let talk = network.conversation("read_all", "flood");
    for _ in 0..3 {
        let report = talk.until(&STUCK, |report| report.verdict(&report.client) == "moving");
        assert_eq!(report.code, Some(0));
    }
    let report = talk.until(&STUCK, |report| {
        let again = &report.client["evidence"]["retransmitted_packets_total"];
        again.as_u64().is_some_and(|again| again > 0)
    });
    assert!(
        report.client["evidence"]["send_queue_bytes"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[test]
fn a_peer_that_dies_without_closing_is_the_network_s_fault_while_data_waits() {
    let name = "a_peer_that_dies_without_closing_is_the_network_s_fault_while_data_waits";
    let Some(network) = Network::enter(name) else {
        return;
    };
    let mut talk = network.conversation("chat", "chat");
    talk.until(&STUCK, |report| report.verdict(&report.client) == "moving");
    network.cut();
    talk.server.child.kill().unwrap();
    let accused = [
        "not_reading",
        "peer_not_reading",
        "peer_gone",
        "both_not_reading",
    ];
    let report = talk.until(&accused, |report| {
        report.verdict(&report.client) == "network"
    });
    assert_eq!(report.code, Some(1));
    assert_eq!(report.client["evidence"]["timer"], "retransmit");
    assert!(
        report.client["evidence"]["consecutive_retransmissions"]
            .as_u64()
            .unwrap()
            >= 2
    );
}

#[test]
fn a_peer_that_dies_without_closing_is_gone_once_probes_stay_unanswered() {
    let name = "a_peer_that_dies_without_closing_is_gone_once_probes_stay_unanswered";
    let Some(network) = Network::enter(name) else {
        return;
    };
    // One connection is quiet and kept alive by the kernel, the other waits
    // for a window that will never open.
    let mut quiet = network.conversation("hold", "keepalive");
    quiet.until(&STUCK, |report| report.verdict(&report.client) == "idle");
    let mut full = network.conversation("stop_reading", "flood");
    full.until(&["network", "peer_gone"], |report| {
        report.client["evidence"]["timer"] == "persist"
    });
    network.cut();
    quiet.server.child.kill().unwrap();
    full.server.child.kill().unwrap();
    for (talk, timer) in [(&quiet, "keepalive"), (&full, "persist")] {
        let report = talk.until(&["network", "not_reading"], |report| {
            report.verdict(&report.client) == "peer_gone"
        });
        assert_eq!(report.client["evidence"]["timer"], timer);
        assert!(
            report.client["evidence"]["unanswered_probes"]
                .as_u64()
                .unwrap()
                >= 2
        );
    }
}

/// The library must not take a live peer that does not read for a dead one:
/// TCP_USER_TIMEOUT does, the kernel's account does not.
#[test]
fn a_live_peer_that_never_reads_is_not_a_dead_one() {
    let name = "a_live_peer_that_never_reads_is_not_a_dead_one";
    let Some(network) = Network::enter(name) else {
        return;
    };
    let mut talk = network.conversation("stop_reading", "flood");
    let look = || -> Option<Finding> {
        let mut doctor = Doctor::new();
        doctor.look().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        doctor.look().unwrap();
        doctor
            .findings()
            .into_iter()
            .find(|finding| finding.account.peer.port() == talk.port)
    };
    let mut probed = 0;
    let began = Instant::now();
    // Four doublings of the persist timer are more than three seconds.
    while probed < 4 {
        let account = look().expect("the connection is there").account;
        assert_eq!(account.peer_is_dead_since(), None, "alive: {account:?}");
        if matches!(account.timer, TcpTimer::Persist { .. }) {
            probed = account.backoff;
        }
        assert!(began.elapsed() < PATIENCE, "{account:?}");
    }

    network.cut();
    talk.server.child.kill().unwrap();
    let cut = Instant::now();
    loop {
        let account = look().expect("the connection is there").account;
        if let Some(since) = account.peer_is_dead_since() {
            assert!(account.probes >= 2, "{account:?}");
            // Never longer than since the last sign of life.
            assert!(since <= account.last_heard(), "{account:?}");
            break;
        }
        assert!(cut.elapsed() < PATIENCE, "{account:?}");
    }
}
