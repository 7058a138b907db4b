//! WebSockets in an [axum](https://docs.rs/axum) application: the extractor [`Upgrade`].

use std::future::Future;
use std::net::SocketAddr;

use ::axum::body::Body;
use ::axum::extract::{ConnectInfo, FromRequestParts};
use ::axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::Request;
use http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::defaults;
use crate::handles::Connection;
use crate::server::handshake::{self, Rejection};
use crate::server::registry::{Attached, Sessions};
use crate::settings::Options;
use crate::ws::transport::Transport;

/// Extracts a WebSocket handshake from a request; [`on_upgrade`](Upgrade::on_upgrade) answers it.
///
/// A request that is no handshake, or breaks the rules of RFC 6455 section 4.2.1, is rejected
/// with the right status and a text that says why.
///
/// ```
/// use axum::{Router, response::Response, routing::any};
/// use unstall::axum::Upgrade;
///
/// async fn feed(upgrade: Upgrade) -> Response {
///     upgrade.on_upgrade(|mut connection| async move {
///         while let Ok(Some(incoming)) = connection.recv().await {
///             println!("{incoming:?}");
///         }
///     })
/// }
///
/// let app: Router = Router::new().route("/feed", any(feed));
/// # let _ = app;
/// ```
#[derive(Debug)]
#[must_use = "the handshake is answered by `on_upgrade`"]
pub struct Upgrade {
    request: Parts,
    upgrade: OnUpgrade,
    options: Options,
    subprotocols: Vec<String>,
    sessions: Option<Sessions>,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Upgrade, Rejection> {
        handshake::check(parts, &[])?;
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            let why = "The HTTP server in between cannot hand its connection over.\n";
            return Err(Rejection::new(http::StatusCode::UPGRADE_REQUIRED, why));
        };
        Ok(Upgrade {
            request: parts.clone(),
            upgrade,
            options: Options::default(),
            subprotocols: Vec::new(),
            sessions: None,
        })
    }
}

impl Upgrade {
    /// The options of the connection.
    pub fn options(mut self, options: Options) -> Upgrade {
        self.options = options;
        self
    }

    /// Offers sessions (`unstall.v1`) beside plain connections. A client that resumes a session is
    /// handed to the handler that has it, and `on_upgrade`'s does not run again.
    pub fn sessions(mut self, sessions: &Sessions) -> Upgrade {
        self.sessions = Some(sessions.clone());
        self
    }

    /// The subprotocols that the handler speaks. The client's first choice among them is agreed
    /// on; a client that offers none of them gets none.
    pub fn subprotocols<P: Into<String>>(
        mut self,
        subprotocols: impl IntoIterator<Item = P>,
    ) -> Upgrade {
        self.subprotocols = subprotocols.into_iter().map(Into::into).collect();
        self
    }

    /// Answers with 101 and runs `handler` with the connection in a task of its own.
    ///
    /// A handler that panics ends its own connection and nothing else. If the client goes away
    /// before it has the answer, the handler does not run.
    pub fn on_upgrade<H, F>(self, handler: H) -> Response
    where
        H: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut spoken = self.subprotocols;
        if self.sessions.is_some() {
            spoken.insert(0, unstall_proto::SUBPROTOCOL.to_owned());
        }
        let agreement = match handshake::check(&self.request, &spoken) {
            Ok(agreement) => agreement,
            Err(rejection) => return IntoResponse::into_response(rejection),
        };
        let response = agreement.response();
        let (upgrade, subprotocol, options) = (self.upgrade, agreement.subprotocol, self.options);
        let info = self
            .request
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0);
        let request = Request::from_parts(self.request, ());
        tokio::spawn(async move {
            let upgraded = match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => {
                    tracing::debug!(%error, "a client went away during its handshake");
                    return;
                }
            };
            let (transport, leftover) = unwrap(upgraded);
            let upgraded = crate::ws::transport::Upgraded {
                local: transport.local(),
                peer: info.or_else(|| transport.peer()),
                transport,
                leftover,
                subprotocol,
                response: None,
            };
            let connection = match self.sessions.filter(|_| upgraded.is_session()) {
                None => super::start_plain(upgraded, request, options).0,
                Some(sessions) => {
                    let attach = sessions.0.attach(upgraded, request, &options);
                    match timeout(defaults::SERVER_HANDSHAKE_TIMEOUT, attach).await {
                        Ok(Ok(Attached::New(connection, _))) => *connection,
                        // An existing session goes on with its own handler.
                        _ => return,
                    }
                }
            };
            handler(connection).await;
        });
        response
    }
}

/// The TCP stream below, where `axum::serve` or hyper itself serve one; else the stream as it is.
fn unwrap(upgraded: Upgraded) -> (Transport, Bytes) {
    let upgraded = match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return (Transport::tcp_stream(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Transport::tcp_stream(parts.io.into_inner()), parts.read_buf),
        // What was read ahead stays inside.
        Err(upgraded) => (Transport::foreign(upgraded), Bytes::new()),
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.answer::<Body>()
    }
}
