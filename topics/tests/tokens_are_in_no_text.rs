//! Whatever is printed or logged of anything that has seen a token. It has the log of the whole
//! process, so it is a test of its own.

#[path = "it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use unstall_topics::{Access, Denied, Node, Permit, Start, Topics, Visitor};

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

#[tokio::test]
async fn tokens_are_in_no_text() {
    let lines = Arc::new(Mutex::new(Vec::<u8>::new()));
    let writer = Lines(lines.clone());
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
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
    let logged = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("somebody comes"), "{logged}");
    assert!(!texts.contains(SECRET), "{texts}");
    assert!(!logged.contains(SECRET), "{logged}");
}
