//! One HTTP/1.1 request that takes over the connection: the upgrade, or `CONNECT`.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::defaults;

/// The answer to the request.
pub(crate) enum Answer<T> {
    /// The server hands the connection over: the head of its answer, the stream, and the bytes that
    /// were read after the head.
    Switched(Response<()>, T, Bytes),
    /// The server refuses: the head of its answer, and the beginning of the body as text.
    Refused(Response<()>, String),
}

/// Sends `request` over `io`, reads the answer, and takes the connection back from hyper.
pub(crate) async fn exchange<T>(
    io: T,
    request: Request<Empty<Bytes>>,
) -> Result<Answer<T>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connect = request.method() == http::Method::CONNECT;
    let (mut sender, connection) = http1::Builder::new()
        // Some servers compare header names byte by byte, and expect this spelling.
        .title_case_headers(true)
        .max_buf_size(defaults::RESPONSE_HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    let exchange = async {
        let mut response = sender.send_request(request).await?;
        let switched = if connect {
            response.status().is_success()
        } else {
            response.status() == http::StatusCode::SWITCHING_PROTOCOLS
        };
        if !switched {
            let (head, body) = response.into_parts();
            return Ok(Answer::Refused(
                Response::from_parts(head, ()),
                beginning(body).await,
            ));
        }
        let parts = hyper::upgrade::on(&mut response)
            .await?
            .downcast::<TokioIo<T>>();
        let parts = parts.expect("hyper gives back the stream that it was given");
        let head = Response::from_parts(response.into_parts().0, ());
        Ok(Answer::Switched(
            head,
            parts.io.into_inner(),
            parts.read_buf,
        ))
    };
    let connection = connection.with_upgrades();
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // On an upgrade and on an error the connection ends first. `exchange` then reports it.
        _ = &mut connection => exchange.await,
    }
}

/// Reads the beginning of a refusal's body. Size and wait are limited, so that a slow or endless
/// body does not delay the report of the refusal.
async fn beginning(mut body: Incoming) -> String {
    let mut text = Vec::new();
    let read = async {
        while text.len() < defaults::REFUSAL_BODY_BYTES {
            let Some(Ok(frame)) = body.frame().await else {
                return;
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let room = defaults::REFUSAL_BODY_BYTES - text.len();
            text.extend_from_slice(&data[..data.len().min(room)]);
        }
    };
    let _ = tokio::time::timeout(defaults::REFUSAL_BODY_TIMEOUT, read).await;
    String::from_utf8_lossy(&text).into_owned()
}
