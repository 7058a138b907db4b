//! `unstall verify --client`: a good client passes whatever breaks, and each kind of bad client is caught.

mod support;

use std::{
    process::exit,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use serde_json::Value;
use support::{
    client::{self, GOOD_MESSAGES, caught, verify},
    run,
};
use unstall::{Client, Connection, Incoming, Message, Options, Reconnect};

#[test]
fn as_client() {
    client::as_client(behave);
}

async fn behave(url: &str, manners: &str) {
    match manners {
        "never connects" => std::future::pending().await,
        "says much" => {
            std::thread::spawn(|| {
                loop {
                    eprint!("{}", "words ".repeat(1_000));
                }
            });
        }
        "leaves at once" => exit(9),
        _ => {}
    }
    let mut ws = connect(url, manners).await;
    let mut held = None;
    let mut count = 0usize;
    loop {
        let message = match ws.recv().await {
            Ok(Some(Incoming::Message(message))) => message,
            Ok(Some(Incoming::Gap(_)))
                if ["is silent at a gap", "begins anew"].contains(&manners) =>
            {
                continue;
            }
            Ok(Some(Incoming::Gap(gap))) => {
                eprintln!("gap: {gap:?}");
                exit(1);
            }
            Ok(None) if manners == "stays" => std::future::pending().await,
            Ok(None) if manners == "complains at the end" => exit(5),
            Ok(None) => exit(0),
            Err(_) if manners == "begins anew" => {
                ws = connect(url, manners).await;
                continue;
            }
            Err(error) => {
                eprintln!("{error}");
                exit(3);
            }
        };
        count += 1;
        let is_bad = count == GOOD_MESSAGES;
        match manners {
            "dies" if is_bad => exit(7),
            "hangs" if is_bad => std::future::pending().await,
            "tells of a gap" if is_bad => {
                eprintln!("gap: for no reason");
                exit(1);
            }
            "drops" if is_bad => continue,
            "doubles" if is_bad => ws.send(message.clone()).await.unwrap(),
            "garbles" if is_bad => {
                let mut bytes = message.as_bytes().to_vec();
                bytes[9] ^= 1;
                ws.send(Message::binary(bytes)).await.unwrap();
                continue;
            }
            "reorders" if is_bad => {
                held = Some(message);
                continue;
            }
            "makes text binary" => {
                ws.send(Message::binary(message.as_bytes().to_vec()))
                    .await
                    .unwrap();
                continue;
            }
            _ => {}
        }
        ws.send(message).await.unwrap();
        if let Some(held) = held.take() {
            ws.send(held).await.unwrap();
        }
        if manners == "by hand" {
            settle(&mut ws).await;
        }
    }
}

async fn connect(url: &str, manners: &str) -> Connection {
    let reconnect = Reconnect::default()
        .first(Duration::from_millis(10))
        .max(Duration::from_millis(250))
        .proof(Duration::ZERO);
    let options = Options::default()
        .acknowledge_by_hand(manners == "by hand")
        .ping_interval(Duration::from_millis(250))
        .silence_timeout(Duration::from_secs(1));
    let client = Client::new(url).without_proxy().options(options);
    let client = match manners {
        "is plain" => client.plain(),
        "begins anew" => client.without_reconnect(),
        _ => client.reconnect(reconnect),
    };
    client.connect().await.unwrap()
}

/// Sends back what is there already, and acknowledges it once the echoes are delivered.
async fn settle(ws: &mut Connection) {
    for _ in 0..256 {
        match ws.recv().now_or_never() {
            Some(Ok(Some(Incoming::Message(message)))) => ws.send(message).await.unwrap(),
            Some(Ok(Some(Incoming::Gap(_)))) => {
                eprintln!("gap");
                exit(1);
            }
            Some(_) => exit(0),
            None => break,
        }
    }
    if ws.delivered().await.is_ok() {
        ws.acknowledge();
    }
}

const SHORT: [&str; 6] = ["--count", "3000", "--rate", "max", "--times", "0"];

/// A client with these manners passes.
fn passes(manners: &str, args: &[&str]) -> Value {
    let (ended, json) = verify(manners, args);
    assert_eq!(ended.code, Some(0), "{manners}: {ended:?}");
    assert_eq!(json["ok"], true, "{manners}: {json}");
    for count in ["lost", "duplicated", "reordered", "corrupted"] {
        assert_eq!(json[count], 0, "{count}: {json}");
    }
    json
}

#[test]
fn a_good_client_passes_every_fault_of_the_network() {
    let args = ["--count", "20000", "--times", "15", "--rate", "4000"];
    let json = passes("good", &args);
    assert_eq!(
        (&json["sent"], &json["delivered"]),
        (&20_000.into(), &20_000.into())
    );
    assert_eq!(
        (&json["sessions"], &json["client_kills"]),
        (&1.into(), &0.into()),
        "{json}"
    );
    assert!(json["resumes"].as_u64().unwrap() >= 4, "{json}");
    assert!(json["recovery_ms_p50"].as_f64().is_some(), "{json}");
}

#[test]
fn a_good_client_tells_of_a_killed_server() {
    let faults = ["--faults", "cut,restart", "--times", "6"];
    let json = passes(
        "good",
        &[&["--count", "12000", "--rate", "4000"], &faults[..]].concat(),
    );
    assert!(json["sessions"].as_u64().unwrap() >= 4, "{json}");
    let number = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(
        number("sent"),
        number("delivered") + number("reported_undelivered")
    );
}

#[test]
fn a_client_that_acknowledges_by_hand_may_be_killed() {
    let args = [
        "--faults", "kill", "--times", "4", "--count", "8000", "--rate", "2000",
    ];
    let json = passes("by hand", &args);
    assert_eq!(json["delivered"], 8_000, "{json}");
    // A kill that is due while it is dead already is none.
    assert!(json["client_kills"].as_u64() >= Some(2), "{json}");
    assert_eq!(json["reported_undelivered"], 0, "{json}");
}

/// It acknowledges what it has not sent back.
#[test]
fn a_client_that_acknowledges_too_early_is_caught_when_it_is_killed() {
    let args = [
        "--faults", "kill", "--times", "4", "--count", "60000", "--rate", "max",
    ];
    let json = caught("good", &args, "messages were lost and not reported");
    assert!(json["lost"].as_u64() > Some(0), "{json}");
}

#[test]
fn what_a_bad_client_does_to_messages_is_counted() {
    let counted = [
        ("drops", "lost", "1 messages were lost"),
        ("doubles", "duplicated", "1 messages arrived more than once"),
        ("reorders", "reordered", "1 messages arrived out of order"),
        (
            "garbles",
            "corrupted",
            "1 messages arrived with wrong bytes",
        ),
    ];
    for (manners, count, why) in counted {
        assert_eq!(caught(manners, &SHORT, why)[count], 1, "{manners}");
    }
    let args = [&SHORT[..], &["--patience", "2"]].concat();
    let json = caught(
        "makes text binary",
        &args,
        "messages arrived with wrong bytes",
    );
    assert!(json["corrupted"].as_u64() >= Some(3_000 / 4), "{json}");
}

#[test]
fn a_client_that_ends_early_is_told_with_its_exit_code() {
    caught("dies", &SHORT, "the client ended early: exit status: 7");
    caught(
        "leaves at once",
        &SHORT,
        "the client ended early: exit status: 9",
    );
    caught(
        "tells of a gap",
        &SHORT,
        "the client ended early: exit status: 1; standard error: gap: for no reason",
    );
    caught(
        "complains at the end",
        &SHORT,
        "the client with exit status: 5",
    );
    let missing = run(&["verify", "--client", "/nowhere/client {url}"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(
        missing.stderr.contains("/nowhere/client: No such file"),
        "{missing:?}"
    );
}

#[test]
fn a_client_that_hangs_costs_the_patience_and_no_more() {
    let args = [&SHORT[..], &["--patience", "2"]].concat();
    let began = Instant::now();
    caught("hangs", &args, "nothing was received for 2s: stalled");
    caught(
        "never connects",
        &args,
        "the client has begun no session within 2s",
    );
    caught("stays", &args, "the client did not end within 10s");
    // The deadlines of all three together, on a busy machine.
    assert!(
        began.elapsed() < Duration::from_secs(45),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn endless_words_on_standard_error_harm_nothing() {
    passes("says much", &SHORT);
}

#[test]
fn a_client_without_sessions_or_that_does_not_resume_them_is_caught() {
    caught("is plain", &SHORT, "the client offers no session");
    let args = [
        "--faults", "cut", "--times", "5", "--count", "5000", "--rate", "2500",
    ];
    caught("begins anew", &args, "it does not resume them");
}

/// The server was killed, and with it messages. A client that goes on without a word lets nobody know.
#[test]
fn a_client_that_does_not_tell_of_a_gap_is_caught() {
    let args = [
        "--faults", "restart", "--times", "3", "--count", "60000", "--rate", "max",
    ];
    caught(
        "is silent at a gap",
        &args,
        "messages were lost and not reported",
    );
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    for args in [
        &["--client", "client"][..],
        &["--client", "client '{url}"],
        &["--client", ""],
        &["--client", "client {url}", "--plain"],
        &["--client", "client {url}", "ws://127.0.0.1:1"],
        &["--client", "client {url}", "--faults", "retention"],
        &["--client", "client {url}", "--faults", "kill,restart"],
        &["--faults", "kill"],
        &["--patience", "0"],
    ] {
        let ended = run(&[&["verify"], args].concat());
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
    }
}
