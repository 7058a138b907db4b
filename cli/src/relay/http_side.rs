//! What the relay answers over HTTP: its health, its figures, and the page that shows its connections.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, Request, StatusCode, header};
use unstall::Acceptance;
use unstall_dashboard::Dashboard;

use super::door::Door;
use crate::figures::Figures;

/// The figures are for whom the door lets see them.
pub(super) fn router(figures: Figures, door: Arc<Door>, dashboard: Option<&Dashboard>) -> Router {
    let page = move |headers: HeaderMap| async move {
        match door.may_watch(&headers) {
            true => figures.page(),
            false => refused(),
        }
    };
    let no_page = || async {
        let upgrade = [(header::UPGRADE, "websocket")];
        let why = "this relays WebSockets; over HTTP there are only /, /healthz and /metrics\n";
        (StatusCode::UPGRADE_REQUIRED, upgrade, why)
    };
    dashboard
        .map_or_else(Router::new, Dashboard::router)
        .route("/metrics", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(no_page)
}

/// The page. With a token, whoever has it may look.
pub(super) async fn dashboard(door: &Arc<Door>) -> Dashboard {
    let door = door.clone();
    let builder = Dashboard::builder()
        .name("unstall relay")
        .version(env!("CARGO_PKG_VERSION"));
    builder.token_of(move || door.token()).start().await
}

/// The page's own WebSocket comes in without a connection upstream. The page checks it.
pub(super) fn of_page(mut request: Request<()>) -> Request<()> {
    let acceptance = Acceptance::default().subprotocol(unstall_topics::SUBPROTOCOL);
    request.extensions_mut().insert(acceptance);
    request
}

fn refused() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let why =
        "the figures need the relay's token: start it with --token FILE, and show the token\n";
    (StatusCode::UNAUTHORIZED, challenge, why).into_response()
}
