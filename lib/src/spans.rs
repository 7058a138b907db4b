//! The `tracing` spans of a connection's life. With the feature `opentelemetry` they carry the trace
//! over the upgrade request: what the server does becomes part of the client's trace.
//!
//! Names and fields are public: the guide lists them. No field holds a path, a query, a header or a
//! token.

use std::fmt;

use http::{HeaderMap, StatusCode};
use tracing::{Span, field};

const TARGET: &str = "unstall";

/// One attempt of a client to connect, from its headers to the open WebSocket.
pub(crate) fn connect(host: &str, port: u16, attempt: u32) -> Span {
    tracing::info_span!(
        target: TARGET,
        "connect",
        otel.kind = "client",
        server.address = host,
        // Numbers without a sign would be exported as texts.
        server.port = i64::from(port),
        attempt = i64::from(attempt),
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

/// The upgrade request of a client and its answer. Its context travels with the request.
pub(crate) fn request() -> Span {
    tracing::info_span!(
        target: TARGET,
        "handshake",
        otel.kind = "client",
        http.response.status_code = field::Empty,
    )
}

/// What a server decides about an upgrade request.
pub(crate) fn decision(client: impl fmt::Display, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "handshake",
        otel.kind = "server",
        client.address = %client,
        http.response.status_code = field::Empty,
    );
    follow(&span, headers);
    span
}

/// A connection for as long as it is connected or connects again. `headers`: those of the request,
/// on a server.
pub(crate) fn connection(
    id: u64,
    peer: Option<impl fmt::Display>,
    headers: Option<&HeaderMap>,
) -> Span {
    let peer = peer.map(field::display);
    let span = tracing::info_span!(target: TARGET, "connection", id, peer);
    if let Some(headers) = headers {
        follow(&span, headers);
    }
    span
}

/// The handler of a connection on a server.
pub(crate) fn handler(
    id: u64,
    peer: Option<impl fmt::Display>,
    headers: Option<&HeaderMap>,
) -> Span {
    let peer = peer.map(field::display);
    let span = tracing::info_span!(target: TARGET, "handler", id, peer);
    if let Some(headers) = headers {
        follow(&span, headers);
    }
    span
}

/// A session, over all its connections. It is a child of the current span.
///
/// It is never entered: that would cost something each time that the connection is polled.
pub(crate) fn session() -> Span {
    tracing::info_span!(
        target: TARGET,
        "session",
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

/// Notes why what the span stands for has failed.
pub(crate) fn failed(span: &Span, why: impl fmt::Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", field::display(why));
}

/// Notes the status that the client gets.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
}

/// Adds the context of the current span to the headers of an upgrade request. Headers of the
/// application go before it.
#[cfg(feature = "opentelemetry")]
pub(crate) fn inject(headers: &mut HeaderMap) {
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let context = Span::current().context();
    let mut made = HeaderMap::new();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        let mut injector = opentelemetry_http::HeaderInjector(&mut made);
        propagator.inject_context(&context, &mut injector);
    });
    if made.keys().any(|name| headers.contains_key(name)) {
        return;
    }
    headers.extend(made);
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn inject(_: &mut HeaderMap) {}

/// Makes a new span a child of the client's, if the request says which one that is.
#[cfg(feature = "opentelemetry")]
fn follow(span: &Span, headers: &HeaderMap) {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    if span.is_disabled() {
        return;
    }
    let extractor = opentelemetry_http::HeaderExtractor(headers);
    let context = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&opentelemetry::Context::new(), &extractor)
    });
    if context.span().span_context().is_valid() {
        // It fails without a layer of OpenTelemetry. Then there is nothing to follow.
        let _ = span.set_parent(context);
    }
}

#[cfg(not(feature = "opentelemetry"))]
fn follow(_: &Span, _: &HeaderMap) {}
