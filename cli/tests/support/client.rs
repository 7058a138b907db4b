//! The client that a run of `verify --client` starts: this test program again, with manners of its own.

use std::process::Stdio;

use serde_json::Value;

use super::{Ended, Running, unstall};

/// What the client does, in the environment of its process.
const MANNERS: &str = "UNSTALL_TEST_MANNERS";

/// The good messages that a bad client sends before it does something bad.
pub(crate) const GOOD_MESSAGES: usize = 700;

/// Runs the client in the process that the verifier started: with its URLs and its manners. Among the tests
/// it is none, because they have no URL.
pub(crate) fn as_client(behave: impl AsyncFn(&str, &str)) {
    let Some(urls) = std::env::args().find(|argument| argument.starts_with("ws://")) else {
        assert!(std::env::var(MANNERS).is_err(), "a client needs its URL");
        return;
    };
    let manners = std::env::var(MANNERS).unwrap();
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(behave(&urls, &manners));
}

/// Verifies a client with these manners. The test program has a test `as_client`, which is the client.
pub(crate) fn verify(manners: &str, args: &[&str]) -> (Ended, Value) {
    let client = std::env::current_exe().unwrap();
    let client = format!(
        "'{}' --exact as_client --nocapture {{url}}",
        client.display()
    );
    let mut command = unstall(&["verify", "--json", "--seed", "7", "--client", &client]);
    command
        .args(args)
        .env(MANNERS, manners)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = Running {
        child: command.spawn().unwrap(),
    };
    let ended = running.end();
    let json = ended.json();
    (ended, json)
}

/// A client with these manners is caught, for this reason.
pub(crate) fn caught(manners: &str, args: &[&str], why: &str) -> Value {
    let (ended, json) = verify(manners, args);
    assert_eq!(ended.code, Some(1), "{manners}: {ended:?}");
    assert_eq!(json["ok"], false, "{manners}: {json}");
    assert!(ended.stderr.contains(why), "{manners}: {why}: {ended:?}");
    json
}
