//! `unstall pull`, against `unstall serve` and against servers that are not ours.

mod support;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use support::{Serve, foreign_server, in_background, packet, run};
use tokio_tungstenite::tungstenite::Message;

#[test]
fn every_packet_comes_intact_and_the_json_has_the_promised_fields() {
    let serve = Serve::start(&[]);
    let ended = run(&[
        "pull",
        &serve.at("/packets"),
        "--count",
        "20000",
        "--size",
        "4096",
        "--json",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1);
    let json = ended.json();
    let mut fields: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "bytes_per_second",
            "corrupted",
            "count",
            "duplicated",
            "lost",
            "messages_per_second",
            "peak_rss_bytes",
            "received",
            "reconnects",
            "reordered",
            "resumed",
            "seconds"
        ]
    );
    assert_eq!(
        (&json["count"], &json["received"]),
        (&json!(20_000), &json!(20_000))
    );
    for field in [
        "lost",
        "duplicated",
        "reordered",
        "corrupted",
        "reconnects",
        "resumed",
    ] {
        assert_eq!(json[field], 0, "{field}");
    }
    let rate = json["messages_per_second"].as_f64().unwrap() * json["seconds"].as_f64().unwrap();
    assert!((rate - 20_000.0).abs() < 1.0, "{json}");
    if cfg!(target_os = "linux") {
        assert!(json["peak_rss_bytes"].as_u64().unwrap() > 1 << 20, "{json}");
    }
}

#[test]
fn compressed_connections_bring_every_packet_too() {
    let serve = Serve::start(&["--compress=smallest=0"]);
    let url = serve.at("/packets");
    for more in [&[][..], &["--plain"]] {
        // The packets themselves are noise, which goes out as it is.
        let args = [
            "pull",
            &url,
            "--count",
            "5000",
            "--size",
            "1000",
            "--compress",
            "--json",
        ];
        let ended = run(&[&args, more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.json()["received"], 5000);
    }
}

#[test]
fn a_slow_consumer_gets_every_packet_too() {
    let serve = Serve::start(&[]);
    let url = serve.at("/packets");
    let args = [
        "pull", &url, "--count", "100", "--size", "1000000", "--slow", "5", "--json",
    ];
    let ended = run(&args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.json()["seconds"].as_f64().unwrap() > 0.5);
    if cfg!(target_os = "linux") {
        // 100 MB were sent; the inbox holds 4 MiB.
        assert!(
            ended.json()["peak_rss_bytes"].as_u64().unwrap() < 50 << 20,
            "{ended:?}"
        );
    }
}

#[test]
fn tls_works_with_the_roots_given_and_is_refused_without() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&cert, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());

    let serve = Serve::start(&["--tls-cert", cert, "--tls-key", key]);
    let port = serve.url.strip_prefix("wss://127.0.0.1:").unwrap();
    let url = format!("wss://localhost:{port}/packets");
    let args = ["pull", &url, "--count", "1000"];
    assert_eq!(
        run(&[&args[..], &["--tls-roots", cert]].concat()).code,
        Some(0)
    );
    let refused = run(&args);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("TLS"), "{refused:?}");
}

/// Pulls 4 packets of 20 bytes from a server that sends these and `{"done":4}`.
async fn pull_from(packets: Vec<Message>) -> (Option<i32>, serde_json::Value) {
    let url = foreign_server(move |_, mut ws| {
        let packets = packets.clone();
        async move {
            let request = ws.next().await.unwrap().unwrap();
            assert_eq!(request.to_text().unwrap(), r#"{"count":4,"size":20}"#);
            for packet in packets {
                ws.send(packet).await.unwrap();
            }
            ws.send(Message::text(r#"{"done":4}"#)).await.unwrap();
            while ws.next().await.is_some_and(|message| message.is_ok()) {}
        }
    })
    .await;
    let args = move || run(&["pull", &url, "--count", "4", "--size", "20", "--json"]);
    let ended = in_background(args).await;
    (ended.code, ended.json())
}

#[tokio::test]
async fn each_fault_of_a_server_is_counted_and_fails() {
    let sent = |indexes: &[u64]| {
        indexes
            .iter()
            .map(|&i| packet(i, b"four"))
            .collect::<Vec<_>>()
    };
    let (code, _) = pull_from(sent(&[0, 1, 2, 3])).await;
    assert_eq!(code, Some(0));
    let mut corrupted = packet(2, b"four").into_data().to_vec();
    corrupted[19] ^= 1;
    let corrupted = [sent(&[0, 1]), vec![Message::binary(corrupted)], sent(&[3])].concat();
    for (packets, field, others_lost) in [
        (sent(&[0, 1, 3]), "lost", 1),
        (sent(&[0, 1, 2, 2, 3]), "duplicated", 0),
        (sent(&[0, 2, 1, 3]), "reordered", 0),
        (corrupted, "corrupted", 1),
        (
            [sent(&[0, 1, 2]), vec![packet(3, b"fifth")]].concat(),
            "corrupted",
            1,
        ),
    ] {
        let (code, json) = pull_from(packets).await;
        assert_eq!(
            (code, &json[field]),
            (Some(1), &json!(1)),
            "{field}: {json}"
        );
        assert_eq!(json["lost"], others_lost, "{field}: {json}");
    }
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_the_rest_lost_and_says_so() {
    let url = foreign_server(|_, mut ws| async move {
        ws.next().await.unwrap().unwrap();
        ws.send(packet(0, b"")).await.unwrap();
        // Dropped: the TCP stream ends without a close frame.
    })
    .await;
    let ended =
        in_background(move || run(&["pull", &url, "--count", "9", "--size", "16", "--json"])).await;
    let json = ended.json();
    assert_eq!(
        (ended.code, &json["received"], &json["lost"]),
        (Some(1), &json!(1), &json!(8))
    );
    assert_eq!(json["reconnects"], 1);
    assert!(
        json["error"]
            .as_str()
            .unwrap()
            .contains("the connection was lost and made again"),
        "{json}"
    );
}

#[tokio::test]
async fn an_error_answer_and_a_silent_server_end_the_run() {
    let url = foreign_server(|number, mut ws| async move {
        ws.next().await.unwrap().unwrap();
        if number == 0 {
            ws.send(Message::text(r#"{"error":"not today"}"#))
                .await
                .unwrap();
        }
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    })
    .await;
    let args = move || {
        let (refused, silent) = (
            run(&["pull", &url]),
            run(&["pull", &url, "--timeout", "0.2"]),
        );
        (refused, silent)
    };
    let (refused, silent) = in_background(args).await;
    assert_eq!((refused.code, silent.code), (Some(1), Some(1)));
    assert!(refused.stderr.contains("not today"), "{refused:?}");
    assert!(
        silent.stderr.contains("nothing was received for"),
        "{silent:?}"
    );
}

#[test]
fn nobody_there_is_exit_1_and_wrong_usage_exit_2() {
    // A port on which nothing listens.
    let url = "ws://127.0.0.1:1".to_string();
    let ended = run(&["pull", &url, "--json"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.json()["lost"], 100_000);
    assert!(ended.json()["error"].is_string());
    for wrong in [
        &["pull"][..],
        &["pull", "http://localhost"],
        &["pull", &url, "--size", "15"],
        &["pull", &url, "--size", "99999999999"],
        &["pull", &url, "--count", "-1"],
        &["pull", &url, "--header", "no colon"],
        &["pull", "ws://"],
        &[],
    ] {
        assert_eq!(run(wrong).code, Some(2), "{wrong:?}");
    }
}

/// A proxy that cuts each of the first three connections after a megabyte of answers.
async fn cutting_proxy(server: String) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/packets", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(&server).await.unwrap();
            let (mut client_read, mut client_write) = client.split();
            let (server_read, mut server_write) = server.split();
            let mut answers = server_read.take(if number < 3 { 1_000_000 } else { u64::MAX });
            tokio::select! {
                _ = copy(&mut answers, &mut client_write) => {}
                _ = copy(&mut client_read, &mut server_write) => {}
            }
            let _ = client_write.shutdown().await;
        }
    });
    url
}

#[tokio::test]
async fn a_session_goes_on_over_cuts_and_asks_for_nothing_again() {
    let serve = Serve::start(&[]);
    let url = cutting_proxy(serve.url.trim_start_matches("ws://").to_owned()).await;
    let ended = in_background({
        let url = url.clone();
        move || run(&["pull", &url, "--count", "2000", "--size", "4096", "--json"])
    })
    .await;
    let json = ended.json();
    assert_eq!(
        (ended.code, &json["received"]),
        (Some(0), &json!(2000)),
        "{ended:?}"
    );
    for fault in ["lost", "duplicated", "reordered", "corrupted"] {
        assert_eq!(json[fault], 0, "{json}");
    }
    assert_eq!(
        (&json["reconnects"], &json["resumed"]),
        (&json!(3), &json!(3))
    );
}

#[tokio::test]
async fn plain_is_plain_and_a_cut_is_a_loss() {
    let serve = Serve::start(&[]);
    let url = cutting_proxy(serve.url.trim_start_matches("ws://").to_owned()).await;
    let pull = move || run(&["pull", &url, "--count", "2000", "--json", "--plain"]);
    let ended = in_background(pull).await;
    let json = ended.json();
    assert_eq!(
        (ended.code, &json["resumed"]),
        (Some(1), &json!(0)),
        "{ended:?}"
    );
    assert!(json["lost"].as_u64().unwrap() > 0, "{json}");
}
