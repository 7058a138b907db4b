//! A relay that reads its routes from a file.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;

use crate::{
    peers::{Upstream, close, closed, connect, echo, open, refused},
    support::{Serve, next, run, send},
};

/// A file with routes, in a directory of its own.
pub(crate) struct File {
    _directory: TempDir,
    pub(crate) path: PathBuf,
}

impl File {
    /// A file with this text below `listen`.
    pub(crate) fn new(text: &str) -> File {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.toml");
        let file = File {
            _directory: directory,
            path,
        };
        file.write(text);
        file
    }

    /// Writes it anew.
    pub(crate) fn write(&self, text: &str) {
        let text = format!("listen = \"ws://127.0.0.1:0\"\n{text}");
        std::fs::write(&self.path, text).unwrap();
    }

    pub(crate) fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// A relay with this file.
    pub(crate) fn relay(&self, args: &[&str]) -> Serve {
        Serve::of(&[&["relay", "--config", self.name()], args].concat())
    }
}

/// A table of a route.
pub(crate) fn route(path: &str, to: &str, more: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nto = \"{to}\"\n{more}\n")
}

/// The status of the answer.
pub(crate) async fn status(url: &str) -> u16 {
    match connect(url, &[]).await {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(refused)) => refused.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn each_request_goes_to_its_own_route() {
    let (one, two) = (Upstream::start(echo).await, Upstream::start(echo).await);
    let file = File::new(
        &[
            route(
                "/feed",
                &format!("{}/deep", one.url()),
                "header = [\"X-Own: 1\"]",
            ),
            route("/feed/fast", &two.url(), "keep-host = true"),
            route("/", &two.url(), "host = \"localhost\""),
        ]
        .concat(),
    );
    let relay = file.relay(&[]);
    open(&relay.at("/feed/slow?a=b")).await;
    open(&relay.at("/feed/fast/er")).await;
    let by_name = relay.url.replace("127.0.0.1", "localhost");
    open(&format!("{by_name}/feed")).await;
    assert_eq!(refused(&relay.at("/feeds")).await.0, 404);
    assert_eq!(refused(&relay.at("/")).await.0, 404);
    let uris = |upstream: &Upstream| -> Vec<_> {
        let requests = upstream.requests();
        requests.iter().map(|it| it.uri().to_string()).collect()
    };
    assert_eq!(uris(&one), ["/deep/slow?a=b"]);
    assert_eq!(uris(&two), ["/er", "/feed"]);
    let (one, two) = (one.requests(), two.requests());
    assert_eq!(one[0].headers()["x-own"], "1");
    assert!(!two[0].headers().contains_key("x-own"));
    assert_eq!(two[0].headers()["host"], relay.address());
}

#[tokio::test]
async fn a_plain_route_opens_no_session_and_the_others_do() {
    let upstream = Upstream::start(echo).await;
    let to = upstream.url();
    let file = File::new(&(route("/plain", &to, "plain = true") + &route("/", &to, "")));
    let relay = file.relay(&[]);
    let plain = unstall::Client::new(relay.at("/plain")).connect().await;
    let mut plain = plain.unwrap();
    assert!(!plain.is_session());
    plain.send("hi").await.unwrap();
    let unstall::Incoming::Message(answer) = plain.recv().await.unwrap().unwrap() else {
        panic!("a gap");
    };
    assert_eq!(answer.as_text(), Some("hi"));
    let session = unstall::Client::new(relay.at("/")).connect().await;
    assert!(session.unwrap().is_session());
}

#[tokio::test]
async fn a_route_has_no_more_clients_than_it_may_have() {
    let upstream = Upstream::start(echo).await;
    let to = upstream.url();
    let file = File::new(&(route("/few", &to, "max-clients = 1") + &route("/", &to, "")));
    let relay = file.relay(&[]);
    let mut first = open(&relay.at("/few")).await;
    send(&mut first, "x").await;
    next(&mut first).await;
    let (found, headers, _) = refused(&relay.at("/few")).await;
    assert_eq!(found, 503);
    assert!(headers.contains_key("retry-after"));
    open(&relay.at("/")).await;
    close(&mut first, 1000, "").await;
    closed(&mut first).await;
    // Its place is free once the relay has seen both ends.
    while status(&relay.at("/few")).await == 503 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_check_tells_what_the_relay_would_do_and_starts_nothing() {
    let upstream = Upstream::start(echo).await;
    let to = format!("ws://user:s3cret@{}/?key=s3cret", upstream.address);
    let record = tempfile::tempdir().unwrap();
    let record = format!("record = \"{}/feed\"", record.path().display());
    let text = route("/feed", &to, &record) + "header = [\"Authorization: s3cret\"]\n";
    let file = File::new(&text);
    // The log and its lock are those of the relay that runs.
    let _relay = file.relay(&[]);
    let ended = run(&["relay", "--config", file.name(), "--check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("/feed goes to ws://"), "{ended:?}");
    assert!(!ended.stdout.contains("s3cret"), "{ended:?}");
    assert!(upstream.requests().is_empty());
}

#[test]
fn what_is_wrong_in_a_file_is_exit_code_2_with_its_place_and_without_secrets() {
    for (text, place) in [
        ("", ":1:1: "),
        ("[[route]]\nto = \"s3cret\"", "the route of line 2"),
        ("[[route]]\nto = \"ws://h\"\nbuffer = \"s3cret\"", ":4:10: "),
        (
            "[[route]]\nto = \"ws://h\"\nheader = [\"s3cret\"]",
            "the route of line 2",
        ),
        (
            "trusted-proxy = \"x\"\n[[route]]\nto = \"ws://h\"",
            "relay.toml: ",
        ),
        (
            "[[route]]\nto = \"ws://h\"\nrecord = \"d/a.*\"",
            "the route of line 2",
        ),
    ] {
        let file = File::new(text);
        for check in [&["--check"][..], &[]] {
            let ended = run(&[&["relay", "--config", file.name()], check].concat());
            assert_eq!(ended.code, Some(2), "{text}: {ended:?}");
            assert!(ended.stderr.contains(place), "{text}: {ended:?}");
            assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
        }
    }
    let ended = run(&["relay", "--config", "/no/such/file"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let file = File::new("token = \"/no/such/file\"\n[[route]]\nto = \"ws://h\"");
    let ended = run(&["relay", "--config", file.name(), "--check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn an_option_of_the_file_does_not_go_with_it() {
    let file = File::new("[[route]]\nto = \"ws://h\"");
    for option in [
        &["--to", "ws://h"][..],
        &["--listen", "ws://127.0.0.1:0"],
        &["--token", "t"],
        &["--tls-cert", "c", "--tls-key", "k"],
        &["--compress"],
        &["--memory", "1GiB"],
        &["--buffer", "1MiB"],
        &["--headers-file", "f"],
        &["-H", "a: b"],
        &["--record", "d/t"],
        &["--plain"],
    ] {
        let ended = run(&[&["relay", "--config", file.name()], option].concat());
        assert_eq!(ended.code, Some(2), "{option:?}: {ended:?}");
        assert!(ended.stderr.contains("--config"), "{option:?}: {ended:?}");
    }
}

#[test]
fn the_example_of_the_guide_is_good() {
    let guide = include_str!("../../../docs/src/relay.md");
    // The others are rules.
    let examples = guide.split("```toml\n").skip(1);
    let mut examples = examples.filter_map(|it| it.split("```").next());
    let example = examples.find(|it| it.contains("[[route]]")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("token", "s3cret");
    let certificate = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
    write("cert.pem", &certificate.cert.pem());
    write("key.pem", &certificate.signing_key.serialize_pem());
    let here = directory.path().display().to_string();
    write("relay.toml", &example.replace("/etc/unstall", &here));
    let file = directory.path().join("relay.toml");
    let ended = run(&["relay", "--config", file.to_str().unwrap(), "--check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let routes = example.matches("[[route]]").count();
    assert!(routes > 1, "several routes");
    assert_eq!(
        ended.stdout.matches(" goes to ").count(),
        routes,
        "{ended:?}"
    );
    // The guide shows what is printed.
    for line in ended.stdout.lines() {
        assert!(guide.contains(line), "{line}");
    }
}
