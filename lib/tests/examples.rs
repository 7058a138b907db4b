//! Each program in `lib/examples` runs by the command in its first line, ends by itself, and prints
//! what it promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message;

/// The examples, in the order of the tests below.
const TESTED: [&str; 10] = [
    "adopt",
    "agent_tokens",
    "axum_chat",
    "client_certificates",
    "file_transfer",
    "market_data",
    "metrics",
    "opentelemetry",
    "rpc",
    "tls_auth",
];

/// Runs the command in the first line of the example. Returns the lines that it prints.
fn run(name: &str) -> Vec<String> {
    run_with(name, &[])
}

/// As [`run`], with environment variables.
fn run_with(name: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let source = fs::read_to_string(folder.join(name).with_extension("rs")).unwrap();
    let first = source.lines().next().unwrap();
    let command = first.strip_prefix("//! ").expect(first);
    let words: Vec<_> = command.split(' ').collect();
    assert_eq!((words[0], words[1]), ("cargo", "run"), "{command}");
    assert_eq!(words.last(), Some(&name), "{command}");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet"])
        .args(&words[2..])
        .current_dir(&folder)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{command}\n{printed}{errors}");
    assert!(output.status.success(), "{name}: {}", output.status);
    printed.lines().map(str::to_owned).collect()
}

/// The number in front of `text` in one of the lines.
#[track_caller]
fn number(lines: &[String], text: &str) -> u64 {
    let found = lines.iter().find_map(|line| {
        let (before, _) = line.split_once(text)?;
        before.rsplit(' ').next()?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("no line has a number before {text:?}"))
}

#[test]
fn every_example_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let found: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, TESTED.map(str::to_owned).into());
}

#[test]
fn adopted_streams_both_send_before_they_receive() {
    let lines = run("adopt");
    for end in ["server", "client"] {
        let expected = format!("{end}: 512 messages, closed cleanly: true");
        assert!(lines.contains(&expected), "{end}");
    }
}

#[test]
fn answer_of_an_agent_is_whole_after_a_cut_and_can_be_stopped() {
    assert_eq!(
        run("agent_tokens"),
        [
            "an answer of 500 tokens, whole and in order",
            "the connection was resumed 1 time",
            "stopped: true",
        ]
    );
}

#[test]
fn slow_member_of_a_chat_is_removed_and_nobody_else_misses_a_line() {
    assert_eq!(
        run("axum_chat"),
        [
            "alice: 1000 lines, in order",
            "carol: code 1008 (too slow)",
            "the room \"rust\" has 2 members",
            "the room \"tea\" heard 0 messages",
        ]
    );
}

#[test]
fn only_the_client_with_a_certificate_of_the_authority_is_welcome() {
    assert_eq!(
        run("client_certificates"),
        [
            "a certificate of the authority: welcome",
            "no certificate: refused",
            "worth another attempt: false",
            "a certificate of somebody else: refused",
            "worth another attempt: false",
        ]
    );
}

#[test]
fn file_is_on_the_disk_once_it_is_delivered() {
    assert_eq!(
        run("file_transfer"),
        [
            "8000000 bytes are on the receiver's disk",
            "the copy is the same: true",
        ]
    );
}

#[test]
fn trades_are_complete_and_prices_conflate() {
    let lines = run("market_data");
    assert!(number(&lines, " trades, each once and in order") >= 300);
    assert!(number(&lines, " reconnects") > 0);
    assert!(number(&lines, " trades backfilled") > 0);
    assert!(number(&lines, " prices replaced") > 0);
}

#[test]
fn figures_of_the_connections_are_a_page_for_prometheus() {
    let lines = run("metrics");
    for side in ["client", "server"] {
        for name in ["messages_sent", "messages_received"] {
            let kind = format!("# TYPE unstall_{name}_total counter");
            assert!(lines.contains(&kind), "{kind}");
            let labels = format!(r#"{{kind="plain",side="{side}"}}"#);
            let figure = format!("unstall_{name}_total{labels} 3");
            assert!(lines.contains(&figure), "{figure}");
        }
    }
}

#[test]
fn each_call_gets_its_answer_and_calls_of_a_lost_session_fail() {
    assert_eq!(
        run("rpc"),
        [
            "100 calls at once, each with its own answer",
            "the call that waited failed: the session was lost: the call may have been carried out",
            "the next one too: the connection has ended",
        ]
    );
}

#[test]
fn user_with_a_valid_token_is_greeted_and_the_other_is_refused() {
    let lines = run("tls_auth");
    assert_eq!(lines[0], "alices token: hello, alice");
    assert!(lines[1].starts_with("an old token: "), "{}", lines[1]);
    assert!(lines[1].contains("401 Unauthorized: a valid token is needed"));
    assert_eq!(lines[2], "worth another attempt: false");
}

/// A collector of OTLP over HTTP: the spans of each service that exports to it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    fn take(&self, body: &Bytes) {
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP");
        let mut spans = self.0.lock().unwrap();
        for resource in request.resource_spans {
            let service = resource.resource.unwrap().attributes.into_iter();
            let mut service = service.filter(|it| it.key == "service.name");
            let service = format!("{:?}", service.next().unwrap().value);
            let service = ["asker", "shouter"]
                .into_iter()
                .find(|it| service.contains(it));
            let found = resource.scope_spans.into_iter().flat_map(|it| it.spans);
            spans.extend(found.map(|span| (service.unwrap().to_owned(), span)));
        }
    }
}

#[test]
fn spans_of_a_client_and_its_server_are_one_trace_without_secrets() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collector = Collector::default();
    let to = collector.clone();
    let app = Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| async move { to.take(&body) }),
    );
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await });
    let lines = run_with(
        "opentelemetry",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    assert_eq!(lines[1..], ["HELLO"]);

    let spans = collector.0.lock().unwrap();
    let names: BTreeMap<&[u8], String> = spans
        .iter()
        .map(|(service, span)| (&span.span_id[..], format!("{service} {}", span.name)))
        .collect();
    let mut tree: Vec<(&str, &str)> = spans
        .iter()
        .map(|(_, span)| {
            let parent = names.get(&span.parent_span_id[..]);
            let name = &names[&span.span_id[..]];
            (name.as_str(), parent.map_or("", |parent| parent))
        })
        .collect();
    tree.sort_unstable();
    assert_eq!(
        tree,
        [
            ("asker ask", ""),
            ("asker connect", "asker ask"),
            ("asker connection", "asker ask"),
            ("asker handshake", "asker connect"),
            ("asker session", "asker connection"),
            ("shouter connection", "asker handshake"),
            ("shouter handler", "asker handshake"),
            ("shouter handshake", "asker handshake"),
            ("shouter session", "shouter connection"),
            ("shouter shout", "shouter handler"),
        ]
    );
    let attributes = |name: &str| {
        let (_, span) = spans
            .iter()
            .find(|(service, span)| format!("{service} {}", span.name) == name)
            .unwrap();
        format!("{:?} {:?}", span.kind(), span.attributes)
    };
    let asked = attributes("asker connect");
    for part in ["Client", "server.address", "127.0.0.1", "server.port"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    for (name, kind) in [
        ("asker handshake", "Client"),
        ("shouter handshake", "Server"),
    ] {
        let found = attributes(name);
        assert!(found.starts_with(kind) && found.contains("http.response.status_code"));
        assert!(found.contains("IntValue(101)"), "{name}: {found}");
    }
    for (service, span) in spans.iter() {
        let trace: String = span.trace_id.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            lines[0],
            format!("trace {trace}"),
            "{service} {}",
            span.name
        );
        let all = format!("{span:?}");
        assert!(!all.contains("s3cret") && !all.contains("token"), "{all}");
    }
}
