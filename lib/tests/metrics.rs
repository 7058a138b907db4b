//! What all connections of the process do is told to the `metrics` facade. The recorder is one for the
//! process, so these tests have a program of their own, and take turns.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use unstall::{Client, CloseCode, Connection, Incoming, Overflow, Rejection, Server};

static RECORDER: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    let recorder = PrometheusBuilder::new().install_recorder().unwrap();
    unstall::metrics::describe();
    recorder
});

/// Runs a test while no other one runs. Its tasks have ended with its runtime before the next begins.
fn alone(test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    LazyLock::force(&RECORDER);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// The figures of a page, by their name and labels as they are written.
struct Page(HashMap<String, f64>);

impl Page {
    fn now() -> Page {
        unstall::metrics::update();
        let page = RECORDER.render();
        let lines = page
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let figure = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Page(lines.map(figure).collect())
    }

    fn get(&self, name: &str) -> f64 {
        let there = || self.0.keys().cloned().collect::<Vec<_>>().join("\n");
        *self
            .0
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in\n{}", there()))
    }

    /// Pages until one is as expected.
    async fn until(expected: impl Fn(&Page) -> bool) -> Page {
        let begun = std::time::Instant::now();
        loop {
            let page = Page::now();
            if expected(&page) {
                return page;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{:#?}", page.0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn echo(mut connection: Connection) {
    while let Ok(Some(incoming)) = connection.recv().await {
        if let Incoming::Message(message) = incoming {
            connection.send(message).await.unwrap();
        }
    }
}

async fn serve_echo() -> (Server, String) {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", server.local_addr());
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(echo).await });
    (server, url)
}

fn counted(kind: &str, side: &str, what: &str) -> String {
    format!("unstall_{what}_total{{kind=\"{kind}\",side=\"{side}\"}}")
}

#[test]
fn counts_outlive_the_connections_that_they_are_of() {
    alone(async {
        let (_server, url) = serve_echo().await;
        for (kind, client) in [
            ("plain", Client::new(&url).plain()),
            ("session", Client::new(&url)),
        ] {
            let before = Page::now();
            let mut connection = client.connect().await.unwrap();
            for _ in 0..100 {
                connection.send("1234567").await.unwrap();
                connection.recv().await.unwrap().unwrap();
            }
            let grown = |page: &Page, side: &str, what: &str| {
                let name = counted(kind, side, what);
                page.get(&name) - before.0.get(&name).copied().unwrap_or_default()
            };
            let whole = |page: &Page| {
                ["client", "server"].iter().all(|side| {
                    grown(page, side, "messages_sent") == 100.0
                        && grown(page, side, "messages_received") == 100.0
                        && grown(page, side, "sent_bytes") >= 700.0
                        && grown(page, side, "received_bytes") >= 700.0
                        && grown(page, side, "connects") == 1.0
                })
            };
            let open = |side: &str| {
                format!("unstall_connections{{kind=\"{kind}\",side=\"{side}\",state=\"open\"}}")
            };
            let page = Page::until(whole).await;
            assert_eq!(page.get(&open("client")), 1.0);
            assert_eq!(page.get(&open("server")), 1.0);
            let _ = connection.close(CloseCode::NORMAL, "").await;
            let gone = |page: &Page| page.get(&open("client")) + page.get(&open("server")) == 0.0;
            let page = Page::until(gone).await;
            assert!(
                whole(&page),
                "counters of {kind} fell, or grew without a message"
            );
        }
    });
}

#[test]
fn a_stalled_consumer_is_seen_with_its_cause() {
    alone(async {
        let (_server, url) = serve_echo().await;
        let connection = Client::new(&url).plain().connect().await.unwrap();
        let (sender, mut receiver) = connection.split();
        let stalled = r#"unstall_stalled_connections{kind="plain",side="client",cause="application_not_reading"}"#;
        let waited = r#"unstall_stalled_seconds_total{kind="plain",side="client",cause="application_not_reading"}"#;
        assert_eq!(Page::now().get(stalled), 0.0);
        let before = Page::now().get(waited);
        let filling =
            tokio::spawn(async move { while sender.send(vec![0; 65_536]).await.is_ok() {} });
        let page = Page::until(|page| page.get(stalled) == 1.0).await;
        let queue = r#"{kind="plain",side="client",queue="inbox"}"#;
        let bytes = page.get(&format!("unstall_queue_bytes{queue}"));
        assert!(bytes >= 0.75 * page.get(&format!("unstall_queue_limit_bytes{queue}")));
        assert!(page.get(&format!("unstall_oldest_message_seconds{queue}")) > 0.0);
        assert!(page.get(r#"unstall_held_bytes{kind="plain",side="client"}"#) >= bytes);
        // A wait counts while it lasts.
        Page::until(|page| page.get(waited) >= before + 1.0).await;
        filling.abort();
        while Page::now().get(stalled) > 0.0 {
            receiver.recv().await.unwrap().unwrap();
        }
    });
}

#[test]
fn gaps_are_counted_once_the_application_has_them() {
    alone(async {
        let (server, url) = serve_echo().await;
        let options = unstall::Options::default()
            .overflow(Overflow::DropOldest)
            .inbox_bytes(1 << 16);
        let mut connection = Client::new(&url)
            .plain()
            .options(options)
            .connect()
            .await
            .unwrap();
        let gaps = r#"unstall_gaps_total{reason="dropped"}"#;
        let before = Page::now().get(gaps);
        for _ in 0..100 {
            connection.send(vec![0; 4096]).await.unwrap();
        }
        let dropped =
            r#"unstall_dropped_messages_total{kind="plain",side="client",reason="overflow"}"#;
        let page = Page::until(|page| page.get(dropped) > 0.0).await;
        assert_eq!(page.get(gaps), before, "nobody has received one yet");
        while !matches!(connection.recv().await.unwrap(), Some(Incoming::Gap(_))) {}
        assert_eq!(Page::now().get(gaps), before + 1.0);
        drop(server);
    });
}

#[test]
fn what_a_server_refuses_is_counted_by_reason_also_when_it_is_gone() {
    alone(async {
        let refused = r#"unstall_server_refused_total{reason="unauthenticated"}"#;
        let before = Page::now().get(refused);
        let server = Server::builder()
            .authenticate(|_| async { Err(Rejection::unauthorized("a token is needed")) })
            .bind("127.0.0.1:0")
            .await
            .unwrap();
        let url = format!("ws://{}/", server.local_addr());
        for _ in 0..3 {
            assert!(Client::new(&url).connect().await.is_err());
        }
        assert_eq!(Page::now().get(refused), before + 3.0);
        server.shutdown(Duration::ZERO).await;
        drop(server);
        assert_eq!(Page::now().get(refused), before + 3.0);
    });
}

#[test]
fn the_loss_of_a_connection_is_counted_with_its_reason_and_so_is_the_next_one() {
    alone(async {
        let (server, url) = serve_echo().await;
        let before = Page::now();
        let mut connection = Client::new(&url).connect().await.unwrap();
        connection.send("x").await.unwrap();
        connection.recv().await.unwrap().unwrap();
        let address = server.local_addr();
        server.shutdown(Duration::ZERO).await;
        drop(server);
        let failed = "unstall_connect_attempts_failed_total";
        let connecting = r#"unstall_connections{kind="session",side="client",state="connecting"}"#;
        Page::until(|page| page.get(failed) > before.get(failed) && page.get(connecting) == 1.0)
            .await;
        let server = Server::bind(address).await.unwrap();
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(echo).await });
        let again = counted("session", "client", "reconnects");
        Page::until(|page| page.get(&again) > before.get(&again)).await;
    });
}

#[test]
fn each_figure_of_the_page_is_in_the_table() {
    alone(async { unstall::metrics::update() });
    let table = include_str!("../src/metrics.rs");
    let page = RECORDER.render();
    let mut seen = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(
            table.contains(&format!("`{name}`")),
            "{name} is not in the table"
        );
        seen += 1;
    }
    assert!(seen > 25, "only {seen} figures");
}
