//! What the relay answers over HTTP: its health and its figures.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};

use super::door::Door;
use crate::figures::Figures;

/// `open`: everybody who reaches the relay may see its figures. Else who shows its token.
pub(super) fn router(figures: Figures, door: Arc<Door>, open: bool) -> Router {
    let page = move |headers: HeaderMap| async move {
        match door.may_watch(&headers, open) {
            true => figures.page(),
            false => refused(),
        }
    };
    let no_page = || async {
        let upgrade = [(header::UPGRADE, "websocket")];
        let why = "this relays WebSockets; over HTTP there are only /healthz and /metrics\n";
        (StatusCode::UPGRADE_REQUIRED, upgrade, why)
    };
    Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(no_page)
}

fn refused() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let why =
        "the figures need the relay's token: start it with --token FILE, and show the token\n";
    (StatusCode::UNAUTHORIZED, challenge, why).into_response()
}
