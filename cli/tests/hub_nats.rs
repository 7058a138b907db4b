//! `unstall hub` over real servers of NATS that ask for a login or TLS.

#[path = "../../topics/tests/jetstream/servers.rs"]
#[expect(dead_code, reason = "one server that runs is enough here")]
mod servers;
mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use servers::{Servers, are_installed};
use support::{Ended, Running, Serve, run, run_with};

/// Waits until the server takes this store, and returns the hub.
fn hub(arguments: &[&str]) -> Serve {
    // The server has started, and listens in a moment.
    for _ in 0..100 {
        let mut trial = vec!["hub", "--listen", "127.0.0.1:0", "--json"];
        trial.extend(arguments);
        let hub = Serve::try_start(&trial);
        match hub {
            Ok(hub) => return hub,
            Err(ended) => {
                let told = ended.stderr;
                assert!(told.contains("onnect"), "{told}");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
    panic!("the server of NATS never listens");
}

/// What it says when it does not start.
fn refused(arguments: &[&str]) -> String {
    let all = [&["hub", "--listen", "127.0.0.1:0"], arguments].concat();
    let ended: Ended = run(&all);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    ended.stderr
}

/// A message goes in and comes out.
fn works(hub: &Serve) {
    let published = run_with(&["publish", &hub.url, "a"], "hello\n");
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let read = run(&[
        "subscribe",
        &hub.url,
        "a",
        "--from",
        "start",
        "--count",
        "1",
    ]);
    assert_eq!(read.stdout, "hello\n");
}

#[test]
fn a_login_in_the_address_lets_in_and_a_wrong_one_is_told_and_not_shown() {
    if !are_installed() {
        return;
    }
    let nats = Servers::with(1, "authorization { user: ann, password: right }");
    let store = |login: &str| nats.url(0).replace("//", &format!("//{login}@")) + "/LOG";
    works(&hub(&["--store", &store("ann:right")]));
    let told = refused(&["--store", &store("ann:wr0ng")]);
    assert!(told.contains("authorization violation"), "{told}");
    assert!(!told.contains("wr0ng"), "{told}");
}

#[test]
fn a_certificate_is_trusted_by_a_file() {
    if !are_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}");
    let nats = Servers::with(1, &tls);
    let store = nats.url(0).replace("nats:", "tls:") + "/LOG";
    works(&hub(&["--store", &store, "--nats-ca", &cert]));
    let told = refused(&["--store", &store]);
    assert!(told.contains("certificate"), "{told}");
}

/// A token of NATS: claims that this key has signed.
fn signed(claims: &Value, by: &KeyPair) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let text = format!("{head}.{}", part(claims));
    let signature = by.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims(subject: &KeyPair, issuer: &KeyPair, name: &str, nats: Value) -> Value {
    json!({
        "jti": name,
        "iat": 1_700_000_000,
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject.public_key(),
        "nats": nats,
    })
}

#[test]
fn credentials_in_a_file_let_in() {
    if !are_installed() {
        return;
    }
    let (operator, account, user) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    );
    let limits = json!({
        "subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1,
        "payload": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1,
    });
    let of_operator = json!({"type": "operator", "version": 2});
    let of_account = json!({"type": "account", "version": 2, "limits": limits});
    let of_user = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let operator_token = signed(&claims(&operator, &operator, "O", of_operator), &operator);
    let account_token = signed(&claims(&account, &operator, "A", of_account), &operator);
    let user_token = signed(&claims(&user, &account, "U", of_user), &account);
    let system = KeyPair::new_account();
    let of_system = json!({"type": "account", "version": 2, "limits": {"subs": -1, "conn": -1, "data": -1, "payload": -1}});
    let system_token = signed(&claims(&system, &operator, "SYS", of_system), &operator);
    let more = format!(
        "operator: {operator_token}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ \
         {}: {account_token}, {}: {system_token} }}",
        system.public_key(),
        account.public_key(),
        system.public_key(),
    );
    let nats = Servers::with(1, &more);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    let seed = user.seed().unwrap();
    fs::write(
        &file,
        format!(
            "-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ),
    )
    .unwrap();
    let store = nats.url(0) + "/LOG";
    let file = file.to_str().unwrap();
    works(&hub(&["--store", &store, "--nats-credentials", file]));
    let told = refused(&["--store", &store]);
    assert!(told.contains("authorization"), "{told}");
    let absent = refused(&["--store", &store, "--nats-credentials", "absent.creds"]);
    assert!(
        absent.contains("cannot read the credentials absent.creds"),
        "{absent}"
    );
}

/// Once such a hub went on without a log: it refused all messages, and let nobody in.
#[test]
fn a_hub_whose_stream_is_made_anew_ends_and_subscribers_are_told_by_the_next_one() {
    if !are_installed() {
        return;
    }
    let nats = Servers::with(1, "");
    let store = nats.url(0) + "/LOG";
    let mut old = hub(&["--store", &store]);
    works(&old);
    let url = old.url.clone();
    let mut feed = Running::start(&["subscribe", &url, "a", "--from", "start", "--json"]);
    let mut out = BufReader::new(feed.child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&out.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["text"], "hello");
    assert_eq!(next(), json!({"caught_up": 1}));
    delete_stream(&nats.url(0));
    let other = hub(&["--store", &store]);
    works(&other);
    assert_eq!(old.running.wait().code(), Some(1));
    let told = old.running.end().stderr;
    assert!(told.contains("the stream LOG was made anew"), "{told}");

    let address = url.strip_prefix("ws://").unwrap();
    let _new = Serve::of(&["hub", "--listen", address, "--store", &store]);
    let gap = next();
    let gap = (&gap["gap"]["reason"], &gap["gap"]["after"]);
    assert_eq!(gap, (&json!("another_log"), &json!(1)));
    assert_eq!(next()["text"], "hello");
}

fn delete_stream(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let deleting = client.request("$JS.API.STREAM.DELETE.LOG", "".into());
        deleting.await.unwrap()
    });
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["success"], true, "{answer}");
}
