//! The figures that `hub` and `serve` give to Prometheus.

mod support;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use support::{
    Running, Serve,
    http::{get, post},
    unstall,
};

/// The value of a figure, by its name and labels as they are written.
fn figure(address: &str, name: &str) -> Option<f64> {
    let page = get(address, "/metrics", &[]);
    assert_eq!(page.status, 200);
    let text = page.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().parse().unwrap())
}

/// Waits until a figure is as expected.
fn until(address: &str, name: &str, expected: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    while !figure(address, name).is_some_and(&expected) {
        let page = get(address, "/metrics", &[]).text();
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{name} in\n{page}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_hub_tells_what_its_log_stores_and_who_is_connected() {
    let hub = Serve::hub(&[]);
    let address = hub.address();
    let page = get(address, "/metrics", &[]);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(page.header("content-type"), Some(kind));
    for _ in 0..3 {
        assert_eq!(post(address, "/topics/a", &[], b"x").status, 200);
    }
    assert_eq!(
        figure(address, "unstall_topics_stored_messages_total"),
        Some(3.0)
    );
    assert_eq!(figure(address, "unstall_topics_log_last_offset"), Some(3.0));
    let open = r#"unstall_connections{kind="plain",side="server",state="open"}"#;
    assert_eq!(figure(address, open), Some(0.0));
    let mut command = unstall(&["subscribe", &hub.url, "a"]);
    command.stdout(Stdio::null());
    let subscriber = Running {
        child: command.spawn().unwrap(),
    };
    until(address, open, |open| open == 1.0);
    drop(subscriber);
    until(address, open, |open| open == 0.0);
}

#[test]
fn a_server_tells_a_consumer_that_does_not_read_within_two_seconds() {
    let server = Serve::start(&[]);
    let address = server.address();
    let stalled = r#"unstall_stalled_connections{kind="plain",side="server",cause="socket_full"}"#;
    assert_eq!(figure(address, stalled), Some(0.0));
    // A peer that asks for much and reads nothing.
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "GET /packets HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    let ask = br#"{"count":100000,"size":65536}"#;
    let mut frame = vec![0x81, 0x80 | ask.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(ask);
    std::io::Write::write_all(&mut socket, &[request.as_bytes(), &frame].concat()).unwrap();
    let begun = Instant::now();
    until(address, stalled, |stalled| stalled == 1.0);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    drop(socket);
    until(address, stalled, |stalled| stalled == 0.0);
}

#[test]
fn a_server_answers_other_http_that_it_is_for_websockets() {
    let server = Serve::start(&[]);
    let answer = get(server.address(), "/echo", &[]);
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
}
