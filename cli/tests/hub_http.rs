//! The HTTP side of `unstall hub`: publishing, reading, and streams of events.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};
use support::{
    Running, Serve,
    http::{Events, get, post, request},
    run, run_with,
};

const TEXT: &str = "content-type: text/plain";
const EVENTS: &str = "accept: text/event-stream";

/// The messages and gaps that a path gives, without their times.
fn read(hub: &Serve, path: &str) -> Vec<Value> {
    let mut lines = get(hub.address(), path, &[]).lines();
    lines.retain(|line| line.get("caught_up").is_none());
    lines.iter_mut().for_each(|line| {
        line.as_object_mut().unwrap().remove("time");
    });
    lines
}

/// Publishes a text, and returns its offset.
fn published(hub: &Serve, topic: &str, text: &str) -> u64 {
    let answer = post(
        hub.address(),
        &format!("/topics/{topic}"),
        &[TEXT],
        text.as_bytes(),
    );
    assert_eq!(answer.status, 200);
    answer.json()["offset"].as_u64().unwrap()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| line["text"].as_str())
        .collect()
}

#[test]
fn a_body_becomes_a_message_and_json_and_text_become_text() {
    let hub = Serve::hub(&[]);
    let types = [
        ("application/json", true),
        ("application/vnd.api+json; charset=utf-8", true),
        ("Text/Plain", true),
        ("application/x-www-form-urlencoded", true),
        ("application/octet-stream", false),
        ("image/png", false),
    ];
    for (number, (kind, is_text)) in (1u64..).zip(types) {
        let kind = format!("content-type: {kind}");
        let answer = post(hub.address(), "/topics/a.b", &[&kind], b"{}");
        assert_eq!(answer.status, 200, "{kind}");
        let answer = answer.json();
        assert_eq!(answer["offset"], number);
        assert_eq!(answer["log"].as_str().unwrap().len(), 32);
        let after = format!("/topics/a.b?after={}", number - 1);
        let mut expected = json!({"topic": "a.b", "offset": number});
        match is_text {
            true => expected["text"] = "{}".into(),
            false => expected["base64"] = "e30=".into(),
        }
        assert_eq!(read(&hub, &after), [expected], "{kind}");
    }
    let answer = post(hub.address(), "/topics/a.b?final=true", &[], b"\xff");
    assert_eq!(answer.json()["offset"], 7);
    let expected = json!({"topic": "a.b", "offset": 7, "base64": "/w==", "final": true});
    assert_eq!(read(&hub, "/topics/a.b?after=6"), [expected]);
}

#[test]
fn what_cannot_be_published_is_refused_with_the_right_status() {
    let hub = Serve::hub(&["--max-bytes", "100000"]);
    let large = vec![b'x'; 17 << 20];
    let long = format!("idempotency-key: {}", "k".repeat(256));
    let cases: [(&str, &[&str], &[u8], u16); 8] = [
        ("/topics/a..b", &[TEXT], b"x", 400),
        ("/topics/a.*", &[TEXT], b"x", 400),
        ("/topics/a%ff", &[TEXT], b"x", 400),
        ("/topics/a", &[TEXT], b"\xff", 400),
        ("/topics/a", &[&long], b"x", 400),
        (
            "/topics/a",
            &["idempotency-key: 1", "idempotency-key: 2"],
            b"x",
            400,
        ),
        ("/topics/a", &[TEXT], &large[..200_000], 413),
        ("/topics/a", &[TEXT], &large, 413),
    ];
    for (path, headers, body, status) in cases {
        let answer = post(hub.address(), path, headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?}");
        if answer.header("content-type") == Some("application/json") {
            let answer = answer.json();
            assert_eq!(answer["stored"], "no", "{path}: {answer}");
        }
    }
    assert_eq!(get(hub.address(), "/nowhere", &[]).status, 404);
    assert_eq!(get(hub.address(), "/topics", &[]).status, 426);
    assert_eq!(
        request(hub.address(), "DELETE /topics/a", &[], b"").status,
        405
    );
    assert_eq!(get(hub.address(), "/healthz", &[]).text(), "ok\n");
    assert_eq!(read(&hub, "/topics/%3E"), [] as [Value; 0]);
}

#[test]
fn an_idempotency_key_stores_a_message_once_at_its_topic_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = ["--store", directory.path().to_str().unwrap()];
    let hub = Serve::hub(&store);
    let keyed = |hub: &Serve, topic: &str, key: &str| {
        let key = format!("idempotency-key: {key}");
        let answer = post(
            hub.address(),
            &format!("/topics/{topic}"),
            &[&key, TEXT],
            b"x",
        );
        assert_eq!(answer.status, 200);
        answer.json()["offset"].as_u64()
    };
    for _ in 0..3 {
        assert_eq!(keyed(&hub, "a", "order-17"), Some(1));
    }
    assert_eq!(keyed(&hub, "a", "order-18"), Some(2));
    assert_eq!(keyed(&hub, "b", "order-17"), Some(3));
    drop(hub);
    let hub = Serve::hub(&store);
    assert_eq!(keyed(&hub, "a", "order-17"), Some(1));
    assert_eq!(read(&hub, "/topics/%3E").len(), 3);
}

#[test]
fn reading_goes_on_behind_an_offset_or_a_position_up_to_a_limit_or_the_end() {
    let hub = Serve::hub(&[]);
    for number in 0..10 {
        published(&hub, &format!("a.{}", number % 2), &number.to_string());
    }
    let texts_of = |path: &str| texts(&read(&hub, path)).join("");
    assert_eq!(texts_of("/topics/%3E"), "0123456789");
    assert_eq!(texts_of("/topics/a.1?after=4"), "579");
    assert_eq!(texts_of("/topics/a.*?after=4&limit=3"), "456");
    assert_eq!(texts_of("/topics/a.*?from=last:2"), "89");
    assert_eq!(texts_of("/topics/a.*?from=latest"), "89");
    assert_eq!(texts_of("/topics/a.*?from=now"), "");
    let answer = get(hub.address(), "/topics/a.0?after=8", &[]);
    let log = answer.header("unstall-log").unwrap().to_owned();
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("application/x-ndjson"));
    let lines = answer.lines();
    assert_eq!(lines[0]["text"], "8");
    assert_eq!(lines[1], json!({"caught_up": 10}));
    let position = format!("/topics/a.*?after={log}:8:0");
    assert_eq!(texts_of(&position), "89");
    // Of another log, nothing is known: it is read from its beginning, with a gap before.
    let other = format!("/topics/a.*?after={}:8:0&limit=1", "ab".repeat(16));
    let lines = read(&hub, &other);
    assert_eq!(lines[0]["gap"]["reason"], "another_log");
    assert_eq!(lines[1]["text"], "0");
    let lines = read(&hub, "/topics/a.*?after=99");
    assert_eq!(lines[0]["gap"]["reason"], "diverged");
    for wrong in [
        "a.*?after=now",
        "a.*?after=x",
        "a.*?from=x",
        "a.*?after=1&from=now",
        "a.*?limit=-1",
        "a..b",
        "a.%3E.b",
    ] {
        let answer = get(hub.address(), &format!("/topics/{wrong}"), &[]);
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[test]
fn a_long_history_comes_whole() {
    let hub = Serve::hub(&[]);
    let lines: String = (0..50_000).map(|it| format!("{it}\n")).collect();
    assert_eq!(run_with(&["publish", &hub.url, "a"], &lines).code, Some(0));
    let all = read(&hub, "/topics/a?limit=1000000");
    assert!(texts(&all).iter().copied().eq(lines.lines()));
    assert_eq!(read(&hub, "/topics/a").len(), 1000, "a page by default");
}

fn stream(hub: &Serve, path: &str, last: Option<&str>) -> Events {
    let last = last.map(|id| format!("last-event-id: {id}"));
    let headers: Vec<_> = [EVENTS].into_iter().chain(last.as_deref()).collect();
    get(hub.address(), path, &headers).events()
}

/// The next message of a stream of events.
fn message(events: &mut Events) -> Value {
    loop {
        let event = events.next().expect("an event");
        if event.kind == "message" {
            return event.json();
        }
        assert_eq!(event.kind, "caught_up", "{event:?}");
    }
}

#[test]
fn a_page_gets_what_is_published_from_now_on() {
    let hub = Serve::hub(&[]);
    published(&hub, "a.b", "before");
    let mut events = stream(&hub, "/topics/a.*", None);
    let mark = events.next().unwrap();
    assert_eq!(
        (&*mark.kind, mark.json()),
        ("caught_up", json!({"caught_up": 1}))
    );
    assert_eq!(events.retry, Some(1000));
    for number in 2u64..50 {
        published(&hub, "a.b", &format!("{number}\nin two lines"));
        let event = events.next().unwrap();
        assert_eq!(event.kind, "message");
        let object = event.json();
        assert_eq!(object["text"], format!("{number}\nin two lines"));
        assert_eq!(
            (&object["topic"], &object["offset"]),
            (&json!("a.b"), &json!(number))
        );
    }
}

/// As an `EventSource` does: it names the last id that it saw, and takes what comes.
#[test]
fn a_page_that_connects_again_misses_nothing_and_gets_nothing_twice() {
    let hub = Serve::hub(&[]);
    let mut events = stream(&hub, "/topics/a", None);
    // The mark gives it an id before there is a message.
    assert_eq!(events.next().unwrap().kind, "caught_up");
    let mut last = events.last_id.clone();
    assert!(!last.is_empty());
    drop(events);
    let mut published_so_far = 0;
    let mut seen = Vec::new();
    for round in 1..=10 {
        for _ in 0..round {
            published(&hub, "a", &published_so_far.to_string());
            published_so_far += 1;
        }
        let mut events = stream(&hub, "/topics/a?from=now", Some(&last));
        for _ in 0..round {
            seen.push(message(&mut events)["text"].as_str().unwrap().to_owned());
        }
        last = events.last_id;
    }
    let all: Vec<_> = (0..published_so_far).map(|it| it.to_string()).collect();
    assert_eq!(seen, all);
}

/// An offset alone would be taken for one of the new log, and its first messages would be missing.
#[test]
fn a_page_that_comes_back_to_another_log_is_told() {
    let first = Serve::hub(&[]);
    let mut events = stream(&first, "/topics/a?from=start", None);
    for number in 0..5 {
        published(&first, "a", &number.to_string());
    }
    (0..5).for_each(|_| _ = message(&mut events));
    let last = events.last_id;
    drop(first);
    let second = Serve::hub(&[]);
    for number in 0..8 {
        published(&second, "a", &format!("new {number}"));
    }
    let mut events = stream(&second, "/topics/a", Some(&last));
    let gap = events.next().unwrap();
    assert_eq!(
        (&*gap.kind, &gap.json()["gap"]["reason"]),
        ("gap", &json!("another_log"))
    );
    for number in 0..8 {
        assert_eq!(message(&mut events)["text"], format!("new {number}"));
    }
}

#[test]
fn a_page_leaves_behind_a_final_message_and_is_told_to_stay_away() {
    let hub = Serve::hub(&[]);
    published(&hub, "a", "one");
    post(hub.address(), "/topics/a?final=true", &[TEXT], b"two");
    let mut events = stream(&hub, "/topics/a?from=start", None);
    assert_eq!(message(&mut events)["text"], "one");
    let last = message(&mut events);
    assert_eq!(
        (&last["text"], &last["final"]),
        (&json!("two"), &json!(true))
    );
    while let Some(event) = events.next() {
        assert_eq!(event.kind, "caught_up");
    }
    let id = format!("last-event-id: {}", events.last_id);
    assert_eq!(get(hub.address(), "/topics/a", &[EVENTS, &id]).status, 204);
    // A wider filter goes on.
    let mut events = stream(&hub, "/topics/%3E?from=start", None);
    message(&mut events);
    message(&mut events);
    published(&hub, "b", "three");
    assert_eq!(message(&mut events)["text"], "three");
    let wrong = get(
        hub.address(),
        "/topics/a",
        &[EVENTS, "last-event-id: nonsense"],
    );
    assert_eq!(wrong.status, 400);
}

/// A page of any site may send requests to a program on the visitor's machine.
#[test]
fn pages_of_other_sites_can_neither_publish_nor_read() {
    let hub = Serve::hub(&[]);
    let own = format!("origin: http://{}", hub.address());
    let rebound = ["host: evil.example", "origin: http://evil.example"];
    let cases: [(&[&str], u16); 5] = [
        (&[TEXT, "origin: https://evil.example"], 403),
        (&[TEXT, "origin: null"], 403),
        (&rebound, 403),
        (&["host: evil.example"], 403),
        (&[TEXT, &own], 200),
    ];
    for (headers, status) in cases {
        assert_eq!(
            post(hub.address(), "/topics/a", headers, b"x").status,
            status,
            "{headers:?}"
        );
        assert_eq!(
            get(hub.address(), "/topics/a", headers).status,
            status,
            "{headers:?}"
        );
    }
    let upgrade = |headers: &[&str]| {
        let upgrade = [
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-protocol: unstall.topics.v1",
        ];
        get(hub.address(), "/topics", &[&upgrade, headers].concat()).status
    };
    assert_eq!(upgrade(&["origin: https://evil.example"]), 403);
    assert_eq!(upgrade(&rebound), 403);
    assert_eq!(upgrade(&[&own]), 101);
    assert_eq!(read(&hub, "/topics/%3E").len(), 1);
}

/// Readers that stop, and bodies that never end, hold up nobody.
#[test]
fn clients_that_stop_harm_nobody() {
    let hub = Serve::hub(&[]);
    let line = "x".repeat(1000) + "\n";
    assert_eq!(
        run_with(&["publish", &hub.url, "a"], line.repeat(30_000)).code,
        Some(0)
    );
    let send = |text: String| {
        let mut tcp = TcpStream::connect(hub.address()).unwrap();
        tcp.write_all(text.as_bytes()).unwrap();
        tcp
    };
    let host = format!("host: {}", hub.address());
    let mut stopped = Vec::new();
    for _ in 0..50 {
        let path = "GET /topics/a?from=start&limit=100000";
        stopped.push(send(format!(
            "{path} HTTP/1.1\r\n{host}\r\n{EVENTS}\r\n\r\n"
        )));
        stopped.push(send(format!("{path} HTTP/1.1\r\n{host}\r\n\r\n")));
        let head = "POST /topics/a HTTP/1.1";
        stopped.push(send(format!(
            "{head}\r\n{host}\r\ncontent-length: 1000000\r\n\r\nx"
        )));
    }
    for number in 0..100 {
        published(&hub, "b", &number.to_string());
    }
    assert_eq!(read(&hub, "/topics/b").len(), 100);
    let count = [
        "subscribe",
        &hub.url,
        "a",
        "--from",
        "start",
        "--count",
        "30000",
    ];
    assert_eq!(run(&count).stdout.lines().count(), 30_000);
    // A client that reads again goes on.
    let mut text = String::new();
    let mut slow = stopped.swap_remove(1);
    slow.read_to_string(&mut text).unwrap_or_default();
    assert_eq!(text.matches("\"offset\"").count(), 30_000);
}

#[test]
fn bodies_that_arrive_have_a_bound_for_each_address() {
    let hub = Serve::hub(&[]);
    let host = format!("host: {}", hub.address());
    let piece = vec![b'x'; 15 << 20];
    // Each holds 15 MiB and goes on. Four of them are above three quarters of 64 MiB.
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..4 {
        let mut tcp = TcpStream::connect(hub.address()).unwrap();
        let head = format!("POST /topics/a HTTP/1.1\r\n{host}\r\ncontent-length: 16000000\r\n\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        refused += usize::from(tcp.write_all(&piece).is_err());
        held.push(tcp);
    }
    // Which of them it is depends on whose bytes come last.
    let mut told = refused > 0;
    for _ in 0..600 {
        told |= held.iter_mut().any(|tcp| {
            let mut answer = [0; 12];
            tcp.set_read_timeout(Some(std::time::Duration::from_millis(25)))
                .unwrap();
            matches!(tcp.read(&mut answer), Ok(12) if &answer == b"HTTP/1.1 503")
        });
        if told {
            break;
        }
    }
    assert!(told, "one of the four is refused");
    drop(held);
    // What the others held comes back.
    for attempt in 0.. {
        let answer = post(hub.address(), "/topics/a", &[], &piece);
        if answer.status == 200 {
            break;
        }
        assert!(answer.status == 503 && attempt < 100, "{}", answer.status);
    }
}

#[test]
fn http_and_websockets_have_one_limit_of_connections() {
    // An HTTP connection ends with its process, so that its place comes back.
    let mut hub = Serve::hub(&["--json"]);
    let events = stream(&hub, "/topics/a", None);
    let mut feed = Running::start(&["subscribe", "--json", &hub.url, "a", "--from", "start"]);
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(feed.child.stdout.take().unwrap()),
        &mut String::new(),
    )
    .unwrap();
    hub.running.signal("TERM");
    assert!(hub.running.wait().success());
    let mut rest = String::new();
    hub.stdout.read_to_string(&mut rest).unwrap();
    let counts: Value = serde_json::from_str(&rest).unwrap();
    assert_eq!(
        (&counts["arrived"], &counts["closed"]),
        (&json!(2), &json!(2)),
        "{counts}"
    );
    drop(events);
}
