//! The HTTP part of a connection: one request and its answer.

use std::{convert::Infallible, future::Future, io, sync::Mutex};

use bytes::Bytes;
use http::{
    Request, Response,
    header::{self, HeaderValue},
    request::Parts,
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::handshake::{Agreement, Rejection};
use crate::{
    defaults::{HYPER_SMALLEST_BUFFER, SERVER_HEADERS},
    ws::transport::Transport,
};

/// The answer to a request: the upgrade and what the caller wants to keep with it, or a refusal.
pub(super) type Decision<T> = Result<(T, OnUpgrade, Agreement), Rejection>;

/// Reads one request and answers it as `decide` says. After a 101, takes the connection back from
/// hyper, with the bytes that were read after the request.
pub(super) async fn converse<T, D, F>(
    transport: Transport,
    header_bytes: usize,
    decide: D,
) -> io::Result<Option<(T, Transport, Bytes)>>
where
    D: Fn(Parts) -> F,
    F: Future<Output = Decision<T>>,
{
    let accepted = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let decision = decide(request.into_parts().0);
        async {
            let response: Response<Full<Bytes>> = match decision.await {
                Err(rejection) => {
                    let mut answer = rejection.answer();
                    // Only one request is served. hyper's `keep_alive(false)` cannot be used: it
                    // puts `close` into the 101 as well, which tungstenite's clients refuse.
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().append(header::CONNECTION, close);
                    answer
                }
                Ok((passed, upgrade, agreement)) => {
                    *accepted.lock().unwrap() = Some((passed, upgrade));
                    agreement.response()
                }
            };
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        // The handshake's own deadline covers it.
        .header_read_timeout(None)
        .max_headers(SERVER_HEADERS)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(HYPER_SMALLEST_BUFFER))
        .serve_connection(TokioIo::new(transport), service);
    connection.with_upgrades().await.map_err(io::Error::other)?;
    let Some((passed, upgrade)) = accepted.into_inner().unwrap() else {
        return Ok(None);
    };
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<Transport>>();
    let parts = parts.expect("hyper gives back the stream that it was given");
    Ok(Some((passed, parts.io.into_inner(), parts.read_buf)))
}
