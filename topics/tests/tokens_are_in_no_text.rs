//! Whatever is printed or logged of anything that has seen a token. It has the log of the whole
//! process, so it is a test of its own.

#[path = "it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;

use std::sync::{Arc, LazyLock, Mutex};

use futures_util::future::BoxFuture;
use tracing::Instrument;
use tracing_subscriber::fmt::format::FmtSpan;
use unstall_topics::{
    Access, Denied, Kind, Node, Permit, Publication, Start, Topic, Topics, Visitor,
};

use common::{Served, in_time, log, soon, url};

const SECRET: &str = "s3cret-t0ken";

/// Denies everybody, and notes their tokens.
#[derive(Debug)]
struct Nobody(Arc<Mutex<String>>);

impl Access for Nobody {
    fn enter<'a>(&'a self, visitor: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
        *self.0.lock().unwrap() += visitor.token;
        tracing::info!(?visitor, "somebody comes");
        Box::pin(async { Err(Denied("not you".into())) })
    }
}

#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log of the process.
static LOGGED: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines(Arc::default());
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    lines
});

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn publishing_is_a_span_with_its_topic_and_what_came_of_it() {
    LazyLock::force(&LOGGED);
    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = Topics::connect([url(served.address)]);
    let mine = tracing::info_span!("checkout");
    let publish = async {
        assert_eq!(topics.publish("orders.7", "x").await.unwrap().get(), 1);
        log.publish("orders.8", "x").await.unwrap();
        let bad = Publication::new(
            Topic::new("orders.9").unwrap(),
            Kind::Text,
            b"\xff".as_slice(),
        );
        topics.publish_many(vec![bad]).await.remove(0).unwrap_err();
    };
    in_time(publish.instrument(mine)).await;
    let text = LOGGED.text();
    let span = |topic: &str| {
        let topic = format!("messaging.destination.name=\"{topic}\"");
        // The node has one too.
        let mut mine = text
            .lines()
            .filter(|line| line.contains("checkout:publish"));
        let line = mine.find(|line| line.contains("close") && line.contains(&topic));
        line.unwrap_or_else(|| panic!("{topic}: {text}"))
    };
    for (topic, said) in [
        ("orders.7", "offset=1"),
        ("orders.8", "offset=2"),
        (
            "orders.9",
            "otel.status_code=\"ERROR\" otel.status_description=the message was not",
        ),
    ] {
        let line = span(topic);
        assert!(
            line.contains("checkout:publish{otel.kind=\"producer\""),
            "{line}"
        );
        assert!(line.contains("messaging.batch.message_count=1"), "{line}");
        assert!(line.contains(said), "{line}");
    }
}

#[tokio::test]
async fn tokens_are_in_no_text() {
    LazyLock::force(&LOGGED);
    let seen = Arc::new(Mutex::new(String::new()));
    let node = Node::new(&log().await).access(Nobody(seen.clone()));
    let served = Served::node(node).await;
    let secrets = [
        SECRET.to_owned(),
        format!("{SECRET} with a space"),
        SECRET.repeat(2000),
    ];
    let mut texts = String::new();
    for secret in secrets {
        let builder = Topics::builder([url(served.address)])
            .reconnect(soon())
            .token(secret);
        texts += &format!("{builder:?}");
        let topics = builder.start();
        texts += &format!("{topics:?}");
        let mut events = topics.events();
        let mut feed = topics.subscribe("n", Start::Now).unwrap();
        texts += &format!("{feed:?}");
        let event = in_time(events.next()).await;
        texts += &format!("{event:?}");
        let error = in_time(feed.recv()).await.unwrap_err();
        texts += &format!("{error} {error:?}");
        texts += &format!("{:?}", in_time(topics.publish("n", "x")).await);
    }
    assert!(
        seen.lock().unwrap().contains(SECRET),
        "the hook has seen it"
    );
    let logged = LOGGED.text();
    assert!(logged.contains("somebody comes"), "{logged}");
    assert!(!texts.contains(SECRET), "{texts}");
    assert!(!logged.contains(SECRET), "{logged}");
}
