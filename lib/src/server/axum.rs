//! WebSockets in an [axum](https://docs.rs/axum) application: the extractor [`Upgrade`].

use std::{future::Future, net::SocketAddr, sync::Arc};

use ::axum::{
    body::Body,
    extract::{ConnectInfo, FromRequestParts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, lazy, ready},
};
use http::{Request, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{net::TcpStream, time::timeout};
use tracing::Instrument;
use unstall_proto::{Hello, SUBPROTOCOL};

use super::{
    handshake::{self, Rejection},
    hello::{self, Greeting},
    holder::{Holders, Network},
    origin::Origins,
    proxies::{PeerAddr, TrustedProxies},
    registry::{Attached, Opened},
    sessions::Sessions,
};
use crate::{
    defaults,
    handles::Connection,
    session::opening,
    settings::{Options, Terms},
    ws::transport::{self, Transport},
};

/// Extracts a WebSocket handshake from a request. [`on_upgrade`](Upgrade::on_upgrade) answers it.
///
/// A request that is not a valid WebSocket handshake (RFC 6455 section 4.2.1) is rejected, with the
/// right status and a text that says why.
///
/// With the feature `http2` it takes handshakes over HTTP/2 too (RFC 8441). Such a request has the
/// method CONNECT, so route it by `any`. It reaches handlers in the form of HTTP/1.1, with a `Host`
/// header.
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
    hello: Option<Hello>,
    upgrade: OnUpgrade,
    options: Arc<Options>,
    subprotocols: Vec<String>,
    sessions: Option<Sessions>,
    origins: Origins,
    proxies: Option<TrustedProxies>,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Upgrade, Rejection> {
        handshake::normalise(parts);
        let hello = opening::take_hello(&mut parts.headers);
        handshake::check(parts, &[])?;
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            let why = "The HTTP server cannot hand its connection over.\n";
            return Err(Rejection::new(http::StatusCode::UPGRADE_REQUIRED, why));
        };
        Ok(Upgrade {
            request: parts.clone(),
            hello,
            upgrade,
            options: Arc::default(),
            subprotocols: Vec::new(),
            sessions: None,
            origins: Origins::default(),
            proxies: None,
        })
    }
}

impl Upgrade {
    /// The options of the connection. Connections that are given the same `Arc` share them in memory.
    pub fn options(mut self, options: impl Into<Arc<Options>>) -> Upgrade {
        self.options = options.into();
        self
    }

    /// Offers sessions (`unstall.v1`) as well as plain connections. When a client resumes a
    /// session, the handler that already serves it goes on. The handler of `on_upgrade` does not
    /// run again.
    pub fn sessions(mut self, sessions: impl Into<Sessions>) -> Upgrade {
        self.sessions = Some(sessions.into());
        self
    }

    /// Only pages of these origins may connect. Default: pages of the request's own host. See
    /// [`ServerBuilder::origins`](crate::ServerBuilder::origins).
    pub fn origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> Upgrade {
        self.origins = Origins::listed(origins);
        self
    }

    /// Pages of every site may connect. See
    /// [`ServerBuilder::allow_any_origin`](crate::ServerBuilder::allow_any_origin).
    pub fn allow_any_origin(mut self) -> Upgrade {
        self.origins = Origins::Any;
        self
    }

    /// The reverse proxies in front of the application, which report the clients' addresses in a
    /// header. This needs the address of the TCP connection: serve the application with
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn trusted_proxies(mut self, proxies: &TrustedProxies) -> Upgrade {
        self.proxies = Some(proxies.clone());
        self
    }

    /// The subprotocols that the handler speaks. The server chooses the first of the client's
    /// offers that it speaks, or none.
    pub fn subprotocols<P: Into<String>>(
        mut self,
        subprotocols: impl IntoIterator<Item = P>,
    ) -> Upgrade {
        self.subprotocols = subprotocols.into_iter().map(Into::into).collect();
        self
    }

    /// Accepts the handshake, and runs `handler` with the connection in a task of its own.
    ///
    /// If the handler panics, only its own connection ends. If the client disconnects before it has
    /// the answer, the handler does not run. The handler runs in a tracing span of its own.
    pub fn on_upgrade<H, F>(self, handler: H) -> Response
    where
        H: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut spoken = self.subprotocols;
        if self.sessions.is_some() {
            spoken.insert(0, SUBPROTOCOL.to_owned());
        }
        let checked = self.origins.check(&self.request.headers);
        let mut agreement = match checked.and_then(|()| handshake::check(&self.request, &spoken)) {
            Ok(agreement) => agreement,
            Err(rejection) => return IntoResponse::into_response(rejection),
        };
        agreement.greet(self.hello);
        agreement.compress(self.options.compression.as_ref(), &self.request.headers);
        let response = agreement.response();
        let (compression, hello) = (agreement.compression(), agreement.hello());
        let (upgrade, subprotocol, options) = (self.upgrade, agreement.subprotocol, self.options);
        let mut request = Request::from_parts(self.request, ());
        let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let info = info.map(|info| info.0);
        let peer = info.map(PeerAddr::direct).map(|peer| match &self.proxies {
            Some(proxies) => proxies.read_headers(request.headers(), peer),
            None => peer,
        });
        peer.map(|peer| request.extensions_mut().insert(peer));
        let sessions = self.sessions;
        let opening = async move {
            let upgraded = match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => {
                    tracing::debug!(%error, "a client disconnected during its handshake");
                    return None;
                }
            };
            let (transport, leftover) = unwrap(upgraded);
            let upgraded = transport::Upgraded {
                local: transport.local(),
                peer: info.or_else(|| transport.peer()),
                transport,
                leftover,
                subprotocol,
                compression,
                response: None,
                hello: transport::HelloSent::Never,
            };
            match sessions.filter(|_| upgraded.is_session()) {
                None => {
                    let (connection, _) =
                        super::start_plain(upgraded, request, peer, options.into());
                    Some((connection, None))
                }
                Some(sessions) => {
                    let terms = options.into();
                    let opened = attach(&sessions, upgraded, hello, request, peer, terms).await;
                    // A resumed session keeps the handler that it has.
                    opened.map(|opened| (opened.connection, Some(opened.tenancy)))
                }
            }
        };
        // In a box, so that an open connection does not keep the memory for its handshake.
        tokio::spawn(Box::pin(opening).then(|opened| match opened {
            Some((connection, held)) => {
                let span = super::handler_span(&connection);
                let run = lazy(move |_| handler(connection)).flatten();
                Either::Left(run.instrument(span).map(|()| drop(held)))
            }
            None => Either::Right(ready(())),
        }));
        response
    }
}

/// Opens the session that the client asks for. `None` if it was resumed or refused.
async fn attach(
    sessions: &Sessions,
    upgraded: transport::Upgraded,
    hello: Option<Hello>,
    request: Request<()>,
    peer: Option<PeerAddr>,
    terms: Terms,
) -> Option<Opened> {
    let address = peer.map(|peer| peer.client).or(upgraded.peer);
    let identity = hello::identity(&upgraded, request, peer);
    let principal = hello::principal(&identity);
    let client = Holders::new(Network::of(address), principal.as_ref());
    let attach = async {
        match Greeting::hear(upgraded, identity, hello, &terms.options).await {
            Ok(greeting) => Ok(sessions.0.attach(greeting, client, terms, None).await),
            Err(unheard) => Err(unheard),
        }
    };
    match timeout(defaults::SERVER_HANDSHAKE_TIMEOUT, attach).await {
        Ok(Ok(Attached::New(opened))) => return Some(*opened),
        Ok(Ok(Attached::Refused(refused))) => {
            let rejection = refused.rejection;
            tracing::debug!(%rejection, "a session was refused");
            if let Some(ws) = refused.ws {
                hello::refuse(ws, rejection, &rejection.to_string()).await;
            }
        }
        Ok(Err(unheard)) => unheard.dismiss().await,
        Ok(Ok(Attached::Resumed)) | Err(_) => {}
    }
    None
}

/// Takes the TCP stream out, if `axum::serve` or hyper serve one. Else keeps the stream as it is.
fn unwrap(upgraded: Upgraded) -> (Transport, Bytes) {
    let upgraded = match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return (Transport::tcp_stream(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Transport::tcp_stream(parts.io.into_inner()), parts.read_buf),
        // Bytes that were read ahead stay in the stream.
        Err(upgraded) => (Transport::foreign(upgraded), Bytes::new()),
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.answer::<Body>()
    }
}
