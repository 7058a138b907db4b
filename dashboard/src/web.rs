//! The answers over HTTP.

use std::{cmp::Reverse, net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use unstall::StallCause;

use crate::{
    Refusal, Shared,
    history::{Point, Recovered},
    json::{Now, Row, SubscriptionRow, VERSION, millis},
    limits::{ROWS, STEP},
};

/// The page: its script and style are in it.
const PAGE: &str = include_str!("page/index.html");

/// What the page may do. It is made with the page, because it has the hashes of its script and style.
const POLICY: &str = include_str!("page/policy.txt");

/// Nothing of this is kept, embedded or guessed.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/status.json", get(now))
        .route("/status/history.json", get(history))
        .route("/status/connections/{file}", get(one))
        .route("/status/live", get(no_websocket))
        .layer(middleware::from_fn_with_state(shared.clone(), check))
        .route("/", get(page))
        .with_state(shared)
}

/// Lets in who may look.
async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(peer)| *peer);
    match shared.access.check_http(request.headers(), peer) {
        Ok(()) => next.run(request).await,
        Err(why) => refused(&why),
    }
}

fn refused(why: &Refusal) -> Response {
    let status = match why {
        Refusal::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
    };
    let mut response = problem(status, &why.to_string());
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The page has no figure in it, so whoever asks from the right place may have it. It asks for the token.
async fn page(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(peer)| *peer);
    // A link of another site may lead here: it is only followed, and not read.
    let mut headers = request.headers().clone();
    headers.remove("sec-fetch-site");
    if let Err(why) = shared.access.check_place(&headers, peer) {
        return refused(&why);
    }
    let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(POLICY.trim_ascii_end());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    now: &'a Now,
    position: &'a str,
    connections: Vec<&'a Row>,
    subscriptions: &'a [SubscriptionRow],
}

async fn now(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let limit = match limit(request.uri().query()) {
        Ok(limit) => limit,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let seen = shared.sampler.seen().await;
    let mut connections: Vec<_> = seen.rows.iter().collect();
    connections.sort_by_key(|row| (Reverse(row.waits()), row.id));
    connections.truncate(limit);
    let subscriptions = &seen.subscriptions[..limit.min(seen.subscriptions.len())];
    json(
        StatusCode::OK,
        &Status {
            now: &seen.now,
            position: &seen.position,
            connections,
            subscriptions,
        },
    )
}

/// The number behind `limit=`.
fn limit(query: Option<&str>) -> Result<usize, String> {
    let mut pairs = query.unwrap_or_default().split('&');
    let Some(value) = pairs.find_map(|pair| pair.strip_prefix("limit=")) else {
        return Ok(ROWS);
    };
    let number = value.parse().ok().filter(|number| *number <= ROWS);
    number.ok_or_else(|| format!("limit has to be a number from 0 to {ROWS}"))
}

#[derive(Serialize)]
struct Past {
    version: u32,
    now: u64,
    step_ms: u128,
    causes: Vec<&'static str>,
    points: Vec<Point>,
    recoveries: Vec<Recovered>,
}

async fn history(State(shared): State<Arc<Shared>>) -> Response {
    let (points, recoveries) = shared.sampler.history();
    let past = Past {
        version: VERSION,
        now: millis(SystemTime::now()),
        step_ms: STEP.as_millis(),
        causes: StallCause::ALL.into_iter().map(StallCause::name).collect(),
        points,
        recoveries,
    };
    json(StatusCode::OK, &past)
}

async fn one(State(shared): State<Arc<Shared>>, Path(file): Path<String>) -> Response {
    let id = file.strip_suffix(".json").and_then(|id| id.parse().ok());
    let found = match id {
        Some(id) => shared.surgery.look(id).await,
        None => None,
    };
    match found {
        Some(one) => json(StatusCode::OK, &one),
        None => problem(
            StatusCode::NOT_FOUND,
            "no connection has this number, or it ended long ago",
        ),
    }
}

async fn no_websocket() -> Response {
    let mut response = problem(StatusCode::UPGRADE_REQUIRED, "this is for WebSockets");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}

#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
}

fn problem(status: StatusCode, error: &str) -> Response {
    json(status, &Problem { error })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).unwrap_or_default() + "\n";
    answer(status, "application/json", text)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_in_its_range() {
        assert_eq!(limit(None), Ok(ROWS));
        assert_eq!(limit(Some("a=b&limit=7")), Ok(7));
        assert_eq!(limit(Some("limit=10000")), Ok(ROWS));
        for wrong in ["limit=", "limit=-1", "limit=10001", "limit=many"] {
            assert!(limit(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
