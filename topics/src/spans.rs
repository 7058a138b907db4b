//! Spans for `tracing`: a client of topics, and publishing on its side and on that of a node. No message says
//! which trace it is of, so the two sides are joined by the trace of the client's connections.
//!
//! The spans of publishing have the level DEBUG, because there may be one for each message. Names and fields
//! are public: the guide lists them.

use tracing::{Instrument, Span, field};
use unstall_proto::topics::Offset;

use crate::{publish_error::PublishError, store::Publication};

/// What publishing messages ends with, in their order.
type Results = Vec<Result<Offset, PublishError>>;

/// A client of topics, over all its connections. It outlives what made it, so it begins a trace.
pub(crate) fn client() -> Span {
    let span = tracing::info_span!(target: "unstall_topics", parent: None, "topics");
    span.follows_from(Span::current());
    span
}

/// The span of a publishing application, as a child of its current one.
pub(crate) fn publish(batch: &[Publication]) -> Span {
    of(batch, Some("producer"))
}

/// The span of a node for messages that arrived together.
pub(crate) fn arrived(batch: &[Publication]) -> Span {
    of(batch, None)
}

fn of(batch: &[Publication], kind: Option<&str>) -> Span {
    let topic = batch.first().map(|publication| publication.topic.as_str());
    tracing::debug_span!(
        target: "unstall_topics::publish",
        "publish",
        otel.kind = kind,
        messaging.destination.name = topic,
        // Numbers without a sign would be exported as texts.
        messaging.batch.message_count = signed(batch.len()),
        offset = field::Empty,
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

/// Waits within a span of publishing, and notes what came of the messages.
pub(crate) async fn published(span: Span, publishing: impl Future<Output = Results>) -> Results {
    let results = publishing.instrument(span.clone()).await;
    answered(&span, results.iter().cloned());
    results
}

/// Notes what came of the messages of a span.
pub(crate) fn answered(
    span: &Span,
    results: impl IntoIterator<Item = Result<Offset, PublishError>>,
) {
    if span.is_disabled() {
        return;
    }
    for (nth, result) in results.into_iter().enumerate() {
        match result {
            Ok(offset) if nth == 0 => {
                span.record("offset", signed(offset.get()));
            }
            Ok(_) => {}
            Err(why) => {
                span.record("otel.status_code", "ERROR");
                span.record("otel.status_description", field::display(why));
                return;
            }
        }
    }
}

fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
