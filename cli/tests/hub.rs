//! `unstall hub` with `publish` and `subscribe`, over loopback.

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use serde_json::{Value, json};
use support::{Running, Serve, http::get, run, run_with};

/// Publishes these lines, and checks that all are stored.
fn publish(hub: &Serve, topic: &str, lines: &str) {
    let ended = run_with(&["publish", &hub.url, topic], lines);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
}

/// The objects that a subscription prints.
fn objects(args: &[&str]) -> Vec<Value> {
    let ended = run(&[&["subscribe", "--json"], args].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    let texts = lines.iter().filter_map(|line| line["text"].as_str());
    texts.collect()
}

/// Numbered lines.
fn lines(word: &str, count: u32) -> String {
    (0..count).map(|it| format!("{word} {it}\n")).collect()
}

#[test]
fn a_hundred_thousand_lines_are_stored_in_order_and_come_back() {
    let hub = Serve::hub(&["--max-bytes", "1GiB"]);
    let input: String = (0..100_000).map(|it| format!("line {it}\n")).collect();
    let mut publish = Running::start(&["publish", "--json", &hub.url, "some.topic"]);
    let mut stdin = publish.child.stdin.take().unwrap();
    let sent = input.clone();
    let writing =
        std::thread::spawn(move || std::io::Write::write_all(&mut stdin, sent.as_bytes()));
    let published = publish.end();
    writing.join().unwrap().unwrap();
    assert_eq!(published.code, Some(0), "{published:?}");
    for (line, number) in published.stdout.lines().zip(1u64..) {
        assert_eq!(line, format!("{{\"offset\":{number}}}"));
    }
    assert_eq!(published.stdout.lines().count(), 100_000);
    let all = [
        "subscribe",
        &hub.url,
        "some.*",
        "--from",
        "start",
        "--count",
        "100000",
    ];
    let ended = run(&all);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert!(ended.stdout == input, "the same lines");
}

#[test]
fn objects_say_what_was_delivered_and_where_the_end_was() {
    let hub = Serve::hub(&[]);
    publish(&hub, "a.text", "one\n");
    let binary = ["publish", "--binary", &hub.url, "a.binary"];
    assert_eq!(run_with(&binary, b"\xff\x00\n").code, Some(0));
    let last = ["publish", "--final", &hub.url, "a.text"];
    assert_eq!(run_with(&last, "two\nthree\n").code, Some(0));
    let mut seen = objects(&[&hub.url, "a.text", "--from", "start"]);
    for object in &mut seen {
        if let Some(time) = object.get_mut("time") {
            assert!(time.take().as_u64().unwrap() > 1_700_000_000_000);
        }
    }
    let expected = [
        json!({"topic": "a.text", "offset": 1, "time": null, "text": "one"}),
        json!({"topic": "a.text", "offset": 3, "time": null, "text": "two"}),
        json!({"topic": "a.text", "offset": 4, "time": null, "text": "three", "final": true}),
    ];
    // It ends with the final message, before the mark or behind it.
    assert_eq!(seen[..3], expected);
    let from = |place: &str, count: &str| {
        let seen = objects(&[&hub.url, "a.>", "--from", place, "--count", count]);
        let offset = |it: &Value| it["offset"].as_u64();
        seen.iter().filter_map(offset).collect::<Vec<_>>()
    };
    assert_eq!(from("last:2", "2"), [3, 4]);
    assert_eq!(from("latest", "2"), [2, 4]);
    assert_eq!(from("1", "3"), [2, 3, 4]);
    assert_eq!(from("since:1000", "1"), [1]);
    let binary = objects(&[&hub.url, "a.binary", "--from", "start", "--count", "1"]);
    assert_eq!(binary[0]["base64"], "/wA=");
}

#[test]
fn a_mark_stands_where_history_ends() {
    let hub = Serve::hub(&[]);
    publish(&hub, "a", "one\n");
    let mut feed = Running::start(&["subscribe", "--json", &hub.url, "a", "--from", "start"]);
    let mut lines = BufReader::new(feed.child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["text"], "one");
    assert_eq!(next(), json!({"caught_up": 1}));
    publish(&hub, "other", "not for it\n");
    publish(&hub, "a", "two\n");
    assert_eq!(next()["text"], "two");
}

#[test]
fn a_gap_is_told_in_its_place() {
    let hub = Serve::hub(&["--max-bytes", "10000"]);
    let lines: String = (0..1000).map(|it| format!("{it}\n")).collect();
    publish(&hub, "a", &lines);
    let seen = objects(&[&hub.url, "a", "--from", "5", "--count", "1"]);
    let gap = &seen[0]["gap"];
    assert_eq!(
        (&gap["reason"], &gap["after"]),
        (&json!("removed"), &json!(5))
    );
    let through = gap["through"].as_u64().unwrap();
    assert_eq!(seen[1]["offset"].as_u64(), Some(through + 1));
    let ended = run(&["subscribe", &hub.url, "a", "--from", "5", "--count", "1"]);
    let told = format!("those behind offset 5 and up to {through} were removed");
    assert!(ended.stderr.contains(&told), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1);
}

#[test]
fn a_position_in_a_file_goes_on_without_loss_or_repetition() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("position");
    let file = file.to_str().unwrap();
    let hub = Serve::hub(&[]);
    let lines: Vec<_> = (0..1000).map(|it| it.to_string()).collect();
    publish(&hub, "a", &(lines.join("\n") + "\n"));
    let mut seen = Vec::new();
    for count in ["1", "299", "700"] {
        let args = [
            "subscribe",
            &hub.url,
            "a",
            "--from",
            "start",
            "--resume",
            file,
        ];
        let ended = run(&[&args[..], &["--count", count]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        seen.extend(ended.stdout.lines().map(str::to_owned));
    }
    assert_eq!(seen, lines);
    std::fs::write(file, "nonsense").unwrap();
    let ended = run(&["subscribe", &hub.url, "a", "--resume", file]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("this is not a position"), "{ended:?}");
}

/// A subscriber that is killed repeats at most what it had written behind the file's position.
#[test]
fn a_killed_subscriber_loses_nothing() {
    const ALL: u32 = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("position");
    let file = file.to_str().unwrap();
    let hub = Serve::hub(&[]);
    let lines: String = (0..ALL).map(|it| format!("{it}\n")).collect();
    publish(&hub, "a", &lines);
    let mut next = 0;
    let mut kills = 0;
    while next < ALL {
        let args = [
            "subscribe",
            &hub.url,
            "a",
            "--from",
            "start",
            "--resume",
            file,
        ];
        let mut feed = Running::start(&args);
        let mut out = BufReader::new(feed.child.stdout.take().unwrap());
        let mut line = String::new();
        let stop = next + ALL / 10;
        // What it had written when it was killed is in the pipe. The last line may be torn.
        while out.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            let number: u32 = line.trim_end().parse().unwrap();
            assert!(
                number <= next,
                "{number} after {next}: messages are missing"
            );
            next = next.max(number + 1);
            line.clear();
            if next == stop.min(ALL) {
                kills += 1;
                feed.child.kill().unwrap();
            }
        }
    }
    assert!(kills >= 2, "it was killed in the midst of it");
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_it_without_complaint() {
    let hub = Serve::hub(&[]);
    let lines: String = (0..100_000).map(|it| format!("{it}\n")).collect();
    publish(&hub, "a", &lines);
    let mut feed = Running::start(&["subscribe", &hub.url, "a", "--from", "start"]);
    BufReader::new(feed.child.stdout.take().unwrap())
        .read_until(b'\n', &mut Vec::new())
        .unwrap();
    let ended = feed.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn lines_that_are_not_stored_are_named() {
    let hub = Serve::hub(&["--max-bytes", "1000"]);
    let large = "x".repeat(2000);
    let input = format!("one\n{large}\n{large}\nfour\n");
    let ended = run_with(&["publish", "--json", &hub.url, "a"], input);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = "of 4 lines, 2 were not stored: line 2 to 3 (";
    assert!(ended.stderr.contains(told), "{ended:?}");
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(lines[0], json!({"offset": 1}));
    assert_eq!(
        (&lines[1]["line"], &lines[1]["stored"]),
        (&json!(2), &json!("no"))
    );
    assert_eq!(lines[3], json!({"offset": 2}));
}

/// The hub stops in the midst of it, so no answer comes, and nobody can know.
#[cfg(unix)]
#[test]
fn lines_without_an_answer_are_unknown() {
    let hub = Serve::hub(&[]);
    let mut publish = Running::start(&["publish", "--json", "--timeout", "0.5", &hub.url, "a"]);
    let mut out = BufReader::new(publish.child.stdout.take().unwrap());
    publish.write("one\n");
    out.read_line(&mut String::new()).unwrap();
    hub.running.signal("STOP");
    publish.write("two\nthree\n");
    let ended = publish.end();
    hub.running.signal("CONT");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = "of 2 it is unknown whether they were stored: line 2 to 3";
    assert!(ended.stderr.contains(told), "{ended:?}");
}

#[test]
fn an_invalid_line_topic_or_filter_is_told() {
    let hub = Serve::hub(&[]);
    let ended = run_with(&["publish", &hub.url, "a"], b"good\n\xff\n");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("line 2 of standard input is not UTF-8")
    );
    let seen = objects(&[&hub.url, "a", "--from", "start", "--count", "1"]);
    assert_eq!(seen[0]["text"], "good");
    for args in [
        ["publish", &hub.url, "a.*"],
        ["publish", &hub.url, ""],
        ["subscribe", &hub.url, "a.>.b"],
        ["subscribe", "http://127.0.0.1:1", "a"],
    ] {
        let ended = run(&args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
    }
    assert_eq!(
        run(&["subscribe", &hub.url, "a", "--from", "then"]).code,
        Some(2)
    );
}

#[test]
fn a_node_that_is_not_there_is_exit_1_and_the_next_one_is_taken() {
    for args in [
        ["publish", "ws://127.0.0.1:1", "a"],
        ["subscribe", "ws://127.0.0.1:1", "a"],
    ] {
        let ended = run(&args);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("no TCP connection"), "{ended:?}");
    }
    let hub = Serve::hub(&[]);
    let both = format!("ws://127.0.0.1:1,{}", hub.url);
    // The first one is taken at random.
    for _ in 0..5 {
        assert_eq!(run_with(&["publish", &both, "a"], "one\n").code, Some(0));
    }
}

#[test]
fn a_log_in_a_directory_outlives_its_hub_and_another_hub_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("log");
    let store = ["--store", store.to_str().unwrap()];
    let mut hub = Serve::hub(&store);
    publish(&hub, "a", "one\n");
    let taken = run(&[&["hub", "--listen", "127.0.0.1:0"], &store[..]].concat());
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stderr.contains("is in use"), "{taken:?}");
    // As a power cut of the process.
    hub.running.child.kill().unwrap();
    hub.running.wait();
    let hub = Serve::hub(&store);
    publish(&hub, "a", "two\n");
    let seen = objects(&[&hub.url, "a", "--from", "start", "--count", "2"]);
    let texts: Vec<_> = seen.iter().filter_map(|it| it["text"].as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
}

#[cfg(unix)]
#[test]
fn a_signal_closes_websockets_and_streams_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let mut hub = Serve::hub(&["--json"]);
        let mut feed = Running::start(&["subscribe", "--json", &hub.url, "a", "--from", "start"]);
        let mut out = BufReader::new(feed.child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        let stream = get(hub.address(), "/topics/a", &["accept: text/event-stream"]);
        let mut events = stream.events();
        assert_eq!(events.next().unwrap().kind, "caught_up");
        hub.running.signal(signal);
        assert_eq!(events.next(), None);
        assert_eq!(hub.running.wait().code(), Some(0));
        let mut rest = String::new();
        hub.stdout.read_to_string(&mut rest).unwrap();
        let result: Value = serde_json::from_str(&rest).unwrap();
        assert_eq!(
            (&result["accepted"], &result["aborted"]),
            (&json!(1), &json!(0)),
            "{result}"
        );
    }
}

#[test]
fn without_keys_it_listens_on_loopback_only() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let ended = run(&["hub", "--listen", listen]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("--token-key"), "{ended:?}");
    }
    assert_eq!(run(&["hub", "--store", "redis://a/b"]).code, Some(2));
}

/// One subscriber stops reading for good. Others are served, and the hub's memory does not grow.
#[cfg(unix)]
#[test]
fn a_subscriber_that_stops_harms_nobody() {
    let hub = Serve::hub(&[]);
    let mut stopped = support::unstall(&["subscribe", &hub.url, "a", "--from", "start"]);
    let mut stopped = Running {
        child: stopped.stdout(Stdio::piped()).spawn().unwrap(),
    };
    let line = "x".repeat(1000) + "\n";
    for _ in 0..3 {
        publish(&hub, "a", &line.repeat(20_000));
        let args = [
            "subscribe",
            &hub.url,
            "a",
            "--from",
            "last:1000",
            "--count",
            "1000",
        ];
        let ended = run(&args);
        assert_eq!(ended.stdout.lines().count(), 1000, "{}", ended.stderr);
    }
    assert!(
        stopped.child.try_wait().unwrap().is_none(),
        "it still waits"
    );
}

/// Whoever goes on from a position of a log that is not there any more gets a gap, and then everything
/// that the new log has: over WebSocket, over HTTP and as events.
#[test]
fn whoever_goes_on_from_the_old_log_is_told_that_it_was_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (log, file) = (path("log"), path("position"));
    for store in [&["--store", &log][..], &[]] {
        let old = Serve::hub(store);
        publish(&old, "a", &lines("old", 5));
        let resume = |hub: &Serve, count: &str| {
            let from = ["--from", "start", "--resume", &file, "--count", count];
            objects(&[&[&hub.url, "a"], &from[..]].concat())
        };
        assert_eq!(
            texts(&resume(&old, "5")),
            ["old 0", "old 1", "old 2", "old 3", "old 4"]
        );
        let answer = get(old.address(), "/topics/a?after=4", &[]);
        let id = answer.header("unstall-log").unwrap().to_owned();
        let last = &answer.lines()[0];
        let position = format!("{id}:{}:{}", last["offset"], last["time"]);
        drop(old);
        let _ = std::fs::remove_dir_all(&log);

        let new = Serve::hub(store);
        publish(&new, "a", &lines("new", 8));
        let (all, rest) = (lines("new", 8), "last-event-id: ".to_owned() + &position);
        let all: Vec<_> = all.lines().collect();
        let over_websocket = resume(&new, "8");
        let over_http = get(new.address(), &format!("/topics/a?after={position}"), &[]).lines();
        let headers = ["accept: text/event-stream", &rest];
        let mut events = get(new.address(), "/topics/a", &headers).events();
        let as_events: Vec<_> = (0..9).map(|_| events.next().unwrap().json()).collect();
        for seen in [&over_websocket, &over_http, &as_events] {
            let gap = &seen[0]["gap"];
            assert_eq!(
                (&gap["reason"], &gap["after"]),
                (&json!("another_log"), &json!(5))
            );
            assert_eq!(texts(seen), all);
        }
        // From here on it is a position of the new log.
        publish(&new, "a", "next\n");
        assert_eq!(texts(&resume(&new, "1")), ["next"]);
        std::fs::remove_file(&file).unwrap();
    }
}

/// Once a hub went on without its directory, and confirmed what was lost when it ended.
#[cfg(unix)]
#[test]
fn a_hub_whose_directory_is_removed_ends_and_another_one_serves_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let store = ["--store", log.to_str().unwrap()];
    let mut old = Serve::hub(&store);
    publish(&old, "a", &lines("old", 5));
    let url = old.url.clone();
    let mut feed = Running::start(&["subscribe", &url, "a", "--from", "start", "--json"]);
    let mut out = BufReader::new(feed.child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&out.next().unwrap().unwrap()).unwrap() };
    (0..5).for_each(|at| assert_eq!(next()["text"], format!("old {at}")));
    assert_eq!(next(), json!({"caught_up": 5}));
    std::fs::remove_dir_all(&log).unwrap();
    let late = run_with(&["publish", &url, "a", "--timeout", "3"], "too late\n");
    assert_eq!(late.code, Some(1), "{late:?}");
    let code = old.running.wait().code();
    assert_eq!(code, Some(1));
    let told = old.running.end().stderr;
    assert!(told.contains("is no longer there"), "{told}");

    let address = url.strip_prefix("ws://").unwrap();
    let new = Serve::of(&[&["hub", "--listen", address], &store[..]].concat());
    publish(&new, "a", &lines("new", 3));
    let gap = next();
    let gap = (&gap["gap"]["reason"], &gap["gap"]["after"]);
    assert_eq!(gap, (&json!("another_log"), &json!(5)));
    (0..3).for_each(|at| assert_eq!(next()["text"], format!("new {at}")));
}
