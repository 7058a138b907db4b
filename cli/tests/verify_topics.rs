//! `unstall verify --topics`: every promise of topics, over processes that are killed and networks
//! that break.

mod support;

use serde_json::{Value, json};
use support::{Ended, run, topics_are_whole};

fn verify(args: &[&str]) -> (Ended, Value) {
    let ended = run(&[&["verify", "--topics", "--json"], args].concat());
    let json = ended.json();
    (ended, json)
}

/// The verdict of a run, which must be good.
fn kept(args: &[&str]) -> Value {
    let (ended, json) = verify(args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(json["ok"], true);
    topics_are_whole(&json);
    let number = |name: &str| json[name].as_u64().unwrap();
    let answered = number("stored") + number("not_stored") + number("unknown");
    assert_eq!(number("published"), answered, "{json}");
    json
}

/// What each subscriber received, of everything that may be stored.
fn all_delivered(json: &Value) {
    let number = |name: &str| json[name].as_u64().unwrap();
    for delivered in json["delivered"].as_array().unwrap() {
        let delivered = delivered.as_u64().unwrap();
        let most = number("stored") + number("unknown");
        assert!((number("stored")..=most).contains(&delivered), "{json}");
    }
    assert_eq!(number("gaps_reported"), 0, "{json}");
}

#[test]
fn the_json_has_exactly_the_promised_fields() {
    let args = [
        "--store", "memory", "--faults", "cut", "--times", "0", "--rate", "max",
    ];
    let json = kept(&[&args[..], &["--count", "501", "--subscribers", "2"]].concat());
    let mut fields: Vec<_> = json.as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "corrupted",
            "delivered",
            "duplicated",
            "false_messages",
            "faults",
            "gaps_reported",
            "kills",
            "lost",
            "not_stored",
            "ok",
            "published",
            "reordered",
            "reported_missing",
            "restarts",
            "seed",
            "stored",
            "unknown",
        ]
    );
    // Two publishers have the same number of messages.
    assert_eq!(
        (&json["published"], &json["delivered"]),
        (&json!(502), &json!([502, 502]))
    );
}

#[test]
fn hubs_that_are_killed_and_restarted_lose_nothing() {
    let args = [
        "--faults",
        "kill,restart",
        "--times",
        "6",
        "--seed",
        "3",
        "--count",
        "12000",
    ];
    let json = kept(&args);
    all_delivered(&json);
    assert_eq!(
        (&json["kills"], &json["restarts"]),
        (&json!(3), &json!(3)),
        "{json}"
    );
    assert_eq!(json["published"], 12_000);
}

/// Of each message that was confirmed there is one, and of each without an answer at most one: nothing is
/// lost, duplicated or false.
#[test]
fn a_hub_killed_twenty_times_in_mid_publish_keeps_what_it_confirmed() {
    let faults = ["--faults", "kill", "--times", "20", "--seed", "11"];
    let json = kept(&[&faults[..], &["--count", "20000", "--rate", "2500"]].concat());
    all_delivered(&json);
    assert_eq!(
        (&json["kills"], &json["published"]),
        (&json!(20), &json!(20_000)),
        "{json}"
    );
}

#[test]
fn connections_that_break_and_stand_still_lose_nothing() {
    let args = [
        "--faults",
        "cut,freeze,slow",
        "--times",
        "12",
        "--seed",
        "5",
        "--count",
        "8000",
    ];
    let json = kept(&args);
    all_delivered(&json);
    assert!(json["faults"].as_u64().unwrap() >= 8, "{json}");
    assert_eq!(
        (&json["stored"], &json["unknown"]),
        (&json!(8000), &json!(0)),
        "{json}"
    );
}

/// A subscriber falls behind what the log keeps, and another one starts when the beginning is removed.
/// Both are told of everything that they missed.
///
/// Once the second one began with the first message that the log had. Of what was before it no gap
/// tells, and so the verdict counted 11,165 messages as lost.
#[test]
fn what_retention_removed_is_told() {
    let args = [
        "--faults",
        "retention",
        "--times",
        "1",
        "--seed",
        "1",
        "--size",
        "4096",
    ];
    let json = kept(
        &[
            &args[..],
            &["--count", "30000", "--subscribers", "2", "--rate", "max"],
        ]
        .concat(),
    );
    let number = |name: &str| json[name].as_u64().unwrap();
    assert!(number("gaps_reported") >= 2, "{json}");
    let delivered = json["delivered"].as_array().unwrap();
    let delivered: Vec<u64> = delivered.iter().filter_map(Value::as_u64).collect();
    assert!(
        delivered.iter().all(|delivered| *delivered < 30_000),
        "{json}"
    );
    let all = delivered.iter().sum::<u64>() + number("reported_missing");
    assert_eq!(all, 2 * 30_000, "{json}");
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    for args in [
        &["--topics", "--nodes", "2"][..],
        &["--topics", "--store", "memory"],
        &["--topics", "--plain"],
        &["--topics", "ws://127.0.0.1:1"],
        &["--topics", "--faults", "storm"],
        &["--faults", "kill"],
        &["--publishers", "2"],
    ] {
        let ended = run(&[&["verify"], args].concat());
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
    }
    assert_eq!(run(&["verify-topics-peer"]).code, Some(2));
}
