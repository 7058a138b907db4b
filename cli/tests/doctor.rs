//! The doctor examines other programs: Python scripts with their own WebSocket code
//! (`tests/programs`).
#![cfg(target_os = "linux")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

mod support;

#[path = "doctor/asking.rs"]
mod asking;
#[path = "doctor/conversation.rs"]
mod conversation;
#[path = "doctor/far.rs"]
mod far;
#[path = "doctor/network.rs"]
mod network;
#[path = "doctor/watching.rs"]
mod watching;

use conversation::{Conversation, Report, STUCK, doctor};

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
        "evidence library local peer pid program sentence since_ms verdict"
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

    // The same as text.
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
fn a_connection_that_nobody_accepted_is_said_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let report = Report::of(&["--port", &port.to_string()], port);
    assert_eq!(
        report.verdict(&report.server),
        "not_reading",
        "{}",
        report.text
    );
    assert_eq!(
        report.verdict(&report.client),
        "peer_not_reading",
        "{}",
        report.text
    );
    for end in [&report.server, &report.client] {
        let sentence = end["sentence"].as_str().unwrap();
        assert!(
            sentence.contains("has not accepted the connection"),
            "{sentence}"
        );
    }
    assert_eq!(report.server["pid"], Value::Null);
    let text = String::from_utf8(doctor(&["--port", &port.to_string()]).stdout).unwrap();
    assert!(text.contains("NOT READING  not accepted yet"), "{text}");
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
    talk.until(&[], |report| {
        report.verdict(&report.server) == "not_reading"
    });
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

    // Connections of another user are not shown.
    let output = as_nobody(&["--json"]).unwrap();
    assert!(
        !String::from_utf8(output.stdout)
            .unwrap()
            .contains(&format!(":{}", talk.port))
    );
}
