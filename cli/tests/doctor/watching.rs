//! `unstall doctor --watch`.

use std::io::Read;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::conversation::{Conversation, PATIENCE, Program, signal};

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
        while !watch.line().contains(what) {
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
    let mut screen = vt100::Parser::new(24, 80, 0);
    let mut seen = 0;
    let began = Instant::now();
    loop {
        let mut part = [0; 4096];
        match terminal.output.read(&mut part).unwrap() {
            0 => break,
            read => shown.extend_from_slice(&part[..read]),
        }
        screen.process(&shown[seen..]);
        seen = shown.len();
        if !interrupted && screen.screen().contents().contains("peer not reading") {
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
