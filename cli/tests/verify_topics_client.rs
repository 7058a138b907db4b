//! `unstall verify --topics --client`: a client that forwards a topic passes, and bad ones are caught.

mod support;

use std::{process::exit, time::Duration};

use futures_util::FutureExt;
use serde_json::Value;
use support::{
    Ended,
    client::{self, GOOD_MESSAGES},
    run, topics_are_whole,
};
use unstall::{Client, Options, Reconnect};
use unstall_proto::Kind;
use unstall_topics::{Delivery, Message, PublishError, Start, Topic, Topics, store::Publication};

#[test]
fn as_client() {
    client::as_client(forward);
}

async fn forward(urls: &str, manners: &str) {
    let topics = connect(urls);
    let mut feed = topics.subscribe("verify.in", Start::Beginning).unwrap();
    let mut count = 0;
    let mut held = None;
    loop {
        let mut next = feed.recv().await;
        let mut batch = Vec::new();
        let mut is_last = false;
        loop {
            match next.unwrap() {
                Some(Delivery::Message(message)) => {
                    is_last = message.is_final();
                    count += 1;
                    if count == GOOD_MESSAGES {
                        spoil(manners, &message, &mut batch, &mut held);
                    } else {
                        batch.push(forwarded(&message, manners));
                        batch.extend(held.take());
                    }
                }
                Some(Delivery::Gap(gap)) => {
                    eprintln!("gap: {gap:?}");
                    exit(1);
                }
                Some(_) => {}
                None => break,
            }
            if batch.len() >= 256 {
                break;
            }
            match feed.recv().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        for result in topics.publish_many(batch).await {
            match result {
                Ok(_) | Err(PublishError::StoredBefore) => {}
                Err(error) => {
                    eprintln!("{error}");
                    exit(2);
                }
            }
        }
        if is_last {
            match manners {
                "stays" => std::future::pending().await,
                "complains at the end" => exit(5),
                _ => exit(0),
            }
        }
    }
}

/// Forwards a message badly.
fn spoil(
    manners: &str,
    message: &Message,
    batch: &mut Vec<Publication>,
    held: &mut Option<Publication>,
) {
    let publication = forwarded(message, manners);
    match manners {
        "drops" => {}
        "doubles" => batch.extend([publication.clone(), publication]),
        "reorders" => *held = Some(publication),
        "garbles" => {
            let mut other = publication;
            other.payload = b"other bytes".to_vec().into();
            batch.push(other);
        }
        "dies" => exit(7),
        _ => batch.push(publication),
    }
}

fn forwarded(message: &Message, manners: &str) -> Publication {
    let kind = match message.is_text() && manners != "makes text binary" {
        true => Kind::Text,
        false => Kind::Binary,
    };
    let topic = Topic::new("verify.out").unwrap();
    let mut publication = Publication::new(topic, kind, message.as_bytes().to_vec());
    publication.is_final = message.is_final() && manners != "forgets the end";
    publication
}

fn connect(urls: &str) -> Topics {
    let options = Options::default()
        .ping_interval(Duration::from_millis(250))
        .silence_timeout(Duration::from_secs(1));
    let reconnect = Reconnect::default()
        .first(Duration::from_millis(10))
        .max(Duration::from_millis(250))
        .proof(Duration::ZERO);
    let client = |url| Client::new(url).without_proxy().options(options.clone());
    Topics::over(urls.split(',').map(client))
        .reconnect(reconnect)
        .start()
}

/// Verifies a client with these manners.
fn verify(manners: &str, args: &[&str]) -> (Ended, Value) {
    client::verify(manners, &[&TOPICS[..], args].concat())
}

const TOPICS: [&str; 3] = ["--topics", "--subscribers", "1"];

const SHORT: [&str; 8] = [
    "--count", "2000", "--rate", "max", "--times", "0", "--store", "memory",
];

/// A client with these manners is caught, for this reason.
fn caught(manners: &str, args: &[&str], why: &str) -> Value {
    let args = [&TOPICS[..], &SHORT, &["--faults", "cut"], args].concat();
    client::caught(manners, &args, why)
}

#[test]
fn a_good_client_forwards_everything_over_hubs_that_are_killed_and_networks_that_break() {
    let faults = "cut,freeze,delay,refuse,slow,restart,kill";
    let args = ["--faults", faults, "--times", "14", "--count", "12000"];
    let (ended, json) = verify("good", &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(json["delivered"][0], 12_000, "{json}");
    assert_eq!(json["published"], 12_000, "{json}");
    topics_are_whole(&json);
    let number = |name: &str| json[name].as_u64().unwrap();
    assert!(number("kills") >= 1 && number("restarts") >= 1, "{json}");
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
        assert_eq!(caught(manners, &[], why)[count], 1, "{manners}");
    }
    let json = caught(
        "makes text binary",
        &[],
        "messages arrived with wrong bytes",
    );
    assert_eq!(json["corrupted"], 2_000 / 4, "{json}");
}

#[test]
fn a_client_that_ends_badly_is_told_within_the_patience() {
    caught("dies", &[], "the client ended early: exit status: 7");
    caught("complains at the end", &[], "exit status: 5");
    caught("stays", &[], "the client did not end within 10s");
    let patience = ["--patience", "2"];
    caught("forgets the end", &patience, "no final message has come");
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    for args in [
        &["--client", "client"][..],
        &["--client", "client {url}", "--faults", "retention"],
    ] {
        let ended = run(&[&["verify", "--topics"], args].concat());
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
    }
}
