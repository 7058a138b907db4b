//! `unstall cat` in pipes, with `unstall serve` and with other servers.

mod support;

use std::io::{BufRead, BufReader};

use futures_util::{SinkExt, StreamExt};
use support::{Running, Serve, foreign_server, in_background, run, run_with};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

#[test]
fn lines_become_messages_and_messages_lines() {
    let serve = Serve::start(&[]);
    let ended = run_with(
        &["cat", &serve.at("/echo")],
        "one\n\nthree, grüße\r\nno line end",
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "one\n\nthree, grüße\nno line end\n");
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_hundred_thousand_lines_come_back_in_order() {
    let serve = Serve::start(&[]);
    let input: String = (0..100_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let mut cat = Running::start(&["cat", "--linger", "forever", &serve.at("/echo")]);
    let output = BufReader::new(cat.child.stdout.take().unwrap());
    let mut stdin = cat.child.stdin.take().unwrap();
    let sent = input.clone();
    let writing =
        std::thread::spawn(move || std::io::Write::write_all(&mut stdin, sent.as_bytes()));
    for (line, expected) in output.lines().take(100_000).zip(input.lines()) {
        assert_eq!(line.unwrap(), expected);
    }
    writing.join().unwrap().unwrap();
}

#[tokio::test]
async fn binary_lines_keep_every_byte_but_the_newline() {
    let url = foreign_server(|_, mut ws| async move {
        assert_eq!(
            ws.next().await.unwrap().unwrap(),
            Message::binary(vec![0, 0xff, b'\r'])
        );
        ws.send(Message::binary(vec![1, 0xfe])).await.unwrap();
        ws.close(Some(normal())).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await;
    let ended = in_background(move || run_with(&["cat", "--binary", &url], b"\x00\xff\r\n")).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, String::from_utf8_lossy(b"\x01\xfe\n"));
}

#[test]
fn a_line_that_is_not_text_is_refused_with_its_number() {
    let serve = Serve::start(&[]);
    let ended = run_with(&["cat", &serve.at("/echo")], b"good\n\xff\xfe\n");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("line 2") && ended.stderr.contains("--binary"),
        "{ended:?}"
    );
    assert_eq!(ended.stdout, "good\n");
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_it_without_complaint() {
    let serve = Serve::start(&[]);
    let mut cat = Running::start(&["cat", "--linger", "forever", &serve.at("/packets")]);
    let begun = std::time::Instant::now();
    cat.write("{\"count\":1000000,\"size\":4096}\n");
    // As `head -n 1` does: one read, then close.
    BufReader::new(cat.child.stdout.take().unwrap())
        .read_until(b'\n', &mut Vec::new())
        .unwrap();
    // On a busy machine this reader may really have stopped for so long, and the log says so.
    let stopped = begun.elapsed() >= unstall::defaults::STALL_AFTER;
    let ended = cat.end();
    let is_complaint = |line: &&str| !(stopped && line.contains("this application is not reading"));
    let complaints: Vec<_> = ended.stderr.lines().filter(is_complaint).collect();
    assert_eq!((ended.code, complaints), (Some(0), vec![]));
}

#[tokio::test]
async fn headers_and_subprotocols_reach_the_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/a?b=c", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "tungstenite's callback")]
        let check = |request: &Request, mut response: Response| {
            assert_eq!(request.uri(), "/a?b=c");
            assert_eq!(request.headers()["authorization"], "Bearer a:b");
            assert_eq!(
                request.headers()["sec-websocket-protocol"],
                "v2.json, v1.json"
            );
            let chosen = "v1.json".parse().unwrap();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", chosen);
            Ok(response)
        };
        let mut ws = tokio_tungstenite::accept_hdr_async(stream, check)
            .await
            .unwrap();
        ws.close(Some(normal())).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    });
    let ended = in_background(move || {
        let header = ["--header", "Authorization: Bearer a:b"];
        let protocols = ["--subprotocol", "v2.json", "--subprotocol", "v1.json"];
        run_with(&[&["cat", &url][..], &header, &protocols].concat(), "")
    })
    .await;
    serving.await.unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn normal() -> CloseFrame {
    CloseFrame {
        code: 1000.into(),
        reason: "".into(),
    }
}

/// Sends its number and cuts the first connection; closes the second.
async fn cutting_server() -> String {
    foreign_server(|number, mut ws| async move {
        ws.send(Message::text(format!("connection {number}")))
            .await
            .unwrap();
        if number == 0 {
            return;
        }
        ws.close(Some(normal())).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await
}

#[tokio::test]
async fn it_connects_again_and_says_where_messages_may_be_missing() {
    let url = cutting_server().await;
    let ended = in_background(move || {
        let mut cat = Running::start(&["cat", &url]);
        // The input stays open: the server's close ends the command.
        let stdin = cat.child.stdin.take();
        let ended = cat.end();
        drop(stdin);
        ended
    })
    .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "connection 0\nconnection 1\n");
    assert!(
        ended.stderr.contains("messages may be missing here"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn without_reconnecting_a_lost_connection_is_exit_1() {
    let url = cutting_server().await;
    let ended = in_background(move || {
        let mut cat = Running::start(&["cat", "--no-reconnect", &url]);
        let stdin = cat.child.stdin.take();
        let ended = cat.end();
        drop(stdin);
        ended
    })
    .await;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), "connection 0\n"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("without closing"), "{ended:?}");
}

#[tokio::test]
async fn a_close_code_that_is_not_normal_is_told() {
    let url = foreign_server(|_, mut ws| async move {
        let frame = CloseFrame {
            code: 4001.into(),
            reason: "token expired".into(),
        };
        ws.close(Some(frame)).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await;
    let ended = in_background(move || run_with(&["cat", "--no-reconnect", &url], "")).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("4001") && ended.stderr.contains("token expired"),
        "{ended:?}"
    );
}

#[test]
fn it_speaks_a_session_where_the_server_does_and_plain_on_demand() {
    let serve = Serve::start(&[]);
    let log = |args: &[&str]| {
        let url = serve.at("/echo");
        let ended = run_with(&[&["cat", "-v", &url], args].concat(), "one\n");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "one\n"));
        ended.stderr
    };
    assert!(log(&[]).contains("session opened"));
    assert!(!log(&["--plain"]).contains("session opened"));
}

#[test]
fn it_compresses_where_the_server_agrees() {
    let compressing = Serve::start(&["--compress"]);
    let not = Serve::start(&[]);
    let line = "the same again, ".repeat(20) + "\n";
    let is_compressed = |serve: &Serve, args: &[&str]| {
        let url = serve.at("/echo");
        let ended = run_with(&[&["cat", "-v", &url], args].concat(), line.repeat(3));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stdout, line.repeat(3));
        ended.stderr.contains("messages are compressed")
    };
    assert!(is_compressed(&compressing, &["--compress"]));
    assert!(is_compressed(&compressing, &["--compress", "--plain"]));
    let how = "--compress=level=9,window=8,takeover=off,smallest=0";
    assert!(is_compressed(&compressing, &[how, "--plain"]));
    assert!(!is_compressed(&compressing, &[]));
    assert!(!is_compressed(&not, &["--compress"]));
}

/// Once a password was printed where it held a `#`, `/` or `?`, where the URL had no scheme, and
/// where clap refused the argument; so was a header's value.
#[test]
fn a_secret_on_the_command_line_is_in_no_error() {
    let nobody = "127.0.0.1:1";
    let urls = [
        "hunter#2", "hunter/2", "hunter?2", "hunter2", "hunter 2", "hunterü",
    ];
    let urls = urls.map(|password| format!("user:{password}@{nobody}/"));
    let good = format!("ws://{nobody}/");
    let mut seen = 0;
    for url in &urls {
        for arguments in [
            vec!["cat", url],
            vec!["cat", &format!("ws://{url}")],
            vec!["verify", url],
            vec!["pull", &format!("WSS://{url}?hunter")],
            vec!["cat", &good, "--proxy", url],
            vec!["cat", &good, "--proxy", &format!("http://{url}")],
            vec!["cat", &good, "--proxy", &format!("socks5://{url}")],
            vec!["cat", &good, "-H", "hunter2"],
            vec!["cat", &good, "-H", "Bearer hunter2:"],
            vec!["verify", &good, "-H", "hunter2"],
        ] {
            let ended = run(&[&arguments[..], &["-vvv"]].concat());
            let said = ended.stdout + &ended.stderr;
            assert!(!said.contains("hunter"), "{arguments:?}: {said}");
            assert!(matches!(ended.code, Some(1 | 2)), "{arguments:?}: {said}");
            seen += usize::from(!said.is_empty());
        }
    }
    assert_eq!(seen, 10 * urls.len(), "each says something");
}

/// Once `Instant + Duration::MAX` panicked.
#[test]
fn a_wait_of_forever_is_no_panic() {
    for wait in ["forever", "1e19"] {
        let ended = run(&["cat", "--connect-timeout", wait, "ws://127.0.0.1:1/"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("no TCP connection"), "{ended:?}");
    }
}

/// Once a server's words reached the terminal with their escape codes, and forged lines.
#[tokio::test]
async fn a_servers_words_in_an_error_have_no_escape_codes_and_no_line_ends() {
    let url = foreign_server(|_, mut ws| async move {
        let frame = CloseFrame {
            code: 4001.into(),
            reason: "\x1b[2J\nunstall: all is well".into(),
        };
        ws.close(Some(frame)).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await;
    let ended = in_background(move || run_with(&["cat", "--no-reconnect", "-vvv", &url], "")).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("all is well"), "{ended:?}");
    let acts = |c: char| c.is_control() && c != '\n';
    assert!(!ended.stderr.contains(acts), "{ended:?}");
    assert!(
        !ended.stderr.contains("\nunstall: all is well"),
        "{ended:?}"
    );
}

/// Messages also come from the server. On a terminal they are escaped; in a pipe they are
/// unchanged.
#[cfg(unix)]
#[tokio::test]
async fn a_message_on_a_terminal_cannot_act_on_it_unless_raw() {
    use std::{io::Read, process::Stdio};
    let url = foreign_server(|_, mut ws| async move {
        ws.send(Message::text("\x1b]0;title\x07\tred"))
            .await
            .unwrap();
        ws.close(Some(normal())).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await;
    let on_a_terminal = |raw: &'static [&'static str]| {
        let url = url.clone();
        in_background(move || {
            let terminal = nix::pty::openpty(None, None).unwrap();
            let mut cat = support::unstall(&[&["cat", &url], raw].concat());
            cat.stdin(Stdio::piped())
                .stdout(Stdio::from(terminal.slave));
            let mut running = Running {
                child: cat.spawn().unwrap(),
            };
            // Only the command keeps a copy of the terminal open.
            drop(cat);
            let mut seen = Vec::new();
            // On Linux, reading a closed terminal is an error, once everything was read.
            let _ = std::fs::File::from(terminal.master).read_to_end(&mut seen);
            assert!(running.wait().success());
            String::from_utf8(seen).unwrap()
        })
    };
    assert_eq!(on_a_terminal(&[]).await, "\\u{1b}]0;title\\u{7}\tred\r\n");
    assert_eq!(on_a_terminal(&["--raw"]).await, "\x1b]0;title\x07\tred\r\n");
    let piped = in_background(move || run_with(&["cat", &url], "")).await;
    assert_eq!(piped.stdout, "\x1b]0;title\x07\tred\n");
}
