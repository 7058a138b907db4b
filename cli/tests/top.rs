//! `unstall top`: a server's connections in a terminal, as text and as JSON.
#![cfg(target_os = "linux")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use support::{Running, Serve, pem::Pem, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that gives one answer to one request, and then tells what it was asked.
fn answering(answer: String) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
        let head: Vec<_> = lines
            .by_ref()
            .map(Result::unwrap)
            .take_while(|it| !it.is_empty())
            .collect();
        socket.write_all(answer.as_bytes()).unwrap();
        head.join("\n")
    });
    (address, asked)
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

#[test]
fn a_stalled_consumer_is_shown_as_text_with_its_cause_and_since_when() {
    let server = Serve::start(&[]);
    let empty = run(&["top", &server.url, "--once"]).stdout;
    assert!(empty.ends_with("no connections\n"), "{empty}");
    let consumer = server.stalled_consumer();
    let peer = consumer.local_addr().unwrap().to_string();
    let begun = Instant::now();
    let text = loop {
        let shown = run(&["top", &server.url, "--once"]);
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
        if shown.stdout.contains("the peer is not reading") {
            break shown.stdout;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", shown.stdout);
    };
    let row = text.lines().find(|line| line.contains(&peer)).unwrap();
    assert!(row.ends_with("s the peer is not reading"), "{text}");
    assert!(text.starts_with("unstall serve "), "{text}");
    assert!(text.contains("1 open, 0 connecting"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");

    let json = run(&["top", server.address(), "--json"]).json();
    let one = &json["connections"][0];
    assert_eq!(one["peer"], peer);
    assert_eq!(one["stalls"][0]["cause"], "socket_full");
    let id = one["id"].to_string();
    let details = run(&["top", &server.url, "--once", "--connection", &id]).stdout;
    for part in [
        &format!("Connection {id}: plain, server's side, peer {peer}"),
        "the peer is not reading",
        "Events\n",
    ] {
        assert!(details.contains(part), "{part}: {details}");
    }
    let gone = run(&["top", &server.url, "--once", "--connection", "999999"]);
    assert!(
        gone.stderr
            .contains("nothing is known of connection 999999"),
        "{gone:?}"
    );
}

#[test]
fn a_stalled_consumer_is_seen_in_a_terminal_and_the_terminal_is_left_as_it_was() {
    if !Path::new("/usr/bin/script").exists() {
        println!("skipped: no `script` to make a terminal with");
        return;
    }
    let server = Serve::start(&[]);
    let command = format!(
        "stty rows 24 cols 80; exec {} top {} --interval 200ms",
        env!("CARGO_BIN_EXE_unstall"),
        server.url
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    script.env("NO_COLOR", "1").env("TERM", "xterm");
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = Running {
        child: script.spawn().unwrap(),
    };
    let mut screen = terminal.child.stdout.take().unwrap();
    let mut shown = Vec::new();
    let mut seen = vt100::Parser::new(24, 80, 0);
    let mut until = |what: &str| {
        let begun = Instant::now();
        while !seen.screen().contents().contains(what) {
            let mut part = [0; 4096];
            let read = screen.read(&mut part).unwrap();
            let contents = seen.screen().contents();
            assert!(
                read > 0 && begun.elapsed() < PATIENCE,
                "{what}:
{contents}"
            );
            seen.process(&part[..read]);
            shown.extend_from_slice(&part[..read]);
        }
        begun.elapsed()
    };
    until("no connections");
    let consumer = server.stalled_consumer();
    let took = until("peer not reading");
    assert!(took < Duration::from_secs(10), "{took:?}");
    terminal.write("\r");
    let peer = consumer.local_addr().unwrap();
    until(&format!("plain, server's side, peer {peer}"));
    until("Events");
    terminal.write("\x1b");
    until("Enter details");
    terminal.write("q");
    let status = terminal.wait();
    screen.read_to_end(&mut shown).unwrap();
    assert!(status.success());
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("\x1b[?1049h"), "{shown:?}");
    let left = "\x1b[?25h\x1b[?1049l";
    assert!(shown.contains(left), "{shown:?}");
    for colour in ["\x1b[31m", "\x1b[38;5;1m", "\x1b[33m", "\x1b[38;5;3m"] {
        assert!(!shown.contains(colour), "NO_COLOR: {shown:?}");
    }
}

#[test]
fn every_failure_says_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let failed = run(&["top", &address, "--once"]);
    assert_eq!(failed.code, Some(1));
    assert!(
        failed
            .stderr
            .contains("no server answers at http://127.0.0.1:"),
        "{failed:?}"
    );
    for (answer, says) in [
        (http("404 Not Found", "nothing"), "is no unstall server"),
        (http("200 OK", "<html>"), "is no unstall server"),
        (http("200 OK", "{\"a\":1}"), "is no unstall server"),
        (http("200 OK", "{\"version\":2}"), "tells version 2"),
        (
            http("401 Unauthorized", "{\"error\":\"who\"}"),
            "asks for a token: give one with --token FILE",
        ),
        (
            http("403 Forbidden", "{\"error\":\"not from\\u001b[2J here\"}"),
            r"not from\u{1b}[2J here",
        ),
        (http("302 Found", ""), "is no unstall server"),
    ] {
        let (address, asked) = answering(answer);
        let failed = run(&["top", &address, "--once"]);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(failed.stderr.contains(says), "{says}: {failed:?}");
        let asked = asked.join().unwrap().to_lowercase();
        assert!(asked.starts_with("get /status.json "), "{asked}");
        assert!(!asked.contains("authorization"), "{asked}");
    }
    let failed = run(&["top", "ws://me:s3cret@127.0.0.1:1", "--once"]);
    assert_eq!(failed.code, Some(2));
    assert!(!failed.stderr.contains("s3cret"), "{failed:?}");
    let failed = run(&["top", "127.0.0.1:1"]);
    assert!(failed.stderr.contains("use --once or --json"), "{failed:?}");
}

#[test]
fn a_token_is_shown_to_its_server_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret-t0ken\n").unwrap();
    let token = ["--once", "--token", file.to_str().unwrap()];
    let (elsewhere, _) = answering(http("200 OK", "{}"));
    let moved = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    for (answer, says) in [
        (
            http("401 Unauthorized", "{\"error\":\"it has expired\"}"),
            "does not accept the token: it has expired",
        ),
        (moved, "is no unstall server"),
    ] {
        let (address, asked) = answering(answer);
        let failed = run(&[&["top", &address], &token[..]].concat());
        assert!(failed.stderr.contains(says), "{says}: {failed:?}");
        assert!(!failed.stderr.contains("s3cret"), "{failed:?}");
        let asked = asked.join().unwrap();
        assert!(
            asked
                .to_lowercase()
                .contains("authorization: bearer s3cret-t0ken"),
            "{asked}"
        );
    }
    assert!(TcpStream::connect(&elsewhere).is_ok(), "it was not asked");
}

#[test]
fn a_server_with_tls_is_asked_if_its_certificate_is_trusted() {
    let pem = Pem::of(&["localhost"]);
    let args = pem.args();
    let server = Serve::start(&args.each_ref().map(String::as_str));
    let url = server.url.replace("127.0.0.1", "localhost");
    let roots = pem.cert();
    let roots = ["--tls-roots", roots.to_str().unwrap()];
    for url in [url.clone(), url.replace("wss:", "https:")] {
        let shown = run(&[&["top", &url, "--once"], &roots[..]].concat());
        assert!(shown.stdout.ends_with("no connections\n"), "{shown:?}");
        let failed = run(&["top", &url, "--once"]);
        assert_eq!(failed.code, Some(1));
        assert!(
            failed.stderr.contains("is not accepted") && failed.stderr.contains("--tls-roots"),
            "{failed:?}"
        );
    }
    let failed = run(&["top", &url, "--once", "--tls-roots", "/no/such/file"]);
    assert!(failed.stderr.contains("/no/such/file"), "{failed:?}");
}
