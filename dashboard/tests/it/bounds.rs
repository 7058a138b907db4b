//! What clients do cannot make an answer, or the memory behind it, grow without a bound.

use std::time::Duration;

use unstall::{Client, Options, Principal, Reconnect, Server};
use unstall_dashboard::Dashboard;

use crate::common::{get, serve_with, until};

/// A server whose clients choose their own names.
fn naming() -> unstall::ServerBuilder {
    Server::builder().authenticate(|mut request| async move {
        let name = request
            .headers()
            .get("name")
            .and_then(|it| it.to_str().ok());
        let name = name.unwrap_or_default().repeat(1_000);
        request.extensions_mut().insert(Principal::new(name));
        Ok(request)
    })
}

#[tokio::test]
async fn a_long_name_is_cut() {
    let address = serve_with(Dashboard::builder(), naming()).await;
    let client = Client::new(format!("ws://{address}/")).header("name", "x".repeat(1_000));
    let _connection = client.connect().await.unwrap();
    let json = until(address, "/status.json", |json| {
        json["connections"].as_array().is_some_and(|rows| {
            rows.iter().any(|row| {
                row["principal"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("xx"))
            })
        })
    })
    .await;
    let rows = json["connections"].as_array().unwrap();
    let names = rows.iter().filter_map(|row| row["principal"].as_str());
    assert!(names.clone().count() > 0);
    assert!(names.into_iter().all(|name| name.chars().count() <= 101));
}

#[tokio::test]
async fn secrets_of_a_request_are_not_shown() {
    let address = serve_with(Dashboard::builder(), naming()).await;
    let url = format!("ws://{address}/feed-of-s3cret?token=s3cret");
    let client = Client::new(url)
        .header("authorization", "Bearer s3cret")
        .header("cookie", "session=s3cret");
    let connection = client.connect().await.unwrap();
    connection.send("s3cret").await.unwrap();
    let json = until(address, "/status.json", |json| {
        let rows = json["connections"].as_array().unwrap();
        rows.iter()
            .any(|row| row["messages_received"].as_u64() > Some(0))
    })
    .await;
    for row in json["connections"].as_array().unwrap() {
        let one = format!("/status/connections/{}.json", row["id"]);
        let one = get(address, &one, &[]).await;
        assert!(!one.body.contains("s3cret"), "{}", one.body);
    }
    assert!(!json.to_string().contains("s3cret"), "{json}");
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_keeps_its_last_events() {
    let (options, quick) = (Options::default(), Reconnect::default());
    let quick = quick
        .first(Duration::from_millis(1))
        .max(Duration::from_millis(2));
    // Nobody listens there, so each attempt fails.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::new(format!("ws://{closed}/"))
        .options(options)
        .reconnect(quick);
    let connection = client.connect_lazy().unwrap();
    let address = serve_with(Dashboard::builder(), Server::builder()).await;
    let path = format!("/status/connections/{}.json", connection.stats().id);
    let count = |json: &serde_json::Value| json["events"].as_array().map_or(0, Vec::len);
    let json = until(address, &path, |json| count(json) >= 256).await;
    assert_eq!(count(&json), 256);
    assert_eq!(json["connection"]["state"], "connecting");
    let text = json["events"][255]["text"].as_str().unwrap();
    assert!(text.starts_with("attempt "), "{text}");
}

#[tokio::test]
async fn a_limit_holds_for_the_list_and_not_for_the_count() {
    let address = serve_with(Dashboard::builder(), Server::builder()).await;
    let client = Client::new(format!("ws://{address}/"));
    let _all = futures_util::future::join_all((0..5).map(|_| client.connect())).await;
    let json = until(address, "/status.json?limit=2", |json| {
        json["connections_total"].as_u64() >= Some(10)
    })
    .await;
    assert_eq!(json["connections"].as_array().unwrap().len(), 2);
    assert_eq!(get(address, "/status.json?limit=x", &[]).await.status, 400);
}
