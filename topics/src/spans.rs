//! The span of publishing, for `tracing`: from the call to the answer. Its level is DEBUG, because there may
//! be one for each message.

use tracing::{Instrument, Span, field};
use unstall_proto::topics::Offset;

use crate::{publish_error::PublishError, store::Publication};

/// What publishing messages ends with, in their order.
type Results = Vec<Result<Offset, PublishError>>;

/// Waits within a span that tells how many messages there are, the topic of the first, and what came of them.
pub(crate) async fn published(span: Span, publishing: impl Future<Output = Results>) -> Results {
    let results = publishing.instrument(span.clone()).await;
    if span.is_disabled() {
        return results;
    }
    if let Some(Ok(offset)) = results.first() {
        span.record("offset", offset.get());
    }
    if let Some(why) = results.iter().find_map(|result| result.as_ref().err()) {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", field::display(why));
    }
    results
}

/// A span as a child of the current one.
pub(crate) fn publish(batch: &[Publication]) -> Span {
    let topic = batch.first().map(|publication| publication.topic.as_str());
    tracing::debug_span!(
        target: "unstall_topics::publish",
        "publish",
        otel.kind = "producer",
        messaging.destination.name = topic,
        messaging.batch.message_count = batch.len(),
        offset = field::Empty,
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}
