//! Nodes on free ports, clients, and what tests wait for.

pub(crate) mod bent;
pub(crate) mod cutter;
pub(crate) mod fake;
pub(crate) mod raw;

use std::{net::SocketAddr, time::Duration};

use tokio::task::JoinHandle;
use unstall::{Reconnect, Server};
use unstall_topics::{
    Delivery, Gap, Limits, Log, Message, Node, Publication, SUBPROTOCOL, Subscription, Topic,
    Topics,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn log() -> Log {
    Log::memory(Limits::default()).await.unwrap()
}

/// Serves a log until this is dropped or stopped.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn node(node: Node) -> Served {
        Served::handler(move |connection| node.serve(connection)).await
    }

    /// Each connection is given to `handler`, in a task of its own.
    pub(crate) async fn handler<F>(
        handler: impl Fn(unstall::Connection) -> F + Send + Sync + 'static,
    ) -> Served
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let server = Server::builder()
            .subprotocols([SUBPROTOCOL])
            .bind("127.0.0.1:0")
            .await
            .unwrap();
        let serving = server.clone();
        let accepting = tokio::spawn(async move { serving.serve(handler).await });
        Served {
            address: server.local_addr(),
            server,
            accepting,
        }
    }

    /// Waits until this many connections are open.
    pub(crate) async fn open(&self, count: usize) {
        until("so many connections", || self.server.stats().open == count).await;
    }

    /// The server stops at once, as if it were killed.
    pub(crate) async fn stop(self) {
        self.accepting.abort();
        self.server.shutdown(Duration::ZERO).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What older tests call it.
pub(crate) async fn serve(node: Node) -> (Served, SocketAddr) {
    let served = Served::node(node).await;
    let address = served.address;
    (served, address)
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("ws://{address}/topics")
}

pub(crate) fn client(address: SocketAddr) -> Topics {
    Topics::builder([url(address)]).reconnect(soon()).start()
}

/// Connects again without much waiting.
pub(crate) fn soon() -> Reconnect {
    Reconnect::default()
        .first(Duration::from_millis(5))
        .max(Duration::from_millis(50))
}

pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it is done in time")
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("waited in vain for {what}");
    }
}

pub(crate) async fn next(feed: &mut Subscription) -> Option<Delivery> {
    in_time(feed.recv()).await.unwrap()
}

/// The next message. Marks are passed over; a gap fails the test.
pub(crate) async fn message(feed: &mut Subscription) -> Message {
    loop {
        match next(feed).await {
            Some(Delivery::Message(message)) => return message,
            Some(Delivery::CaughtUp(_)) => {}
            other => panic!("a message, not {other:?}"),
        }
    }
}

/// Everything that comes before the mark, which comes once.
pub(crate) async fn before_mark(feed: &mut Subscription) -> (Vec<Message>, Vec<Gap>) {
    let (mut messages, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match next(feed).await {
            Some(Delivery::Message(message)) => messages.push(message),
            Some(Delivery::Gap(gap)) => gaps.push(gap),
            Some(Delivery::CaughtUp(_)) => return (messages, gaps),
            other => panic!("it ended: {other:?}"),
        }
    }
}

pub(crate) fn publication(topic: &str, payload: impl Into<Vec<u8>>) -> Publication {
    let kind = unstall_proto::Kind::Binary;
    Publication::new(Topic::new(topic).unwrap(), kind, payload.into())
}

/// A payload that names its number, and has this length at least.
pub(crate) fn numbered(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(bytes.max(8), number as u8);
    payload
}

pub(crate) fn number(message: &Message) -> u64 {
    let bytes = message.as_bytes();
    let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
    assert!(
        bytes[8..].iter().all(|byte| *byte == number as u8),
        "a payload as it was"
    );
    number
}

/// Publishes numbered messages in batches.
pub(crate) async fn publish_numbered(
    log: &Log,
    numbers: std::ops::Range<u64>,
    bytes: usize,
    topic: impl Fn(u64) -> String,
) {
    let numbers: Vec<_> = numbers.collect();
    for chunk in numbers.chunks(256) {
        let batch = chunk
            .iter()
            .map(|number| publication(&topic(*number), numbered(*number, bytes)));
        for result in log.publish_many(batch.collect()).await {
            result.unwrap();
        }
    }
}
