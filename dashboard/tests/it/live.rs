//! What is told live.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::Value;
use unstall::Client;
use unstall_dashboard::{Dashboard, LIVE};
use unstall_topics::{Delivery, PublishError, Start, Subscription, SubscriptionError, Topics};

use crate::common::{get, serve};

fn topics(address: SocketAddr) -> unstall_topics::TopicsBuilder {
    Topics::builder([format!("ws://{address}{LIVE}")])
}

async fn next(feed: &mut Subscription) -> (String, Value) {
    let receiving = async {
        loop {
            if let Delivery::Message(message) = feed.recv().await.unwrap().unwrap() {
                let json = serde_json::from_str(message.as_text().unwrap()).unwrap();
                return (message.topic().to_string(), json);
            }
        }
    };
    let received = tokio::time::timeout(Duration::from_secs(60), receiving).await;
    received.expect("a message")
}

/// A page holds what the answer had, and applies what it is told.
struct Page {
    ids: BTreeSet<u64>,
    feed: Subscription,
    _topics: Topics,
}

impl Page {
    async fn open(address: SocketAddr) -> Page {
        let json = get(address, "/status.json", &[]).await.json();
        let rows = json["connections"].as_array().unwrap();
        let topics = topics(address).start();
        let position = json["position"].as_str().unwrap().parse().unwrap();
        Page {
            ids: rows.iter().map(|row| row["id"].as_u64().unwrap()).collect(),
            feed: topics
                .subscribe("status.>", Start::After(position))
                .unwrap(),
            _topics: topics,
        }
    }

    async fn until(&mut self, holds: impl Fn(&BTreeSet<u64>) -> bool) {
        while !holds(&self.ids) {
            let (topic, json) = next(&mut self.feed).await;
            if topic != "status.rows" {
                continue;
            }
            for row in json["born"].as_array().unwrap() {
                assert!(
                    self.ids.insert(row["id"].as_u64().unwrap()),
                    "born twice: {row}"
                );
            }
            for row in json["changed"].as_array().unwrap() {
                assert!(
                    self.ids.contains(&row["id"].as_u64().unwrap()),
                    "not born: {row}"
                );
            }
            for id in json["gone"].as_array().unwrap() {
                assert!(self.ids.remove(&id.as_u64().unwrap()), "gone twice: {id}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_missing_between_an_answer_and_what_is_told_behind_it() {
    let address = serve(Dashboard::builder()).await;
    let client = Client::new(format!("ws://{address}/"));
    let before = client.connect().await.unwrap();
    let mut first = Page::open(address).await;
    let (old, new) = (before.stats().id, client.connect().await.unwrap());
    let id = new.stats().id;
    first.until(|ids| ids.contains(&id)).await;
    assert!(first.ids.contains(&old));
    // Another page comes while the first one is told already.
    let mut second = Page::open(address).await;
    drop((before, new));
    for page in [&mut first, &mut second] {
        page.until(|ids| !ids.contains(&id) && !ids.contains(&old))
            .await;
    }
}

#[tokio::test]
async fn each_second_has_its_point() {
    let address = serve(Dashboard::builder()).await;
    let mut page = Page::open(address).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let (topic, json) = next(&mut page.feed).await;
        if topic == "status.now" {
            told.push(json["point"].clone());
        }
    }
    let history = get(address, "/status/history.json", &[]).await.json();
    let points = history["points"].as_array().unwrap();
    assert!(
        told.iter().all(|point| points.contains(point)),
        "{told:?} {points:?}"
    );
    assert_eq!(history["causes"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn without_the_token_nothing_is_told_and_nobody_publishes() {
    let address = serve(Dashboard::builder().token("s3cret")).await;
    for token in ["", "wrong"] {
        let topics = topics(address).token(token).start();
        let mut feed = topics.subscribe("status.>", Start::Now).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), feed.recv()).await;
        let ended = ended.expect("an answer").map(|_| ());
        assert!(
            matches!(
                ended,
                Err(SubscriptionError::ClientEnded(_) | SubscriptionError::NotAllowed)
            ),
            "{ended:?}"
        );
    }
    let topics = topics(address).token("s3cret").start();
    let mut feed = topics.subscribe("status.>", Start::Now).unwrap();
    next(&mut feed).await;
    let refused = topics.publish("status.now", "{}").await;
    assert!(
        matches!(refused, Err(PublishError::Refused(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_page_of_another_site_is_told_nothing() {
    let address = serve(Dashboard::builder()).await;
    for (name, value) in [("host", "evil.example"), ("x-forwarded-for", "192.0.2.1")] {
        let client = Client::new(format!("ws://{address}{LIVE}")).header(name, value);
        let topics = Topics::over([client]).start();
        let feed = topics.subscribe("status.>", Start::Now);
        let mut feed = feed.unwrap();
        // Whoever may look is told something each second.
        let told = tokio::time::timeout(Duration::from_millis(1_500), feed.recv()).await;
        assert!(!matches!(told, Ok(Ok(Some(_)))), "{name}: {told:?}");
    }
}
