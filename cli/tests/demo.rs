//! `unstall demo` as a script sees it, and the files that `man` and `completions` write.

mod support;

use serde_json::json;
use support::run;

#[test]
fn the_demo_holds_what_it_promises_and_its_rows_add_up() {
    const COUNT: u64 = 20_000;
    let ended = run(&["demo", "--json", "--count", "20000"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let json = ended.json();
    assert_eq!(json["kept"], json!(true));
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let (received, lost) = (
            row["received"].as_u64().unwrap(),
            row["lost"].as_u64().unwrap(),
        );
        assert_eq!(received + lost, COUNT, "{row}");
        match row["ending"].as_str().unwrap() {
            "finished" => assert_eq!(lost, 0, "{row}"),
            // A stall is one that was watched for two seconds and left packets behind.
            "stalled" => {
                assert!(
                    row["seconds_without_progress"].as_f64().unwrap() >= 2.0,
                    "{row}"
                );
                assert!(lost > 0, "{row}");
            }
            other => panic!("{other}"),
        }
    }
    let unstall = &rows[2];
    assert_eq!(unstall["received"], COUNT);
    let peak = unstall["peak_queued_bytes"].as_u64().unwrap();
    assert!(
        peak > 0 && peak <= unstall["queue_limit_bytes"].as_u64().unwrap(),
        "{unstall}"
    );
    let cut = &rows[3];
    assert_eq!(cut["received"], COUNT);
    assert!(cut["cuts"].as_u64().unwrap() >= 10, "{cut}");
    assert!(cut["resumes"].as_u64().unwrap() >= 1, "{cut}");
    let killed = &rows[4];
    assert_eq!(killed["received"], COUNT);
    assert!(killed["kills"].as_u64().unwrap() >= 5, "{killed}");
    assert_eq!(killed["gaps"], 0, "{killed}");
    assert!(rows[1]["queue_limit_bytes"].is_null());
    for buffer in [
        "client_send",
        "client_receive",
        "server_send",
        "server_receive",
    ] {
        assert!(
            json["kernel_buffers"][buffer].as_u64().unwrap() > 0,
            "{json}"
        );
    }
}

#[test]
fn completions_and_manual_pages_know_every_subcommand() {
    let script = run(&["completions", "bash"]);
    assert_eq!(script.code, Some(0));
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).code, Some(0));
    for subcommand in [
        "demo",
        "serve",
        "pull",
        "cat",
        "hub",
        "publish",
        "subscribe",
        "verify",
        "doctor",
        "completions",
        "relay",
        "man",
    ] {
        assert!(
            script
                .stdout
                .contains(&format!("unstall__subcmd__{subcommand}")),
            "{subcommand}"
        );
        let page = std::fs::read_to_string(pages.join(format!("unstall-{subcommand}.1"))).unwrap();
        assert!(page.contains(subcommand));
        assert_eq!(run(&[subcommand, "--help"]).code, Some(0));
    }
    let below_a_file = pages.join("unstall.1").join("man1");
    assert_eq!(run(&["man", below_a_file.to_str().unwrap()]).code, Some(1));
}
