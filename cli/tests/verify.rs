//! `unstall verify`: what its runs prove, and that its verdict is never better than the facts.

mod support;

use serde_json::{Value, json};
use support::{Ended, Serve, run, unstall};

/// Runs `unstall verify` with these arguments and `--json`.
fn verify(args: &[&str]) -> (Ended, Value) {
    let ended = run(&[&["verify", "--json"], args].concat());
    let json = ended.json();
    (ended, json)
}

/// The verdict of a short run of these faults over a session, which must be good.
fn kept(faults: &str, seed: &str) -> Value {
    let (ended, json) = verify(&[
        "--faults", faults, "--seed", seed, "--count", "4000", "--rate", "max", "--times", "6",
        "--size", "64..8192",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(json["ok"], true);
    for count in ["lost", "duplicated", "reordered", "corrupted"] {
        assert_eq!(json[count], 0, "{count}: {json}");
    }
    let number = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(
        number("sent"),
        number("delivered") + number("reported_undelivered"),
        "{json}"
    );
    json
}

/// Like [`kept`], but no process is killed, so every message must arrive.
fn all_delivered(faults: &str, seed: &str) -> Value {
    let json = kept(faults, seed);
    assert_eq!(json["sent"], 8000, "{json}");
    assert_eq!(json["delivered"], 8000, "{json}");
    json
}

#[test]
fn the_json_has_exactly_the_promised_fields() {
    let (ended, json) = verify(&["--count", "500", "--times", "0", "--rate", "max"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1);
    let mut fields: Vec<_> = json.as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "client_peak_rss_bytes",
            "corrupted",
            "delivered",
            "duplicated",
            "longest_silence_ms",
            "lost",
            "ok",
            "reconnects",
            "recovery_ms_p50",
            "recovery_ms_p99",
            "reordered",
            "reported_undelivered",
            "resumes",
            "seed",
            "sent",
            "server_peak_rss_bytes",
        ]
    );
    assert_eq!(
        (&json["sent"], &json["delivered"]),
        (&json!(1000), &json!(1000))
    );
    assert_eq!(
        (&json["reconnects"], &json["recovery_ms_p50"]),
        (&json!(0), &Value::Null)
    );
    for side in ["client_peak_rss_bytes", "server_peak_rss_bytes"] {
        if cfg!(target_os = "linux") {
            assert!(json[side].as_u64().unwrap() > 1 << 20, "{json}");
        } else {
            assert_eq!(json[side], Value::Null);
        }
    }
}

#[test]
fn a_session_goes_on_over_every_cut() {
    let json = all_delivered("cut", "11");
    assert!(json["reconnects"].as_u64().unwrap() >= 1, "{json}");
    assert!(json["resumes"].as_u64().unwrap() >= 1, "{json}");
    assert!(json["recovery_ms_p50"].as_f64().unwrap() > 0.0, "{json}");
    assert_eq!(json["seed"], 11);
}

#[test]
fn a_compressed_session_goes_on_over_every_cut() {
    let (ended, json) = verify(&[
        "--compress",
        "--faults",
        "cut",
        "--seed",
        "18",
        "--count",
        "4000",
        "--rate",
        "max",
        "--times",
        "6",
        "--size",
        "64..8192",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        (&json["ok"], &json["lost"]),
        (&json!(true), &json!(0)),
        "{json}"
    );
    assert!(json["reconnects"].as_u64().unwrap() >= 1, "{json}");
}

#[test]
fn refused_connections_cost_nothing_but_time() {
    let json = all_delivered("refuse", "12");
    assert!(json["resumes"].as_u64().unwrap() >= 1, "{json}");
}

#[test]
fn frozen_connections_cost_nothing_but_time() {
    all_delivered("freeze", "13");
}

#[test]
fn delays_cost_nothing_but_time() {
    all_delivered("delay", "14");
}

#[test]
fn applications_that_stop_and_go_cost_nothing_but_time() {
    all_delivered("slow", "15");
}

#[test]
fn what_a_killed_server_took_with_it_is_reported_to_the_last_message() {
    let json = kept("restart", "16");
    // The queues were full of messages when the server was killed.
    assert!(json["reported_undelivered"].as_u64().unwrap() > 0, "{json}");
    assert!(json["delivered"].as_u64().unwrap() > 0, "{json}");
}

#[test]
fn all_faults_together_lose_nothing_in_silence() {
    kept("cut,freeze,delay,refuse,restart,slow", "17");
}

#[test]
fn plain_connections_lose_messages_and_the_gaps_tell_of_them() {
    let args = [
        "--plain", "--faults", "cut", "--seed", "18", "--count", "4000", "--rate", "max",
    ];
    let (ended, json) = verify(&args);
    let number = |name: &str| json[name].as_u64().unwrap();
    assert!(number("reported_undelivered") > 0, "{json}");
    assert_eq!(
        number("sent"),
        number("delivered") + number("lost") + number("reported_undelivered")
    );
    assert_eq!((number("resumes"), number("duplicated")), (0, 0), "{json}");
    assert!(number("reconnects") >= 1);
    assert_eq!(
        number("lost"),
        0,
        "each broken connection is told of: {json}"
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn plain_connections_that_are_only_late_lose_nothing() {
    for faults in ["delay", "slow"] {
        let args = [
            "--plain", "--faults", faults, "--seed", "21", "--count", "2000", "--rate", "max",
        ];
        let (ended, json) = verify(&args);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(
            (&json["sent"], &json["delivered"], &json["reconnects"]),
            (&json!(4000), &json!(4000), &json!(0)),
            "{json}"
        );
        assert!(json["longest_silence_ms"].as_u64().unwrap() > 0, "{json}");
    }
}

#[test]
fn plain_connections_that_are_refused_tell_what_is_missing() {
    let (ended, json) = verify(&[
        "--plain",
        "--faults",
        "freeze,refuse",
        "--seed",
        "22",
        "--count",
        "4000",
        "--rate",
        "max",
    ]);
    let number = |name: &str| json[name].as_u64().unwrap();
    assert_eq!((ended.code, number("lost")), (Some(0), 0), "{ended:?}");
    assert_eq!(
        number("sent"),
        number("delivered") + number("reported_undelivered")
    );
    assert!(number("reconnects") >= 1, "{json}");
    // Null if everything had arrived before the cut.
    let recovery = |name: &str| json[name].as_f64();
    assert!(
        recovery("recovery_ms_p50") <= recovery("recovery_ms_p99"),
        "{json}"
    );
}

#[test]
fn plain_connections_to_a_killed_server_lose_in_silence_and_the_verdict_says_so() {
    let args = [
        "--plain", "--faults", "restart", "--seed", "19", "--count", "20000", "--rate", "max",
    ];
    let (ended, json) = verify(&args);
    assert_eq!(
        (ended.code, &json["ok"]),
        (Some(1), &json!(false)),
        "{json}"
    );
    assert!(json["lost"].as_u64().unwrap() > 0, "{json}");
    assert!(ended.stderr.contains("not reported"), "{ended:?}");
}

#[test]
fn a_server_elsewhere_is_verified_through_its_echo() {
    let serve = Serve::start(&[]);
    let run = [
        "--faults",
        "cut,refuse,slow",
        "--seed",
        "20",
        "--count",
        "4000",
        "--rate",
        "max",
    ];
    let (ended, json) = verify(&[&[&*serve.at("/echo")], &run[..]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        (&json["sent"], &json["delivered"]),
        (&json!(4000), &json!(4000))
    );
    assert!(json["resumes"].as_u64().unwrap() >= 1, "{json}");
    assert_eq!(json["server_peak_rss_bytes"], Value::Null);

    let (_, json) = verify(&[&[&*serve.at("/"), "--plain"], &run[..]].concat());
    assert_eq!(json["resumes"], 0);
    assert_eq!(
        (&json["lost"], &json["duplicated"]),
        (&json!(0), &json!(0)),
        "{json}"
    );
}

#[test]
fn a_server_without_sessions_is_refused_unless_plain_is_asked_for() {
    let serve = Serve::start(&["--plain"]);
    // Without faults: one of them could strike during the handshake.
    let (ended, _) = verify(&[&serve.url, "--count", "100", "--times", "0"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("unstall.v1"), "{ended:?}");
    let args = [
        &serve.url, "--count", "100", "--times", "0", "--rate", "max", "--plain",
    ];
    let (ended, json) = verify(&args);
    assert_eq!(
        (ended.code, &json["delivered"]),
        (Some(0), &json!(100)),
        "{ended:?}"
    );
}

#[test]
fn wrong_usage_is_exit_2() {
    for wrong in [
        &["--faults", "earthquake"][..],
        &["--size", "8"],
        &["--size", "64..32"],
        &["--rate", "0"],
        &["--count", "0"],
        &["http://localhost"],
        &["ws://localhost", "--faults", "restart"],
        &["--header", "a: b"],
    ] {
        let ended = run(&[&["verify"], wrong].concat());
        assert_eq!(ended.code, Some(2), "{wrong:?} {ended:?}");
    }
    assert_eq!(run(&["verify-peer"]).code, Some(2));
}

/// Ctrl-C in the middle of a run that would last for hours.
#[cfg(unix)]
#[test]
fn an_interrupted_run_still_gives_its_verdict() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let args = [
        "verify",
        "--count",
        "1000000000",
        "--json",
        "--rate",
        "1000",
        "--faults",
        "cut",
    ];
    let mut child = unstall(&args)
        .env("UNSTALL_LOG", "unstall=debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Messages flow once the session is open, which the client logs.
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let opened = log
        .by_ref()
        .any(|line| line.unwrap().contains("SessionOpened"));
    assert!(opened);
    let reading = std::thread::spawn(move || log.for_each(drop));
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let mut running = support::Running { child };
    let status = running.wait();
    reading.join().unwrap();
    let json: Value = serde_json::from_reader(running.child.stdout.take().unwrap()).unwrap();
    assert_eq!(
        (status.code(), &json["ok"]),
        (Some(0), &json!(true)),
        "{json}"
    );
    // Messages that were sent are still delivered.
    assert_eq!(json["sent"], json["delivered"], "{json}");
}
