//! What is counted over the whole process, so nothing else may run in it.

#[path = "it/common.rs"]
mod common;

use tokio::sync::Mutex;
use unstall::{Client, Server};
use unstall_dashboard::{Dashboard, LIVE};
use unstall_topics::{Start, Topics};

use common::{get, serve, serve_with, until};

/// One test at a time.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_page_is_not_among_the_connections_that_it_shows() {
    let _turn = TURN.lock().await;
    let address = serve(Dashboard::builder()).await;
    let topics = Topics::connect([format!("ws://{address}{LIVE}")]);
    let mut feed = topics.subscribe("status.>", Start::Now).unwrap();
    feed.recv().await.unwrap();
    // The test's own end of it is one of this process, and the server's is not.
    let json = get(address, "/status.json", &[]).await.json();
    assert_eq!(json["totals"]["server"], 0);
    assert_eq!(json["totals"]["client"], 1);
    assert_eq!(json["connections_total"], 1);
}

#[tokio::test]
async fn many_short_connections_leave_little_behind() {
    let _turn = TURN.lock().await;
    let address = serve_with(Dashboard::builder(), Server::builder().plain()).await;
    let client = Client::new(format!("ws://{address}/")).plain();
    let mut first = None;
    for _ in 0..20 {
        let dialed = (0..25).map(|_| client.connect());
        for connection in futures_util::future::join_all(dialed).await {
            let connection = connection.unwrap();
            first.get_or_insert(connection.stats().id);
        }
    }
    let json = until(address, "/status.json", |json| {
        json["connections_total"] == 0 && json["server"]["accepted"].as_u64() >= Some(500)
    })
    .await;
    assert_eq!(json["connections"].as_array().map(Vec::len), Some(0));
    assert!(json.to_string().len() < 3_000, "{json}");
    // Of the last ones some events are kept, and of the first nothing is left.
    let path = format!("/status/connections/{}.json", first.unwrap());
    assert_eq!(get(address, &path, &[]).await.status, 404);
    let history = get(address, "/status/history.json", &[]).await;
    assert!(history.head.contains("application/json"));
    let points = history.json()["points"].as_array().map_or(0, Vec::len);
    assert!(
        points <= 900 && history.body.len() < 300 * (points + 2),
        "{points}"
    );
}
