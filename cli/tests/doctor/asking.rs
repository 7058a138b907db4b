//! The doctor asks programs what the library says of their connections.

use std::{
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::conversation::{PATIENCE, Program, signal};
use crate::support::{Running, Serve, pem::Pem, run, unstall};

fn doctor(arguments: &[&str]) -> Value {
    let output = run(&[&["doctor", "--json"], arguments].concat());
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn pid(server: &Serve) -> String {
    server.running.child.id().to_string()
}

/// What is said of the connection with this peer.
fn of_peer(json: &Value, peer: &str) -> Value {
    let all = json["connections"].as_array().unwrap();
    let one = all.iter().find(|it| it["peer"] == *peer);
    one.cloned().unwrap_or_default()
}

fn is_stalled(one: &Value) -> bool {
    one["library"]["stalls"][0]["cause"] == "socket_full"
}

/// Looks until this is so.
fn until(mut look: impl FnMut() -> Value, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let one = look();
        if is_so(&one) {
            return one;
        }
        assert!(begun.elapsed() < PATIENCE, "{one}");
    }
}

#[test]
fn the_doctor_adds_what_the_library_says_of_the_same_connection() {
    let server = Serve::start(&[]);
    let consumer = server.stalled_consumer();
    let peer = consumer.local_addr().unwrap().to_string();
    let pid = pid(&server);
    let look = || of_peer(&doctor(&["--pid", &pid]), &peer);
    let one = until(look, is_stalled);
    assert!(
        one["library"]["to_send_bytes"].as_u64().unwrap() > 100_000,
        "{one}"
    );
    let text = run(&["doctor", "--pid", &pid]).stdout;
    let said = text
        .lines()
        .find(|line| line.contains("  unstall says: connection "));
    assert!(
        said.is_some_and(|it| it.contains("the peer is not reading")),
        "{text}"
    );
}

/// The doctor promises not to touch the programs that it examines.
#[test]
fn the_doctor_asks_other_programs_only_if_it_is_told_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let _accepted = listener.accept().unwrap();
    let port = address.port().to_string();
    doctor(&["--port", &port]);
    assert!(listener.accept().is_err(), "nobody has come");
    // A program that never answers holds nothing up.
    let begun = Instant::now();
    let json = doctor(&["--port", &port, "--ask"]);
    assert!(listener.accept().is_ok(), "it was asked");
    assert!(begun.elapsed() < Duration::from_secs(20));
    for one in json["connections"].as_array().unwrap() {
        assert_eq!(one["library"], Value::Null);
    }
}

/// A doctor that keeps looking, several times a second.
fn watch(arguments: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unstall"));
    command.args(["doctor", "--watch", "--interval", "200ms"]);
    command.args(arguments);
    Program::start(command)
}

fn next_look(watch: &mut Program) -> Value {
    serde_json::from_str(&watch.line()).unwrap()
}

/// Once only a single report had it.
#[test]
fn while_it_watches_the_doctor_adds_what_the_library_says_as_long_as_the_program_answers() {
    let server = Serve::start(&[]);
    let consumer = server.stalled_consumer();
    let peer = consumer.local_addr().unwrap().to_string();
    let pid = pid(&server);
    let mut looks = watch(&["--json", "--pid", &pid]);
    let mut tables = watch(&["--pid", &pid]);
    let begun = Instant::now();
    let mut wait_for = |is_so: &dyn Fn(&Value) -> bool| {
        let mut look = next_look(&mut looks);
        while !is_so(&look) {
            // The doctor's own questions are no connection of the program.
            assert_eq!(look["connections"].as_array().unwrap().len(), 1, "{look}");
            assert!(begun.elapsed() < PATIENCE, "{look}");
            look = next_look(&mut looks);
        }
    };
    wait_for(&|look| is_stalled(&of_peer(look, &peer)));
    let told = |line: &str| line.contains(&peer) && line.contains(": the peer is not reading");
    while !told(&tables.line()) {
        assert!(begun.elapsed() < PATIENCE);
    }
    // A program that does not run cannot be asked, and the looks go on.
    signal(server.running.child.id(), "STOP");
    wait_for(&|look| of_peer(look, &peer)["library"] == Value::Null);
    signal(server.running.child.id(), "CONT");
    wait_for(&|look| is_stalled(&of_peer(look, &peer)));
}

/// `unstall serve` with TLS, and a client that asks for much and is stopped.
fn stalled_over_tls(pem: &Pem, name: &str) -> (Serve, Running) {
    let args = pem.args();
    let server = Serve::start(&args.each_ref().map(String::as_str));
    let port = server.address().rsplit_once(':').unwrap().1;
    let url = format!("wss://{name}:{port}/packets");
    let cert = pem.cert();
    let roots = ["--tls-roots", cert.to_str().unwrap()];
    let many = ["--plain", "--count", "100000000", "--size", "65536"];
    let client = Running::start(&[&["pull", &url], &roots[..], &many].concat());
    (server, client)
}

/// The doctor's only finding about this process.
fn only(json: &Value) -> Value {
    let all = json["connections"].as_array().unwrap();
    assert!(all.len() <= 1, "{json}");
    all.first().cloned().unwrap_or_default()
}

/// Once only programs without TLS were asked.
#[test]
fn a_program_with_tls_is_asked_too_if_its_certificate_is_trusted() {
    let pem = Pem::of(&["localhost"]);
    let (server, client) = stalled_over_tls(&pem, "localhost");
    let pid = pid(&server);
    let is_there = |one: &Value| one["verdict"] == "moving" || one["verdict"] == "slow_reader";
    until(|| only(&doctor(&["--pid", &pid])), is_there);
    signal(client.child.id(), "STOP");
    let cert = pem.cert();
    let cert = cert.to_str().unwrap();
    let trusting = ["--pid", &pid, "--tls-roots", cert];
    until(|| only(&doctor(&trusting)), is_stalled);
    let mut looks = watch(&[&["--json"], &trusting[..]].concat());
    until(|| only(&next_look(&mut looks)), is_stalled);

    // The system's own roots.
    let mut command = unstall(&["doctor", "--json", "--pid", &pid]);
    let output = command.env("SSL_CERT_FILE", cert).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap();
    assert!(is_stalled(&only(&json)), "{json}");

    // Without trust nothing is said, and the reader learns why.
    let names = [
        (&["--pid", &pid][..], "UnknownIssuer"),
        (
            &[&trusting[..], &["--tls-name", "hub.example"]].concat(),
            "hub.example",
        ),
    ];
    for (arguments, why) in names {
        let output = run(&[&["doctor", "--json"], arguments].concat());
        let json = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(only(&json)["library"], Value::Null, "{json}");
        let told = &output.stderr;
        assert!(
            told.contains("is not accepted") && told.contains(why),
            "{told}"
        );
    }
    let wrong = run(&["doctor", "--tls-name", "a b"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("hub.example"), "{wrong:?}");
}

#[test]
fn a_hub_with_tokens_and_a_certificate_of_another_name_is_asked_over_loopback() {
    let pem = Pem::of(&["hub.example", "127.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = "a secret of at least thirty-two bytes";
    let (key, cert) = (file("key", secret), pem.cert());
    let signs = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let claims = json!({"operate": true, "sub": [">"], "exp": 4_000_000_000u64});
    let token = jsonwebtoken::encode(&header, &claims, &signs).unwrap();
    let tls = pem.args();
    let tls = tls.each_ref().map(String::as_str);
    let hub = Serve::hub(&[&["--token-key", &key], &tls[..]].concat());
    let roots = ["--tls-roots", cert.to_str().unwrap()];
    let mut subscriber = unstall(&[&["subscribe", &hub.url, ">"], &roots[..]].concat());
    subscriber.env("UNSTALL_TOKEN", &token).stdin(Stdio::null());
    let _subscriber = Running {
        child: subscriber.spawn().unwrap(),
    };

    let pid = pid(&hub);
    let name = ["--tls-name", "hub.example"];
    let asked = [&["doctor", "--pid", &pid], &roots[..], &name].concat();
    let note = "asks for a token: give one with --token FILE";
    let begun = Instant::now();
    // It has to be connected first.
    while !run(&asked).stderr.contains(note) {
        assert!(begun.elapsed() < PATIENCE);
    }
    let token = ["--token", &file("token", &token)];
    let look = || {
        let output = run(&[&asked[..], &token, &["--json"]].concat());
        assert_eq!(output.stderr, "", "{output:?}");
        only(&serde_json::from_str(&output.stdout).unwrap())
    };
    until(look, |one| one["library"]["kind"] == "plain");
    // The table says what is missing, too.
    let mut tables = watch(&asked[1..]);
    let mut summaries = 0;
    while summaries < 3 {
        let line = tables.line();
        // A table that has no connection yet has none to ask about.
        if line.contains(" stuck") && (summaries > 0 || line.contains(note)) {
            assert!(line.contains(note), "{line}");
            summaries += 1;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
}
