//! Which traces a published message is seen in. It sets what is global, so it is a program of its own.

#[path = "it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;

use std::sync::{Arc, Mutex};

use opentelemetry::{
    Value,
    trace::{SpanId, SpanKind, Status, TracerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Instrument, info_span};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};
use unstall_topics::{Kind, Node, Publication, Topic, Topics};

use common::{Served, in_time, log, until, url};

/// The spans that have ended.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Ended {
    fn all(&self) -> Vec<SpanData> {
        self.0.lock().unwrap().clone()
    }

    /// The only span of this name and kind.
    fn one(&self, name: &str, kind: SpanKind) -> SpanData {
        let all = self.all();
        let mut found = all
            .iter()
            .filter(|it| it.name == name && it.span_kind == kind);
        let one = found.next().unwrap_or_else(|| panic!("{name}: {all:?}"));
        assert!(found.next().is_none(), "{name}: {all:?}");
        one.clone()
    }
}

fn value(span: &SpanData, key: &str) -> Option<Value> {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|it| it.key.as_str() == key);
    found.map(|it| it.value.clone())
}

fn ids(spans: &[&SpanData]) -> Vec<(SpanId, SpanId)> {
    let ids = spans
        .iter()
        .map(|it| (it.span_context.span_id(), it.parent_span_id));
    ids.collect()
}

#[tokio::test]
async fn a_published_message_is_in_its_applications_trace_and_in_that_of_its_connection() {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(ended.clone())
        .build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("topics"));
    tracing_subscriber::registry()
        .with(layer)
        .with(LevelFilter::DEBUG)
        .init();

    let log = log().await;
    let served = Served::node(Node::new(&log)).await;
    let topics = info_span!("start").in_scope(|| Topics::connect([url(served.address)]));
    let batch = ["orders.7", "orders.8"]
        .map(|topic| Publication::new(Topic::new(topic).unwrap(), Kind::Text, b"x".as_slice()));
    let publishing = topics
        .publish_many(batch.into())
        .instrument(info_span!("order"));
    for result in in_time(publishing).await {
        result.unwrap();
    }
    drop(topics);
    let over = || {
        let all = ended.all();
        ["topics", "handler"]
            .iter()
            .all(|name| all.iter().any(|it| it.name == *name))
    };
    until("the client and its connection have ended", over).await;

    // The application's side.
    let order = ended.one("order", SpanKind::Internal);
    let publish = ended.one("publish", SpanKind::Producer);
    assert_eq!(publish.parent_span_id, order.span_context.span_id());
    assert_eq!(
        publish.span_context.trace_id(),
        order.span_context.trace_id()
    );

    // The client has a trace of its own. Both sides of its connection are in it, and the node's side of
    // publishing.
    let client = ended.one("topics", SpanKind::Internal);
    assert_eq!(client.parent_span_id, SpanId::INVALID);
    let connect = ended.one("connect", SpanKind::Client);
    let request = ended.one("handshake", SpanKind::Client);
    let handler = ended.one("handler", SpanKind::Internal);
    let arrived = ended.one("publish", SpanKind::Internal);
    let chain = ids(&[&client, &connect, &request, &handler, &arrived]);
    for pair in chain.windows(2) {
        assert_eq!(pair[0].0, pair[1].1, "{chain:?}");
    }
    let trace = client.span_context.trace_id();
    assert_eq!(arrived.span_context.trace_id(), trace);
    assert_ne!(publish.span_context.trace_id(), trace);

    // A link leads from each trace to the next.
    let linked = |span: &SpanData| {
        let links = span.links.links.iter();
        links
            .map(|it| it.span_context.span_id())
            .collect::<Vec<_>>()
    };
    let start = ended.one("start", SpanKind::Internal);
    assert_eq!(linked(&client), [start.span_context.span_id()]);
    assert_eq!(linked(&publish), [client.span_context.span_id()]);

    // Topic, count and offset say which spans are of the same messages.
    for span in [&publish, &arrived] {
        for (key, expected) in [
            ("messaging.destination.name", Value::from("orders.7")),
            ("messaging.batch.message_count", Value::I64(2)),
            ("offset", Value::I64(1)),
        ] {
            assert_eq!(value(span, key), Some(expected), "{key} of {span:?}");
        }
        assert_eq!(span.status, Status::Unset);
    }
}
