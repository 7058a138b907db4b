//! The HTTP side of a hub.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::sync::watch;
use unstall_topics::{Denied, Log};

use super::{
    door::{Door, NO_OPERATOR},
    feed, limits, post,
    shares::Shares,
};
use crate::figures::Figures;

/// What all requests share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) log: Log,
    pub(super) door: Door,
    /// Bytes of bodies that arrive.
    pub(super) bodies: Arc<Shares>,
    /// Answers that read from the log.
    pub(super) readers: Arc<Shares>,
    pub(super) figures: Figures,
    /// `true`: the hub ends.
    pub(super) ending: watch::Receiver<bool>,
}

impl Shared {
    pub(super) fn new(
        log: Log,
        door: Door,
        figures: Figures,
        ending: &watch::Sender<bool>,
    ) -> Shared {
        Shared {
            log,
            door,
            figures,
            bodies: Shares::new(limits::BODY_BYTES),
            readers: Shares::new(limits::READERS),
            ending: ending.subscribe(),
        }
    }
}

/// `page`: the answers of the page, which checks who may see it.
pub(super) fn router(shared: Shared, page: Router) -> Router {
    let not_found = || async {
        let paths = "the paths are /topics/TOPIC, /, /status.json, /metrics and /healthz, and /topics for WebSockets";
        Problem::new(StatusCode::NOT_FOUND, paths)
    };
    let no_websocket = || async {
        let why = "this is for WebSockets; over HTTP, name a topic or a filter: /topics/TOPIC";
        Problem::new(StatusCode::UPGRADE_REQUIRED, why)
    };
    Router::new()
        .route("/topics", any(no_websocket))
        .route("/topics/{*name}", get(feed::read).post(post::publish))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(shared.clone(), check_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(shared)
        .merge(page)
}

async fn check_page(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match shared.door.check_page(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => Problem::new(StatusCode::FORBIDDEN, why.trim_end()).into_response(),
    }
}

/// How the hub is doing. No topic, message or token is on this page.
async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    let pass = shared.door.enter_http(&headers, true)?;
    if !pass.is_operator() {
        return Err(Problem::new(StatusCode::FORBIDDEN, NO_OPERATOR));
    }
    unstall_topics::metrics::update(&shared.log);
    Ok(shared.figures.page())
}

/// Who sent a request.
pub(super) type Peer = ConnectInfo<SocketAddr>;

/// Why a request was not done: an answer with a text in JSON.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    answer: Answer,
}

#[derive(Debug, Serialize)]
struct Answer {
    error: String,
    /// Of a message: whether it is stored. `"unknown"` if it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Stored>,
}

/// Whether a message is stored that was not confirmed.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stored {
    No,
    Unknown,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl ToString) -> Problem {
        let answer = Answer {
            error: error.to_string(),
            stored: None,
        };
        Problem { status, answer }
    }

    /// A limit is reached, or the store cannot do it now. The client may try again.
    pub(super) fn unavailable(error: impl ToString) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    pub(super) fn stored(mut self, stored: Stored) -> Problem {
        self.answer.stored = Some(stored);
        self
    }
}

impl From<Denied> for Problem {
    fn from(Denied(why): Denied) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, why)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.answer);
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let wait = HeaderValue::from_static(limits::RETRY_AFTER_SECONDS);
                headers.insert(header::RETRY_AFTER, wait);
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            _ => {}
        }
        response
    }
}

/// An answer of one JSON object and a newline.
pub(super) fn json(status: StatusCode, object: &impl Serialize) -> Response {
    let text = serde_json::to_string(object).unwrap_or_default() + "\n";
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
